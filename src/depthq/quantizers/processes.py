"""The rows of a batch over all processes: N processes do what one would do with their joined batch."""

import torch
import torch.distributed as dist
from torch import Tensor


class GlobalRows:
    """The rows of a training step, numbered over all processes in rank order, and the collectives over them.

    Every process of the default group must take the step, also one without a single row: it waits for the others.

    Args:
        num_local: Rows of this process.
        all_finite: Whether they are finite; the attribute of that name then says it of all processes' rows.
        device: Where the collectives take place.
    """

    def __init__(self, num_local: int, all_finite: bool, device: torch.device):
        self.num_local, self.all_finite = num_local, all_finite
        self.total, self.first = num_local, 0
        self.distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if self.distributed:
            mine = torch.tensor([num_local, int(all_finite)], device=device)
            everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
            dist.all_gather(everyone, mine)
            counts, finite = torch.stack(everyone).t().tolist()
            self.total, self.first, self.all_finite = sum(counts), sum(counts[: dist.get_rank()]), all(finite)

    def gather(self, latents: Tensor, rows: Tensor) -> Tensor:
        """Latents (M, K, D) at global `rows` (M, K), wherever they live; latents (M, N, D) are this process's."""
        codebook = torch.arange(latents.shape[0], device=latents.device)[:, None]
        if not self.distributed:
            return latents[codebook, rows]
        local = rows - self.first
        here = (local >= 0) & (local < self.num_local)
        drawn = latents.new_zeros(*rows.shape, latents.shape[2])
        drawn[here] = latents[codebook.expand_as(rows)[here], local[here]]
        self.sum_over_processes(drawn)
        return drawn

    def sum_over_processes(self, *tensors: Tensor) -> None:
        """Sum each tensor over all processes, in place; all of them get the same bits."""
        if self.distributed:
            for tensor in tensors:
                dist.all_reduce(tensor)
