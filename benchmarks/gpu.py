"""All that a machine with a GPU can add to this repository, in one go: `make gpu MINUTES=20 DATA=cifar10`.

    python benchmarks/gpu.py --minutes 20 --data cifar10   # kernel tests, benchmarks, then the paper's preset
    python benchmarks/gpu.py --smoke                       # on a CPU, seconds: checks that everything runs

First the tests of the kernels, then the benchmarks of the search and of a training pass, then so many minutes of
`depthq train --preset paper`, which the next call goes on with. docs/gpu.md says what was found; it is written anew.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from depthq.files import replacing
from depthq.runs import read_metrics

ROOT = Path(__file__).parents[1]
BENCHMARKS = ("nearest_code", "training_pass")
COLUMNS = ("name", "median_ms", "ratio", "MiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, at least")
    parser.add_argument("--data", default="cifar10", help="as for depthq train")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/paper-gpu", help="the run that is gone on with")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/gpu.md", help="what to write")
    parser.add_argument("--smoke", action="store_true", help="a tiny preset for six steps; needs no GPU")
    args = parser.parse_args()
    if not args.smoke and not torch.cuda.is_available():
        print("gpu.py: a CUDA device must be there; PyTorch finds none; install a CUDA build, or try --smoke")
        return 1
    kernels = "tests/ops/test_segment_sums.py" if args.smoke else "tests/ops"
    tested, tests = run([sys.executable, "-m", "pytest", "-q", kernels, "-p", "no:cacheprovider"])
    print(tests.splitlines()[-1])
    names = BENCHMARKS[1:] if args.smoke else BENCHMARKS
    measured = {name: benchmark(name, args.smoke) for name in names}
    trained = train(args)
    with replacing(args.page) as file:
        file.write(page(tests.splitlines()[-1], measured, trained, args.run).encode())
    print(args.page)
    return tested or any(failed for failed, _ in measured.values()) or trained


def run(command: list[str]) -> tuple[int, str]:
    """Exit status, and what it prints."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def benchmark(name: str, is_smoke: bool) -> tuple[int, str]:
    status, output = run([sys.executable, f"benchmarks/{name}.py", *(["--smoke"] if is_smoke else [])])
    print(output, flush=True)
    return status, output


def train(args: argparse.Namespace) -> int:
    """Exit status of a run that is stopped in time, which is none of its faults."""
    command = [sys.executable, "-m", "depthq", "train", "--out", str(args.run)]
    if (args.run / "config.yaml").exists():
        command += ["--resume"]
    elif args.smoke:
        command += ["--preset", "tiny", "--data", "bundled", "--steps", "6", "--precision", "32-true"]
    else:
        command += ["--preset", "paper", "--data", args.data]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait(60 * args.minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it ends behind its next step, and saves it
        process.wait()
        return 0


def page(tests: str, measured: dict[str, tuple[int, str]], trained: int, folder: Path) -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU, for a trial"
    lines = [
        "# On a GPU",
        "",
        f"Written by `make gpu` on {device}, {time.strftime('%Y-%m-%d')}, PyTorch {torch.__version__}; not to be "
        "edited.",
        "",
        f"Tests of the kernels: {tests.strip('= ')}.",
    ]
    for name, (_, output) in measured.items():
        rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        lines += [
            "",
            f"## benchmarks/{name}.py",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"| {' | '.join('-' * 3 for _ in COLUMNS)} |",
        ]
        lines += [f"| {' | '.join(str(row.get(column, '')) for column in COLUMNS)} |" for row in rows]
    rows = read_metrics(folder / "metrics.jsonl") if trained == 0 else []
    validations = [row for row in rows if "validation_psnr_db" in row]
    lines += ["", "## The paper's preset", ""]
    if validations:
        lines += ["| step | image, bits/dim | with codes, bits/dim | PSNR, dB |", "| --- | --- | --- | --- |"]
        names = ("step", "validation_nll_bits_per_dim", "validation_total_bits_per_dim", "validation_psnr_db")
        lines += [f"| {' | '.join(cell(row.get(name)) for name in names)} |" for row in validations]
    else:
        lines += ["Not as far as its first validation."]
    return "\n".join(lines) + "\n"


def cell(metric: float | None) -> str:
    return "" if metric is None else f"{metric:.6g}"


if __name__ == "__main__":
    sys.exit(main())
