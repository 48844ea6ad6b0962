"""What is declared: every row makes an experiment, and says what it is of."""

import math
import re
from fnmatch import fnmatchcase
from importlib.resources import files
from itertools import islice

import pytest
import yaml

from depthq.models import DQAE
from studies.dq_paper import ITEMS, SCALES, Row, choose_rows, command, distinct, find_item, tasks_of
from studies.dq_paper.data_sets import DATA_SETS
from studies.dq_paper.declared import row_with
from studies.dq_paper.keys import content_of, key_of
from studies.dq_paper.trainings import Progressive, Training

FOLDER = files("studies.dq_paper") / "items"
CPU = SCALES["cpu"]


def find_row(item: str, name: str) -> Row:
    (row,) = [row for row in find_item(item).rows if row.name == name]
    return row


def key(row: Row, scale=CPU, seed=0) -> str:
    return key_of(content_of(row.experiment(scale, seed)))


def test_every_file_is_an_item_and_every_item_a_file():
    assert sorted(file.name for file in FOLDER.iterdir()) == sorted(f"{item}.yaml" for item in ITEMS)


def test_help_names_every_item():
    assert all(item in command.__doc__ for item in ITEMS)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("item", ITEMS)
def test_every_row_makes_an_experiment(item, scale):
    item = find_item(item)
    assert item.title
    assert item.protocol
    for row in item.rows:
        experiment = row.experiment(SCALES[scale], seed=0)
        assert experiment.kind == row.kind
        assert experiment.data in DATA_SETS


@pytest.mark.parametrize("item", ITEMS)
def test_every_model_fits_its_images(item):
    for row in find_item(item).rows:
        experiment = row.experiment(SCALES["miniature"], seed=0)
        if isinstance(experiment, Training | Progressive):
            channels, side, _ = DATA_SETS[experiment.data].shape
            assert experiment.model.image_channels == channels
            assert side % experiment.model.image_multiple == 0
            DQAE(experiment.model)


@pytest.mark.parametrize("item", ITEMS)
def test_names_are_unique_within_an_item(item):
    names = [row.name for row in find_item(item).rows]
    assert len(set(names)) == len(names) > 0


# Tables 3 and 4 of the paper, DQ and VQ.
@pytest.mark.parametrize(
    ("item", "row", "figure", "depthwise", "shared"),
    [
        ("table3", "M1-K32-l2", "mse_normalized", 0.122, 0.122),
        ("table3", "M5-K128-l2", "mse_normalized", 0.0115, 0.0552),
        ("table3", "M10-K512-l2", "mse_normalized", 0.00168, 0.0325),
        ("table3", "M5-K128-ce", "nll_nats_per_dim", 2.96, 3.71),
        ("table3", "M10-K32-ce", "nll_nats_per_dim", 2.71, 3.71),
        ("table4", "K256x128-mix", "nll_nats_per_dim", 2.49, 3.15),
        ("table4", "K128x256-mix", "nll_nats_per_dim", 2.52, 3.11),
        ("table4", "K32x32x32-l2", "mse_normalized", 0.0203, 0.0629),
        ("table4", "K64x64x64-ce", "nll_nats_per_dim", 3.08, 3.79),
    ],
)
def test_figures_of_the_paper_stand_beside_their_rows(item, row, figure, depthwise, shared):
    assert find_row(item, f"{row}-depthwise").paper == {figure: depthwise}
    assert find_row(item, f"{row}-shared").paper == {figure: shared}


@pytest.mark.parametrize("item", ["table3", "table4"])
def test_names_of_the_tables_say_what_is_in_them(item):
    words = {"l2": "l2", "ce": "categorical", "mix": "logistic_mixture"}
    for row in find_item(item).rows:
        *sizes, likelihood, quantizer = row.name.split("-")
        assert (row.likelihood, row.quantizer) == (words[likelihood], quantizer)
        model = row.experiment(CPU, seed=0).model
        assert model.likelihood == words[likelihood]
        assert model.quantizer == (quantizer if model.num_codebooks > 1 else "depthwise")
        size = row.options["codebook_size"]
        assert sizes[-1] == "K" + ("x".join(map(str, size)) if isinstance(size, list) else str(size))
        assert sizes[:-1] in ([], [f"M{model.num_codebooks}"])


def test_tables_are_complete():
    """M = 1, 3, 5, 10 and K = 32, 128, 512, two likelihoods, two quantizers; nine hierarchies, three likelihoods."""
    assert len(find_item("table3").rows) == 4 * 3 * 2 * 2
    assert len(find_item("table4").rows) == 9 * 3 * 2
    assert all(len(row.paper) == 1 for item in ("table3", "table4") for row in find_item(item).rows)


def test_rows_are_found_by_their_settings():
    row = row_with("table3", num_codebooks=5, codebook_size=128, likelihood="l2", quantizer="shared")
    assert row == find_row("table3", "M5-K128-l2-shared")
    assert row.has(kind="training", data="cifar10", times_steps=1)
    assert not row.has(quantizer="depthwise")
    assert row_with("equal_bits", quantizer="residual", times_steps=3).name == "residual3x"


def test_rows_are_alike_but_for_a_setting():
    shared, depthwise, other = (
        find_row("table3", name) for name in ("M5-K128-l2-shared", "M5-K128-l2-depthwise", "M5-K32-l2-shared")
    )
    assert shared.is_like(depthwise, but_for="quantizer")
    assert not shared.is_like(depthwise, but_for="likelihood")
    assert not shared.is_like(other, but_for="quantizer")
    assert shared.is_like(other, but_for="codebook_size")


