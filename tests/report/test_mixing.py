import pytest
import torch

from depthq.codes import Codes
from depthq.report.mixing import decode_each_level, mix_codebooks, mix_levels, mix_positions


def constant_codes(code: int) -> Codes:
    """Two levels, 2 x 2 and 4 x 4, of three codebooks that all say `code`."""
    levels = tuple(torch.full((1, 3, side, side), code) for side in (2, 4))
    return Codes(levels, ((2, 2, 2), (2, 2, 2)))


A, B = constant_codes(0), constant_codes(1)


@pytest.mark.parametrize(("mix", "total"), [(mix_positions, 4), (mix_codebooks, 3)])
def test_a_mix_goes_from_one_image_to_the_other(mix, total):
    for count, end in ((0, A), (total, B)):
        assert all(torch.equal(*maps) for maps in zip(mix(A, B, count).levels, end.levels, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_positions_change_over_as_wholes(count):
    coarse, fine = mix_positions(A, B, count).levels
    assert coarse.float().mean() == fine.float().mean() == count / 4
    assert torch.equal(fine, coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert torch.equal(coarse, coarse[:, :1].expand_as(coarse))  # all codebooks together


def test_positions_once_changed_stay_changed():
    one, two, three = (mix_positions(A, B, count).levels[0] for count in (1, 2, 3))
    assert (one <= two).all()
    assert (two <= three).all()


def test_codebooks_change_over_one_after_the_other():
    for level in mix_codebooks(A, B, 2).levels:
        assert level[0, :, 0, 0].tolist() == [1, 1, 0]
        assert torch.equal(level, level[:, :, :1, :1].expand_as(level))


def test_levels_are_swapped_whole():
    coarse, fine = mix_levels(A, B).levels
    assert (coarse == 0).all()
    assert (fine == 1).all()


def test_each_level_alone(make_model, images):
    model = make_model()
    codes = model.encode(images[:2])
    alone = decode_each_level(model, codes)
    assert len(alone) == 2
    assert torch.equal(alone[1], model.decode(codes, levels=[1]))
    assert not torch.equal(alone[0], alone[1])


def test_sequences_mix_too():
    a, b = (Codes((torch.full((1, 3, 4), code), torch.full((1, 3, 8), code)), ((2,) * 3,) * 2) for code in (0, 1))
    coarse, fine = mix_positions(a, b, 1).levels
    assert coarse.float().mean() == fine.float().mean() == 1 / 4
    assert mix_codebooks(a, b, 2).levels[1][0, :, 0].tolist() == [1, 1, 0]
