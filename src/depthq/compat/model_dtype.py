"""What a swapped quantizer knows of the model around it."""

import torch
from torch import Tensor, nn


class ModelDtype(nn.Module):
    """A module that knows the dtype of the model around it, which codebooks, always float32, do not follow.

    A model that is brought to another dtype later takes it along; in one that has it already, `.to(model.dtype)` tells.
    """

    _of_model: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("_of_model", torch.zeros(()), persistent=False)

    def _as_model(self, quantized: Tensor) -> Tensor:
        return quantized.to(self._of_model.dtype)
