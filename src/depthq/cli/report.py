"""Write RUN/report.html: one self-contained page about a run, to be opened by double click.

examples:
  depthq report runs/demo
  depthq report runs/photos --data my-photos/ --limit 1000

All images of the split (or the first --limit) are measured whole, as depthq evaluate does; the best and the worst of
them are shown. Maps of codes, and rows of pictures, are of centre crops as the run was trained, drawn at random, the
same ones every time. With a prior (depthq prior) the page shows samples, each above the nearest of the first 10,000
images that the run was trained on, or of those of --data for training where these are gone. A report that is there
already is replaced.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from torch import Tensor

from depthq.cli.compared import Compared
from depthq.cli.model_and_data import (
    ModelAndData,
    add_model_and_data,
    batches_of,
    load,
    model_and_data,
    open_model_and_images,
    warn_of_trained_on,
)
from depthq.priors import CodePrior
from depthq.runs import is_run, load_prior, load_run_settings

if TYPE_CHECKING:
    from depthq.data import ImageDataset
    from depthq.models import DQAE, DQAEOutput
    from depthq.report.samples import Samples

SAMPLE_SIZE = 64
SAMPLES_DRAWN = 6
TRAINING_IMAGES_SEARCHED = 10_000


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    limit: int | None


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser, whole=False)
    parser.add_argument("--limit", type=PositiveInt, help="only the first so many images")
    options = parser.parse_args(arguments)
    return Settings(model_and_data(options, whole=False), options.limit)


def run(settings: Settings) -> None:
    from depthq.analysis import CodeCounts, summarize_codes  # here: --help need not wait for them
    from depthq.analysis.counting import TABLES_LIMIT_BYTES
    from depthq.measure import ImageSample, PerImage, measure
    from depthq.report import Measured, write_report

    source = settings.source
    if not is_run(source.model):
        raise ValueError(f"{source.model} must be a run of depthq train, which a report is about; it is not one")
    model, crops = open_model_and_images(source)
    if source.split != "train":
        warn_of_trained_on(source.model, crops, source, limit=settings.limit)
    sample, per_image, counts, compared = ImageSample(SAMPLE_SIZE), PerImage(), None, None
    prior = load_prior(source.model)
    prior = prior and prior.to(model.device)
    beside: list[Callable[[Tensor, DQAEOutput], object]] = [lambda images, _: sample.update(images)]
    if model.codebook_sizes:
        counts = CodeCounts(model.codebook_sizes, limit_bytes=TABLES_LIMIT_BYTES)
        compared = Compared(model, prior)
    update = _comparing(compared)
    # Now, as what is not there is told at once.
    training_images, stand_in = (None, None) if prior is None else _training_images(source, model, prior)
    if source.crop is not None or _is_whole(crops):
        batches = (batch.images for batch in batches_of(crops, source, limit=settings.limit))
        measurement = measure(model, batches, prior=prior, counts=counts, beside=[*beside, update], per_image=per_image)
    else:  # metrics and pictures of whole images, maps of codes of crops, which have one size
        _, batches = load(replace(source, whole=True), limit=settings.limit)
        measurement = measure(model, batches, prior=prior, beside=[update], per_image=per_image)
        measure(model, load(source, limit=settings.limit)[1], counts=counts, beside=beside)
    measured = Measured(
        data=source.data or load_run_settings(source.model)["data"],
        split=source.split,
        measurement=measurement,
        codes=summarize_codes(counts) if counts is not None else None,
        sample=sample.images,
        per_image=per_image,
        rates=compared and compared.rates(),
        samples=None if prior is None or training_images is None else _samples(model, prior, training_images),
        stand_in=stand_in,
    )
    print(f"{write_report(source.model, model, measured)}: {measurement.images} images; open it in a browser")


def _is_whole(crops: "ImageDataset") -> bool:
    """Whether crops are the images themselves."""
    from depthq.data import HeldImages

    side = crops.image_size
    return isinstance(crops, HeldImages) and tuple(crops.pixels.shape[2:]) == (side, side)


def _comparing(compared: Compared | None) -> "Callable[[Tensor, DQAEOutput], object]":
    def update(images: Tensor, output: "DQAEOutput") -> None:
        if compared is not None and output.codes is not None:
            compared.update(images, output.codes)

    return update


def _training_images(source: ModelAndData, model: "DQAE", prior: CodePrior) -> tuple[Iterator[Tensor], str | None]:
    """What samples are compared with, in their size: images of the run's own data, read as it was trained, and None;
    where these are gone those of --data, and its name."""
    from depthq.data import DataError

    told = replace(source, split="train", crop=prior.grids[0][0] * model.config.image_multiple)
    own = told if source.data is None else replace(told, data=None, background=None, image_column=None)
    try:
        return load(own, limit=TRAINING_IMAGES_SEARCHED)[1], None
    except DataError as error:
        if source.data is None:
            raise DataError(
                f"samples must lie beside training images of the prior's size; got: {error}; name its data with --data"
            ) from error
        warnings.warn(f"{error}: samples are shown beside the images for training in {source.data}", stacklevel=2)
        return load(told, limit=TRAINING_IMAGES_SEARCHED)[1], source.data


def _samples(model: "DQAE", prior: CodePrior, training_images: Iterator[Tensor]) -> "Samples":
    from depthq.report import draw_samples

    return draw_samples(model, prior, SAMPLES_DRAWN, (batch.cpu() for batch in training_images))
