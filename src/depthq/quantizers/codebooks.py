"""The state of M codebooks and its upkeep: EMA statistics, initialisation from data, re-drawing of rare codes."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from depthq.ops import nearest_code, segment_sums

CodebookUpdate = Literal["ema", "gradient"]
ALL = slice(None)
RECENT_STEPS = 100


class CodebookState(nn.Module):
    """M codebooks of K codewords of D dimensions, as one zero-padded tensor, with what keeps them alive.

    Codebooks of different sizes are padded: rows at or beyond K_m are never chosen, columns at or beyond D_m are zero
    and so add nothing to any distance.

    One training step is `refresh`, then `search`, then `accumulate`. The codebooks move only in `refresh`, at the start
    of a step: until the next one, codes decode to exactly what this step returned, in training too.

    Initialisation is no special case: before the first batch every code has count 0, hence is rare, hence is drawn
    from that batch. A re-drawn code restarts with a fair share of the counts, so no stale average can overwrite it.

    With `torch.distributed` initialised, statistics are summed over all processes and re-drawn codes are picked from
    the rows of all of them by a counter-based hash, so N processes do what one would do with their joined batch.

    Args:
        codebook_sizes: K_m of each codebook, at least 1.
        codebook_dims: D_m of each codebook, at least 1.
        update: "ema" (App. A.4) or "gradient" (the second term of Eq. 5).
        decay: EMA decay (gamma of App. A.4), in [0, 1).
        epsilon: Laplace smoothing of the EMA counts (App. A.4), positive.
        rare_code_threshold: A code is re-drawn when its EMA count is at most this share of its codebook's mean count
            (Sec. 4.2, "Uniform Prior"); in [0, 1). 0 re-draws only codes that were never set.
    """

    weight: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    num_updates: Tensor
    recently_redrawn: Tensor

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        codebook_dims: Sequence[int],
        *,
        update: CodebookUpdate = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        rare_code_threshold: float = 0.1,
    ):
        super().__init__()
        _check_settings(codebook_sizes, codebook_dims, update, decay, epsilon, rare_code_threshold)
        self.codebook_sizes = tuple(codebook_sizes)
        self.codebook_dims = tuple(codebook_dims)
        self.update = update
        self.decay = decay
        self.epsilon = epsilon
        self.rare_code_threshold = rare_code_threshold

        shape = (len(codebook_sizes), max(codebook_sizes), max(codebook_dims))
        weight = torch.randn(shape) * self._is_dimension(shape[2])
        if update == "gradient":
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("ema_sum", torch.zeros(shape))
        self.register_buffer("ema_count", torch.zeros(shape[:2]))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        redrawn = torch.zeros(RECENT_STEPS, shape[0], dtype=torch.int64)
        self.register_buffer("recently_redrawn", redrawn, persistent=False)

    def _is_dimension(self, width: int) -> Tensor:
        return torch.arange(width) < torch.tensor(self.codebook_dims)[:, None, None]  # (M, 1, D)

    def _is_code(self, which: slice) -> Tensor:
        sizes = torch.tensor(self.codebook_sizes[which], device=self.weight.device)
        return torch.arange(self.weight.shape[1], device=self.weight.device) < sizes[:, None]  # (M, K)

    @property
    def codewords(self) -> Tensor | list[Tensor]:
        """(M, K, D), or a list of (K_m, D_m) where sizes differ."""
        if len(set(self.codebook_sizes)) == 1 and len(set(self.codebook_dims)) == 1:
            return self.weight
        return [w[:k, :d] for w, k, d in zip(self.weight, self.codebook_sizes, self.codebook_dims, strict=True)]

    def search(self, latents: Tensor, which: slice = ALL) -> Tensor:
        """Nearest codes, int64 (M, N), of latents (M, N, D) float32, in the codebooks `which`."""
        return nearest_code(latents.detach(), self.weight.detach()[which], codebook_sizes=self.codebook_sizes[which])

    def lookup(self, codes: Tensor, which: slice = ALL) -> Tensor:
        """Codewords (N, M, D) of codes (N, M)."""
        weight = self.weight[which]
        offsets = torch.arange(weight.shape[0], device=codes.device) * weight.shape[1]
        return nn.functional.embedding(codes + offsets, weight.flatten(0, 1))

    @torch.no_grad()
    def refresh(self, latents: Tensor, rows: "GlobalRows", which: slice = ALL) -> None:
        """Start of a training step: move the codebooks to their EMA, then re-draw rare codes from these latents."""
        if self.update == "ema":
            smoothed = _laplace_smoothed(self.ema_count[which], self._is_code(which), self.epsilon)
            self.weight[which] = self.ema_sum[which] / smoothed[..., None]
        count = self.ema_count[which]  # a view
        is_code = self._is_code(which)
        mean_count = count.sum(1, keepdim=True) / is_code.sum(1, keepdim=True)
        rare = (count <= self.rare_code_threshold * mean_count) & is_code
        drawn = rows.gather(latents, self._draw(rows.total, which))  # (M, K, D)
        fair_share = rows.total / is_code.sum(1, keepdim=True)
        self.weight[which] = torch.where(rare[..., None], drawn, self.weight[which])
        if self.update == "ema":
            self.ema_sum[which] = torch.where(rare[..., None], drawn * fair_share[..., None], self.ema_sum[which])
        self.ema_count[which] = torch.where(rare, fair_share, count)
        self.recently_redrawn[self.num_updates % RECENT_STEPS, which] = rare.sum(1)

    @torch.no_grad()
    def accumulate(self, latents: Tensor, codes: Tensor, rows: "GlobalRows", which: slice = ALL) -> None:
        """End of a training step: fold this batch's counts and sums into the EMA."""
        counts, sums = segment_sums(latents, codes, self.weight.shape[1])
        rows.sum_over_processes(counts, sums)
        self.ema_count[which] = self.ema_count[which].lerp(counts, 1 - self.decay)
        if self.update == "ema":
            self.ema_sum[which] = self.ema_sum[which].lerp(sums, 1 - self.decay)

    def _draw(self, num_rows: int, which: slice) -> Tensor:
        """A row for each code, int64 (M, K) in [0, num_rows): code k draws from the k-th of K equal strata of the rows.

        The draw is a hash of (step, codebook, code): no generator state, the same in every process and after a resume.
        """
        num_codebooks, size, _ = self.weight.shape
        codebook = torch.arange(num_codebooks, device=self.weight.device)[which, None]
        code = torch.arange(size, device=self.weight.device)
        counter = (self.num_updates * num_codebooks + codebook) * size + code
        sizes = torch.tensor(self.codebook_sizes[which], device=self.weight.device)[:, None]
        code = torch.minimum(code, sizes - 1)  # padding rows draw too, and are discarded
        low, high = code * num_rows // sizes, (code + 1) * num_rows // sizes
        return low + _hash32(counter) % (high - low).clamp(min=1)


