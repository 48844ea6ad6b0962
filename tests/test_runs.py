"""What lies in a run's folder, and how damage to it is told."""

import json

import pytest

from depthq.runs import RunFolder, is_run, load_model, load_run_settings, read_metrics

ROWS = [{"step": 10, "loss": 10.0}, {"step": 20, "loss": 0.1}, {"step": 20, "validation_psnr_db": 1.0}]


@pytest.fixture
def metrics(tmp_path):
    """Write a metrics.jsonl of this content."""

    def write(content: str):
        path = tmp_path / "metrics.jsonl"
        path.write_text(content)
        return path

    return write


def test_files_lie_where_they_are_documented(trained_run):
    run = RunFolder(trained_run)
    assert run.report == trained_run / "report.html"
    assert all(file.is_file() for file in (run.config, run.metrics))
    assert all(folder.is_dir() for folder in (run.checkpoints, run.model, run.reconstructions))


def test_run_holds_its_settings_and_a_model_that_loads(trained_run):
    settings = load_run_settings(trained_run)
    assert settings["codebook_size"] == [8, 16]
    assert settings["image_size"] == 16
    assert is_run(trained_run)
    model = load_model(trained_run)
    assert not model.training
    assert model.config.level_sizes == (8, 16)
    again = load_model(RunFolder(trained_run).model)
    assert model.fingerprint() == again.fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "must map options to values; got list"),
        ("a: [1", "must be YAML"),
        ("a: 1", "must name data and a whole image_size; it does not; write it anew"),
    ],
)
def test_damaged_config_of_a_run_is_named(tmp_path, content, message):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=rf"{tmp_path / 'config.yaml'} {message}"):
        load_run_settings(tmp_path)


def test_a_file_in_place_of_a_run_is_said_to_be_one(tmp_path):
    path = tmp_path / "codes.parquet"
    path.touch()
    with pytest.raises(
        ValueError, match=r"codes\.parquet must be the folder of a run of depthq train; got a file; give the folder"
    ):
        load_model(path)


def test_rows_are_read_and_a_cut_off_last_one_left_out(metrics, tmp_path):
    assert read_metrics(metrics("\n".join(map(json.dumps, ROWS)) + '\n{"step": 3')) == ROWS
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_damage_elsewhere_is_an_error(metrics):
    path = metrics('{"step": 1\n{"step": 2}\n')
    with pytest.raises(
        ValueError, match=r"metrics.jsonl must hold one JSON object per line; got: .* in line 1; delete that line"
    ):
        read_metrics(path)


@pytest.mark.parametrize(("value", "shown"), [("null", "null"), ('"low"', '"low"'), ("[1.0]", r"\[1\.0\]")])
def test_values_that_are_no_numbers_are_an_error_until_their_line_is_deleted(metrics, value, shown):
    row = '{"step": 1, "loss": NaN}\n'
    path = metrics(row + f'{{"step": 2, "loss": {value}}}\n')
    with pytest.raises(
        ValueError, match=rf"metrics.jsonl must hold numbers; got {shown} for loss in line 2; delete that line"
    ):
        read_metrics(path)
    assert len(read_metrics(metrics(row))) == 1


@pytest.mark.parametrize("row", ["[1]", "3", '{"loss": 1.0}', '{"step": null}', '{"step": 1.5}'])
def test_rows_without_a_step_are_an_error(metrics, row):
    path = metrics('{"step": 1}\n' + row + "\n")
    with pytest.raises(
        ValueError, match=r"metrics.jsonl must name a whole step in every row; got .* in line 2; delete it"
    ):
        read_metrics(path)
