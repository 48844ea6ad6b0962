"""The contract of all priors: what codes cost, codes drawn at random, and the walk that a coder takes through them."""

import hashlib
import json
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

import torch
from huggingface_hub.constants import CONFIG_NAME
from torch import Tensor, nn

from depthq.codes import Codes, check_codes
from depthq.saved import is_saved, load_module, plain, save_module
from depthq.weights import shipped_folder

Grid = tuple[int, int]
"""(H, W), the positions of a level."""


@dataclass(frozen=True)
class Group:
    """Some codes of one position, independent of each other given all that came before."""

    level: int
    position: int
    """Its index in the level's raster, y W + x."""
    codebooks: range
    """Of which codebooks."""
    logits: list[Tensor]
    """Of each of these, (B, K): what softmax makes probabilities of."""


class CodePrior(nn.Module, ABC):
    """A distribution over the codes of an image: p(codes).

    Args:
        codebook_sizes: Per level, coarse to fine, K of each codebook.
        grids: Per level (H, W) of the codes it was made for; samples have them. It takes other grids too.
        options: What else the kind of prior is made of, plain numbers and strings.

    Raises:
        ValueError: If there are not as many grids as levels, or one is empty.
    """

    kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type["CodePrior"]]] = {}

    def __init__(self, codebook_sizes: Sequence[Sequence[int]], grids: Sequence[Sequence[int]], **options: Any):
        super().__init__()
        self.codebook_sizes = tuple(tuple(map(operator.index, sizes)) for sizes in codebook_sizes)
        self.grids = _checked_grids(grids, self.codebook_sizes)
        self.options = plain(options)

    suits_any_grid: ClassVar[bool] = True
    """Whether it is as good, and as fast, on grids larger than those that it was made for."""

    def __init_subclass__(cls, kind: str):
        cls.kind = kind
        CodePrior._kinds[kind] = cls

    def nll_nats(self, codes: Codes) -> Tensor:
        """Cost of the codes of each image: float64 (B,), -log p(codes) in nats, all levels together.

        Raises:
            ValueError: If the codes are of other codebooks, or no maps.
        """
        self._check(codes)
        return self._nll_nats(codes)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        *,
        grids: Sequence[Grid] | None = None,
        coarse: Sequence[Tensor] = (),
    ) -> Codes:
        """Draw the codes of n images.

        Args:
            n: B, at least 1.
            temperature: What logits are divided by, at least 0; 0 always takes the likeliest code.
            top_k: Of each code only the likeliest so many, at least 1; None: all.
            top_p: Only the likeliest that together reach this probability, in (0, 1]; None: all.
            seed: Fixes the draw.
            grids: Per level (H, W); by default those it was made for.
            coarse: The first levels, given: int64 (n, M, H, W) each. Only what is finer is drawn.

        Raises:
            ValueError: If an argument is out of its range, or `coarse` does not fit.
        """
        n, seed = _check_sampling(n, temperature, top_k, top_p, seed)
        steps = self.steps(n, grids)
        for level, codes in enumerate(coarse):
            if level >= len(steps.levels) or codes.shape != steps.levels[level].shape:
                raise ValueError(
                    f"coarse must hold the first levels, each (n, M, H, W); got {tuple(codes.shape)} for level {level} "
                    f"of {len(steps.levels)}"
                )
            check_codes(codes, self.codebook_sizes[level], name=f"coarse[{level}]")
        generator = torch.Generator().manual_seed(seed)  # of the CPU, so that all devices draw the same
        while (logits := steps.next_logits()) is not None:
            if steps.group.level < len(coarse):
                steps.push(steps.read(coarse[steps.group.level]))
            else:
                drawn = [_draw(of_code, temperature, top_k, top_p, generator) for of_code in logits]
                steps.push(torch.stack(drawn, dim=1))
        return steps.codes()

    def steps(self, batch_size: int, grids: Sequence[Grid] | None = None) -> "Steps":
        """The walk through the codes of B images of these grids (H, W) per level, for who draws or codes them.

        Raises:
            ValueError: If the grids do not fit the levels.
        """
        grids = self.grids if grids is None else _checked_grids(grids, self.codebook_sizes)
        return Steps(self, batch_size, grids)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the prior into a folder, made if need be: config.json and model.safetensors."""
        made_of = {"kind": self.kind, "codebook_sizes": self.codebook_sizes, "grids": self.grids, **self.options}
        save_module(self, json.loads(json.dumps(made_of)), Path(folder))

    @staticmethod
    def from_pretrained(folder: str | Path) -> "CodePrior":
        """The prior, in eval mode, that `save_pretrained` wrote, of whatever kind.

        Args:
            folder: Where it was written to; or a folder, such as that of a run, that holds one in `prior`; or the name
                of a model of `depthq.weights.SHIPPED` that has one.

        Raises:
            ValueError: If the folder holds none, or it is damaged.
        """
        folder = Path(folder) if Path(folder).is_dir() else shipped_folder(str(folder)) or Path(folder)
        if (folder / "prior" / CONFIG_NAME).is_file():
            folder = folder / "prior"
        if not is_saved(folder):
            raise ValueError(f"{folder} must hold config.json and model.safetensors of a prior; make one: depthq prior")

        if _is_a_model(folder):
            raise ValueError(f"{folder} must hold a prior; it holds a model without one; make one: depthq prior")

        def make(made_of: dict[str, Any]) -> CodePrior:
            options = {name: value for name, value in made_of.items() if name != "kind"}
            return CodePrior._kinds[made_of["kind"]](**options)

        return load_module(folder, make)

    def fingerprint(self) -> str:
        """SHA-256 of what it is made of and of all weights: tells whether a file was made with this very prior."""
        digest = hashlib.sha256(repr((self.kind, self.codebook_sizes, self.options)).encode())
        for name, tensor in self.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU without any."""
        weight = next(iter(self.state_dict().values()), None)
        return torch.device("cpu") if weight is None else weight.device

    @abstractmethod
    def _nll_nats(self, codes: Codes) -> Tensor:
        """`nll_nats` of checked codes."""

    @abstractmethod
    def walk(self, levels: Sequence[Tensor], grids: Sequence[Grid]) -> Iterator[Group]:
        """Groups of codes in coding order: levels coarse to fine, raster within a level.

        Args:
            levels: int64 (B, M, H W) per level. Before the next group is asked for, the codes of the former one have
                been written there; what comes later is not to be looked at.
            grids: (H, W) per level.
        """

    def _check(self, codes: Codes) -> None:
        if codes.codebook_sizes != self.codebook_sizes:
            raise ValueError(
                f"codes must have this prior's codebook sizes {self.codebook_sizes}; got {codes.codebook_sizes}; "
                "use the prior of the model that made them"
            )


