"""Symbols with whole frequencies to 32-bit words and back, by constriction's range coder: first in, first out.

Frequencies are handed over as float64, which holds whole numbers below 2^53 exactly. What it makes of them, sums,
a product and a rounding to 24 bits, is one sequence of IEEE operations: equal frequencies give equal bits everywhere.
The package's version is pinned, since another one may write other bits.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthq.extras import explain_missing


@lru_cache(maxsize=1)
def _streams() -> Any:
    """The package's streams, loaded where a file is written or read."""
    with explain_missing():
        import constriction

    return constriction.stream  # type: ignore[attr-defined]  # made by its native module


@lru_cache(maxsize=1)
def _models() -> Any:
    return _streams().model.Categorical(perfect=False)


class SymbolEncoder:
    """Collects symbols."""

    def __init__(self):
        self._coder = _streams().queue.RangeEncoder()

    def put(self, symbols: Tensor, frequencies: Tensor) -> None:
        """Symbols int64 (N,), and of each its frequencies int64 (N, K), all at least 1."""
        if frequencies.shape[1] > 1:  # what is certain takes no bits
            self._coder.encode(symbols.numpy().astype(np.int32), _models(), frequencies.numpy().astype(np.float64))

    def to_bytes(self) -> bytes:
        """Little-endian words."""
        return self._coder.get_compressed().astype("<u4").tobytes()


class SymbolDecoder:
    """Gives symbols back in the order in which they were put; behind the end, or in damaged bytes, anything."""

    def __init__(self, content: bytes):
        whole = content[: len(content) // 4 * 4]
        self._coder = _streams().queue.RangeDecoder(np.frombuffer(whole, "<u4").astype(np.uint32))

    def get(self, frequencies: Tensor) -> Tensor:
        """As many symbols int64 (N,) as frequencies int64 (N, K)."""
        if frequencies.shape[1] == 1:
            return torch.zeros(len(frequencies), dtype=torch.int64)
        symbols = self._coder.decode(_models(), frequencies.numpy().astype(np.float64))
        return torch.from_numpy(np.asarray(symbols).astype(np.int64))
