"""The Depth-Quantized Auto-Encoder: its blocks, a level, the whole, and the presets."""

from depthq.models.config import PRESETS, DQAEConfig
from depthq.models.dqae import DQAE, DQAEOutput
from depthq.models.quantizer import QUANTIZERS

__all__ = ["DQAE", "PRESETS", "QUANTIZERS", "DQAEConfig", "DQAEOutput"]
