"""python -m depthq"""

import sys

from depthq.cli import main

sys.exit(main())
