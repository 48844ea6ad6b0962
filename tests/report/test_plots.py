import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.analysis import CodeCounts, MutualInformation, pairwise_mutual_information
from depthq.report.plots import plot_mutual_information, plot_position_entropy, plot_usage, tile
from depthq.units import LN2


def drawn(figure):
    figure.canvas.draw()  # a Figure of its own draws with Agg: no display, no pyplot
    return figure.axes[0]


def counts_of(codebooks: int, size: int = 4) -> CodeCounts:
    rng = np.random.default_rng(0)
    return CodeCounts([size] * codebooks).update(rng.integers(0, size, (5000, codebooks)))


def test_entropy_map_is_the_mean_over_codebooks():
    entropy = LN2 * torch.arange(12, dtype=torch.float64).view(2, 2, 3)
    image = drawn(plot_position_entropy(entropy)).get_images()[0]
    assert image.get_array().round(9).tolist() == [[3, 4, 5], [6, 7, 8]]  # bits
    assert image.get_clim() == (0, pytest.approx(8))


def test_entropy_of_a_sequence_is_one_row():
    axes = drawn(plot_position_entropy(torch.ones(2, 5)))
    assert axes.get_images()[0].get_array().shape == (1, 5)
    assert axes.get_xlabel() == "position"


def test_matrix_shows_pairs_below_the_diagonal_and_entropy_on_it():
    information = pairwise_mutual_information(counts_of(3))
    matrix = information.matrix_nats / LN2
    axes = drawn(plot_mutual_information(information))
    pairs, entropy = axes.get_images()
    assert pairs.get_array().mask.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert entropy.get_array().mask.tolist() == (torch.eye(3) == 0).tolist()
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[1, 1] == f"{matrix[1, 1]:.2f}" == "2.00"  # log2 4
    assert texts[0, 1] == f"{matrix[1, 0]:.3f}"  # column 0, row 1; below 0.1 three decimals
    assert len(texts) == 3 + 3


def test_colours_are_of_the_pairs_alone():
    information = MutualInformation(((0, 0), (0, 1)), "plugin", LN2 * torch.tensor([[2.0, 0.25], [0.25, 2.0]]))
    assert drawn(plot_mutual_information(information)).get_images()[0].get_clim() == (0, pytest.approx(0.25))


def test_corrected_pairs_stand_above_the_diagonal():
    plugin, shuffle = (
        MutualInformation(((0, 0), (0, 1)), estimator, LN2 * torch.tensor([[2.0, shared], [shared, 2.0]]))
        for estimator, shared in (("plugin", 0.25), ("shuffle", -0.0001))
    )
    axes = drawn(plot_mutual_information(plugin, corrected=shuffle))
    assert axes.get_images()[0].get_array().filled(9).round(decimals=2).tolist() == [[9, 0], [0.25, 9]]
    assert {text.get_text() for text in axes.texts} == {"2.00", "0.25", "0.000"}  # never -0.000


def test_one_codebook_has_no_pair_to_draw():
    with pytest.raises(ValueError, match="information must be of at least two codebooks, to have a pair; got 1"):
        plot_mutual_information(pairwise_mutual_information(counts_of(1)))


def test_pairs_that_share_nothing_are_drawn():
    information = MutualInformation(((0, 0), (0, 1)), "plugin", LN2 * torch.eye(2))
    assert {text.get_text() for text in drawn(plot_mutual_information(information)).texts} == {"1.00", "0.000"}


def test_two_runs_share_their_colours():
    information = pairwise_mutual_information(counts_of(2))
    assert drawn(plot_mutual_information(information, vmin=0.5, vmax=3)).get_images()[0].get_clim() == (0.5, 3)
    assert drawn(plot_position_entropy(torch.ones(1, 2, 2), vmin=0.5, vmax=3)).get_images()[0].get_clim() == (0.5, 3)


def test_levels_are_named_where_there_are_several():
    codes = np.random.default_rng(0).integers(0, 2, (500, 1))
    information = pairwise_mutual_information(CodeCounts([[2], [2]]).update([codes, codes]))
    labels = [label.get_text() for label in drawn(plot_mutual_information(information)).get_xticklabels()]
    assert labels == ["0.0", "1.0"]


def test_usage_has_one_panel_per_codebook_that_states_its_use():
    codes = np.array([[0, 0], [1, 0]] * 10)
    figure = plot_usage(CodeCounts([4, 2]).update(codes))
    drawn(figure)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["codebook 0\n50% used, perplexity 2", "codebook 1\n50% used, perplexity 1"]


def test_many_codebooks_fill_several_rows():
    figure = plot_usage(counts_of(7))
    drawn(figure)
    assert sum(axes.get_visible() for axes in figure.axes) == 7


def test_maps_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"entropy_nats must be \(M, H, W\) or \(M, T\); got shape \(4,\)"):
        plot_position_entropy(torch.ones(4))


def test_usage_of_a_level_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"level must lie in \[0, 1\); got 1"):
        plot_usage(counts_of(2), level=1)


def test_matplotlib_loads_only_when_something_is_drawn():
    check = "import sys, depthq.analysis; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_tiles_stand_in_rows():
    from matplotlib.figure import Figure

    def square(side: float) -> Figure:
        return Figure(figsize=(side, side), dpi=10)

    page = tile([[square(1), square(2)], [square(4)]])
    assert isinstance(page, Image.Image)
    assert page.size == (40, 20 + 40)
