"""Show on one page what depthq does: shipped weights on photos that no training saw, then a training run of your own.

examples:
  depthq demo --out demo/

Within half a minute OUT/index.html shows whole photos as codes, samples, and a file without loss beside those of
codecs; open it in a browser. Then a small model trains on patches of other photos for a minute or two, and the page
follows it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from depthq.files import check_is_new
from depthq.models import DQAEConfig
from depthq.training import DataConfig, RunConfig, TrainingConfig
from depthq.weights import shipped_folder

if TYPE_CHECKING:
    from depthq.report.demo import DemoPage

MODEL = "photos-small"
PHOTOS = ("chelsea.png", "coffee.png", "astronaut.png")
"""Those of the bundled photos that are for testing; prefixes, and the file without loss, are of the first."""
SAMPLES = 48
SECONDS_BETWEEN_PAGES = 5
RUN = RunConfig(
    data=DataConfig(data="bundled"),
    model=DQAEConfig(likelihood="logistic_mixture", channels=(32, 64), codebook_size=256),
    training=TrainingConfig(
        steps=400,
        batch_size=32,
        warmup_steps=50,
        validate_every=100,
        validation_images=128,
        checkpoint_every=400,
        log_every=10,
    ),
)


@dataclass(frozen=True)
class Settings:
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    parser.add_argument("--out", type=Path, required=True, help="a new folder; OUT/index.html is the page")
    return Settings(parser.parse_args(arguments).out)


def run(settings: Settings) -> None:
    from depthq.cli.show import show_measurement  # here, with the rest that --help need not wait for
    from depthq.report.demo import show_run, write_demo
    from depthq.training import train

    check_is_new(settings.out)
    path, folder = settings.out / "index.html", settings.out / "run"
    page = _first_page()
    write_demo(path, page)
    print(f"{path.resolve()}: open it in a browser; a run of your own begins", flush=True)
    with _followed(path, page, folder):
        measured = train(RUN, folder)
    write_demo(path, replace(page, run=show_run(folder, RUN.training.steps, measured)))
    show_measurement(measured)
    print(path.resolve())


def _first_page() -> "DemoPage":
    import torch

    from depthq.coding import compress, decompress
    from depthq.data import open_whole_images
    from depthq.models import DQAE
    from depthq.priors import CodePrior
    from depthq.report.demo import DemoPage, sample_urls, show_files, show_photo

    start = time.perf_counter()
    folder = shipped_folder(MODEL)
    assert folder is not None
    model, prior = DQAE.from_pretrained(folder), CodePrior.from_pretrained(folder)
    photos = open_whole_images("bundled", "test")
    by_name = {origin.id: index for index, origin in enumerate(photos.origins(range(len(photos))))}
    images = [torch.from_numpy(photos[by_name[name]]) for name in PHOTOS]
    shown = [show_photo(name, image, model, prior) for name, image in zip(PHOTOS, images, strict=True)]
    samples = model.decode(prior.sample(SAMPLES))
    data = compress(model, images[0][None], prior, lossless=True)
    if not torch.equal(decompress(model, data, prior)[0], images[0]):
        raise ValueError("a file without loss must give every pixel back; it did not; please report it")
    files = show_files(images[0], data)
    return DemoPage(shown, sample_urls(samples), files, time.perf_counter() - start, run=None)


@contextmanager
def _followed(path: Path, page: "DemoPage", run: Path) -> Iterator[None]:
    """Within the block the page is written anew every few seconds, with what the run has left behind by then."""
    from depthq.report.demo import show_run, write_demo

    ended = Event()

    def follow() -> None:
        while not ended.wait(SECONDS_BETWEEN_PAGES):
            write_demo(path, replace(page, run=show_run(run, RUN.training.steps, None)))

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
