"""Runs that are stopped, extended, moved, begun from another, damaged, or wanted by two at once."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

from depthq.cli import main
from depthq.files import replacing
from depthq.runs import load_model, load_run_settings
from depthq.weights import shipped_folder

TINY = ["--preset", "tiny", "--image-size", "16"]


@pytest.fixture
def train(tmp_path, photos):
    def train(*options, out="run", data=photos):
        return main(["train", "--data", str(data), "--out", str(tmp_path / out), *TINY, *options])

    return train


@pytest.fixture
def started(tmp_path, photos):
    """A run in a process of its own, that has begun to train."""
    run = tmp_path / "a run"
    command = ["train", "--data", str(photos), "--out", str(run), *TINY, "--steps", "100000", "--log-every", "1"]
    process = subprocess.Popen([sys.executable, "-m", "depthq", *command], stderr=subprocess.PIPE, text=True)
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    yield run, process
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_and_says_how_to_go_on(started, number):
    run, process = started
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"go on with: depthq train --out '{run}' --resume" in err
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert f"{int(checkpoint.stem.removeprefix('step='))} of 100000 steps are saved" in err


def test_a_second_writer_is_refused_and_told_who_is_first(started, capsys):
    run, process = started
    assert main(["train", "--out", str(run), "--resume"]) == 1
    err = capsys.readouterr().err
    assert f"{run} must have one writer; got two: process {process.pid} on {os.uname().nodename} writes there" in err
    process.kill()
    process.wait()
    settings = load_run_settings(run)
    assert main(["train", "--out", str(run), "--resume", "--steps", "100001", "--checkpoint-every", "7"]) == 1
    assert (
        "checkpoint_every was 5, is 7" in capsys.readouterr().err
    )  # and no word of a writer: the lock of the dead is none
    assert settings["steps"] == 100_000


def test_a_finished_run_is_extended(train, tmp_path):
    assert train("--steps", "6") == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "12"]) == 0
    assert load_run_settings(tmp_path / "run")["steps"] == 12
    steps = {yaml.safe_load(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()}
    assert {6, 12} <= steps


def test_a_prior_that_is_written_meanwhile_is_left_alone(train, tmp_path):
    assert train("--steps", "2") == 0
    with replacing(tmp_path / "run" / "prior" / "codes.parquet") as file:
        assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "4"]) == 0
        file.write(b"codes")
    assert (tmp_path / "run" / "prior" / "codes.parquet").read_bytes() == b"codes"


def test_fewer_steps_are_refused(train, tmp_path, capsys):
    assert train("--steps", "6", "--checkpoint-every", "2") == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "4"]) == 1
    assert "steps was 6, is 4" in capsys.readouterr().err


def test_start_from_a_run_with_another_likelihood(train, tmp_path, capsys):
    assert train("--steps", "2") == 0
    capsys.readouterr()
    begin = ["--start-from", str(tmp_path / "run"), "--likelihood", "categorical", "--steps", "1"]
    assert train(*begin, out="other") == 0
    err = capsys.readouterr().err
    assert "drawn from the seed: head" in err
    assert main(["train", "--out", str(tmp_path / "other"), "--resume", "--steps", "2", *begin[:2]]) == 1
    assert "start_from must be left out with --resume" in capsys.readouterr().err


def test_a_damaged_checkpoint_of_a_run_with_a_start_is_no_reason_to_train_from_scratch(train, tmp_path, capsys):
    begin = ["--start-from", "photos-small", "--channels", "[32,64]"]
    assert train("--steps", "2", *begin) == 0
    run = tmp_path / "run"
    resume = ["train", "--out", str(run), "--resume", "--steps", "4"]
    (checkpoint,) = (run / "checkpoints").iterdir()
    checkpoint.write_bytes(b"PK\x03\x04cut off")
    assert main(resume) == 1
    err = capsys.readouterr().err
    assert f"{checkpoint} must be a whole checkpoint of this run" in err
    assert "begin another run with --start-from" in err
    assert "delete it" not in err
    checkpoint.unlink()
    assert main(resume) == 1
    err = capsys.readouterr().err
    assert (
        f"{run} must hold a checkpoint to go on from, as it began with the weights of {shipped_folder('photos-small')}"
        in err
    )
    assert train("--steps", "4", *begin, out="another") == 0


@pytest.mark.filterwarnings("default")  # of the start
def test_config_of_a_run_with_a_start_serves_others_which_are_told_of_it(train, tmp_path, capsys):
    begin = ["--start-from", "photos-small"]
    assert train("--steps", "2", "--channels", "[32,64]", *begin) == 0
    config = ["train", "--config", str(tmp_path / "run" / "config.yaml")]
    assert main([*config, *begin, "--out", str(tmp_path / "again")]) == 0
    assert load_model(tmp_path / "again").fingerprint() == load_model(tmp_path / "run").fingerprint()
    capsys.readouterr()
    assert main([*config, "--out", str(tmp_path / "scratch")]) == 0
    assert "--config is of a run that began with the weights of " in capsys.readouterr().err
    assert load_model(tmp_path / "scratch").fingerprint() != load_model(tmp_path / "run").fingerprint()
    assert main([*config, "--out", str(tmp_path / "run"), "--resume", "--steps", "4"]) == 0


def test_start_from_a_shipped_name(train, tmp_path, capsys):
    assert train("--start-from", "photos-small", "--steps", "1", out="as-it-is") == 0
    assert "starts from" not in capsys.readouterr().err  # nothing is left out
    config = load_model(tmp_path / "as-it-is").config
    assert config == load_model(shipped_folder("photos-small")).config
    assert load_run_settings(tmp_path / "as-it-is")["batch_size"] == 8  # of the preset, which decides the training
    assert train("--start-from", "no-such-model", out="other") == 1
    assert "must be a folder with a trained model or a shipped one" in capsys.readouterr().err


def test_options_that_are_given_beat_those_of_the_model_that_a_run_begins_with(train, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("start-from: photos-small\ncodebook-size: [64, 128]\nnum-codebooks: 3\n")
    assert train("--config", str(file), "--num-codebooks", "2", "--steps", "1") == 0
    settings = load_run_settings(tmp_path / "run")
    assert settings["num_codebooks"] == 2  # the command line; 3 in the file, 4 in the model
    assert settings["codebook_size"] == [64, 128]  # the file; 128 and 128 in the model
    assert settings["horizon"] == 3  # the model; 0 in the preset


def test_a_start_that_shares_nothing_names_the_settings_to_give(train, tmp_path, capsys):
    other = ["--channels", "[9,17]", "--likelihood", "l2", "--horizon", "0", "--num-codebooks", "1"]
    other += ["--codebook-dim", "2", "--codebook-size", "[8,8]"]
    assert train("--start-from", "photos-small", "--steps", "1", *other) == 1
    settings = (
        "likelihood='logistic_mixture', num_codebooks=4, codebook_size=(128, 128), codebook_dim=4, channels=(32, 64)"
    )
    assert f"give that model's {settings}, horizon=3, or" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_damaged_metrics_are_named_and_no_hardware_is_blamed(train, tmp_path, capsys):
    assert train("--steps", "2") == 0
    (tmp_path / "run" / "metrics.jsonl").write_text('[1]\n{"step": 2}\n')
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "4"]) == 1
    err = capsys.readouterr().err
    assert "metrics.jsonl must name a whole step in every row" in err
    assert "hardware" not in err


def test_a_port_in_use_is_named_and_no_checkpoint_is_blamed(train, tmp_path):
    assert train("--steps", "2") == 0
    resume = ["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "4", "--accelerator", "cpu"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        process = subprocess.run(
            [sys.executable, "-m", "depthq", *resume, "--strategy", "ddp", "--devices", "1"],
            env=os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.returncode == 1
    assert f"MASTER_PORT must be free; got {port}, which is in use" in process.stderr
    assert "step=00000002.ckpt" not in process.stderr
    assert main(resume) == 0


class TestPaths:
    def test_a_run_knows_its_data_from_anywhere(self, tmp_path, photos, monkeypatch):
        monkeypatch.chdir(photos.parent)
        assert main(["train", "--data", photos.name, "--out", str(tmp_path / "run"), *TINY, "--steps", "2"]) == 0
        monkeypatch.chdir(tmp_path)
        assert main(["evaluate", "run"]) == 0

    def test_home_is_home(self, tmp_path, photos, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "options.yaml").write_text(
            f"data: {photos}\nout: ~/runs/x\npreset: tiny\nimage_size: 16\nsteps: 1\n"
        )
        assert main(["train", "--config", str(tmp_path / "options.yaml")]) == 0
        assert (tmp_path / "runs" / "x" / "config.yaml").is_file()
        assert main(["evaluate", "~/runs/x"]) == 0

    def test_data_that_was_moved_goes_on_from_its_new_place(self, tmp_path, photos, capsys):
        data = tmp_path / "here"
        shutil.copytree(photos, data)
        assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *TINY, "--steps", "2"]) == 0
        data.rename(tmp_path / "there")
        resume = ["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "4"]
        assert main(resume) == 1
        assert "data source must exist" in capsys.readouterr().err
        assert main([*resume, "--data", str(tmp_path / "there")]) == 0

    def test_other_data_is_refused(self, tmp_path, photos, write_photos, capsys):
        assert main(["train", "--data", str(photos), "--out", str(tmp_path / "run"), *TINY, "--steps", "2"]) == 0
        other = write_photos(tmp_path / "other", size=32)
        resume = ["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "4", "--data", str(other)]
        assert main(resume) == 1
        assert "--data must hold the images that" in capsys.readouterr().err


class TestConfig:
    @pytest.fixture
    def run(self, train, tmp_path):
        assert train("--steps", "2") == 0
        return tmp_path / "run"

    def change(self, run, **changes):
        settings = yaml.safe_load((run / "config.yaml").read_text())
        for name, value in changes.items():
            if value is None:
                del settings[name]
            else:
                settings[name] = value
        (run / "config.yaml").write_text(yaml.safe_dump(settings))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"batch_size": None}, "it lacks batch_size"),
            ({"steps": None}, "it lacks steps"),
            ({"bacth_size": 8}, "it has bacth_size"),
            ({"compile": "x"}, "compile"),
            ({"compile": 1}, "must give compile as it was written; got 1"),
            ({"seed": "x"}, "seed"),
            ({"image_size": -4}, "image_size must be at least 1; got -4"),
            ({"channels": "wide"}, "channels"),
            ({"learning_rate": [1]}, "learning_rate"),
        ],
        ids=str,
    )
    def test_is_whole_and_typed_or_refused_by_key(self, run, capsys, changes, message):
        self.change(run, **changes)
        before = (run / "config.yaml").read_bytes()
        assert main(["train", "--out", str(run), "--resume"]) in (1, 2)
        err = capsys.readouterr().err
        assert message in err
        assert "Traceback" not in err
        assert (run / "config.yaml").read_bytes() == before

    def test_of_an_earlier_version_goes_on(self, run):
        self.change(run, distance=None, rotation_trick=None, background=None, image_column=None)
        assert main(["train", "--out", str(run), "--resume", "--steps", "4"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accelerator", "tpu"], "hardware must fit this machine"),
        (["--accelerator", "quantum"], "accelerator must be one of auto, cpu"),
        (["--devices", "-1"], "devices must be auto, a number"),
        (["--devices", "0"], "devices must be at least 1"),
        (["--devices", "many"], "devices must be auto, a number"),
        (["--nodes", "0"], "nodes must be at least 1"),
        (["--strategy", "nonsense"], "hardware must fit this machine"),
    ],
)
def test_hardware_that_is_not_there_gets_one_line(train, tmp_path, capsys, options, message):
    assert train("--steps", "1", *options) in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_batch_system_without_its_launcher_gets_one_line(train, capsys, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "batch")
    assert train("--steps", "1") == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "start it with srun, or unset SLURM_NTASKS" in err
    monkeypatch.delenv("SLURM_NTASKS")
    monkeypatch.delenv("SLURM_JOB_NAME")
    assert train("--steps", "1") == 0


def test_a_saved_model_is_what_it_was(train, tmp_path):
    """Modes follow the umask."""
    assert train("--steps", "1") == 0
    folder = tmp_path / "run" / "model"
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {oct(0o666 & ~_umask())}
    load_model(tmp_path / "run")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
