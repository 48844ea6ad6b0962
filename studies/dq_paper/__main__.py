"""python -m studies.dq_paper ITEM..., from the repository's root."""

import sys

from studies.dq_paper.command import main

if __name__ == "__main__":  # jobs in processes of their own import this module
    sys.exit(main())
