"""Gradient accumulation: several forward passes that are one training step of the codebooks."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from depthq.quantizers.base import as_size
from depthq.quantizers.kept_state import KeptState, MicroBatch


@contextmanager
def micro_batch(module: nn.Module, index: int, count: int) -> Iterator[None]:
    """Forward passes of `module` in here are micro-batch `index` of the `count` that make one optimizer step.

    All quantizers in the module then update their codebooks once per optimizer step: they move at micro-batch 0 alone,
    and the statistics of all micro-batches add up to those of the joined batch. Rare codes are re-drawn from
    micro-batch 0, and a k-means++ start sees it alone. Micro-batches come in order, each once, of similar size.

    Args:
        module: A quantizer, or what holds some.
        index: 0..count - 1.
        count: How many there are of this optimizer step; the last step of an epoch may have fewer.

    Raises:
        ValueError: If index or count is out of range.

    Example:
        >>> quantizer = DepthwiseQuantizer(dim=64, num_codebooks=4, codebook_size=16)
        >>> for index, x in enumerate(torch.randn(32, 64, 8).chunk(4)):
        ...     with micro_batch(quantizer, index, 4):
        ...         (quantizer(x).loss / 4).backward()
    """
    count = as_size("count", count)
    if not 0 <= index < count:
        raise ValueError(f"index must be one of the count micro-batches, 0..{count - 1}; got {index}")
    states = [child for child in module.modules() if isinstance(child, KeptState)]
    before = [state.micro_batch for state in states]
    for state in states:
        state.micro_batch = MicroBatch(index, count)
    try:
        yield
    finally:
        for state, former in zip(states, before, strict=True):
            state.micro_batch = former
