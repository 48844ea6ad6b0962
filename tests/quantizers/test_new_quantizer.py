"""A quantizer of one's own, written here alone: it keeps the contract, and trains in a DQ-AE through the registry."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quantizer_table import Row, concat, slices
from torch import Tensor

from depthq import DQAE
from depthq.models import PRESETS, QUANTIZERS
from depthq.quantizers import QuantizedRows, Quantizer
from depthq.quantizers.straight_through import pass_gradient
from depthq.training import paper_objective


class RoundingQuantizer(Quantizer):
    """Each number becomes the nearest of 0, 1, .., K - 1: M codebooks of one dimension."""

    def __init__(self, num_codebooks: int, codebook_size: int, **options):
        super().__init__(num_codebooks, num_codebooks, (codebook_size,) * num_codebooks, **options)

    def _quantize(self, rows: Tensor, global_rows) -> QuantizedRows:
        codes, no_loss = self._search(rows), rows.new_zeros(())
        return QuantizedRows(pass_gradient(rows, codes.float()), codes, no_loss, no_loss, no_loss)

    def _search(self, rows: Tensor) -> Tensor:
        return rows.nan_to_num().clamp(0, self.codebook_sizes[0] - 1).round().long()

    def _lookup(self, codes: Tensor) -> Tensor:
        return codes.float()


def whole_numbers(quantizer):
    return [torch.arange(float(size))[:, None] for size in quantizer.codebook_sizes]


TABLE = {
    "rounding": Row(
        lambda **options: RoundingQuantizer(3, 8, **options), slices(1, 1, 1), concat, whole_numbers, commits=False
    )
}


def laws(file: str) -> dict:
    """The tests of a file beside this one."""
    spec = importlib.util.spec_from_file_location(f"laws_of_{Path(file).stem}", Path(__file__).with_name(file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: law for name, law in vars(module).items() if name.startswith("test_")}


globals().update(laws("test_contract.py") | laws("test_codes_contract.py"))  # they run on the table above


@pytest.fixture
def registered(monkeypatch):
    def make(num_codebooks, codebook_size, codebook_dim, options):
        return RoundingQuantizer(num_codebooks, codebook_size)

    monkeypatch.setitem(QUANTIZERS, "rounding", make)


def test_it_trains_in_a_dqae(registered):
    torch.manual_seed(0)
    model = DQAE(replace(PRESETS["tiny"], quantizer="rounding", codebook_size=(8, 16)))
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    errors = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = paper_objective(model, images, model(images)).loss
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.95 * errors[0]
    codes = model.eval().encode(images)
    assert codes.codebook_sizes == ((8, 8), (16, 16))
    assert torch.equal(model.decode(codes), model.reconstruct(images))


def test_an_incomplete_quantizer_cannot_be_made():
    class Incomplete(Quantizer):
        def _search(self, rows):
            return rows

    with pytest.raises(TypeError, match="abstract"):
        Incomplete(4, 4, (8,))  # type: ignore[abstract]