@pytest.mark.parametrize("size", [32, 128, 512])
@pytest.mark.parametrize("likelihood", ["l2", "ce"])
def test_one_shared_codebook_is_the_depthwise_one(size, likelihood):
    shared, depthwise = (find_row("table3", f"M1-K{size}-{likelihood}-{name}") for name in ("shared", "depthwise"))
    assert key(shared) == key(depthwise)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("item", ITEMS)
def test_rows_that_stand_in_for_others_are_the_same_experiment(item, scale):
    declared = yaml.safe_load((FOLDER / f"{item}.yaml").read_text())["rows"]
    rows = iter(find_item(item).rows)
    for words in declared:
        source, _, pattern = words.get("same_as", "").partition("/")
        others = [other for other in find_item(source).rows if fnmatchcase(other.name, pattern)] if source else [None]
        assert others
        for row, other in zip(islice(rows, len(others)), others, strict=True):
            assert other is None or key(row, SCALES[scale]) == key(other, SCALES[scale])
    assert next(rows, None) is None


def test_figure_5_is_of_all_rows_of_table_3():
    assert [row.name for row in find_item("figure5").rows] == [row.name for row in find_item("table3").rows]


def test_multiples_of_what_the_scale_has():
    wide = find_row("equal_bits", "residual3x").experiment(SCALES["gpu"], seed=0)
    assert wide.model.codebook_dim == 5 * SCALES["gpu"].model.codebook_dim
    assert wide.training.steps == 3 * SCALES["gpu"].training.steps


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("M5-K128", 4),
        ("M5-K128-l2-depthwise", 1),
        ("M5", 12),
        ("*-l2-*", 24),
        ("M1", 12),  # and none of M10
    ],
)
def test_rows_are_chosen_by_name_first_words_or_wildcard(pattern, count):
    assert len(choose_rows([find_item("table3")], [pattern])) == count


def test_all_rows_are_chosen_without_a_pattern():
    items = [find_item("table3"), find_item("table4")]
    assert len(choose_rows(items, [])) == 48 + 54


def test_pattern_may_match_rows_of_one_item_alone():
    chosen = choose_rows([find_item("table3"), find_item("mnist")], ["depthwise"])
    assert [(item.name, row.name) for item, row in chosen] == [("mnist", "depthwise")]


def test_pattern_without_a_row_lists_the_rows():
    message = r"--rows must match one of depthwise, shared; got 'residual'"
    with pytest.raises(ValueError, match=message):
        choose_rows([find_item("mnist")], ["depthwise", "residual"])


def test_unknown_item_lists_the_items():
    with pytest.raises(ValueError, match=r"item must be one of table1, .*, table3, .*figure5; got 'table9'"):
        find_item("table9")


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_scale_in_words_is_the_scale(scale):
    training, (width, *_) = scale.training, scale.model.channels
    assert f"{training.steps:,} steps of {training.batch_size} images" in scale.protocol
    assert scale.protocol.startswith(str(width))
    for name, value in re.findall(r"(D =|decay|AdamW at) ([\d.e-]+\d)", scale.protocol):
        assert (
            float(value)
            == {
                "D =": scale.model.codebook_dim,
                "decay": scale.model.decay,
                "AdamW at": training.learning_rate,
            }[name]
        )


def test_rows_say_how_many_seeds_they_have_unless_told_otherwise():
    rows = choose_rows([find_item("table3")], ["M5-K128-l2-depthwise", "M5-K32-l2-depthwise"])
    names = [task.name for task in tasks_of(rows, CPU)]
    assert names == [
        "table3/M5-K32-l2-depthwise seed 0",
        "table3/M5-K128-l2-depthwise seed 0",
        "table3/M5-K128-l2-depthwise seed 1",
    ]
    assert [task.experiment.training.seed for task in tasks_of(rows[:1], CPU, [4, 2])] == [4, 2]


def test_experiments_that_several_rows_share_are_run_once_in_the_order_of_the_first():
    rows = choose_rows([find_item("decoupling"), find_item("figure3"), find_item("mnist")], [])
    tasks = tasks_of(rows, CPU, [0])
    assert len(tasks) == 8 + 2 + 2
    assert [task.name.split("/")[0] for task in distinct(tasks)] == ["decoupling"] * 8 + ["mnist"] * 2


def test_progressive_rows_cost_what_they_say():
    staged, once, *equal = (row.experiment(CPU, seed=0) for row in find_item("progressive").rows)
    assert staged.image_sizes == (16, 32, 64)
    assert staged.training == once.training
    pixels = sum(size**2 for size in staged.image_sizes) * staged.training.steps * staged.training.batch_size
    for other in equal:
        assert math.isclose(pixels, 64**2 * other.training.steps * other.training.batch_size, rel_tol=1e-3)
    assert equal[1].training.steps == len(staged.image_sizes) * staged.training.steps
    assert {other.model for other in (once, *equal)} == {staged.model}


def test_digits_are_never_mirrored():
    assert [row.experiment(CPU, seed=0).training.flip for row in find_item("mnist").rows] == [False, False]


def test_other_quantizers_have_as_many_bits_per_position():
    names = {"equal_bits": set(), "which_quantizer": {"binary"}}
    for item, others in names.items():
        models = [row.experiment(CPU, seed=0).model for row in find_item(item).rows]
        assert {(model.num_codebooks, model.level_sizes) for model in models} == {(5, (128,))}
        assert {model.quantizer for model in models} == {"depthwise", "residual", "scalar", "shared"} | others
