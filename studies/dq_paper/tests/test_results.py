"""The results store: what is saved is found again, and what is damaged is named and left out."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from PIL import Image

from studies.dq_paper import SCALES, Outcome, ResultsStore, find_item, results
from studies.dq_paper.codecs import Codec
from studies.dq_paper.keys import content_of
from studies.dq_paper.results import name_of

EXPERIMENT = Codec(data="cifar10", codec="JPEG", quality=40, arrangement="files")
FIGURES = {"images": 10, "bits_per_pixel": 2.5, "psnr_db": 30.25, "ssim": None}
OUTCOME = Outcome(FIGURES, curve={"step": [1, 2], "psnr_db": [20.5, 30.25]})


CURVE = {"step": [1], "mse_normalized": [1.5], "nll_bits_per_dim": [3.0]}


@pytest.fixture
def saved(store):
    """The file of the one result in the store."""
    return store.save(EXPERIMENT, OUTCOME, seconds=12.3)


def names(store):
    return sorted(file.name for file in store.folder.iterdir())


def test_what_is_saved_is_found(store, saved):
    result = store.find(EXPERIMENT)
    assert result == store.all()[0]
    assert result.experiment == content_of(EXPERIMENT)
    assert (result.figures, result.codes, result.curve) == (OUTCOME.figures, None, OUTCOME.curve)
    assert result.made["seconds"] == 12
    assert {"versions", "device", "threads", "cores", "commit", "finished"} < result.made.keys()
    assert result.picture is None
    assert names(store) == [saved.name]


def test_nothing_is_found_where_nothing_was_saved(store, saved):
    assert store.find(replace(EXPERIMENT, quality=41)) is None
    assert ResultsStore(store.folder / "nowhere").all() == []


def test_picture_stands_beside_its_file(store):
    store.save(EXPERIMENT, replace(OUTCOME, picture=Image.new("RGB", (4, 3), (1, 2, 3))), seconds=1)
    picture = store.find(EXPERIMENT).picture
    assert names(store) == [picture.with_suffix(".json").name, picture.name]
    with Image.open(picture) as found:
        assert (found.size, found.getpixel((0, 0))) == ((4, 3), (1, 2, 3))


def test_file_name_says_what_is_in_it(task):
    trained = content_of(task(seed=3, codebook_size=(8, 16), likelihood="logistic_mixture").experiment)
    assert name_of(trained) == "training-bundled-logistic-mixture-depthwise-M2-K8x16-seed3"
    assert name_of(content_of(EXPERIMENT)) == "codec-cifar10"


def test_figures_have_six_digits_and_experiments_all(store, task):
    experiment = task().experiment
    exact = replace(experiment, training=replace(experiment.training, learning_rate=0.00123456789))
    figures = {"mse_normalized": 1.23456789, "psnr_db": 30, "stages": [{"ssim": 0.123456789}]}
    store.save(exact, Outcome(figures, curve=CURVE), seconds=1)
    result = store.find(exact)
    assert result.figures == {"mse_normalized": 1.23457, "psnr_db": 30, "stages": [{"ssim": 0.123457}]}
    assert result.experiment["training"]["learning_rate"] == 0.00123456789


def test_saving_again_replaces(store, saved):
    store.save(EXPERIMENT, Outcome(FIGURES | {"psnr_db": 31}), seconds=1)
    assert [result.figures["psnr_db"] for result in store.all()] == [31]


def shape_changed(fields, **changed):
    return json.dumps(fields | changed)


DAMAGES = {
    "empty": lambda text: "",
    "cut off": lambda text: text[: len(text) // 2],
    "not JSON": lambda text: "figures: 3",
    "not text": lambda text: "\xff\xfe\x00",
    "a list": lambda text: "[1, 2]",
    "a number": lambda text: "3",
    "a field too few": lambda text: json.dumps({"experiment": json.loads(text)["experiment"]}),
    "a field too many": lambda text: shape_changed(json.loads(text), comment="mine"),
    "figures in a list": lambda text: shape_changed(json.loads(text), figures=[1]),
    "no figures": lambda text: shape_changed(json.loads(text), figures=None),
    "no experiment": lambda text: shape_changed(json.loads(text), experiment=None),
    "codes in a list": lambda text: shape_changed(json.loads(text), codes=[1]),
    "empty figures": lambda text: shape_changed(json.loads(text), figures={}),
    "a figure too few": lambda text: text.replace("bits_per_pixel", "bits_per_word"),
    "a figure in words": lambda text: text.replace('"images": 10', '"images": "many"'),
    "a figure that is no number": lambda text: text.replace("30.25", "NaN"),
    "a figure below zero": lambda text: text.replace('"bits_per_pixel": 2.5', '"bits_per_pixel": -2.5'),
    "a yes for a figure": lambda text: text.replace('"bits_per_pixel": 2.5', '"bits_per_pixel": true'),
    "empty codes": lambda text: shape_changed(json.loads(text), codes={}),
    "a duration in words": lambda text: text.replace('"seconds": 12', '"seconds": "long"'),
    "another experiment": lambda text: text.replace('"quality": 40', '"quality": 41'),
}


NETWORK = {
    "mse_normalized": 0.5,
    "psnr_db": 20.0,
    "nll_nats_per_dim": 2.0,
    "nll_bits_per_dim": 2.9,
    "code_bits_per_dim": 0.9,
    "total_bits_per_dim": 3.8,
    "level_alone_psnr_db": [12.0, 18.0],
}
CODES = {
    "levels": [{"position_entropy_nats": [[1.0]]}] * 2,
    "mutual_information": [{"matrix_nats": [[1.0, 0.1], [0.1, 1.0]]}],
}
DAMAGES_OF_NETWORKS = {
    "no curve": ({"curve": {}}, "a curve without nll_bits_per_dim"),
    "a curve without steps": ({"curve": {"nll_bits_per_dim": [3.0]}}, "a curve without"),
    "a curve without its loss": ({"curve": {"step": [1], "mse_normalized": [1.5]}}, "a curve without nll_bits_per_dim"),
    "a curve with a gap": ({"curve": {"step": [1, 2], "nll_bits_per_dim": [3.0]}}, "a curve without"),
    "an empty curve": ({"curve": {"step": [], "nll_bits_per_dim": []}}, "a curve without"),
    "a curve in words": ({"curve": {"step": [1], "nll_bits_per_dim": ["three"]}}, "curve nll_bits_per_dim = 'three'"),
    "no total": ({"figures": NETWORK | {"total_bits_per_dim": None}}, "total_bits_per_dim"),
    "no nats": ({"figures": NETWORK | {"nll_nats_per_dim": 0}}, "nll_nats_per_dim = 0"),
    "a level too few": ({"figures": NETWORK | {"level_alone_psnr_db": [1.0]}}, "level_alone_psnr_db = "),
    "codes without maps": ({"codes": CODES | {"levels": [{}]}}, "codes without position_entropy_nats of levels"),
    "codes without pairs": ({"codes": CODES | {"mutual_information": []}}, "codes without matrix_nats of mutual"),
}


@pytest.fixture
def network(task):
    """An experiment of two levels with a likelihood in bits, and what it may have found."""
    experiment = task(codebook_size=(8, 16), likelihood="logistic_mixture").experiment
    return experiment, Outcome(NETWORK, CODES, CURVE)


def test_whole_result_of_a_network_is_found(store, network):
    experiment, outcome = network
    store.save(experiment, outcome, seconds=1)
    assert store.find(experiment).figures == NETWORK


@pytest.mark.parametrize("damage", DAMAGES_OF_NETWORKS)
def test_result_without_what_pages_are_made_of_is_named_and_left_out(store, network, damage):
    changed, message = DAMAGES_OF_NETWORKS[damage]
    experiment, outcome = network
    store.save(experiment, replace(outcome, **changed), seconds=1)
    with pytest.warns(UserWarning, match=f"must be a whole result; got: {re.escape(message)}.*; left out; delete it"):
        assert store.find(experiment) is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_named_and_left_out(store, saved, damage):
    whole = store.save(replace(EXPERIMENT, quality=95), OUTCOME, seconds=1)
    saved.write_bytes(DAMAGES[damage](saved.read_text()).encode("latin-1"))
    message = rf"{re.escape(str(saved))} must .*; got.*; left out; delete it.* its row again"
    with pytest.warns(UserWarning, match=message):
        assert store.find(EXPERIMENT) is None
    with pytest.warns(UserWarning, match=message):
        assert [result.experiment["quality"] for result in store.all()] == [95]
    assert store.find(replace(EXPERIMENT, quality=95)) is not None
    assert whole.exists()
    assert saved.exists()  # a user's file is never deleted


def test_result_with_a_damaged_picture_is_named_and_left_out(store):
    file = store.save(EXPERIMENT, replace(OUTCOME, picture=Image.new("RGB", (4, 3))), seconds=1)
    file.with_suffix(".png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=rf"{re.escape(str(file))} must be a whole result; got: cannot identify"):
        assert store.find(EXPERIMENT) is None


@pytest.mark.parametrize("gone", ["held_out", "training"])
def test_density_without_what_it_found_is_named_and_left_out(store, gone):
    (row,) = [row for row in find_item("table2").rows if row.name == "lite0-320-K32-row"]
    spread = {"mean": 0.9, "deviation": 0.01}
    names = ("mse", "mse_standardized", "entropy_nats", "entropy_miller_madow_nats")
    figures = {"held_out": dict.fromkeys(names, spread), "training": dict.fromkeys(names, spread), "seeds": 10}
    experiment = row.experiment(SCALES["cpu"], 0)
    store.save(experiment, Outcome(figures), seconds=1)
    assert store.find(experiment).figures == figures
    store.save(experiment, Outcome(figures | {gone: {}}), seconds=1)
    with pytest.warns(UserWarning, match=rf"must be a whole result; got: {gone}.mse.mean = None; left out"):
        assert store.find(experiment) is None


def test_file_under_the_name_of_another_is_left_out(store, saved):
    other = replace(EXPERIMENT, quality=41)
    file = store.save(other, OUTCOME, seconds=1)
    shutil.copy(saved, file)
    with pytest.warns(UserWarning, match="must hold the result that its name says; got another experiment's"):
        assert store.find(other) is None


def test_copy_of_a_result_does_not_count_twice(store, saved):
    copy = shutil.copy(saved, saved.with_name(f"z-{saved.name}"))
    message = f"{copy} must be the only result of its experiment; got {saved} as well; left out; delete one of them"
    with pytest.warns(UserWarning, match=re.escape(message)):
        assert [result.file for result in store.all()] == [saved]


def test_commit_is_that_of_the_code_and_not_of_a_project_around_it(tmp_path, monkeypatch):
    module = tmp_path / "results.py"
    module.touch()
    monkeypatch.setattr(results, "__file__", str(module))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=Me", "-c", "user.email=me@example.org"]
    assert results._commit() is None
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    assert results._commit() is None
    subprocess.run([*git, "add", "results.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert re.fullmatch("[0-9a-f]{10}", results._commit())
    module.write_text("changed")
    assert re.fullmatch("[0-9a-f]{10}-dirty", results._commit())


class Unwritable(Image.Image):
    def save(self, stream, *_, **__):
        stream.write(b"half")
        raise OSError("No space left on device")


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (replace(OUTCOME, picture=Unwritable()), OSError),
        (Outcome({"psnr_db": object()}, picture=Image.new("L", (1, 1))), TypeError),
    ],
)
def test_result_that_cannot_be_written_leaves_nothing_behind(store, outcome, error):
    with pytest.raises(error):
        store.save(EXPERIMENT, outcome, seconds=1)
    assert not store.folder.exists() or names(store) == []
    assert store.find(EXPERIMENT) is None


def test_result_that_cannot_be_written_leaves_the_former(store, saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        store.save(EXPERIMENT, Outcome({"psnr_db": object()}), seconds=1)
    assert saved.read_bytes() == before
    assert names(store) == [saved.name]


def test_a_result_without_its_circumstances_is_named_and_left_out(store, saved):
    content = json.loads(saved.read_text())
    del content["made"]["commit"]
    saved.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=rf"{saved.name} must be a whole result; got: made without commit; left out"):
        assert store.all() == []
