"""What a quantizer remembers between steps, and how it travels: between devices, dtypes and files."""

from typing import ClassVar

import torch
from torch import Tensor, nn


class StateMismatchError(ValueError, RuntimeError):
    """The state to load is that of other codebooks; also a RuntimeError, as all that `load_state_dict` raises."""


class KeptState(nn.Module):
    """Tensors that stay float32 through .half() and .bfloat16(), and load only where they fit."""

    MUST_MATCH: ClassVar[dict[str, str]]
    """What is saved besides tensors, each a tuple of ints, and must be the same where it is loaded: the attribute's
    name, and that of the argument which the error names."""

    def _apply(self, fn, recurse=True):
        """Codebooks follow their module to any device, but keep their dtype."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.MUST_MATCH:
            destination[prefix + name] = torch.tensor(getattr(self, name))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """Refuse the state of other codebooks; the shapes alone do not tell them apart."""
        for name, argument in self.MUST_MATCH.items():
            saved, ours = state_dict.pop(prefix + name, None), list(getattr(self, name))
            if saved is not None and saved.tolist() != ours:
                raise StateMismatchError(
                    f"{argument} must be that of the state to load, {saved.tolist()}; got {ours}; "
                    "construct the quantizer as the one that was saved"
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
