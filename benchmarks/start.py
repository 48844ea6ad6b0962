"""How long a command or an import takes until it answers, beside `import torch` alone.

    python benchmarks/start.py            # seconds, as many rounds as --rounds says
    python benchmarks/start.py --smoke    # one round of what is quick: checks that everything runs

Each is a process of its own, all in turn, after one that fills the caches of the disk and of compiled sources.
"""

import argparse
import os
import subprocess
import sys
from functools import partial

from measure import environment, print_rows, race

NAMES = "import torch, depthq; [getattr(depthq, name) for name in depthq.__all__]"
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import depthq": ["-c", "import depthq"],
    "depthq --help": ["-m", "depthq", "--help"],
    "depthq --version": ["-m", "depthq", "--version"],
    "depthq trian": ["-m", "depthq", "trian"],
    "every name of depthq": ["-c", NAMES],
    "depthq train --help": ["-m", "depthq", "train", "--help"],
    "depthq evaluate --help": ["-m", "depthq", "evaluate", "--help"],
}
QUICK = ("import depthq", "depthq --help")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="the medians count")
    parser.add_argument("--smoke", action="store_true", help="one round of what is quick")
    args = parser.parse_args()
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    names = QUICK if args.smoke else COMMANDS
    starts = {name: partial(start, COMMANDS[name], environ) for name in names}
    rounds = 1 if args.smoke else args.rounds
    print_rows("time until the answer", race(starts, rounds=rounds, patience_s=600), environment("cpu"))


def start(arguments: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, env=environ)
    assert done.returncode in (0, 2), done.stderr  # 2: the mistyped verb


if __name__ == "__main__":
    main()
