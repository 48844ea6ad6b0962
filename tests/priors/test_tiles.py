"""Codes of images larger than a prior was made for: cut into tiles of the trained grid, each priced on its own."""

import pytest
import torch

from depthq.codes import Codes
from depthq.priors import TransformerPrior, UniformPrior, cut, grids_of, nll_nats_of_tiles, tiles, tiles_of

SIZES = ((5, 3), (7, 7))


def codes_on(height, width, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = (
        torch.stack(
            [torch.randint(size, (batch, height * scale, width * scale), generator=generator) for size in sizes], 1
        )
        for sizes, scale in zip(SIZES, (1, 2), strict=True)
    )
    return Codes(tuple(levels), SIZES)


@pytest.fixture
def prior():
    torch.manual_seed(0)
    return TransformerPrior(SIZES, [(2, 3), (4, 6)], width=16, num_layers=1, num_heads=2).eval()


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((2, 3), [(0, 0, 2, 3, 1, 1)]),
        ((4, 3), [(0, 0, 2, 3, 2, 1)]),
        ((5, 7), [(0, 0, 2, 3, 2, 2), (0, 6, 2, 1, 2, 1), (4, 0, 1, 3, 1, 2), (4, 6, 1, 1, 1, 1)]),
        ((1, 2), [(0, 0, 1, 2, 1, 1)]),
    ],
)
def test_a_grid_is_covered_by_whole_tiles_and_what_is_left(prior, grid, expected):
    found = tiles_of(prior, [grid, (2 * grid[0], 2 * grid[1])])
    assert [(t.top, t.left, t.height, t.width, t.down, t.across) for t in found] == expected


def test_few_tiles_are_dealt_with_at_once(prior, monkeypatch):
    monkeypatch.setattr(tiles, "TILES_AT_ONCE", 5)
    found = tiles_of(prior, [(9, 6), (18, 12)])
    assert [(t.top, t.height, t.down, t.across) for t in found] == [(0, 2, 2, 2), (4, 2, 2, 2), (8, 1, 1, 2)]
    codes = codes_on(9, 6)
    expected = nll_nats_of_tiles(prior, codes)
    monkeypatch.setattr(tiles, "TILES_AT_ONCE", 512)
    torch.testing.assert_close(nll_nats_of_tiles(prior, codes), expected)


@pytest.mark.parametrize("at_once", [1, 512])
def test_what_is_cut_can_be_pasted_back(prior, monkeypatch, at_once):
    monkeypatch.setattr(tiles, "TILES_AT_ONCE", at_once)
    codes = codes_on(5, 7)
    levels = [torch.full_like(level, -1) for level in codes.levels]
    for group in tiles_of(prior, grids_of(codes)):
        part = cut(codes, group)
        assert grids_of(part) == group.grids
        for level, of_part, scale in zip(levels, part.levels, group.scales, strict=True):
            group.paste(of_part, level, scale)
    assert all(map(torch.equal, levels, codes.levels))


def test_each_tile_costs_what_it_costs_alone(prior):
    codes = codes_on(4, 6)
    alone = [
        Codes(
            tuple(
                level[:, :, top * scale : (top + 2) * scale, left * scale : (left + 3) * scale]
                for level, scale in zip(codes.levels, (1, 2), strict=True)
            ),
            SIZES,
        )
        for top in (0, 2)
        for left in (0, 3)
    ]
    torch.testing.assert_close(nll_nats_of_tiles(prior, codes), sum(prior.nll_nats(tile) for tile in alone))


def test_codes_of_the_trained_grid_cost_what_the_prior_says(prior):
    codes = codes_on(2, 3)
    torch.testing.assert_close(nll_nats_of_tiles(prior, codes), prior.nll_nats(codes), rtol=0, atol=0)


def test_a_prior_that_suits_any_grid_sees_codes_whole():
    uniform = UniformPrior(SIZES, [(2, 3), (4, 6)])
    assert tiles_of(uniform, [(4, 6), (8, 12)]) == []
    assert nll_nats_of_tiles(uniform, codes_on(4, 6)).tolist() == uniform.nll_nats(codes_on(4, 6)).tolist()
