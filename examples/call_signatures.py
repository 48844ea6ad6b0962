"""Our quantizers with the calls of three public code bases that are no packages: taming-transformers, LlamaGen, UniTok.

Copy the class you need, and set it where theirs is made. Each returns what theirs returns, in its shapes; the losses
are ours, so check their weights in your objective (docs/swap.md).
"""

from typing import Any

from torch import Tensor, nn

from depthq import DepthwiseQuantizer


class TamingQuantizer(nn.Module):
    """As `VectorQuantizer2(n_e, e_dim, beta)` of taming-transformers, taming/modules/vqvae/quantize.py.

    `num_codebooks` M cuts e_dim into M slices; indices are then (B H W, M) instead of (B H W,).
    """

    def __init__(self, n_e: int, e_dim: int, beta: float, num_codebooks: int = 1, **options: Any):
        super().__init__()
        self.quantizer = DepthwiseQuantizer(e_dim, num_codebooks, n_e, commitment_weight=beta, **options)

    def forward(self, z: Tensor, temp=None, rescale_logits=False, return_logits=False):
        """z (B, C, H, W) to (quantized, loss, (None, None, indices)); the other arguments are ignored, as there."""
        out = self.quantizer(z)
        return out.quantized, out.loss, (None, None, out.codes.movedim(1, -1).flatten(0, -2).squeeze(1))

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """Quantized (B, C, H, W) for a shape (B, H, W, C)."""
        batch, height, width, _ = shape
        codes = indices.view(batch, height, width, self.quantizer.num_codebooks)
        return self.quantizer.decode(codes.movedim(-1, 1))


class LlamaGenQuantizer(nn.Module):
    """As `VectorQuantizer(n_e, e_dim, beta, entropy_loss_ratio, l2_norm, show_usage)` of LlamaGen.

    Theirs learns the codebook by gradient, so ours does; their entropy loss has the temperature 0.01.
    """

    def __init__(
        self,
        n_e: int,
        e_dim: int,
        beta: float,
        entropy_loss_ratio: float,
        l2_norm: bool,
        show_usage: bool,
        num_codebooks: int = 1,
    ):
        super().__init__()
        self.show_usage = show_usage
        self.quantizer = DepthwiseQuantizer(
            e_dim,
            num_codebooks,
            n_e,
            commitment_weight=beta,
            codebook_update="gradient",
            distance="cosine" if l2_norm else "euclidean",
            entropy_weight=entropy_loss_ratio,
            inverse_temperature=100.0,
        )

    def forward(self, z: Tensor):
        """z (B, C, H, W) to (quantized, (vq, commitment, entropy loss, usage), (None, None, indices)); losses None in
        eval."""
        out = self.quantizer(z)
        usage = float(self.quantizer.health().usage.mean()) if self.show_usage and self.training else 0
        losses = out.codebook_loss, self.quantizer.commitment_weight * out.commitment_loss, out.entropy_loss
        indices = out.codes.movedim(1, -1).flatten(0, -2).squeeze(1)
        return out.quantized, (*(losses if self.training else (None,) * 3), usage), (None, None, indices)

    def get_codebook_entry(self, indices: Tensor, shape=None, channel_first: bool = True) -> Tensor:
        """Quantized (B, C, H, W) for that shape, (B, H, W, C) if not `channel_first`; without a shape (N, C)."""
        codes = indices.view(-1, self.quantizer.num_codebooks)
        rows = self.quantizer.decode(codes)  # (N, C)
        if shape is None:
            return rows
        if not channel_first:
            return rows.view(shape)
        batch, channels, height, width = shape
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


class UniTokQuantizer(nn.Module):
    """As `VectorQuantizerM(vocab_size, vocab_width, beta, use_entropy_loss, entropy_temp, num_codebooks)` of UniTok.

    As there, vocab_size and vocab_width count all codebooks together, and vectors and codewords have length 1.
    """

    def __init__(
        self,
        vocab_size: int,
        vocab_width: int,
        beta: float = 0.25,
        use_entropy_loss: bool = False,
        entropy_temp: float = 0.01,
        num_codebooks: int = 16,
    ):
        super().__init__()
        self.quantizer = DepthwiseQuantizer(
            vocab_width,
            num_codebooks,
            vocab_size // num_codebooks,
            axis=-1,
            commitment_weight=beta,
            codebook_update="gradient",
            distance="cosine",
            entropy_weight=float(use_entropy_loss),
            inverse_temperature=1 / entropy_temp,
        )

    def forward(self, features: Tensor):
        """features (B, L, C) to (quantized, vq loss, entropy loss, usages), each a mean over codebooks as theirs."""
        out, num_codebooks = self.quantizer(features), self.quantizer.num_codebooks
        vq_loss = (out.codebook_loss + self.quantizer.commitment_weight * out.commitment_loss) / num_codebooks
        usages = 100 * self.quantizer.health().usage.mean()  # per cent
        return out.quantized, vq_loss, out.entropy_loss / num_codebooks, usages

    def f_to_idx(self, features: Tensor) -> Tensor:
        """Codes int64 (B, M, L) of features (B, L, C)."""
        return self.quantizer.encode(features)

    def idx_to_f(self, indices: Tensor) -> Tensor:
        """Features (B, L, C) of codes (B, M, L)."""
        return self.quantizer.decode(indices)
