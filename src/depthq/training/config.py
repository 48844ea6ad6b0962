"""What a run trains on, how and where, and what each preset uses; nothing here needs Lightning."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from depthq.models import DQAEConfig
from depthq.priors import Factorization
from depthq.quantizers.base import as_int, as_number, as_size, check_share

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What all training has: of a DQ-AE on images, of a prior on codes.

    Raises:
        ValueError: If a field is out of range.
    """

    steps: int = 3000
    """Optimizer steps."""
    batch_size: int = 64
    """Images per step and process."""
    learning_rate: float = 2e-3
    """Learning rate of AdamW, times a linear warm-up and a cosine that falls from 1 to 0 over all steps."""
    warmup_steps: int = 200
    """Steps of linear warm-up."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    gradient_clip: float = 2.0
    """Largest norm of the gradient; 0 turns clipping off."""
    seed: int = 0
    """Fixes weights, data order, crops and flips."""
    precision: Precision = "auto"
    """auto: bf16-mixed where the hardware computes in bfloat16, else 32-true."""
    validate_every: int = 500
    """Steps between validations; the last step always validates."""
    validation_images: int = 1000
    """Images in a validation during training."""
    checkpoint_every: int = 250
    """Steps between checkpoints; the newest one is kept."""
    log_every: int = 25
    """Steps between rows of metrics.jsonl."""

    def __post_init__(self):
        lowest = {
            "steps": 1,
            "batch_size": 1,
            "warmup_steps": 0,
            "weight_decay": 0,
            "gradient_clip": 0,
            "seed": 0,
            "validate_every": 1,
            "validation_images": 1,
            "checkpoint_every": 1,
            "log_every": 1,
        }
        for name, bound in lowest.items():
            check = as_number if name in ("weight_decay", "gradient_clip") else as_int
            if not self._set(name, check(name, getattr(self, name))) >= bound:
                raise ValueError(f"{name} must be at least {bound}; got {getattr(self, name)}")
        if self.seed >= 2**32:
            raise ValueError(f"seed must be below 2**32; got {self.seed}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {self.precision!r}")
        if not self._set("learning_rate", as_number("learning_rate", self.learning_rate)) > 0:
            raise ValueError(f"learning_rate must be positive; got {self.learning_rate}")

    def _set(self, name: str, value: float) -> float:
        """A field as Python's own number, as config.yaml can hold it."""
        object.__setattr__(self, name, value)
        return value


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(LoopConfig):
    """Every choice of a training run that is not the model's; the defaults are those of the `small` preset.

    Raises:
        ValueError: If a field is out of range.
    """

    level_dropout: float = 0.0
    """Share of the images of a step, in [0, 1), whose decoder sees the first levels alone, a random number of them:
    for pictures from coarse codes."""
    codebook_dropout: float = 0.0
    """The same for the first codebooks of each level: for pictures from any prefix of the codebooks."""
    flip: bool = True
    """Mirror half of the training images; turn off for digits and text."""
    compile: bool = False
    """Train through torch.compile."""
    num_workers: int = 0
    """Processes that load images; 0 loads in the training process, which is fastest for sets held in memory."""

    def __post_init__(self):
        super().__post_init__()
        if not self._set("num_workers", as_int("num_workers", self.num_workers)) >= 0:
            raise ValueError(f"num_workers must be at least 0; got {self.num_workers}")
        for name in ("level_dropout", "codebook_dropout"):
            self._set(name, check_share(name, getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """What a prior over the codes of a model is made of."""

    factorization: Factorization = "sequential"
    """How the codes of a position are predicted: at once (parallel), or one after the other (sequential)."""
    width: int = 128
    """Of the hidden state of a position."""
    num_layers: int = 3
    """Blocks of attention and a perceptron."""
    num_heads: int = 4
    """Of the attention."""


@dataclass(frozen=True, kw_only=True)
class PriorTrainingConfig(LoopConfig):
    """Every choice of the training of a prior that is not the prior's.

    Raises:
        ValueError: If a field is out of range.
    """

    patience: int = 3
    """Stop after so many validations in a row that were no better than the best so far."""

    def __post_init__(self):
        super().__post_init__()
        if not self._set("patience", as_int("patience", self.patience)) >= 1:
            raise ValueError(f"patience must be at least 1; got {self.patience}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images a run trains on, and how they are read."""

    data: str
    """bundled, a folder of images, a parquet file or folder, or a hub data set's name."""
    image_size: int | None = None
    """Side of the square crops; by default the images' own size."""
    image_channels: Literal[1, 3] | None = None
    """Refuse images that have not so many channels; by default the model takes what the images have."""
    on_bad_image: Literal["raise", "skip"] = "raise"
    """What to do with a file that is no readable image: stop, or leave it out and count it."""
    background: str | None = None
    """The colour that transparent images are laid on, such as white; by default they are no readable images."""
    image_column: str | None = None
    """The column of images of a parquet file or hub data set, where several could be meant."""

    def __post_init__(self):
        if self.image_size is not None:
            object.__setattr__(self, "image_size", as_size("image_size", self.image_size))


ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "hpu", "xla", "tpu")
LOGGERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where a run trains and is watched: handed to Lightning's Trainer as it is, and not part of what is trained."""

    accelerator: str = "auto"
    """cpu, gpu, ... or auto."""
    devices: str = "auto"
    """How many devices of a machine, or which: a number, or numbers as in 0,2."""
    nodes: int = 1
    """How many machines."""
    strategy: str = "auto"
    """How several devices share the work: ddp, or auto. Strategies that cut weights in pieces are not supported."""
    logger: Literal["tensorboard", "wandb", "mlflow"] | None = None
    """What shows metrics beside metrics.jsonl, which is always written: what it keeps on disk lies in the run's folder,
    or where its own environment variables say."""

    def __post_init__(self):
        if self.accelerator not in ACCELERATORS:
            raise ValueError(f"accelerator must be one of {', '.join(ACCELERATORS)}; got {self.accelerator}")
        text = str(list(self.devices) if isinstance(self.devices, tuple) else self.devices)
        devices = [device.strip() for device in text.removeprefix("[").removesuffix("]").split(",")]
        if text != "auto" and not all(device.isdigit() for device in devices):
            raise ValueError(f"devices must be auto, a number, or numbers as in 0,2; got {self.devices}")
        object.__setattr__(self, "devices", ",".join(devices))
        object.__setattr__(self, "nodes", as_int("nodes", self.nodes))
        if self.devices.isdigit() and int(self.devices) < 1:
            raise ValueError(f"devices must be at least 1; got {self.devices}")
        if self.nodes < 1:
            raise ValueError(f"nodes must be at least 1; got {self.nodes}")
        if self.logger not in (None, *LOGGERS):
            raise ValueError(f"logger must be one of {', '.join(LOGGERS)}, or None; got {self.logger!r}")
        if self.strategy.startswith(("fsdp", "deepspeed")):
            raise ValueError(f"strategy must leave each device the whole model; got {self.strategy}; use ddp")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that decides what a run from scratch learns; RUN/config.yaml holds it, and it resumes only with the same."""

    data: DataConfig
    model: DQAEConfig
    training: TrainingConfig

    def __post_init__(self):
        model, training = self.model, self.training
        if training.level_dropout and model.num_levels == 1:
            raise ValueError(
                f"level_dropout must be 0 for a model of one level; got {training.level_dropout}; "
                'give codebook_size one number per level, as in "[256,128]"'
            )
        if training.codebook_dropout and (model.num_codebooks == 1 or model.quantizer == "none"):
            raise ValueError(
                f"codebook_dropout must be 0 for a model with fewer than two codebooks; got "
                f"{training.codebook_dropout}; raise num_codebooks"
            )

    def to_flat_dict(self) -> dict[str, Any]:
        """One flat mapping, as config.yaml and the command line have it."""
        flat = asdict(self.data) | asdict(self.model) | asdict(self.training)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


TRAINING_PRESETS = {
    "small": TrainingConfig(),
    # App. A.4: batch 128, 2e-4, 400 epochs (of CIFAR-10's 50,000 images).
    "paper": TrainingConfig(
        steps=156_250,
        batch_size=128,
        learning_rate=2e-4,
        warmup_steps=1000,
        validate_every=2000,
        checkpoint_every=1000,
    ),
    "tiny": TrainingConfig(
        steps=20,
        batch_size=8,
        warmup_steps=2,
        validate_every=10,
        validation_images=32,
        checkpoint_every=5,
        log_every=5,
    ),
}
"""How each model preset is trained unless told otherwise."""
