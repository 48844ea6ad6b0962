"""Post-hoc density estimation on a network's features (Sec. 5.1, Table 2)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal

from depthq.features.backbones import NORMALIZATIONS, load_backbone, open_features
from depthq.features.density import Axis, estimate_density
from depthq.features.extraction import extract_features
from studies.dq_paper.data_sets import WEIGHTS, open_data_set
from studies.dq_paper.experiment import Outcome


@dataclass(frozen=True, kw_only=True)
class DensityStudy:
    """Make a layer's maps of a data set, and describe them by quantizers that are trained on them, one per seed."""

    kind: ClassVar[str] = "density"
    data: str
    backbone: str
    """As `depthq density --backbone` takes it."""
    weights: str
    """What `sources` calls the file of its weights; "" where the backbone has its own."""
    layer: str
    normalize: Literal["imagenet", "symmetric"]
    image_size: int
    axis: Axis
    num_codebooks: int
    codebook_size: int
    steps: int
    quantizers: int
    """How many are trained, with seeds 0, 1, ..."""

    def run(self, folder: Path, sources: Mapping[str, str], *, progress: bool) -> Outcome:
        data, weights = open_data_set(self.data, sources), None
        if self.weights:
            if self.weights not in sources:
                raise ValueError(
                    f"{self.weights} must be given; got none; get them ({WEIGHTS[self.weights]}) and give "
                    f"--data {self.weights}=FILE"
                )
            weights = Path(sources[self.weights])
        with TemporaryDirectory() as name:
            extract_features(
                load_backbone(self.backbone, weights),
                data,
                Path(name),
                layer=self.layer,
                normalize=NORMALIZATIONS[self.normalize],
                image_size=self.image_size,
            )
            density = estimate_density(
                open_features(Path(name) / "train.npy"),
                open_features(Path(name) / "test.npy"),
                axis=self.axis,
                codebook_size=self.codebook_size,
                num_codebooks=self.num_codebooks,
                steps=self.steps,
                seeds=self.quantizers,
            )
        return Outcome(asdict(density))
