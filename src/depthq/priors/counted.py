"""A prior that is counted, not trained."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from depthq.codes import Codes
from depthq.priors.base import CodePrior, Grid, Group, grids_of

_MARGINAL_WEIGHT = 0.5
"""Added to every count: a code that never occurred costs something finite (Krichevsky and Trofimov 1981)."""


class CountedPrior(CodePrior, kind="counted"):
    """How often each code occurs, or how often beside each left neighbour of its own codebook.

    p(c) = (n(c) + 1/2) / (N + K/2), and given the neighbour p(c | left) = (n(left, c) + K p(c)) / (n(left) + K): a
    table that has seen little falls back on the frequencies. Codebooks are independent of each other. In the first
    column, where there is no neighbour, a code costs what p(c) says.

    Args:
        codebook_sizes: Per level, coarse to fine, K of each codebook.
        grids: Per level (H, W) of samples.
        given_left: Whether codes are counted beside their left neighbour. The tables hold K^2 numbers per codebook.

    Example:
        >>> codes = Codes((torch.tensor([[[[0, 0, 1]]]]),), ((2,),))
        >>> prior = CountedPrior.from_codes([codes])
        >>> prior.nll_nats(codes).exp()  # 1 / (2.5/4 * 2.5/4 * 1.5/4)
        tensor([6.8267], dtype=torch.float64)
    """

    def __init__(
        self, codebook_sizes: Sequence[Sequence[int]], grids: Sequence[Sequence[int]], given_left: bool = False
    ):
        super().__init__(codebook_sizes, grids, given_left=given_left)
        self.given_left = given_left
        for level, sizes in enumerate(self.codebook_sizes):
            for codebook, size in enumerate(sizes):
                # Row 0 for codes without a neighbour, row 1 + c for those beside c.
                shape = (1 + size if given_left else 1, size)
                self.register_buffer(_name(level, codebook), torch.zeros(shape, dtype=torch.float64))

    @classmethod
    def from_codes(cls, batches: Iterable[Codes], given_left: bool = False) -> "CountedPrior":
        """Count the codes of all batches, which must have the same codebooks and be maps.

        Raises:
            ValueError: If there are no batches, or they are not as above.
        """
        prior = None
        for codes in batches:
            if prior is None:
                prior = cls(codes.codebook_sizes, grids_of(codes), given_left)
            prior._check(codes)
            prior._count(codes)
        if prior is None:
            raise ValueError("batches must hold at least one image's codes; got none")
        for buffer in prior.buffers():
            buffer.copy_(_smoothed_log(buffer))
        return prior

    def _count(self, codes: Codes) -> None:
        for table, now, row in self._codes_and_rows(codes):
            cells = row * table.shape[1] + now
            table.view(-1).add_(torch.bincount(cells.flatten(), minlength=table.numel()).double())

    def _nll_nats(self, codes: Codes) -> Tensor:
        nats = torch.zeros(len(codes), dtype=torch.float64, device=self.device)
        for table, now, row in self._codes_and_rows(codes):
            nats -= table[row, now].flatten(1).sum(1)
        return nats

    def _codes_and_rows(self, codes: Codes) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each codebook its table, its codes (B, H, W), and the row of the table that each looks up."""
        grids_of(codes)
        for level, maps in enumerate(codes.levels):
            for codebook, now in enumerate(maps.to(self.device).unbind(1)):
                row = torch.zeros_like(now)
                if self.given_left:
                    row[..., 1:] = 1 + now[..., :-1]
                yield self._table(level, codebook), now, row

    def walk(self, levels: Sequence[Tensor], grids: Sequence[Grid]) -> Iterator[Group]:
        """As `CodePrior.walk`: all codes of a position at once."""
        for level, (codes, (height, width)) in enumerate(zip(levels, grids, strict=True)):
            tables = [self._table(level, codebook) for codebook in range(codes.shape[1])]
            for position in range(height * width):
                rows = torch.zeros_like(codes[:, :, 0])
                if self.given_left and position % width:
                    rows = 1 + codes[:, :, position - 1]
                logits = [table[row] for table, row in zip(tables, rows.unbind(1), strict=True)]
                yield Group(level, position, range(len(tables)), logits)

    def _table(self, level: int, codebook: int) -> Tensor:
        """Log-probabilities (rows, K)."""
        return self.get_buffer(_name(level, codebook))


def _name(level: int, codebook: int) -> str:
    return f"level_{level}_codebook_{codebook}"


def _smoothed_log(counts: Tensor) -> Tensor:
    """Log-probabilities of counts (rows, K)."""
    size = counts.shape[1]
    marginal = counts.sum(0) + _MARGINAL_WEIGHT
    marginal /= marginal.sum()
    smoothed = counts + size * marginal
    smoothed /= smoothed.sum(1, keepdim=True)
    smoothed[0] = marginal
    return smoothed.log()
