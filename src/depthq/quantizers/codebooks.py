"""The state of M codebooks and its upkeep: EMA statistics, initialisation from data, re-drawing of rare codes."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from depthq.ops import nearest_code, segment_sums
from depthq.quantizers.base import as_number, check_share
from depthq.quantizers.counter_random import random_int32, random_uniform
from depthq.quantizers.health import CodebookHealth
from depthq.quantizers.kept_state import KeptState
from depthq.quantizers.kmeans_plus_plus import kmeans_plus_plus
from depthq.quantizers.processes import GlobalRows
from depthq.quantizers.sphere import on_sphere

CodebookUpdate = Literal["ema", "gradient"]
ALL = slice(None)
GIVEN = -1.0
"""The count of a code whose codeword came from elsewhere, until the first training step."""
RECENT_STEPS = 100
NUM_TRIALS = 8  # candidates per codeword of k-means++
FIRST_ROWS = 8192  # of the first batch, among which k-means++ chooses: what a codebook of 512 needs, in a second


class CodebookState(KeptState):
    """M codebooks of K codewords of D dimensions, as one zero-padded tensor, with what keeps them alive.

    Codebooks of different sizes are padded: rows at or beyond K_m are never chosen, columns at or beyond D_m are zero
    and so add nothing to any distance.

    One training step is `begin_step`, then `refresh`, `search` and `accumulate`. The codebooks move only in `refresh`:
    until the next step, codes decode to exactly what this step returned, in training too.

    Initialisation is hardly a special case: before the first batch every code has count 0, hence is rare, hence is
    drawn from that batch, though by k-means++: drawn at random, two codes would share one cluster and leave another
    without, which no later step mends. A re-drawn code restarts with a fair share of the counts, so no stale average
    can overwrite it. (In a compiled graph the first draw is a random one: compile after the first step.)

    With `torch.distributed` initialised, statistics are summed over all processes and re-drawn codes are picked from
    the rows of all of them by a counter-based hash, so N processes do what one would do with their joined batch.

    Args:
        codebook_sizes: K_m of each codebook, at least 1.
        codebook_dims: D_m of each codebook, at least 1.
        update: "ema" (App. A.4) or "gradient" (the second term of Eq. 5).
        decay: EMA decay (gamma of App. A.4), in [0, 1).
        epsilon: Laplace smoothing of the EMA counts (App. A.4), positive.
        rare_code_threshold: A code is re-drawn when its EMA count is at most this share of its codebook's mean count
            (Sec. 4.2, "Uniform Prior"); in [0, 1). 0 re-draws only codes that were never set, or whose count has
            fallen to 0. One that no vector comes to any more moves to the origin as its count nears `epsilon`, as
            App. A.4 has it.
        backend: Of `depthq.ops.nearest_code`; None takes the fastest that runs.
        is_cosine: Whether codewords have length 1. Latents are to be brought to it by the caller (`on_sphere`): then
            the nearest codeword is the one at the smallest angle. A codeword whose average has no direction stays.
    """

    MUST_MATCH: ClassVar = {
        "codebook_sizes": "codebook_size",
        "codebook_dims": "codebook_dim",
        "is_cosine": 'whether distance is "cosine"',
    }
    UNSAID: ClassVar = {"is_cosine": False}

    weight: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    recent_count: Tensor
    recently_redrawn: Tensor
    num_updates: Tensor

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        codebook_dims: Sequence[int],
        *,
        update: CodebookUpdate = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        rare_code_threshold: float = 0.1,
        backend: str | None = None,
        is_cosine: bool = False,
    ):
        super().__init__()
        if min(codebook_sizes) < 1:
            raise ValueError(f"codebook_size must be at least 1; got {min(codebook_sizes)}")
        if min(codebook_dims) < 1:
            raise ValueError(f"codebook_dim must be at least 1; got {min(codebook_dims)}")
        if update not in ("ema", "gradient"):
            raise ValueError(f"codebook_update must be 'ema' or 'gradient'; got {update!r}")
        self.codebook_sizes = tuple(codebook_sizes)
        self.codebook_dims = tuple(codebook_dims)
        self.update = update
        self.decay = check_share("decay", decay)
        self.epsilon = as_number("epsilon", epsilon)
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive; got {epsilon}")
        self.rare_code_threshold = check_share("rare_code_threshold", rare_code_threshold)
        self.backend = backend
        self.is_cosine = is_cosine
        self.fitting = False  # `fit` asks for all codebooks in every step
        self._may_be_first, self._is_first_step, self._may_be_given = True, False, True

        num_codebooks, size, dim = shape = (len(codebook_sizes), max(codebook_sizes), max(codebook_dims))
        is_code, is_column = _is_real(codebook_sizes, size), _is_real(codebook_dims, dim)
        weight = torch.randn(shape, dtype=torch.float32) * (is_code[:, :, None] & is_column[:, None])
        weight = on_sphere(weight) if is_cosine else weight
        if update == "gradient":
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("ema_sum", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("ema_count", torch.zeros(shape[:2], dtype=torch.float32))
        self.register_buffer("recent_count", torch.zeros(shape[:2], dtype=torch.float32))
        self.register_buffer("recently_redrawn", torch.zeros(RECENT_STEPS, num_codebooks, dtype=torch.int64))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @property
    def is_code(self) -> Tensor:
        """bool (M, K), False where there is padding."""
        return _is_real(self.codebook_sizes, self.weight.shape[1], self.weight.device)

    @property
    def codewords(self) -> Tensor | list[Tensor]:
        """(M, K, D), or a list of (K_m, D_m) where sizes differ."""
        if len(set(self.codebook_sizes)) == 1 and len(set(self.codebook_dims)) == 1:
            return self._directed(self.weight)
        return [
            w[:k, :d]
            for w, k, d in zip(self._directed(self.weight), self.codebook_sizes, self.codebook_dims, strict=True)
        ]

    def search(self, latents: Tensor, which: slice = ALL) -> Tensor:
        """Nearest codes, int64 (M, N), of latents (M, N, D) float32, in the codebooks `which`."""
        codebooks, sizes = self.searched(which).detach(), self.codebook_sizes[which]
        codes = nearest_code(latents.detach(), codebooks, codebook_sizes=sizes, backend=self.backend)
        # A latent of length 0 is as near to all; rounding is not to decide.
        return codes.where(latents.any(-1), 0) if self.is_cosine else codes

    def searched(self, which: slice = ALL) -> Tensor:
        """Codewords (M, K, D) as they are searched, zero-padded; with gradient if they are learned by it."""
        return self._directed((self.weight.detach() if self.is_frozen else self.weight)[which])

    def lookup(self, codes: Tensor, which: slice = ALL) -> Tensor:
        """Codewords (N, M, D) of codes (N, M)."""
        weight = self.searched(which)
        offsets = torch.arange(weight.shape[0], device=codes.device) * weight.shape[1]
        return nn.functional.embedding(codes + offsets, weight.flatten(0, 1))

    def _directed(self, weight: Tensor) -> Tensor:
        """Codewords as they are searched: those that take gradient leave the sphere with each step of the optimizer."""
        if not self.is_cosine or self.update != "gradient":
            return weight
        return on_sphere(weight.clone())  # of its own, as later stages of a residual quantizer re-draw codes in place

    @torch.no_grad()
    def begin_step(self) -> None:
        """Start of a training step, once for all codebooks."""
        if self.micro_batch.index or self.is_frozen:
            return
        self.num_updates += 1
        # Asked once, since a GPU has to be waited for; and not within a graph, where it would be asked in every step.
        self._is_first_step = self._may_be_first and not torch.compiler.is_compiling() and bool(self.num_updates == 1)
        self._may_be_first = False
        self.recently_redrawn.copy_(self.recently_redrawn.roll(1, 0))  # row 0 is this step's
        self.recently_redrawn[0] = 0

    @torch.no_grad()
    def refresh(self, latents: Tensor, rows: GlobalRows, which: slice = ALL) -> None:
        """Move the codebooks to their EMA, then re-draw rare codes from these latents."""
        if self.micro_batch.index or self.is_frozen:
            return
        if self._may_be_given:  # a few operations, in the first step of a process alone
            self.restart(self.ema_count[which] == GIVEN, self.weight[which], rows.total, which)
            self._may_be_given = which.stop is not None and which.stop < len(self.weight)
        self.move_to_ema(which)
        count, is_code = self.ema_count[which], self.is_code[which]
        mean_count = count.sum(1, keepdim=True) / is_code.sum(1, keepdim=True)
        rare = (count <= self.rare_code_threshold * mean_count) & is_code
        if self.update == "gradient" and not self.weight.requires_grad:
            rare = torch.zeros_like(rare)  # who takes the gradient away wants the codewords kept
        self.restart(rare, rows.gather(latents, self._draw(latents, rows, which)), rows.total, which)
        self.recently_redrawn[0, which] = rare.sum(1)

    @torch.no_grad()
    def move_to_ema(self, which: slice = ALL) -> None:
        """Each codeword becomes the mean of its vectors, by their EMA; codebooks learned by gradient stay."""
        if self.update == "ema":
            count = self.ema_count[which]
            smoothed = _laplace_smoothed(count, self.is_code[which], self.epsilon)
            means = self.ema_sum[which] / smoothed[..., None]
            has_mean = (count > 0)[..., None]
            if self.is_cosine:
                means = on_sphere(means)
                has_mean &= means.any(-1, keepdim=True)
            self.weight[which] = torch.where(has_mean, means, self.weight[which])

    @torch.no_grad()
    def give(
        self, codebooks: Sequence[Tensor] | Tensor, counts: Tensor | None = None, sums: Tensor | None = None
    ) -> None:
        """Set codewords (K_m, D_m) that were learned elsewhere, by EMA counts (M, K) and sums (M, K, D) if there are.

        Without them the first step gives each code a fair share of the counts, so that none is re-drawn for being new,
        and averages move on from there.
        """
        self.reset()
        for weight, codewords in zip(self.weight, codebooks, strict=True):
            weight[: codewords.shape[0], : codewords.shape[1]] = on_sphere(codewords) if self.is_cosine else codewords
        self.num_updates += 1  # there has been a first step, elsewhere
        if counts is not None and sums is not None and counts.sum(1).all():
            self.ema_count.copy_(counts)
            if self.update == "ema":
                self.ema_sum.copy_(sums)
            return
        self.ema_count.copy_(torch.where(self.is_code, GIVEN, 0.0))
        self._may_be_given = True

    @torch.no_grad()
    def restart(self, where: Tensor, codewords: Tensor, num_rows: int, which: slice = ALL) -> None:
        """Set codes anew `where` (M, K) is True: codeword (M, K, D), and as EMA count a fair share of `num_rows`."""
        if self.is_cosine:  # a latent of length 0 is no direction
            where = where & codewords.any(-1)
        fair_share = num_rows * self.micro_batch.count / self.is_code[which].sum(1, keepdim=True)  # (M, 1)
        self.weight[which] = torch.where(where[..., None], codewords, self.weight[which])
        self.ema_count[which] = torch.where(where, fair_share, self.ema_count[which])
        if self.update == "ema":
            sums = codewords * fair_share[..., None]
            self.ema_sum[which] = torch.where(where[..., None], sums, self.ema_sum[which])

    @torch.no_grad()
    def accumulate(self, latents: Tensor, codes: Tensor, rows: GlobalRows, which: slice = ALL) -> None:
        """Fold this batch's counts and sums into the EMA; the codebooks themselves move in the next `refresh`."""
        if self.is_frozen:
            return
        counts, sums = segment_sums(latents, codes, self.weight.shape[1])
        rows.sum_over_processes(counts, sums)
        self.fold(self.ema_count[which], counts, self.decay)
        self.fold(self.recent_count[which], counts, self.decay)
        if self.update == "ema":
            self.fold(self.ema_sum[which], sums, self.decay)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget all statistics: the next training step starts the codebooks from its batch."""
        for name, statistic in self.named_buffers(recurse=False):
            if name != "weight":
                statistic.zero_()
        self._may_be_first = True

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """What is loaded may be from before the first step, or given, whatever this state has seen."""
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._may_be_first = self._may_be_given = True

    def health(self) -> CodebookHealth:
        """How the codebooks have been used of late."""
        norms = torch.linalg.vector_norm(self._directed(self.weight.detach()), dim=2)  # (M, K)
        mean_norm = (norms * self.is_code).sum(1) / self.is_code.sum(1)
        redrawn = self.recently_redrawn.sum(0)
        return CodebookHealth.from_counts(self.recent_count, redrawn, mean_norm, self.codebook_sizes)

    def _draw(self, latents: Tensor, rows: GlobalRows, which: slice) -> Tensor:
        """A global row for each code, int64 (M, K): code k draws from the k-th of K equal strata of the rows.

        The first draw is that of k-means++ instead, among `FIRST_ROWS` of the rows, where these are at least two for
        each code: one after the other would take long for many codes, and gain nothing for scarce rows.
        """
        num_codebooks, size, _ = self.weight.shape
        code = torch.arange(size, device=self.weight.device)
        codebook = torch.arange(num_codebooks, device=self.weight.device)[which, None]
        counter = (self.num_updates * num_codebooks + codebook) * size + code  # (M, K)
        num_rows = min(rows.total, FIRST_ROWS)
        if self._is_first_step and 2 * size <= num_rows:
            trials = torch.arange(NUM_TRIALS, device=self.weight.device)
            candidates = torch.arange(num_rows, device=self.weight.device) * rows.total // num_rows
            among = rows.gather(latents, candidates.expand(len(latents), -1))
            return candidates[kmeans_plus_plus(among, random_uniform(counter[..., None] * NUM_TRIALS + trials))]
        sizes = self.is_code[which].sum(1, keepdim=True)
        code = torch.minimum(code, sizes - 1)  # padding draws too, and is discarded
        low, high = code * rows.total // sizes, (code + 1) * rows.total // sizes
        return low + random_int32(counter) % (high - low).clamp(min=1)


def _is_real(sizes: Sequence[int], width: int, device: torch.device | None = None) -> Tensor:
    """bool (M, width), True in the first sizes[m] places of row m; made without a copy to a GPU where sizes agree."""
    if set(sizes) == {width}:
        return torch.ones(len(sizes), width, dtype=torch.bool, device=device)
    return torch.arange(width, device=device) < torch.tensor(sizes, device=device)[:, None]


def _laplace_smoothed(count: Tensor, is_code: Tensor, epsilon: float) -> Tensor:
    """Counts (M, K) smoothed so that no code's is 0 while each codebook's total stays."""
    total = count.sum(1, keepdim=True)
    return (count + epsilon) / (total + is_code.sum(1, keepdim=True) * epsilon) * total
