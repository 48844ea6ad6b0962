"""What each process of `test_processes.py` runs: python one_of_many_processes.py RANK WORLD_SIZE FOLDER."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from depthq import DepthwiseQuantizer, ResidualQuantizer, ScalarQuantizer, SharedQuantizer
from depthq.quantizers import NonFiniteLatentsError

KINDS = {
    "depthwise": lambda: DepthwiseQuantizer(6, 2, [8, 5], axis=-1, decay=0.6),
    "gradient": lambda: DepthwiseQuantizer(6, 2, 8, axis=-1, decay=0.6, codebook_update="gradient"),
    "shared": lambda: SharedQuantizer(6, 2, 8, axis=-1, decay=0.6),
    "residual": lambda: ResidualQuantizer(6, 3, 8, axis=-1, decay=0.6, quantizer_dropout=0.5),
}
NUM_STEPS = 8
SHARES = {2: [[0.2], [0.0], [1.0], [0.7]], 3: [[0.2, 0.3], [0.0, 0.6], [0.5, 0.5], [0.1, 1.0]]}
"""Per number of processes, where a joined batch is cut, step by step in turn; some processes get nothing."""


def make(kind: str):
    torch.manual_seed(0)
    return KINDS[kind]()


def joined_batch(step: int) -> torch.Tensor:
    """Data that jumps half-way, so that codes get rare."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(50, 6, generator=generator) + (10 if step >= NUM_STEPS // 2 else 0)


def my_rows(batch: torch.Tensor, step: int, rank: int, world_size: int) -> torch.Tensor:
    cuts = [0.0, *SHARES[world_size][step % len(SHARES[world_size])], 1.0]
    return batch[round(cuts[rank] * len(batch)) : round(cuts[rank + 1] * len(batch))]


def states(kind: str, rank: int, world_size: int) -> list[dict[str, torch.Tensor]]:
    quantizer = make(kind)
    history = []
    for step in range(NUM_STEPS):
        quantizer(my_rows(joined_batch(step), step, rank, world_size))
        history.append({name: value.clone() for name, value in quantizer.state_dict().items()})
    return history


def fixed_codebooks() -> ScalarQuantizer:
    return ScalarQuantizer(6, 3, 12, axis=-1)


def counts_of_fixed_codebooks(rank: int, world_size: int) -> torch.Tensor:
    quantizer = fixed_codebooks()
    for step in range(NUM_STEPS):
        quantizer(my_rows(joined_batch(step), step, rank, world_size))
    return quantizer.state.recent_count


def entropy_quantizer() -> DepthwiseQuantizer:
    torch.manual_seed(0)
    quantizer = DepthwiseQuantizer(6, 2, 8, axis=-1, codebook_update="gradient", entropy_weight=0.7)
    quantizer(joined_batch(0))
    return quantizer


def entropy_gradient(rank: int, world_size: int) -> torch.Tensor:
    """Of the entropy loss in the codebooks, as DistributedDataParallel averages it over equal parts of a batch."""
    torch.manual_seed(0)
    quantizer = DepthwiseQuantizer(6, 2, 8, axis=-1, codebook_update="gradient", entropy_weight=0.7)
    quantizer.load_state_dict(torch.load(Path(sys.argv[3]) / "entropy.pt", weights_only=True))
    quantizer(joined_batch(1)[:48].chunk(world_size)[rank]).entropy_loss.backward()
    grad = quantizer.state.weight.grad
    dist.all_reduce(grad)
    return grad / world_size


def raises_everywhere(rank: int) -> bool:
    """NaN in the last process alone: does this one raise, with its codebooks untouched?"""
    quantizer = make("depthwise")
    quantizer(joined_batch(0))
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    x = joined_batch(1)
    if rank == dist.get_world_size() - 1:
        x[3, 2] = torch.nan
    try:
        quantizer(x)
    except NonFiniteLatentsError:
        return all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())
    return False


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 3, padding=1)
        self.quantizer = DepthwiseQuantizer(8, 2, 16)
        self.decoder = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, images):
        out = self.quantizer(self.encoder(images))
        return (self.decoder(out.quantized) - images).square().mean() + out.loss


def train_network(rank: int) -> dict:
    torch.manual_seed(0)
    network = DistributedDataParallel(Network())
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(rank)).cumsum(2).cumsum(3) / 6
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(network(images))
        losses[-1].backward()
        optimizer.step()
    return {"losses": torch.stack(losses).detach(), "state": network.module.state_dict()}


def main(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    results = {
        "states": {kind: states(kind, rank, world_size) for kind in KINDS},
        "counts": counts_of_fixed_codebooks(rank, world_size),
        "entropy_gradient": entropy_gradient(rank, world_size),
        "raises": raises_everywhere(rank),
        "network": train_network(rank),
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
