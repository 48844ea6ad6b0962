"""What a quantizer remembers between steps, and how it travels: between devices, dtypes and files."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

IS_FROZEN = "is_frozen"
"""What a state_dict says of a frozen state, by this name behind the state's own."""


class StateMismatchError(ValueError, RuntimeError):
    """The state to load is that of other codebooks; also a RuntimeError, as all that `load_state_dict` raises."""


class MicroBatch(NamedTuple):
    """Which of how many forward passes of one training step; see `depthq.quantizers.micro_batch`."""

    index: int
    count: int


class Float32Module(nn.Module):
    """A module whose tensors keep their dtype through .half(), .bfloat16() and .double(), and follow it elsewhere."""

    def _apply(self, fn, recurse=True):
        """Codebooks follow their module to any device, but keep their dtype."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)


class Float32Linear(Float32Module, nn.Linear):
    """A linear layer in float32, whatever the default dtype and the module around it."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, dtype=torch.float32)


class KeptState(Float32Module):
    """What of a quantizer's state stays float32, and loads only where it fits."""

    MUST_MATCH: ClassVar[dict[str, str]]
    """What is saved besides tensors, each a bool or a tuple of ints, and must be the same where it is loaded: the
    attribute's name, and that of the argument which the error names."""
    UNSAID: ClassVar[dict[str, object]] = {}
    """Which of these values go without saying: they are not saved, and a state that lacks them is taken to have them.
    A fingerprint is made of all that is saved, so that it does not change with what a state may say besides."""

    is_frozen = False
    """Whether nothing is learned or counted any more, whatever the mode."""

    micro_batch = MicroBatch(0, 1)
    """Which part of a training step the next forward pass is."""

    def fold(self, average: Tensor, new: Tensor, decay: float) -> None:
        """Fold what this pass counted into a moving average, in place: one step, in as many parts as it has."""
        if self.micro_batch.index:
            average.add_(new, alpha=1 - decay)
        else:
            average.lerp_(new, 1 - decay)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.MUST_MATCH:
            if getattr(self, name) != self.UNSAID.get(name):
                destination[prefix + name] = torch.tensor(getattr(self, name), device="cpu")
        if self.is_frozen:
            destination[prefix + IS_FROZEN] = torch.tensor(True, device="cpu")

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """Refuse the state of other codebooks; the shapes alone do not tell them apart."""
        is_there = any(key.startswith(prefix) for key in state_dict)
        for name, argument in self.MUST_MATCH.items():
            tensor, ours = state_dict.pop(prefix + name, None), torch.tensor(getattr(self, name), device="cpu").tolist()
            saved = tensor.tolist() if tensor is not None else self.UNSAID.get(name) if is_there else None
            if saved not in (None, ours):
                raise StateMismatchError(
                    f"{argument} must be that of the state to load, {saved}; got {ours}; "
                    "construct the quantizer as the one that was saved"
                )
        if is_there:
            self.is_frozen = bool(state_dict.pop(prefix + IS_FROZEN, False))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
