"""What the benchmarks share: interleaved timing, peak memory, and the facts that go with every figure."""

import ctypes
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one contestant takes."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    ratio: float
    """Median over rounds of its time divided by that of the first contestant in the same round."""


def race(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, patience_s: float = 10.0
) -> dict[str, Timing]:
    """Time all contestants in turn, `rounds` times, so that whatever else the machine does hits all alike.

    A contestant that has taken `patience_s` seconds in all sits out the rounds that are left.
    """
    for run in contestants.values():
        run()
    seconds = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            if sum(seconds[name]) > patience_s:
                continue
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            seconds[name].append(time.perf_counter() - start)
    limit = next(iter(seconds.values()))
    return {name: _timing(times, limit) for name, times in seconds.items()}


def _timing(seconds: list[float], limit: list[float]) -> Timing:
    p20, median, p80 = 1e3 * np.percentile(seconds, [20, 50, 80])
    ratio = statistics.median(ours / first for ours, first in zip(seconds, limit, strict=False))
    return Timing(median_ms=median, p20_ms=p20, p80_ms=p80, ratio=ratio)


def synchronize() -> None:
    """Wait for a GPU, if there is one, to finish."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_extra_bytes(run: Callable[[], object]) -> int:
    """Most resident memory that `run` adds to the process, outputs included (Linux).

    Call it in a fresh process after one small run: memory that was freed but is still resident hides later use.
    """
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the high-water mark
    before = _status_bytes("VmRSS")
    run()
    return _status_bytes("VmHWM") - before


def peak_extra_cuda_bytes(run: Callable[[], object]) -> int:
    """Most memory of a CUDA device that `run` allocates beyond what is allocated already, outputs included."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def _status_bytes(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def environment(device: str = "cpu") -> dict[str, object]:
    """Device, threads and versions: the facts without which a figure cannot be repeated."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def print_rows(title: str, rows: Mapping[str, Timing], facts: Mapping[str, object]) -> None:
    """One table for people, then one JSON line per row for programs."""
    print(f"\n{title}\n{'':44}{'ms':>10}{'p20':>10}{'p80':>10}{'ratio':>8}")
    for name, row in rows.items():
        print(f"{name:44}{row.median_ms:10.2f}{row.p20_ms:10.2f}{row.p80_ms:10.2f}{row.ratio:8.2f}")
    for name, row in rows.items():
        figures = {key: round(value, 4) for key, value in vars(row).items()}
        print(json.dumps({"name": name, **figures, **facts}))
