import numpy as np
import pytest
import torch

from depthq.analysis import CodeCounts, summarize_codes
from depthq.report import AnalyzedCodes, code_plots, draw_plots
from depthq.report.code_plots import plot_codebooks
from depthq.units import nats_to_bits


def untiled(monkeypatch, runs):
    """Plots by name, before they become one picture."""
    monkeypatch.setattr(code_plots, "tile", lambda rows: rows)
    return draw_plots(runs)


def codes_of_shape(*positions, label="codes", limit_bytes=None) -> AnalyzedCodes:
    """400 times two codebooks of two codes, at random, that no model made."""
    codes = torch.randint(0, 2, (400, 2, *positions), generator=torch.Generator().manual_seed(0))
    counts = CodeCounts([2, 2], limit_bytes=limit_bytes).update(codes)
    return AnalyzedCodes(label, counts, summarize_codes(counts))


def test_all_plots_of_two_levels(analyzed):
    drawn = draw_plots([analyzed()])
    assert list(drawn) == ["position_entropy", "mutual_information", "usage_level0", "usage_level1", "codebooks"]
    for picture in drawn.values():
        assert np.asarray(picture).std() > 0


@pytest.mark.parametrize(("positions", "shape"), [((5,), (1, 5)), ((2, 3), (2, 3)), ((4, 2, 3), (8, 3))])
def test_positions_of_any_rank_are_drawn_as_a_map(monkeypatch, positions, shape):
    """Sequences are one row, of video the frames stand one below another."""
    run = codes_of_shape(*positions)
    [[figure]] = untiled(monkeypatch, [run])["position_entropy"]
    drawn = figure.axes[0].get_images()[0].get_array()
    assert np.asarray(drawn) == pytest.approx(
        nats_to_bits(np.reshape(run.summary.levels[0].position_entropy_nats, shape))
    )


def test_rows_without_positions_have_no_map(monkeypatch):
    drawn = untiled(monkeypatch, [codes_of_shape()])
    assert list(drawn) == ["mutual_information", "usage_level0", "codebooks"]
    [[figure]] = untiled(monkeypatch, [codes_of_shape(label="rows"), codes_of_shape(2, 2, label="maps")])[
        "position_entropy"
    ]
    assert figure.axes[0].get_title() == "maps\nEntropy per position, level 0"


def test_what_was_left_out_is_not_drawn(monkeypatch):
    assert list(untiled(monkeypatch, [codes_of_shape(3, limit_bytes=0)])) == ["usage_level0", "codebooks"]


def test_runs_of_different_depth_stand_side_by_side(monkeypatch, analyzed):
    drawn = untiled(monkeypatch, [analyzed("two"), analyzed("one", codebook_size=8)])
    assert {name: [len(row) for row in rows] for name, rows in drawn.items()} == {
        "position_entropy": [2, 1],
        "mutual_information": [2],
        "usage_level0": [1, 1],
        "usage_level1": [1],
        "codebooks": [1],
    }


def test_mutual_information_has_what_chance_shows_of_each_pair(monkeypatch, analyzed):
    run = analyzed()
    [[figure]] = untiled(monkeypatch, [run])["mutual_information"]
    axes = figure.axes[0]
    drawn = axes.get_images()[0].get_array().filled(0)
    assert (np.tril(drawn) == nats_to_bits(np.tril(run.summary.plugin.matrix_nats, -1))).all()
    assert (np.triu(drawn) == nats_to_bits(np.triu(run.summary.shuffle.matrix_nats, 1))).all()
    assert "640 and 2,560 positions\nbelow: plug-in; above: shuffle-corrected" in axes.get_title()


def test_one_codebook_has_no_mutual_information(monkeypatch, analyzed):
    one, three = (analyzed(f"{count}", num_codebooks=count, codebook_size=8) for count in (1, 3))
    assert "mutual_information" not in untiled(monkeypatch, [one])
    [[figure]] = untiled(monkeypatch, [one, three])["mutual_information"]
    assert figure.axes[0].get_title().startswith("3\n")


def test_two_runs_share_scales(monkeypatch, analyzed):
    runs = [analyzed("dq"), analyzed("vq", quantizer="shared")]
    drawn = untiled(monkeypatch, runs)
    (information,) = {limits_of(figure) for figure in drawn["mutual_information"][0]}
    assert information == (0, max(nats_to_bits(np.tril(run.summary.plugin.matrix_nats, -1)).max() for run in runs))
    for level, figures_of_level in enumerate(zip(*drawn["position_entropy"], strict=True)):
        maps = [run.summary.levels[level].position_entropy_nats for run in runs]
        assert {limits_of(figure) for figure in figures_of_level} == {
            (nats_to_bits(np.min(maps)), nats_to_bits(np.max(maps)))
        }
    usage = [figure for row in drawn["usage_level0"] for figure in row]
    assert len({figure.axes[0].get_ylim() for figure in usage}) == 1
    assert [figure.get_suptitle() for figure in usage] == ["dq: Code usage, level 0", "vq: Code usage, level 0"]


def limits_of(figure) -> tuple[float, float]:
    return figure.axes[0].get_images()[0].get_clim()


def test_usage_of_codebooks_of_different_size_has_one_scale(monkeypatch, analyzed):
    runs = [analyzed("few", codebook_size=8), analyzed("many", codebook_size=32)]
    drawn = untiled(monkeypatch, runs)
    assert {figure.axes[0].get_xlim() for row in drawn["usage_level0"] for figure in row} == {(0, 32)}


def test_bars_are_the_summary(analyzed):
    summary = analyzed().summary
    entropy_axes, usage_axes = plot_codebooks({"ours": summary}).axes
    heights = [bar.get_height() for bar in entropy_axes.patches]
    assert heights == [nats_to_bits(h) for level in summary.levels for h in level.entropy_nats]
    assert [bar.get_height() for bar in usage_axes.patches] == [
        100 * u for level in summary.levels for u in level.usage
    ]


def test_bars_of_two_runs_stand_over_their_codebooks(analyzed):
    wide, narrow = analyzed().summary, analyzed(num_codebooks=1).summary
    axes = plot_codebooks({"wide": wide, "narrow": narrow}).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    places = [round(bar.get_x() + bar.get_width() / 2) for bar in axes.containers[1]]
    assert [names[place] for place in places] == narrow.codebooks == ["0.0", "1.0"]
