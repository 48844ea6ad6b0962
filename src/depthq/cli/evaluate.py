"""Measure likelihood, rate and reconstruction of a model, with units.

examples:
  depthq evaluate runs/demo --data bundled
  depthq evaluate runs/photos --data my-photos/ --json

Protocol: all images of the split (or the first --limit), whole unless --crop says otherwise, float32. The headline is
total_bits_per_dim = nll_bits_per_dim + code_bits_per_dim (uniform prior), with causal_nll_bits_per_dim in place of the
first where the model has a causal head; nll_bits_per_dim alone is what the paper reports. With a prior (depthq prior)
the codes' cost under it is told too. Metrics that do not exist for the model are null. docs/metrics.md defines each.
"""

import json
from dataclasses import asdict, dataclass

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from depthq.cli.model_and_data import (
    ModelAndData,
    add_model_and_data,
    batches_of,
    model_and_data,
    open_model_and_images,
    warn_of_trained_on,
)
from depthq.runs import load_prior


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    limit: int | None
    json: bool


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser)
    parser.add_argument("--limit", type=PositiveInt, help="only the first so many images")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    return Settings(model_and_data(options), options.limit, options.json)


def run(settings: Settings) -> None:
    from depthq.cli.show import show_measurement  # here: --help need not wait for it
    from depthq.measure import measure

    model, images = open_model_and_images(settings.source)
    if settings.source.split != "train":
        warn_of_trained_on(settings.source.model, images, settings.source, limit=settings.limit)
    prior = load_prior(settings.source.model)
    batches = (batch.images for batch in batches_of(images, settings.source, limit=settings.limit))
    measured = measure(model, batches, prior=prior and prior.to(model.device))
    if settings.json:
        print(json.dumps(asdict(measured)))
    else:
        show_measurement(measured)
