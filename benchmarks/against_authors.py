"""Whole training, side by side: depthq's network and a plain PyTorch form of the paper's, written from its description.

    python benchmarks/against_authors.py                    # images/s of both, L2 and mixture
    python benchmarks/against_authors.py --minutes 15 --data cifar10/ --out curves.png    # and L2 over time, drawn
    python benchmarks/against_authors.py --smoke            # seconds: checks that everything runs

Both have one level of 8 x 8 positions, two encoder blocks of 4 residual blocks, as many channels, M codebooks with EMA
and re-drawn codes; the same batches of 64 images of 32 x 32, AdamW at the same learning rate, gradients clipped at
norm 2; float32. The plain form has the blocks of the authors' public network, which computes more than ours: a 3x3
convolution before the residual blocks of each stage, and a last stage of them at full resolution. It is written as one
writes first: contiguous images, a loop over codebooks with the N x K distances of each in memory, one-hot EMA, and a
mixture in the style of PixelCNN++ written out over (B, H, W, C, K). A third contestant, "plain, our blocks", has that
code and the shape of our network, and says what is due to the code alone.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from measure import environment, print_rows, race
from torch import Tensor, nn

from depthq.data import open_images, training_loader
from depthq.likelihoods import LogisticMixtureLikelihood
from depthq.models import DQAE, DQAEConfig
from depthq.pixels import normalize
from depthq.training import paper_objective

BATCH = 64
LEARNING_RATE = 2e-4
SIZES = {
    "paper": {"channels": 64, "blocks": 4, "num_codebooks": 10, "codebook_size": 512, "codebook_dim": 64},
    "smoke": {"channels": 8, "blocks": 1, "num_codebooks": 2, "codebook_size": 8, "codebook_dim": 4},
}


def main() -> None:
    args = parse_arguments()
    size = SIZES["smoke" if args.smoke else "paper"]
    facts = {**size, "batch": BATCH, "precision": "float32", **environment()}
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    rounds = 1 if args.smoke else args.rounds
    for likelihood in ("l2", "logistic_mixture"):
        steps = {name: partial(step, images) for name, step in contestants(likelihood, size).items()}
        timings = race(steps, rounds=rounds, patience_s=600)
        print_rows(f"one training step, {likelihood}", timings, facts)
        for name, timing in timings.items():
            print(f"{name:20} {1e3 * BATCH / timing.median_ms:8.1f} images/s")
    mixtures = {name: partial(run, *mixture_batch(8 if args.smoke else BATCH)) for name, run in MIXTURES.items()}
    print_rows("log p of the mixture, forward and backward", race(mixtures, rounds=rounds + 1), facts)
    if args.minutes:
        race_to_error(args.minutes, args.data, size, facts, args.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds; the medians count")
    parser.add_argument("--minutes", type=float, help="how long the plain form trains, and ours at most")
    parser.add_argument("--data", default="bundled", help="what both learn, with --minutes")
    parser.add_argument("--out", type=Path, help="a PNG file of the squared error over time, with --minutes")
    parser.add_argument("--smoke", action="store_true", help="small networks, few rounds")
    args = parser.parse_args()
    if args.out and not args.minutes:
        parser.error("--out must come with --minutes, as there are no curves without; give both or neither")
    return args


def contestants(likelihood: str, size: dict[str, int]) -> dict[str, Callable[[Tensor], float]]:
    """One training step of each on images uint8 (B, 3, 32, 32); it returns the squared error, or nats per dim."""
    torch.manual_seed(0)
    config = DQAEConfig(
        likelihood=likelihood,  # type: ignore[arg-type]
        channels=(size["channels"],) * 2,
        num_residual_blocks=size["blocks"],
        num_codebooks=size["num_codebooks"],
        codebook_size=size["codebook_size"],
        codebook_dim=size["codebook_dim"],
        decay=0.99,
    )
    ours = DQAE(config)
    torch.manual_seed(0)
    plain = PlainDQAE(likelihood, **size)
    alike = PlainDQAE(likelihood, **size, like_ours=True)
    return {
        "depthq": trainer(ours, lambda images: _our_loss(ours, images)),
        "plain": trainer(plain, plain.loss),
        "plain, our blocks": trainer(alike, alike.loss),
    }


def trainer(model: nn.Module, loss_of: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)

    def step(images: Tensor) -> float:
        loss, error = loss_of(images)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
        return error.item()

    return step


def _our_loss(model: DQAE, images: Tensor) -> tuple[Tensor, Tensor]:
    terms = paper_objective(model, images, model(images))
    error = terms.metrics["mse_normalized"] if "mse_normalized" in terms.metrics else terms.loss.detach()
    return terms.loss, error


class PlainResidual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.relu(self.spatial(F.relu(x))))


class PlainCodebook(nn.Module):
    """One codebook, learned by EMA over one-hot codes; rare codes are re-drawn from the batch."""

    weight: Tensor
    count: Tensor
    total: Tensor

    def __init__(self, size: int, dim: int, decay: float = 0.99, epsilon: float = 1e-5):
        super().__init__()
        self.decay, self.epsilon = decay, epsilon
        self.register_buffer("weight", torch.randn(size, dim))
        self.register_buffer("count", torch.zeros(size))
        self.register_buffer("total", self.weight.clone())
        self.started = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codewords (N, D) of x (N, D) with the gradient straight through, and the commitment loss."""
        if not self.started:
            self.weight.copy_(x.detach()[torch.randperm(len(x))[: len(self.weight)]])
            self.total.copy_(self.weight)
            self.count.fill_(1)
            self.started = True
        distances = x.square().sum(1, keepdim=True) - 2 * x @ self.weight.t() + self.weight.square().sum(1)
        codes = distances.argmin(1)
        one_hot = F.one_hot(codes, len(self.weight)).type_as(x)
        codewords = one_hot @ self.weight
        with torch.no_grad():
            self.count.mul_(self.decay).add_(one_hot.sum(0), alpha=1 - self.decay)
            self.total.mul_(self.decay).add_(one_hot.t() @ x, alpha=1 - self.decay)
            n = self.count.sum()
            smoothed = (self.count + self.epsilon) / (n + len(self.count) * self.epsilon) * n
            self.weight.copy_(self.total / smoothed[:, None])
            rare = self.count < 0.1 * self.count.mean()
            drawn = x.detach()[torch.randint(len(x), (int(rare.sum()),))]
            self.weight[rare], self.total[rare] = drawn, drawn * self.count.mean()
            self.count[rare] = self.count.mean()
        return x + (codewords - x).detach(), F.mse_loss(x, codewords.detach())