class Steps:
    """A walk through the codes of B images, group by group: ask for logits, push what the codes turned out to be.

    Example:
        >>> steps = UniformPrior(((4, 4),), ((1, 1),)).steps(batch_size=2)
        >>> [logits.shape for logits in steps.next_logits()]
        [torch.Size([2, 4]), torch.Size([2, 4])]
        >>> steps.push(torch.tensor([[0, 1], [2, 3]]))
        >>> steps.next_logits() is None
        True
    """

    def __init__(self, prior: CodePrior, batch_size: int, grids: Sequence[Grid]):
        self.codebook_sizes = prior.codebook_sizes
        self.levels = tuple(
            torch.zeros((batch_size, len(sizes), *grid), dtype=torch.int64, device=prior.device)
            for sizes, grid in zip(prior.codebook_sizes, grids, strict=True)
        )
        self._flat = tuple(level.flatten(2) for level in self.levels)  # views
        self._walk = prior.walk(self._flat, grids)
        self.group: Group
        """The group whose logits were asked for last."""

    @torch.no_grad()
    def next_logits(self) -> list[Tensor] | None:
        """float64 (B, K), one of each code of the next group; None when all are known."""
        group = next(self._walk, None)
        if group is None:
            return None
        self.group = group
        return [logits.double() for logits in group.logits]

    def push(self, codes: Tensor) -> None:
        """Say what the codes of the group are: int64 (B, as many as logits)."""
        group = self.group
        self._flat[group.level][:, group.codebooks.start : group.codebooks.stop, group.position] = codes

    def read(self, level: Tensor) -> Tensor:
        """The codes of the group in a level int64 (B, M, H, W) of another's: (B, as many as logits)."""
        group = self.group
        return level.flatten(2)[:, group.codebooks.start : group.codebooks.stop, group.position]

    def codes(self) -> Codes:
        """All that was pushed."""
        return Codes(self.levels, self.codebook_sizes)


def grids_of(codes: Codes) -> tuple[Grid, ...]:
    """(H, W) of each level; raises ValueError unless codes are maps (B, M, H, W)."""
    if codes.levels[0].dim() != 4:
        raise ValueError(f"codes must be maps (B, M, H, W) for this prior; got {tuple(codes.levels[0].shape)}")
    return tuple((level.shape[2], level.shape[3]) for level in codes.levels)


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """int64 (B,) from logits (B, K)."""
    if temperature == 0:
        return logits.argmax(1)
    ranked, code = (logits / temperature).sort(dim=1, descending=True, stable=True)
    if top_k is not None:
        ranked[:, top_k:] = -math.inf
    if top_p is not None:
        probabilities = ranked.softmax(1)
        ranked[probabilities.cumsum(1) - probabilities >= top_p] = -math.inf
    noise = torch.empty(ranked.shape, dtype=torch.float64).exponential_(generator=generator).to(ranked.device)
    return code.gather(1, (ranked - noise.log()).argmax(1, keepdim=True)).squeeze(1)


def _check_sampling(n: int, temperature: float, top_k: int | None, top_p: float | None, seed: int) -> tuple[int, int]:
    """`n` and `seed` as Python's own numbers; raises ValueError if any of all these is out of range."""
    n, seed = _whole_number("n", n), _whole_number("seed", seed)
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must lie in [-2**63, 2**64); got {seed}")
    if not temperature >= 0:
        raise ValueError(f"temperature must be at least 0; got {temperature}; 1 draws as the prior says")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1; got {top_k}; leave it out to draw from all codes")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1]; got {top_p}; leave it out to draw from all codes")
    return n, seed


def _whole_number(name: str, value: SupportsIndex) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number; got {value!r}") from None


def _checked_grids(grids: Sequence[Sequence[int]], codebook_sizes: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    """One (H, W) per level."""
    try:
        found = tuple((operator.index(height), operator.index(width)) for height, width in grids)
    except (TypeError, ValueError):
        found = ()
    if len(found) != len(codebook_sizes) or any(min(grid) < 1 for grid in found):
        raise ValueError(
            f"grids must be one (H, W) of at least 1 x 1 per level, {len(codebook_sizes)} in all; got {grids!r}"
        )
    return found


def _is_a_model(folder: Path) -> bool:
    """Whether the folder's config is that of a DQ-AE, which no prior's is like."""
    try:
        config = json.loads((folder / CONFIG_NAME).read_text())
    except (OSError, ValueError):
        return False  # damaged: told of where it is read
    return isinstance(config, dict) and "likelihood" in config
