"""Residual against depthwise quantization of audio, at equal bits, in a small 1-D auto-encoder.

    python examples/audio.py music.wav --steps 2000

The network halves time four times (16 samples per position), as EnCodec's does more deeply; four codebooks of 64 codes
are 24 bits per position. The last tenth of the file is for testing.
"""

import argparse
import time
import wave

import numpy as np
import torch
from torch import Tensor, nn

import depthq

WIDTH, DIM, SAMPLES = 32, 32, 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wav", help="a mono or stereo WAV file of 8 or 16 bits")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    audio = read_wav(args.wav)
    cut = len(audio) * 9 // 10
    print("quantizer         SNR (dB)   perplexity of 64   seconds per step")
    for name, make in {
        "residual": lambda: depthq.ResidualQuantizer(DIM, 4, 64, decay=0.9),
        "depthwise": lambda: depthq.DepthwiseQuantizer(DIM, 4, 64, decay=0.9),
    }.items():
        for seed in range(args.seeds):
            snr, perplexity, seconds = train(make, audio[:cut], audio[cut:], args.steps, seed)
            print(f"{name:14}{snr:12.2f}{perplexity:19.1f}{seconds:19.4f}", flush=True)


def read_wav(path: str) -> Tensor:
    """Samples in -1..1, channels averaged."""
    with wave.open(path) as file:
        raw, width, channels = file.readframes(file.getnframes()), file.getsampwidth(), file.getnchannels()
    samples = np.frombuffer(raw, np.uint8).astype(np.float32) - 128 if width == 1 else np.frombuffer(raw, np.int16)
    return torch.from_numpy(samples.reshape(-1, channels).mean(1).astype(np.float32) / 2 ** (8 * width - 1))


class Network(nn.Module):
    """(B, 1, T) through the codes and back."""

    def __init__(self, quantizer: nn.Module):
        super().__init__()
        down = [nn.Conv1d(1, WIDTH, 7, padding=3)]
        up = [nn.Conv1d(DIM, WIDTH, 3, padding=1)]
        for _ in range(4):
            down += [nn.ELU(), nn.Conv1d(WIDTH, WIDTH, 4, stride=2, padding=1)]
            up += [nn.ELU(), nn.ConvTranspose1d(WIDTH, WIDTH, 4, stride=2, padding=1)]
        self.encoder = nn.Sequential(*down, nn.ELU(), nn.Conv1d(WIDTH, DIM, 3, padding=1))
        self.quantizer = quantizer
        self.decoder = nn.Sequential(*up, nn.ELU(), nn.Conv1d(WIDTH, 1, 7, padding=3))

    def forward(self, audio: Tensor):
        out = self.quantizer(self.encoder(audio))
        return self.decoder(out.quantized), out


def train(make, audio: Tensor, unseen: Tensor, steps: int, seed: int) -> tuple[float, float, float]:
    """Signal-to-noise ratio of the unseen part in dB, mean perplexity of its codes, seconds per step."""
    torch.manual_seed(seed)
    network = Network(make())
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    began = time.perf_counter()
    for _ in range(steps):
        starts = torch.randint(len(audio) - SAMPLES, (16,))
        batch = torch.stack([audio[start : start + SAMPLES] for start in starts])[:, None]
        decoded, out = network(batch)
        optimizer.zero_grad()
        ((decoded - batch).square().mean() / audio.var() + out.loss).backward()
        optimizer.step()
        schedule.step()
    seconds = (time.perf_counter() - began) / steps
    whole = unseen[: len(unseen) // 16 * 16][None, None]
    with torch.no_grad():
        decoded, out = network.eval()(whole)
    noise = (decoded - whole).square().mean()
    return float(10 * torch.log10(whole.var() / noise)), float(out.perplexity.mean()), seconds


if __name__ == "__main__":
    main()
