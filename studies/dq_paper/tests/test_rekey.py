"""Results that bear their former keys get their new ones, whole or not at all, and nothing is lost."""

import json
import shutil
from pathlib import Path

import pytest

from studies.dq_paper import SCALES, ResultsStore, find_item, rekey
from studies.dq_paper.keys import content_of, key_of
from studies.dq_paper.rekey import former_key_of, main

COMMITTED = Path(__file__).parents[1] / "results"
NAME = "training-cifar10-l2-depthwise-M5-K128-seed0"
ROW = next(row for row in find_item("table3").rows if row.name == "M5-K128-l2-depthwise")


@pytest.fixture
def keys():
    """The former and the new key of a committed result, of the fields that there were when it was made."""
    key = key_of(content_of(ROW.experiment(SCALES["cpu"], seed=0)))
    content = json.loads((COMMITTED / f"{NAME}-{key}.json").read_text())["experiment"]
    return former_key_of(content), key


@pytest.fixture
def folder(tmp_path, keys):
    """A folder that holds that result under its former key, and one of a codec, whose key stays."""
    former, key = keys
    for suffix in (".json", ".png"):
        shutil.copy(COMMITTED / f"{NAME}-{key}{suffix}", tmp_path / f"{NAME}-{former}{suffix}")
    shutil.copy(min(COMMITTED.glob("codec-*.json")), tmp_path)
    return tmp_path


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_former_key_is_of_the_whole_experiment(keys):
    assert keys[0] == "8612faed5dae"
    assert keys[1] != keys[0]


def test_result_and_picture_are_renamed_and_stay_as_they_are(folder, keys, capsys):
    former, key = keys
    before = contents(folder)
    assert main([str(folder)]) == 0
    assert f"1 results renamed in {folder}" in capsys.readouterr().out
    assert contents(folder) == {name.replace(former, key): content for name, content in before.items()}
    assert ResultsStore(folder).find(ROW.experiment(SCALES["cpu"], seed=0)).picture is not None


def test_renaming_again_changes_nothing(folder, capsys):
    main([str(folder)])
    before = contents(folder)
    assert main([str(folder)]) == 0
    assert "0 results renamed" in capsys.readouterr().out
    assert contents(folder) == before


@pytest.mark.parametrize("step", ["rename", "unlink"])
def test_killed_renaming_leaves_whole_results_and_is_ended_by_another(folder, keys, step, monkeypatch):
    with monkeypatch.context() as killed:

        def stop(*_, **__):
            raise KeyboardInterrupt

        killed.setattr(Path, step, stop)
        with pytest.raises(KeyboardInterrupt):
            main([str(folder)])
    (file,) = folder.glob(f"{NAME}-*.json")
    assert file.with_suffix(".png").exists()
    assert main([str(folder)]) == 0
    assert {file.name for file in folder.glob(f"{NAME}-*")} == {f"{NAME}-{keys[1]}.json", f"{NAME}-{keys[1]}.png"}


def test_picture_that_cannot_be_copied_leaves_the_result_under_its_former_name(folder, keys, monkeypatch):
    before = contents(folder)

    def replacing(path):
        raise OSError("No space left on device")

    monkeypatch.setattr(rekey, "replacing", replacing)
    with pytest.raises(OSError, match="No space left"):
        main([str(folder)])
    assert contents(folder) == before


def test_files_that_are_no_results_are_named_and_left(folder, capsys):
    (folder / "empty.json").touch()
    (folder / "list.json").write_text("[1]")
    shutil.copy(COMMITTED / min(COMMITTED.glob("density-*.json")).name, folder / "density-0123456789ab.json")
    left = {name: content for name, content in contents(folder).items() if not name.startswith(NAME)}
    assert main([str(folder)]) == 1
    err = capsys.readouterr().err
    assert f"{folder / 'empty.json'} must be a result; got: " in err
    assert f"{folder / 'list.json'} must be a result; got: " in err
    assert f"{folder / 'density-0123456789ab.json'} must end in " in err
    assert "got 0123456789ab; left as it is" in err
    assert left.items() <= contents(folder).items()


def test_name_that_is_taken_is_named_and_nothing_is_replaced(folder, keys, capsys):
    former, key = keys
    (folder / f"{NAME}-{key}.json").write_text((folder / f"{NAME}-{former}.json").read_text() + "\n")
    before = contents(folder)
    assert main([str(folder)]) == 1
    assert f"{NAME}-{key}.json must not be there yet; got it beside " in capsys.readouterr().err
    assert contents(folder) == before


def test_committed_results_bear_their_new_names():
    for file in COMMITTED.glob("*.json"):
        assert file.stem.endswith(f"-{key_of(json.loads(file.read_text())['experiment'])}")
