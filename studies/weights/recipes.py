"""Of each shipped model: its data, the options of `depthq train` and `depthq prior` that made it, what to say of it."""

from dataclasses import dataclass

BUNDLED = "bundled"


@dataclass(frozen=True)
class Recipe:
    about: str
    """What it is for, and where it ends."""
    data: tuple[str, ...]
    """Sources of images: `bundled`, or a name that the command line gives a place."""
    licence: str
    train: tuple[str, ...]
    """Options of `depthq train`."""
    prior: tuple[str, ...] | None
    """Options of `depthq prior`; None: without a prior."""


_LOSSLESS = (
    "--likelihood=logistic_mixture",
    "--horizon=3",
    "--batch-size=32",
    "--warmup-steps=500",
    "--validate-every=2000",
    "--log-every=100",
)
_CIFAR10_LICENCE = (
    "CIFAR-10 comes without a licence: its authors collected small pictures from the web for research. Whether weights "
    "made from it suit your purpose is for you to judge."
)

RECIPES = {
    "photos-small": Recipe(
        about=(
            "A tokenizer for photos of any size. It has seen 50,000 pictures of 32x32 and a few photos, on a CPU, in "
            "an hour: an example that works, no rival of a codec, as JPEG takes two thirds of the bits at equal PSNR. "
            "Its decoder has seen codes with levels and codebooks left out, so any prefix of them decodes. Its prior "
            "has seen 32x32 alone: larger images are priced tile by tile, and samples are such small pictures. Its "
            "causal head makes it lossless too, at the price of its codes: cifar10-lossless makes smaller files."
        ),
        data=(BUNDLED, "cifar10"),
        licence=(
            "MIT, as the package. The bundled photos come with scikit-image, whose documentation tells the source of "
            "each. " + _CIFAR10_LICENCE
        ),
        train=(
            *_LOSSLESS,
            "--channels=[32,64]",
            "--codebook-size=[128,128]",
            "--num-codebooks=4",
            "--level-dropout=0.05",
            "--codebook-dropout=0.1",
            "--steps=15000",
        ),
        prior=("--steps=3000", "--warmup-steps=200", "--validate-every=500", "--log-every=100"),
    ),
    "cifar10-lossless": Recipe(
        about=(
            "A lossless codec, the one of the table in docs/results.md: nearly all of it is the causal head, and its "
            "codes say little. Its reconstructions from codes alone are blurs. It takes larger images too."
        ),
        data=("cifar10",),
        licence="MIT, as the package. " + _CIFAR10_LICENCE,
        train=(*_LOSSLESS, "--channels=[16,32,32]", "--num-codebooks=1", "--codebook-size=64", "--steps=20000"),
        prior=None,
    ),
    "mnist-tiny": Recipe(
        about="Handwritten digits of 28x28: small enough to try everything on, samples from its prior included.",
        data=("mnist",),
        licence="MIT, as the package; MNIST's authors offer it under CC BY-SA 3.0.",
        train=(
            "--likelihood=logistic_mixture",
            "--horizon=2",
            "--channels=[16,32]",
            "--num-codebooks=2",
            "--codebook-size=32",
            "--batch-size=32",
            "--steps=4000",
            "--flip=false",
            "--validate-every=1000",
            "--log-every=100",
        ),
        prior=("--width=64", "--num-layers=2", "--steps=3000", "--validate-every=500", "--log-every=100"),
    ),
}