class GlobalRows:
    """The rows of a batch, numbered over all processes in rank order, and the collectives over them."""

    def __init__(self, num_local: int, all_finite: bool, device: torch.device):
        self.distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.total, self.first, self.all_finite = num_local, 0, all_finite
        self.num_local = num_local
        if self.distributed:
            mine = torch.tensor([num_local, int(all_finite)], device=device)
            everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
            dist.all_gather(everyone, mine)
            counts, finite = zip(*(pair.tolist() for pair in everyone), strict=True)
            self.total, self.first, self.all_finite = sum(counts), sum(counts[: dist.get_rank()]), all(finite)

    def gather(self, latents: Tensor, rows: Tensor) -> Tensor:
        """Latents (M, K, D) at global `rows` (M, K), wherever they live; latents (M, N, D) are this process's."""
        codebook = torch.arange(latents.shape[0], device=latents.device)[:, None]
        if not self.distributed:
            return latents[codebook, rows]
        here = (rows >= self.first) & (rows < self.first + self.num_local)
        drawn = latents.new_zeros(*rows.shape, latents.shape[2])
        local = (rows - self.first).clamp(0, max(self.num_local - 1, 0))
        if self.num_local:
            drawn = torch.where(here[..., None], latents[codebook, local], drawn)
        self.sum_over_processes(drawn)
        return drawn

    def sum_over_processes(self, *tensors: Tensor) -> None:
        """Sum each tensor over all processes, in place."""
        if self.distributed:
            for tensor in tensors:
                dist.all_reduce(tensor)


def _laplace_smoothed(count: Tensor, is_code: Tensor, epsilon: float) -> Tensor:
    """Counts (M, K) smoothed so that none is 0 while each codebook's total stays; 1 where there is no code."""
    total = count.sum(1, keepdim=True)
    smoothed = (count + epsilon) / (total + is_code.sum(1, keepdim=True) * epsilon) * total
    return torch.where(is_code & (smoothed > 0), smoothed, 1.0)


def _hash32(counter: Tensor) -> Tensor:
    """Well-mixed int64 values in [0, 2^32); the multipliers stay below 2^31 so that no product overflows."""
    mask = 0xFFFFFFFF
    x = counter & mask
    for multiplier in (0x7FEB352D, 0x2C1B3C6D):
        x = ((x ^ (x >> 16)) * multiplier) & mask
    return x ^ (x >> 15)


def _check_settings(sizes, dims, update, decay, epsilon, rare_code_threshold) -> None:
    if min(sizes) < 1:
        raise ValueError(f"codebook_size must be at least 1; got {min(sizes)}")
    if min(dims) < 1:
        raise ValueError(f"codebook_dim must be at least 1; got {min(dims)}")
    if update not in ("ema", "gradient"):
        raise ValueError(f"codebook_update must be 'ema' or 'gradient'; got {update!r}")
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1); got {decay}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive; got {epsilon}")
    if not 0 <= rare_code_threshold < 1:
        raise ValueError(f"rare_code_threshold must lie in [0, 1); got {rare_code_threshold}")