class PlainDQAE(nn.Module):
    def __init__(
        self,
        likelihood: str,
        channels: int,
        blocks: int,
        num_codebooks: int,
        codebook_size: int,
        codebook_dim: int,
        like_ours: bool = False,
    ):
        super().__init__()
        self.is_mixture = likelihood == "logistic_mixture"
        outputs = LogisticMixtureLikelihood(3).num_parameters if self.is_mixture else 3

        def residuals() -> list[nn.Module]:
            return [PlainResidual(channels) for _ in range(blocks)]

        def stage() -> list[nn.Module]:
            return residuals() if like_ours else [nn.Conv2d(channels, channels, 3, padding=1), *residuals()]

        def up() -> list[nn.Module]:
            return [nn.ReLU(), nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)]

        self.encoder = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=2, padding=1), *stage(),
            nn.Conv2d(channels, channels, 4, stride=2, padding=1), *stage(),
            nn.Conv2d(channels, num_codebooks * codebook_dim, 1),
        )  # fmt: skip
        self.codebooks = nn.ModuleList(PlainCodebook(codebook_size, codebook_dim) for _ in range(num_codebooks))
        at_full = [nn.ReLU(), nn.Conv2d(channels, outputs, 1)]
        if not like_ours:
            at_full = [*stage(), nn.ReLU(), nn.Conv2d(channels, outputs, 3, padding=1)]
        self.decoder = nn.Sequential(
            nn.Conv2d(num_codebooks * codebook_dim, channels, 3, padding=1),
            *residuals(), *up(), *stage(), *up(), *at_full,
        )  # fmt: skip

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised, and the squared error or nats per dim in it."""
        latents = self.encoder(normalize(images))
        quantized, commitment = [], latents.new_zeros(())
        for codebook, part in zip(self.codebooks, latents.chunk(len(self.codebooks), dim=1), strict=True):
            rows = part.permute(0, 2, 3, 1)
            codewords, loss = codebook(rows.reshape(-1, rows.shape[-1]))
            quantized.append(codewords.view(rows.shape).permute(0, 3, 1, 2))
            commitment = commitment + loss
        parameters = self.decoder(torch.cat(quantized, dim=1))
        if self.is_mixture:
            error = -plain_mixture_log_prob(parameters, images).mean() / 3
        else:
            error = F.mse_loss(parameters, normalize(images))
        return error + 0.25 * commitment, error.detach()


def plain_mixture_log_prob(parameters: Tensor, images: Tensor) -> Tensor:
    """log p of pixels (B, H, W) in the style of PixelCNN++; parameters (B, P, H, W) in the order of ours."""
    num_components = LogisticMixtureLikelihood(3).num_components
    maps = parameters.permute(0, 2, 3, 1).unflatten(-1, (-1, num_components))  # (B, H, W, P / K, K)
    logits, means, log_scales, couplings = maps.split((1, 3, 3, 3), dim=3)
    log_scales, couplings = log_scales.clamp(min=-7), couplings.tanh()
    x = images.permute(0, 2, 3, 1)[..., None].float() / 127.5 - 1  # (B, H, W, 3, 1)
    x = x + torch.zeros_like(means)
    red, green, blue = means.unbind(3)
    green = green + couplings[..., 0, :] * x[..., 0, :]
    blue = blue + couplings[..., 1, :] * x[..., 0, :] + couplings[..., 2, :] * x[..., 1, :]
    centered = x - torch.stack([red, green, blue], dim=3)
    inverse_scales = torch.exp(-log_scales)
    upper, lower = inverse_scales * (centered + 1 / 255), inverse_scales * (centered - 1 / 255)
    middle = inverse_scales * centered
    inside = torch.sigmoid(upper) - torch.sigmoid(lower)
    log_density = middle - log_scales - 2 * F.softplus(middle) - math.log(127.5)
    log_inside = torch.where(inside > 1e-5, inside.clamp(min=1e-12).log(), log_density)
    log_above = torch.where(x > 0.999, -F.softplus(lower), log_inside)
    log_probs = torch.where(x < -0.999, upper - F.softplus(upper), log_above)
    return (log_probs.sum(3) + logits.squeeze(3).log_softmax(-1)).logsumexp(-1)


def mixture_batch(batch: int) -> tuple[Tensor, Tensor]:
    """Parameters as a decoder gives them in mid-training, and images."""
    likelihood = LogisticMixtureLikelihood(3)
    parameters = 0.5 * torch.randn(batch, likelihood.num_parameters, 32, 32)
    parameters[:, 40:70] -= 3  # log scales
    images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
    return parameters.to(memory_format=torch.channels_last), images


def _backward(log_prob: Callable[[Tensor, Tensor], Tensor], parameters: Tensor, images: Tensor) -> None:
    log_prob(parameters.detach().requires_grad_(), images).sum().backward()


MIXTURES = {
    "plain": partial(_backward, plain_mixture_log_prob),
    "depthq": partial(_backward, LogisticMixtureLikelihood(3).log_prob),
}


def race_to_error(minutes: float, data: str, size: dict[str, int], facts: dict, out: Path | None) -> None:
    """How long ours takes to the squared error that the plain form has after so many minutes, one after the other."""
    steps = contestants("l2", size)
    curves = {name: list(_curve(steps[name], data, 60 * minutes)) for name in ("plain", "depthq")}
    reached = curves["plain"][-1][1]
    seconds = next((at for at, error in curves["depthq"] if error <= reached), None)
    row = {"name": "seconds to the L2 of the plain form", "l2": reached, "plain": 60 * minutes, "depthq": seconds}
    print(json.dumps({**row, "data": data, **facts}))
    if out:
        draw(curves, out)


def draw(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for name, curve in curves.items():
        axes.plot([at / 60 for at, _ in curve], [error for _, error in curve], label=name)
    axes.set(xlabel="minutes of training", ylabel="L2, mean of 50 steps", yscale="log", xlim=0)
    axes.legend()
    figure.savefig(path, dpi=120)


def _curve(step: Callable[[Tensor], float], data: str, seconds: float) -> Iterator[tuple[float, float]]:
    """Seconds of training and the mean squared error of the last 50 steps, at every tenth step, once at least."""
    images = open_images(data, "train", image_size=32)
    errors, spent = [], 0.0
    for batch in training_loader(images, batch_size=BATCH, num_steps=10**9, seed=0):
        if spent >= seconds and len(errors) >= 10:
            return
        start = time.perf_counter()
        errors.append(step(batch))
        spent += time.perf_counter() - start
        if len(errors) % 10 == 0:
            yield spent, sum(errors[-50:]) / len(errors[-50:])


if __name__ == "__main__":
    main()
