"""Depthwise quantization (Sec. 4): each slice of the feature axis has its own codebook."""

from collections.abc import Iterable, Sequence
from typing import Any, Self, Unpack

import torch
from torch import nn

from depthq.quantizers.base import as_size, keep_columns, one_or_all
from depthq.quantizers.learned import CodebookOptions, SingleStageQuantizer, per_codebook


class DepthwiseQuantizer(SingleStageQuantizer):
    """Cuts a feature tensor along one axis into M slices and quantizes each with its own codebook (Eq. 3-5).

    An axis that M does not divide is padded with zeros to M equal slices (512 -> 7 x 74 in Sec. 5.1), and the padding
    is removed on the way out; give `codebook_dim` as a sequence for slices of different width instead.

    Args:
        dim: Size C of the split axis.
        num_codebooks: M, the number of slices; at most `dim`.
        codebook_size: K, an int or one per codebook; at least 1.
        codebook_dim: D, an int or one per codebook; by default ceil(dim / M). An int may leave padding; the entries of
            a sequence must sum to `dim`. If M of them are fewer than `dim`, linear layers lead from `dim` to M * D
            entries and back (`project_in`, `project_out`): the factorised codes of ViT-VQGAN (Yu et al. 2021).
        options: The others are those of `CodebookOptions`.

    Raises:
        ValueError: If a size or an option is out of range, or slices and `dim` do not fit.
        TypeError: If there is no such option.

    Example:
        >>> quantizer = DepthwiseQuantizer(dim=640, num_codebooks=10, codebook_size=512)
        >>> out = quantizer(torch.randn(4, 640, 8, 8))
        >>> out.quantized.shape, out.codes.shape
        (torch.Size([4, 640, 8, 8]), torch.Size([4, 10, 8, 8]))
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int | Sequence[int],
        *,
        codebook_dim: int | Sequence[int] | None = None,
        **options: Unpack[CodebookOptions],
    ):
        dim, num_codebooks = as_size("dim", dim), as_size("num_codebooks", num_codebooks)
        inner = inner_dim(dim, num_codebooks, codebook_dim)
        dims = _slice_dims(inner, num_codebooks, codebook_dim)
        projected = (inner, inner) if inner < dim else None
        super().__init__(dim, dim, codebook_size, dims, projected=projected, **options)
        overhang = sum(dims) - inner
        self._widths = (*dims[:-1], dims[-1] - overhang)  # columns of x in each slice
        if self.state.is_cosine and min(self._widths) == 1:
            raise ValueError(
                "dim must leave each slice at least 2 entries for distance='cosine', as one number of length 1 passes "
                f"no gradient; got slices of {self._widths}; take distance='euclidean', or another num_codebooks"
            )

    @classmethod
    def _sizes_of(cls, shapes: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Each codebook has a slice of its own."""
        dims = [dim for _, dim in shapes]
        sizes = [size for size, _ in shapes]
        return {"dim": sum(dims), "num_codebooks": len(shapes), "codebook_size": sizes, "codebook_dim": dims}

    def to_faiss(self):
        """A trained, empty `faiss.IndexPQ` on the CPU with these codebooks, whose codes equal those of `encode`.

        Vectors that two codewords are equally near to, up to float32 rounding, may differ.

        Raises:
            ValueError: If the slices are padded or of different width, or K is not one power of two.
            ImportError: If faiss is not installed.
        """
        size = self.codebook_sizes[0]
        if set(self.codebook_sizes) != {size} or size & (size - 1) or size == 1:
            raise ValueError(f"codebook_size must be one power of two for faiss; got {one_or_all(self.codebook_sizes)}")
        if self._is_padded:
            raise ValueError(
                f"dim must be num_codebooks equal slices for faiss; got dim={self.dim} and "
                f"codebook_dim={one_or_all(self.state.codebook_dims)} for {self.num_codebooks} codebooks"
            )
        if self.project_in is not None:
            raise ValueError(
                f"codebook_dim must be the slice's width for faiss; got {self.state.codebook_dims[0]} behind a "
                "projection; project before the index, and build a quantizer of the projected size"
            )
        if self.state.is_cosine:
            raise ValueError(
                "distance must be 'euclidean' for faiss, whose product quantizer knows no other; got 'cosine'"
            )
        faiss = _import_faiss("to_faiss")
        index = faiss.IndexPQ(self.dim, self.num_codebooks, size.bit_length() - 1)
        faiss.copy_array_to_vector(self.state.weight.detach().cpu().numpy().ravel(), index.pq.centroids)
        index.is_trained = True
        return index

    @classmethod
    def from_faiss(cls, index: Any, **options: Any) -> Self:
        """Ours with the codebooks of a trained `faiss.IndexPQ`: the codes of `encode` equal those of the index.

        Args:
            index: What faiss has in memory; `faiss.read_index` reads a file.
            options: As for the class, but for sizes.

        Raises:
            ValueError: If it is another kind of index, or not trained.
            ImportError: If faiss is not installed.
        """
        faiss = _import_faiss("from_faiss")
        if not isinstance(index, faiss.IndexPQ):  # that of an IndexIVFPQ, say, is of residuals
            raise ValueError(
                f"index must be a trained faiss.IndexPQ; got {type(index).__name__}; train one on the vectors"
            )
        if not index.is_trained:
            raise ValueError("index must be a trained faiss.IndexPQ; got IndexPQ, not trained; train it first")
        pq = index.pq
        centroids = faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
        return cls.from_codebooks(torch.from_numpy(centroids), **options)

    @property
    def _is_padded(self) -> bool:
        return set(self._widths) != set(self.state.codebook_dims) or len(set(self._widths)) > 1

    def _keep(self, quantized, codes, num_kept):
        return keep_columns(quantized, self._widths, num_kept)

    def _slots(self, rows):
        if not self._is_padded:
            return rows.unflatten(1, (self.num_codebooks, -1))
        width = max(self.state.codebook_dims)
        return torch.stack([nn.functional.pad(x, (0, width - x.shape[1])) for x in rows.split(self._widths, 1)], 1)

    def _join(self, slots):
        if not self._is_padded:
            return slots.flatten(1)
        return torch.cat([slots[:, m, :width] for m, width in enumerate(self._widths)], 1)


