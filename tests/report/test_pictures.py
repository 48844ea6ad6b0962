import numpy as np
import pytest
import torch

from depthq.codes import Codes
from depthq.report import draw_pictures, pictures
from depthq.report.mixing import mix_codebooks, mix_positions
from depthq.report.plots import tile


def untiled(monkeypatch, runs, images):
    """Pictures by name, before rows of them become one."""
    monkeypatch.setattr(pictures, "tile", lambda rows: rows)
    return draw_pictures(runs, images)


def test_all_pictures_of_two_levels(analyzed, images):
    drawn = draw_pictures([analyzed()], images[:4])
    assert list(drawn) == ["levels", "prefixes", "interpolation", "swap"]
    for picture in drawn.values():
        assert np.asarray(picture).std() > 0


def test_runs_of_different_depth_stand_side_by_side(monkeypatch, analyzed, images):
    drawn = untiled(monkeypatch, [analyzed("two"), analyzed("one", codebook_size=8)], images[:2])
    assert {name: [len(row) for row in rows] for name, rows in drawn.items()} == {
        "levels": [1, 1],
        "prefixes": [1, 1],
        "interpolation": [1, 1, 1, 1],
        "swap": [1],
    }


def test_one_level_has_no_swap_and_no_level_alone(monkeypatch, analyzed, images):
    drawn = untiled(monkeypatch, [analyzed(codebook_size=8)], images[:4])
    assert "swap" not in drawn
    assert "usage_level1" not in drawn
    assert "levels" not in drawn
    axes = drawn["reconstructions"][0][0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["original", "reconstructed"]
    assert axes.get_title() == "ours: reconstructions"


def panels_of(figure, height: int = 16) -> list[list[torch.Tensor]]:
    """The images of a grid, rows of uint8 (C, H, W), at their own size."""
    pixels = torch.as_tensor(np.array(figure.axes[0].get_images()[0].get_array())).permute(2, 0, 1)
    zoom = 96 // height
    step = zoom * height + pictures.GAP_PX
    return [
        [
            pixels[:, top : top + step - pictures.GAP_PX : zoom, left : left + step - pictures.GAP_PX : zoom]
            for left in range(0, pixels.shape[2], step)
        ]
        for top in range(0, pixels.shape[1], step)
    ]


def column_names(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_interpolation_takes_whole_codebooks_and_positions(monkeypatch, analyzed, images):
    """Three codebooks, and 16 positions on the coarse level."""
    run = analyzed()
    [[positions], [codebooks]] = untiled(monkeypatch, [run], images[:4])["interpolation"]
    assert column_names(positions) == ["original", *(f"{n} of 16" for n in (0, 3, 6, 10, 13, 16)), "original"]
    assert column_names(codebooks) == ["original", "0 of 3", "1 of 3", "2 of 3", "3 of 3", "original"]
    assert codebooks.axes[0].get_xlabel() == "codebooks of each level whose codes are the second image's"
    codes = run.model.encode(images[:4])
    for figure, mix, counts in (
        (positions, mix_positions, (0, 3, 6, 10, 13, 16)),
        (codebooks, mix_codebooks, range(4)),
    ):
        for pair, row in enumerate(panels_of(figure)):
            a, b = 2 * pair, 2 * pair + 1
            mixed = [run.model.decode(mix(codes[a : a + 1], codes[b : b + 1], count))[0] for count in counts]
            for shown, expected in zip(row, [images[a], *mixed, images[b]], strict=True):
                assert torch.equal(shown, expected)


def test_one_image_has_nothing_to_interpolate_to(monkeypatch, analyzed, images):
    assert "interpolation" not in untiled(monkeypatch, [analyzed()], images[:1])


def test_prefixes_show_more_and_more_of_the_codes(monkeypatch, analyzed, images):
    run = analyzed()
    [[figure]] = untiled(monkeypatch, [run], images[:2])["prefixes"]
    codes = run.model.encode(images[:2])
    expected = {
        "original": images[:2],
        "level 0": run.model.decode(codes, levels=[0]),
        "first codebook": run.model.decode(codes, num_codebooks=1),
        "first 2 codebooks": run.model.decode(codes, num_codebooks=2),
        "all codes": run.model.decode(codes),
    }
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(expected)
    for panels, expectations in zip(panels_of(figure), expected.values(), strict=True):
        for panel, expectation in zip(panels, expectations, strict=True):
            assert torch.equal(panel, expectation)


def test_levels_show_what_each_decodes_to(monkeypatch, analyzed, images):
    run = analyzed()
    [[figure]] = untiled(monkeypatch, [run], images[:2])["levels"]
    codes = run.model.encode(images[:2])
    expected = [images[:2], *(run.model.decode(codes, levels=levels) for levels in ([0], [1], [0, 1]))]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "original",
        "level 0 alone",
        "level 1 alone",
        "all levels",
    ]
    for row, made in zip(panels_of(figure), expected, strict=True):
        assert torch.equal(torch.stack(row), made)


def test_swap_shows_level_0_of_the_row_and_the_rest_of_the_column(monkeypatch, analyzed, images):
    run = analyzed()
    [[figure]] = untiled(monkeypatch, [run], images[:2])["swap"]
    (corner, *above), *rows = panels_of(figure)
    assert (corner == 255).all()
    assert torch.equal(torch.stack(above), images[:2])
    codes = [run.model.encode(image[None]) for image in images[:2]]
    for coarse, (beside, *swapped) in enumerate(rows):
        assert torch.equal(beside, images[coarse])
        for fine, shown in enumerate(swapped):
            levels = (codes[coarse].levels[0], codes[fine].levels[1])
            assert torch.equal(shown, run.model.decode(Codes(levels, run.model.codebook_sizes))[0])


def test_rows_and_columns_are_named_at_their_middle():
    rows = {"black": torch.zeros(2, 3, 96, 96, dtype=torch.uint8), "white": torch.full((2, 3, 96, 96), 255).byte()}
    axes = pictures.plot_pictures(rows, ["a", "b"], title="two").axes[0]
    pixels = axes.get_images()[0].get_array()
    for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert pixels[round(place), 10, 0] == {"black": 0, "white": 255}[label.get_text()]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_are_drawn_too(channels):
    images = torch.zeros(1, channels, 8, 8, dtype=torch.uint8)
    assert tile([[pictures.plot_pictures({"x": images}, title="")]]).width > 0
