import numpy as np
import pytest
import torch
from PIL import Image

from depthq.codes import Codes
from depthq.report import draw_figures, figures
from depthq.report.mixing import mix_codebooks, mix_positions


def untiled(monkeypatch, runs, images):
    """Figures by name, before they become one picture."""
    monkeypatch.setattr(figures, "tile", lambda rows: rows)
    return draw_figures(runs, images)


def test_all_figures_of_two_levels(analyzed, images):
    drawn = draw_figures([analyzed()], images[:4])
    assert list(drawn) == [
        "position_entropy",
        "mutual_information",
        "usage_level0",
        "usage_level1",
        "codebooks",
        "levels",
        "interpolation",
        "swap",
    ]
    for picture in drawn.values():
        assert np.asarray(picture).std() > 0


def test_one_level_has_no_swap_and_no_level_alone(monkeypatch, analyzed, images):
    drawn = untiled(monkeypatch, [analyzed(codebook_size=8)], images[:4])
    assert "swap" not in drawn
    assert "usage_level1" not in drawn
    assert "levels" not in drawn
    axes = drawn["reconstructions"][0][0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["original", "reconstructed"]
    assert axes.get_title() == "ours: reconstructions"


def test_mutual_information_has_what_chance_shows_of_each_pair(monkeypatch, analyzed, images):
    run = analyzed()
    [[figure]] = untiled(monkeypatch, [run], images[:1])["mutual_information"]
    axes = figure.axes[0]
    drawn = axes.get_images()[0].get_array().filled(0)
    assert (np.tril(drawn) == np.tril(run.summary.plugin.matrix_nats, -1)).all()
    assert (np.triu(drawn) == np.triu(run.summary.shuffle.matrix_nats, 1)).all()
    assert "640 and 2,560 positions\nbelow: plug-in; above: shuffle-corrected" in axes.get_title()


def test_one_codebook_has_no_mutual_information(monkeypatch, analyzed, images):
    one, three = (analyzed(f"{count}", num_codebooks=count, codebook_size=8) for count in (1, 3))
    assert "mutual_information" not in untiled(monkeypatch, [one], images[:1])
    [[figure]] = untiled(monkeypatch, [one, three], images[:1])["mutual_information"]
    assert figure.axes[0].get_title().startswith("3\n")


def panels_of(figure, height: int = 16) -> list[list[torch.Tensor]]:
    """The images of a grid, rows of uint8 (C, H, W), at their own size."""
    pixels = torch.as_tensor(np.array(figure.axes[0].get_images()[0].get_array())).permute(2, 0, 1)
    zoom = 96 // height
    step = zoom * height + figures.GAP_PX
    return [
        [
            pixels[:, top : top + step - figures.GAP_PX : zoom, left : left + step - figures.GAP_PX : zoom]
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
    for row, pictures in zip(panels_of(figure), expected, strict=True):
        assert torch.equal(torch.stack(row), pictures)


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


def test_two_runs_share_scales(monkeypatch, analyzed, images):
    runs = [analyzed("dq"), analyzed("vq", quantizer="shared")]
    drawn = untiled(monkeypatch, runs, images[:2])
    (information,) = {limits_of(figure) for figure in drawn["mutual_information"][0]}
    assert information == (0, max(np.tril(run.summary.plugin.matrix_nats, -1).max() for run in runs))
    for level, figures_of_level in enumerate(zip(*drawn["position_entropy"], strict=True)):
        maps = [run.summary.levels[level].position_entropy_nats for run in runs]
        assert {limits_of(figure) for figure in figures_of_level} == {(np.min(maps), np.max(maps))}
    usage = [figure for row in drawn["usage_level0"] for figure in row]
    assert len({figure.axes[0].get_ylim() for figure in usage}) == 1
    assert [figure.get_suptitle() for figure in usage] == ["dq: Code usage, level 0", "vq: Code usage, level 0"]


def limits_of(figure) -> tuple[float, float]:
    return figure.axes[0].get_images()[0].get_clim()


def test_usage_of_codebooks_of_different_size_has_one_scale(monkeypatch, analyzed, images):
    runs = [analyzed("few", codebook_size=8), analyzed("many", codebook_size=32)]
    drawn = untiled(monkeypatch, runs, images[:2])
    assert {figure.axes[0].get_xlim() for row in drawn["usage_level0"] for figure in row} == {(0, 32)}


def test_runs_of_different_depth_stand_side_by_side(monkeypatch, analyzed, images):
    drawn = untiled(monkeypatch, [analyzed("two"), analyzed("one", codebook_size=8)], images[:2])
    assert {name: [len(row) for row in rows] for name, rows in drawn.items()} == {
        "position_entropy": [2, 1],
        "mutual_information": [2],
        "usage_level0": [1, 1],
        "usage_level1": [1],
        "codebooks": [1],
        "levels": [1, 1],
        "interpolation": [1, 1, 1, 1],
        "swap": [1],
    }


def test_bars_are_the_summary(analyzed):
    summary = analyzed().summary
    entropy_axes, usage_axes = figures.plot_codebooks({"ours": summary}).axes
    heights = [bar.get_height() for bar in entropy_axes.patches]
    assert heights == [h for level in summary.levels for h in level.entropy_nats]
    assert [bar.get_height() for bar in usage_axes.patches] == [
        100 * u for level in summary.levels for u in level.usage
    ]


def test_bars_of_two_runs_stand_over_their_codebooks(analyzed):
    wide, narrow = analyzed().summary, analyzed(num_codebooks=1).summary
    axes = figures.plot_codebooks({"wide": wide, "narrow": narrow}).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    places = [round(bar.get_x() + bar.get_width() / 2) for bar in axes.containers[1]]
    assert [names[place] for place in places] == narrow.codebooks == ["0.0", "1.0"]


def test_rows_and_columns_are_named_at_their_middle():
    rows = {"black": torch.zeros(2, 3, 96, 96, dtype=torch.uint8), "white": torch.full((2, 3, 96, 96), 255).byte()}
    axes = figures.plot_pictures(rows, ["a", "b"], title="two").axes[0]
    pixels = axes.get_images()[0].get_array()
    for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert pixels[round(place), 10, 0] == {"black": 0, "white": 255}[label.get_text()]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_tiles_stand_in_rows():
    from matplotlib.figure import Figure

    def square(side: float) -> Figure:
        return Figure(figsize=(side, side), dpi=10)

    page = figures.tile([[square(1), square(2)], [square(4)]])
    assert isinstance(page, Image.Image)
    assert page.size == (40, 20 + 40)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_are_drawn_too(channels):
    images = torch.zeros(1, channels, 8, 8, dtype=torch.uint8)
    assert figures.tile([[figures.plot_pictures({"x": images}, title="")]]).width > 0
