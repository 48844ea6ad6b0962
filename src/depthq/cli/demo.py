"""Show on one page what depthq does: shipped weights on photos that no training saw, then a training run of your own.

examples:
  depthq demo --out demo/

Within half a minute OUT/index.html shows whole photos as codes, samples, and a file without loss beside those of
codecs; open it in a browser. Then a small model trains on patches of other photos for a minute or two, and the page
follows it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from depthq.cli.paths import user_path
from depthq.files import check_is_new
from depthq.models import DQAEConfig
from depthq.training import DataConfig, RunConfig, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from depthq.models import DQAE
    from depthq.report.demo import DemoPage, File

MODEL, LOSSLESS_MODEL = "photos-small", "cifar10-lossless"
PHOTOS = ("chelsea.png", "coffee.png", "astronaut.png")
"""Those of the bundled photos that are for testing; prefixes, and the file without loss, are of the first."""
SAMPLES = 48
SECONDS_BETWEEN_PAGES = 5
TRAINING_SECONDS = 100
"""As many steps are trained as take about so long on this machine: between 100 and 1,000."""
_TIMED_STEPS = 10
RUN = RunConfig(
    data=DataConfig(data="bundled"),
    model=DQAEConfig(likelihood="logistic_mixture", channels=(32, 64), codebook_size=256),
    training=TrainingConfig(batch_size=32, warmup_steps=50, validation_images=128, checkpoint_every=1000, log_every=10),
)


@dataclass(frozen=True)
class Settings:
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    parser.add_argument("--out", type=user_path, required=True, help="a new folder; OUT/index.html is the page")
    return Settings(parser.parse_args(arguments).out)


def run(settings: Settings) -> None:
    start = time.perf_counter()

    import torch

    from depthq.cli.show import show_measurement  # here, with the rest that --help need not wait for
    from depthq.coding import compress, decompress
    from depthq.report.demo import show_files, show_run, write_demo
    from depthq.training import train

    check_is_new(settings.out)
    path, folder = settings.out / "index.html", settings.out / "run"
    lossless, image = _pretrained(LOSSLESS_MODEL), _photos()[PHOTOS[0]]
    data = compress(lossless, image[None], lossless=True)
    page = _first_page(show_files(image, data), start)
    write_demo(path, page)
    print(f"{path.resolve()}: open it in a browser", flush=True)
    if not torch.equal(decompress(lossless, data)[0], image):
        raise ValueError("a file without loss must give every pixel back; it did not; please report it")
    page = replace(page, is_compared=True)
    print("the file without loss was decoded and compared; a run of your own begins", flush=True)
    steps = _steps_in(TRAINING_SECONDS)
    training = replace(RUN.training, steps=steps, validate_every=-(-steps // 6))
    with _followed(path, page, folder, steps):
        measured = train(replace(RUN, training=training), folder)
    write_demo(path, replace(page, run=show_run(folder, steps, measured)))
    show_measurement(measured)
    print(path.resolve())


def _first_page(files: "Sequence[File]", start: float) -> "DemoPage":
    from depthq.priors import CodePrior
    from depthq.report.demo import DemoPage, sample_urls, show_photo

    model, prior = _pretrained(MODEL), CodePrior.from_pretrained(MODEL)
    photos = _photos()
    shown = [show_photo(name, photos[name], model, prior, in_stages=name == PHOTOS[0]) for name in PHOTOS]
    samples = sample_urls(model.decode(prior.sample(SAMPLES)))
    return DemoPage(shown, samples, files, is_compared=False, seconds=time.perf_counter() - start, run=None)


def _pretrained(name: str) -> "DQAE":
    from depthq.models import DQAE

    return DQAE.from_pretrained(name)


def _photos() -> "dict[str, Tensor]":
    """uint8 (3, H, W) by name."""
    import torch

    from depthq.data import open_whole_images

    photos = open_whole_images("bundled", "test")
    names = [origin.id for origin in photos.origins(range(len(photos)))]
    return {name: torch.tensor(photos[index]) for index, name in enumerate(names)}


def _steps_in(seconds: float) -> int:
    """How many training steps take about so long, by a few steps of such a model on noise."""
    import torch

    from depthq.models import DQAE
    from depthq.training import paper_objective
    from depthq.training.fitting import default_precision

    model, uses_bfloat16 = DQAE(RUN.model), default_precision() == "bf16-mixed"
    images = torch.randint(256, (RUN.training.batch_size, 3, 32, 32), dtype=torch.uint8)
    for step in range(_TIMED_STEPS):
        if step == 2:  # the first ones are slow
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=uses_bfloat16):
            loss = paper_objective(model, images, model(images)).loss
        loss.backward()
    per_step = (time.perf_counter() - start) / (_TIMED_STEPS - 2)
    return int(min(1000, max(100, seconds / per_step)) // 10 * 10)


@contextmanager
def _followed(path: Path, page: "DemoPage", run: Path, steps: int) -> Iterator[None]:
    """Within the block the page is written anew every few seconds, with what the run has left behind by then."""
    from depthq.report.demo import show_run, write_demo

    ended = Event()

    def follow() -> None:
        while not ended.wait(SECONDS_BETWEEN_PAGES):
            write_demo(path, replace(page, run=show_run(run, steps, None)))

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
