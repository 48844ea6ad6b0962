"""The README.md beside a model's weights: what it is, what its codes cost, how to use it."""

import math

from depthq.models.config import DQAEConfig

_LIKELIHOODS = {
    "l2": "L2: a density, no probability of 8-bit values",
    "categorical": "categorical, 256-way",
    "logistic_mixture": "mixture of 10 discretized logistics",
}

_WITHOUT_D = ("scalar", "binary", "none")
"""Quantizers that take as many dimensions as K needs, or none."""


def model_card(config: DQAEConfig, num_parameters: int, notes: str = "") -> str:
    """Markdown, with the header that the hub reads.

    Args:
        config: Of the model.
        num_parameters: All its weights.
        notes: What the card goes on with: data, recipe, figures, limits, licence.
    """
    likelihood = _LIKELIHOODS[config.likelihood]
    if config.horizon:
        likelihood += f", and a causal head that sees pixels at most {config.horizon} away"
    rows = [
        ("images", "gray" if config.image_channels == 1 else "RGB"),
        ("sides", f"multiples of {config.image_multiple} pixels; pad others with `depthq.pixels.pad_to_multiple`"),
        ("quantizer", config.quantizer + ("" if config.quantizer in _WITHOUT_D else f", D = {config.codebook_dim}")),
        *_levels(config),
        ("p(image given codes)", likelihood),
        ("parameters", f"{num_parameters:,}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""---
library_name: depthq
tags:
- image-tokenizer
- vector-quantization
---

# A depth-quantized auto-encoder

Images to a few discrete codes per position, and back.

| | |
| --- | --- |
{table}

```python
import depthq

model = depthq.DQAE.from_pretrained("this folder, or the name of its repository")
codes = model.encode(images)  # uint8 (B, C, H, W) to depthq.Codes
model.decode(codes)           # uint8 (B, C, H, W)
```
{notes}"""


def _levels(config: DQAEConfig) -> list[tuple[str, str]]:
    if config.quantizer == "none":
        return [("codes", "none")]
    rows, bits = [], 0.0
    for level, size in enumerate(config.level_sizes):
        stride = config.image_multiple // 2**level
        rows.append(
            (f"level {level}", f"a position per {stride}x{stride} pixels, {config.num_codebooks} codes of {size}")
        )
        bits += config.num_codebooks * math.log2(size) / stride**2
    return [*rows, ("rate", f"{bits:.3f} bits/pixel if all codes are alike")]
