import pytest
import torch

from depthq import DQAE, DQAEConfig
from depthq.priors import TransformerPrior

SMALL = {"channels": (4, 8), "num_residual_blocks": 1, "num_codebooks": 2, "codebook_size": (4, 8), "codebook_dim": 4}
KINDS = {
    "causal": {"likelihood": "logistic_mixture", "horizon": 2},
    "mixture": {"likelihood": "logistic_mixture"},
    "categorical": {"likelihood": "categorical"},
    "gray": {"likelihood": "logistic_mixture", "horizon": 1, "image_channels": 1},
    "scalar": {"likelihood": "logistic_mixture", "quantizer": "scalar"},
}


def make_model(kind: str, seed: int = 0) -> DQAE:
    """One that has seen a few images, so that it says something of each."""
    torch.manual_seed(seed)
    model = DQAE(DQAEConfig(**SMALL | KINDS[kind]))
    images = smooth_images(8, model.config.image_channels, 16)
    for _ in range(2):
        model(images)
    with torch.no_grad():
        for weight in [*model.head.parameters(), *(model.causal_head.parameters() if model.causal_head else [])]:
            weight.add_(0.05 * torch.randn_like(weight))
    return model.eval()


def smooth_images(count: int, channels: int, height: int, width: int | None = None, seed: int = 0) -> torch.Tensor:
    """uint8 (count, channels, height, width), blurred noise with a border of black and white."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, channels, height, width or height, generator=generator)
    blurred = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    images = (128 + 160 * blurred).clamp(0, 255).to(torch.uint8)
    images[..., 0], images[..., -1] = 0, 255
    return images


@pytest.fixture(scope="session")
def model() -> DQAE:
    return make_model("causal")


@pytest.fixture(scope="session")
def prior(model) -> TransformerPrior:
    torch.manual_seed(1)
    prior = TransformerPrior(model.codebook_sizes, ((2, 2), (4, 4)), width=8, num_layers=1, num_heads=2)
    with torch.no_grad():
        for weight in prior.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return prior.eval()