def _import_faiss(wanted_by: str) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(f"faiss must be installed for {wanted_by}; run pip install faiss-cpu") from error
    return faiss


def inner_dim(dim: int, num_codebooks: int, codebook_dim: int | Sequence[int] | None) -> int:
    """Entries of a row that slices are cut from: `dim`, or fewer behind a projection."""
    if codebook_dim is None or isinstance(codebook_dim, Iterable):
        return dim
    return min(dim, num_codebooks * as_size("codebook_dim", codebook_dim))


def _slice_dims(dim: int, num_codebooks: int, codebook_dim: int | Sequence[int] | None) -> tuple[int, ...]:
    """Width of each slice; equal slices may overhang `dim` by zero padding, but none may be padding alone."""
    dims = per_codebook(
        "codebook_dim", -(-dim // num_codebooks) if codebook_dim is None else codebook_dim, num_codebooks
    )
    if not isinstance(codebook_dim, Iterable):
        if not _fills(dim, num_codebooks, dims[0]):
            raise ValueError(
                f"dim must fill num_codebooks slices of codebook_dim, padding less than one slice; got dim={dim}, "
                f"num_codebooks={num_codebooks}, codebook_dim={dims[0]}; {_remedy(dim, num_codebooks, codebook_dim)}"
            )
    elif sum(dims) != dim:
        raise ValueError(f"codebook_dim must sum to dim={dim}; got {list(dims)} with sum {sum(dims)}")
    return dims


def _fills(dim: int, num_codebooks: int, codebook_dim: int) -> bool:
    return (num_codebooks - 1) * codebook_dim < dim <= num_codebooks * codebook_dim


def _remedy(dim: int, num_codebooks: int, codebook_dim: int | None) -> str:
    """The nearest numbers of codebooks whose slices fill `dim`, and what else there is to give."""
    below = range(min(num_codebooks - 1, dim), 0, -1)
    above = range(num_codebooks + 1, dim + 1)
    nearest = [
        next((str(number) for number in numbers if _fills(dim, number, codebook_dim or -(-dim // number))), None)
        for numbers in (below, above)
    ]
    remedy = f"take {' or '.join(filter(None, nearest))} codebooks"
    if num_codebooks > dim:
        return remedy
    if codebook_dim is not None:
        return f"{remedy}, or a smaller codebook_dim, which projects"
    return f"{remedy}, or in Python one codebook_dim per codebook"
