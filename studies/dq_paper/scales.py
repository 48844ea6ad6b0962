"""The sizes at which rows are run: the paper's own, and one that a CPU finishes in minutes."""

from dataclasses import dataclass, replace

from depthq.models import PRESETS, DQAEConfig
from depthq.training import TRAINING_PRESETS, TrainingConfig


@dataclass(frozen=True)
class Scale:
    """A network and a training that rows change only where they differ from each other."""

    model: DQAEConfig
    training: TrainingConfig
    protocol: str
    """Both in words, for the page."""
    caveat: str = ""
    """What its figures cannot say."""


SCALES = {
    "cpu": Scale(
        model=DQAEConfig(channels=(32, 64)),
        # Full precision on every machine: whether bfloat16 is faster, or there at all, differs between CPUs.
        training=TrainingConfig(
            steps=1000, precision="32-true", validate_every=100, checkpoint_every=200, log_every=100
        ),
        protocol="32 and 64 channels, 1 residual block, D = 4, decay 0.9; 1,000 steps of 64 images in float32, "
        "AdamW at 2e-3 with 200 steps of warm-up and cosine decay, gradients clipped at norm 2, images mirrored at "
        "random",
        caveat="Networks this small and runs this short say nothing about the figures that large ones reach, nor how "
        "large the paper's advantage is; only whether it is there. In Tables 3 and 4 rows of the mixture are "
        "of today's start, so are those of L2 in Table 4 but for K128x128 and K32x128, and those of the categorical "
        "likelihood but for K = 128 in Table 3 and K256x128 in Table 4. Others there are of the one "
        "before, whose sub-pixel convolutions started apart and whose logits started alike.",
    ),
    "cpu-long": Scale(
        model=DQAEConfig(channels=(32, 64)),
        training=TrainingConfig(
            steps=10_000, precision="32-true", validate_every=250, checkpoint_every=500, log_every=100
        ),
        protocol="32 and 64 channels and all else as `cpu`; 10,000 steps of 64 images, 12.8 epochs of CIFAR-10",
        caveat="Networks as small as at scale `cpu`: only what changes with the length of training is to be read here.",
    ),
    "gpu": Scale(
        model=replace(PRESETS["paper"], likelihood="l2", codebook_size=128),
        training=TRAINING_PRESETS["paper"],
        protocol="256 channels, 4 residual blocks, D = 64, decay 0.99; 156,250 steps of 128 images (400 epochs of "
        "CIFAR-10) in bfloat16 or what the device has instead, AdamW at 2e-4 with 1,000 steps of warm-up and cosine "
        "decay, which the paper does not mention, gradients clipped at norm 2, images mirrored at random, without the "
        "crops and the colour jitter of the public code",
    ),
    "miniature": Scale(
        model=PRESETS["tiny"],
        training=replace(TRAINING_PRESETS["tiny"], precision="32-true"),
        protocol="8 and 16 channels, 20 steps of 8 images: only to see that everything runs",
        caveat="Its figures mean nothing.",
    ),
}
SHORT = "cpu"
"""The scale that a longer one is set beside."""
