"""depthq train: where options come from, what is refused, and what is left behind."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from depthq.cli import main
from depthq.data import DataError
from depthq.models import PRESETS
from depthq.runs import load_model, load_run_settings
from depthq.training import TRAINING_PRESETS, DataConfig, RunConfig
from depthq.training import train as train_in_python
from depthq.training.module import DQAETraining

QUICK = ["--preset", "tiny", "--steps", "2"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def train(tmp_path, photos):
    """Run `depthq train` on the photos with an --out of its own; returns the exit code."""

    def train(*options: str, data=photos, out="run"):
        return main(["train", "--data", str(data), "--out", str(tmp_path / out), *options])

    return train


def test_run_holds_what_the_design_says(train, tmp_path, capsys):
    assert train(*QUICK) == 0
    assert names(tmp_path) == ["run"]
    folder = ["checkpoints", "config.yaml", "metrics.jsonl", "model", "reconstructions", "training_images.npy"]
    assert names(tmp_path / "run") == folder
    assert {"config.json", "model.safetensors"} <= set(names(tmp_path / "run" / "model"))
    assert names(tmp_path / "run" / "reconstructions") == ["step=00000002.png"]
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("validation_psnr_db") == 1
    assert "trained 2 steps" in capsys.readouterr().out


def test_a_folder_whose_name_is_no_text_is_trained_on_and_escaped_in_the_card(train, write_photos, tmp_path):
    data = write_photos(Path(os.fsdecode(bytes(tmp_path) + b"/im\xffgs")))
    assert train(*QUICK, data=data) == 0
    assert rf"--data '{tmp_path}/im\udcffgs'" in (tmp_path / "run" / "model" / "README.md").read_text("utf-8")
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "4"]) == 0


@pytest.mark.parametrize("started", [False, True])
def test_the_recipe_in_the_card_makes_the_same_model_again(train, tmp_path, monkeypatch, trained_run, started):
    options = ["--start-from", str(trained_run), "--num-codebooks", "5"] if started else ["--codebook-size", "[8,16]"]
    assert train(*QUICK, *options) == 0
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    (recipe,) = re.findall(r"^depthq (train .*)$", card, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(recipe)) == 0
    assert load_model(tmp_path / "RUN").fingerprint() == load_model(tmp_path / "run").fingerprint()


def test_terminal_shows_steps_and_figures_and_nothing_of_the_trainer(train, capsys):
    assert train(*QUICK, "--log-every", "1") == 0
    err = capsys.readouterr().err
    assert re.search(r"step 2/2 .* loss [\d.]+, mse_normalized [\d.]+, .*usage [\d.]+.*images_per_second [\d.]+", err)
    assert not re.search(r"Epoch|GPU|litlogger|Warning|deprecated|Lightning|Trainer", err)
    assert all(re.match(r"(step |train: |test: |\s*$)", line) for line in err.replace("\r", "\n").split("\n"))


def test_dashes_and_underscores_mean_the_same(train, tmp_path):
    assert train(*QUICK, "--codebook-size", "4", "--num_codebooks=3") == 0
    settings = load_run_settings(tmp_path / "run")
    assert (settings["codebook_size"], settings["num_codebooks"]) == (4, 3)


def test_value_that_looks_like_an_option_stays_as_it_is(tmp_path, write_photos):
    data = write_photos(tmp_path / "my-own-photos")
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "a-run"), *QUICK]) == 0
    assert load_run_settings(tmp_path / "a-run")["data"] == str(data)


@pytest.mark.parametrize("is_config_last", [False, True])
def test_command_line_beats_yaml_beats_preset(train, tmp_path, is_config_last):
    (tmp_path / "options.yaml").write_text("codebook_dim: 3\nnum_codebooks: 4\n")
    config, options = ["--config", str(tmp_path / "options.yaml")], ["--num-codebooks", "5"]
    assert train(*QUICK, *(options + config if is_config_last else config + options)) == 0
    settings = load_run_settings(tmp_path / "run")
    assert settings["num_codebooks"] == 5  # the command line; 4 in the file, 2 in the preset
    assert settings["codebook_dim"] == 3  # the file; 4 in the preset
    assert settings["codebook_size"] == 8  # the preset
    assert settings["batch_size"] == 8  # the preset


def test_a_later_file_beats_an_earlier_one_wherever_they_stand(train, tmp_path):
    for name, text in (("one", "num_codebooks: 3\ncodebook_dim: 3\n"), ("two", "num_codebooks: 5\n")):
        (tmp_path / name).write_text(text)
    assert train(f"--config={tmp_path / 'one'}", *QUICK, "--config", str(tmp_path / "two")) == 0
    settings = load_run_settings(tmp_path / "run")
    assert (settings["num_codebooks"], settings["codebook_dim"]) == (5, 3)


def test_yaml_takes_dashes_and_underscores(train, tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("codebook-size: [4, 8]\nnum_codebooks: 3\nlearning-rate: 1e-3\n")
    assert train(*QUICK, "--config", str(tmp_path / "options.yaml")) == 0
    settings = load_run_settings(tmp_path / "run")
    assert (settings["codebook_size"], settings["num_codebooks"]) == ([4, 8], 3)
    assert settings["learning_rate"] == 0.001
    (tmp_path / "options.yaml").write_text("image-size: 16\nimage_size: 32\n")
    assert train(*QUICK, "--config", str(tmp_path / "options.yaml"), out="other") == 2
    assert "options.yaml must name image_size once" in capsys.readouterr().err


def test_yaml_may_say_which_run_is_resumed(train, tmp_path):
    assert train(*QUICK) == 0
    (tmp_path / "on.yaml").write_text(f"out: {tmp_path / 'run'}\nresume: true\n")
    assert main(["train", "--config", str(tmp_path / "on.yaml"), "--steps", "3"]) == 0
    assert load_run_settings(tmp_path / "run")["steps"] == 3


def test_yaml_may_name_the_preset(train, tmp_path):
    (tmp_path / "options.yaml").write_text("preset: tiny\nsteps: 2\n")
    assert train("--config", str(tmp_path / "options.yaml")) == 0
    assert load_run_settings(tmp_path / "run")["channels"] == [8, 16]


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_yaml_that_gives_a_number_for_a_folder_is_refused(tmp_path, monkeypatch, capsys, resume):
    monkeypatch.chdir(tmp_path)
    Path("options.yaml").write_text("data: bundled\nout: 2024\n")
    assert main(["train", "--config", "options.yaml", *resume]) != 0
    assert 'key "out": expected str' in capsys.readouterr().err
    assert names(tmp_path) == ["options.yaml"]


def test_config_of_a_run_makes_the_same_run_again(train, trained_run, tmp_path):
    assert main(["train", "--config", str(trained_run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert load_run_settings(tmp_path / "again") == load_run_settings(trained_run)
    assert load_model(tmp_path / "again").fingerprint() == load_model(trained_run).fingerprint()


def test_gray_images_make_a_gray_model(train, tmp_path, write_photos):
    assert train(*QUICK, data=write_photos(tmp_path / "gray", channels=1)) == 0
    assert load_model(tmp_path / "run").config.image_channels == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "huge"], "preset must be one of small, paper, tiny; got 'huge'"),
        (["--num-codebooks", "0"], "num_codebooks must be at least 1; got 0"),
        (["--codebook-size", "0"], "codebook_size must be at least 1; got 0"),
        (["--codebook-size", "[8,-1]"], "codebook_size must be at least 1; got -1"),
        (["--codebook-size", "[]"], "codebook_size must have at least one entry"),
        (["--codebook-dim", "0"], "codebook_dim must be at least 1; got 0"),
        (["--channels", "[]"], "channels must have at least one entry"),
        (["--decay", "1"], "decay must lie in"),
        (["--steps", "0"], "steps must be at least 1; got 0"),
        (["--steps", "many"], "steps"),
        (["--learning-rate", "-1"], "learning_rate must be positive; got -1"),
        (["--quantizer", "foo"], "depthwise"),
        (["--likelihood", "gauss"], "logistic_mixture"),
        (["--colour", "red"], "--colour"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config"], "expected one argument"),
    ],
)
def test_wrong_options_are_usage_errors_that_leave_nothing(train, tmp_path, capsys, options, message):
    assert train("--preset", "tiny", *options) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert names(tmp_path) == []


@pytest.mark.parametrize("missing", ["--data", "--out"])
def test_data_and_out_must_be_given(missing, tmp_path, photos, capsys):
    given = {"--data": str(photos), "--out": str(tmp_path / "run")}
    given.pop(missing)
    assert main(["train", *(word for pair in given.items() for word in pair)]) == 2
    assert missing.strip("-") in capsys.readouterr().err
    assert names(tmp_path) == []


def test_unknown_key_in_yaml_is_a_usage_error_that_names_it(train, tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("number_of_codebooks: 4\n")
    assert train(*QUICK, "--config", str(tmp_path / "options.yaml")) == 2
    assert "number_of_codebooks" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["- a\n", "steps: [1\n", "\xff\xfe"])
def test_damaged_yaml_is_a_usage_error(train, tmp_path, capsys, content):
    (tmp_path / "options.yaml").write_bytes(content.encode("latin-1"))
    assert train(*QUICK, "--config", str(tmp_path / "options.yaml")) == 2
    err = capsys.readouterr().err
    assert "options.yaml" in err
    assert "Traceback" not in err
    assert names(tmp_path) == ["options.yaml"]


def test_missing_data_is_named(train, tmp_path, capsys):
    assert train(*QUICK, data=tmp_path / "nowhere") == 1
    assert f"{tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert names(tmp_path) == []


@pytest.mark.parametrize("files", [[], ["notes.txt"]])
def test_folder_without_images_is_named(train, tmp_path, capsys, files):
    (tmp_path / "data").mkdir()
    for file in files:
        (tmp_path / "data" / file).write_text("no image")
    assert train(*QUICK, data=tmp_path / "data") == 1
    assert "must hold images" in capsys.readouterr().err
    assert names(tmp_path) == ["data"]


def test_program_of_its_own_shows_nothing_of_the_trainer_either(photos, tmp_path):
    command = ["train", "--data", str(photos), "--out", str(tmp_path / "run"), *QUICK]
    result = subprocess.run([sys.executable, "-m", "depthq", *command], capture_output=True, text=True, check=True)
    lines = result.stderr.replace("\r", "\n").split("\n")
    assert all(re.match(r"(step |train: |test: |\s*$)", line) for line in lines), result.stderr


@pytest.mark.filterwarnings("default")
def test_bad_image_found_late_may_be_skipped_on_resume(train, tmp_path, a_transparent_image, capsys):
    options = ["--image-size", "16", "--preset", "tiny", "--steps", "40", "--checkpoint-every", "1"]
    assert train(*options, data=a_transparent_image) == 1
    run = tmp_path / "run"
    assert list((run / "checkpoints").iterdir())  # it was met behind the first one
    assert main(["train", "--out", str(run), "--resume", "--on-bad-image", "skip"]) == 0
    assert load_run_settings(run)["on_bad_image"] == "skip"


def test_corrupt_image_is_named_and_stops_training(train, tmp_path, write_photos, capsys):
    data = write_photos(tmp_path / "data")
    (data / "007.png").write_bytes((data / "007.png").read_bytes()[:40])
    assert train(*QUICK, data=data) == 1
    assert f"{data / '007.png'}" in capsys.readouterr().err
    assert names(tmp_path) == ["data"]


@pytest.fixture
def a_transparent_image(tmp_path, write_photos):
    """Photos of two sizes, which are decoded while training; one of them has holes, which headers do not tell."""
    data = write_photos(tmp_path / "data")
    write_photos(tmp_path / "data" / "larger", size=20)
    Image.new("RGBA", (16, 16)).save(data / "007.png")
    return data


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("is_there", [True, False])
def test_start_that_fails_on_the_way_does_not_block_the_next(train, tmp_path, a_transparent_image, capsys, is_there):
    if is_there:
        (tmp_path / "run").mkdir()
    options = ["--image-size", "16", "--preset", "tiny", "--steps", "20", "--checkpoint-every", "20"]
    assert train(*options, data=a_transparent_image) == 1
    assert "images must be opaque" in capsys.readouterr().err
    assert (tmp_path / "run").exists() == is_there
    assert train(*options, "--on-bad-image", "skip", data=a_transparent_image) == 0


def test_failing_run_deletes_nothing_that_was_there(tmp_path, a_transparent_image):
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("three years of work")
    config = RunConfig(
        data=DataConfig(data=str(a_transparent_image), image_size=16),
        model=PRESETS["tiny"],
        training=TRAINING_PRESETS["tiny"],
    )
    with pytest.raises(DataError, match="must be opaque"):
        train_in_python(config, run, progress=False)
    assert (run / "thesis.tex").read_text() == "three years of work"


@pytest.mark.filterwarnings("default")
def test_corrupt_images_are_skipped_and_counted_on_request(train, tmp_path, write_photos, capsys):
    data = write_photos(tmp_path / "data")
    (data / "007.png").write_bytes((data / "007.png").read_bytes()[:40])
    assert train(*QUICK, "--on-bad-image", "skip", data=data) == 0
    warning = f"depthq train: warning: skipped 1 bad images of 35: {data / '007.png'}\n"
    assert warning in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_images_to_test_on_may_begin_with_bad_ones_but_not_all_be_bad(train, tmp_path, write_photos, capsys):
    write_photos(tmp_path / "data" / "train")
    test = write_photos(tmp_path / "data" / "test", count=10, size=20)
    for number in range(9):
        Image.new("RGBA", (16 + number, 20)).save(test / f"{number:03}.png")
    options = [*QUICK, "--image-size", "16", "--on-bad-image", "skip"]
    assert train(*options, data=tmp_path / "data") == 0
    Image.new("RGBA", (16, 16)).save(test / "009.png")
    assert train(*options, data=tmp_path / "data", out="again") == 1
    assert "images must hold at least one to test on; got none; check the source" in capsys.readouterr().err
    assert names(tmp_path) == ["data", "run"]


def test_size_that_the_strides_do_not_divide_names_the_multiple(train, tmp_path, capsys):
    assert train(*QUICK, "--codebook-size", "[8,8]", "--image-size", "12") == 1
    assert "multiple of 8, the stride of the coarsest level; got 12" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_wrong_channel_count_is_refused(train, tmp_path, capsys):
    assert train(*QUICK, "--image-channels", "1") == 1
    assert "must have 1 channels, as image_channels says; got 3" in capsys.readouterr().err
    assert names(tmp_path) == []


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_folder_that_is_no_run_is_never_touched(train, tmp_path, capsys, resume):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("three years of work")
    assert train(*QUICK, *resume) == 1
    assert f"{tmp_path / 'run'}" in capsys.readouterr().err
    assert names(tmp_path / "run") == ["thesis.tex"]


def test_file_in_place_of_the_run_is_never_touched(train, tmp_path, capsys):
    (tmp_path / "run").write_text("three years of work")
    assert train(*QUICK) == 1
    assert "--out must be new or empty" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "three years of work"


def test_run_is_not_overwritten_and_resume_is_the_remedy(train, trained_run, tmp_path, capsys):
    run = shutil.copytree(trained_run, tmp_path / "run")
    before = load_model(run).fingerprint()
    assert train(*QUICK) == 1
    assert "add --resume to go on with it" in capsys.readouterr().err
    assert load_model(run).fingerprint() == before


def test_empty_folder_becomes_a_run(train, tmp_path):
    (tmp_path / "run").mkdir()
    assert train(*QUICK) == 0


def test_resuming_with_other_options_says_which_changed(trained_run, capsys):
    options = ["--num-codebooks", "3", "--learning-rate", "0.5"]
    assert main(["train", "--out", str(trained_run), "--resume", *options]) == 1
    err = capsys.readouterr().err
    assert "num_codebooks was 2, is 3" in err
    assert "learning_rate was" in err


def test_resume_with_another_preset_is_refused(trained_run, capsys):
    assert main(["train", "--out", str(trained_run), "--resume", "--preset", "small", "--data", "elsewhere"]) == 1
    assert "a run resumes only as it was started; " in capsys.readouterr().err


def test_options_are_not_abbreviated(train, capsys):
    assert train(*QUICK, "--learning", "0.1") == 2
    assert "--learning" in capsys.readouterr().err


def test_resuming_a_finished_run_says_so(trained_run, capsys):
    assert main(["train", "--out", str(trained_run), "--resume"]) == 1
    assert "must have steps left to train; got all" in capsys.readouterr().err


def test_interrupted_run_says_how_to_go_on_and_does(train, tmp_path, capsys, monkeypatch):
    original = DQAETraining.training_step

    def interrupted_at_step_7(self, images, index):
        if self.global_step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, images, index)

    options = ["--preset", "tiny", "--steps", "10"]
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(DQAETraining, "training_step", interrupted_at_step_7)
        assert train(*options) == 130
    assert signal.getsignal(signal.SIGINT) is before
    err = capsys.readouterr().err
    run = tmp_path / "run"
    assert f"interrupted; 7 of 10 steps are saved in {run}; go on with: depthq train --out {run} --resume" in err
    assert "Traceback" not in err
    assert train(*options, out="whole") == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert load_model(tmp_path / "run").fingerprint() == load_model(tmp_path / "whole").fingerprint()


def test_ctrl_c_at_the_terminal_exits_130(tmp_path, photos):
    run = tmp_path / "run"
    command = ["train", "--data", str(photos), "--out", str(run), "--preset", "tiny", "--steps", "100000"]
    process = subprocess.Popen([sys.executable, "-m", "depthq", *command], stderr=subprocess.PIPE, text=True)
    while not list(run.glob("checkpoints/*.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "--resume" in err


def test_diverging_run_exits_1_and_names_the_step(train, tmp_path, capsys):
    assert train("--preset", "tiny", "--learning-rate", "1e30", "--gradient-clip", "0", "--warmup-steps", "0") == 1
    err = capsys.readouterr().err
    assert re.search(r"error: training stopped at step \d+: .* must be finite", err)
    assert "Traceback" not in err
