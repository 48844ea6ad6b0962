"""What codes really cost: by hand where a prior knows all or nothing, and from a run's folder to a row."""

import json
import math

import pytest
import torch

from depthq.cli import main as depthq
from depthq.codes import Codes
from depthq.priors import CountedPrior, UniformPrior
from studies import real_rate

SIZES = ((8, 8),)


def test_codes_that_are_all_alike_cost_their_names():
    codes = Codes((torch.randint(0, 8, (3, 2, 4, 4)),), SIZES)
    assert real_rate.bits_per_position(UniformPrior(SIZES, ((4, 4),)), codes) == pytest.approx(6)


def test_codes_that_never_change_cost_next_to_nothing():
    codes = Codes((torch.zeros(200, 2, 4, 4, dtype=torch.int64),), SIZES)
    bits = real_rate.bits_per_position(CountedPrior.from_codes([codes]), codes)
    # Of each codebook p(0) = (3200 + 1/2) / (3200 + 8/2).
    assert bits == pytest.approx(2 * -math.log2(3200.5 / 3204))


def row(quantizer, m, error, real, run=""):
    bits = {"uniform": 7.0 * m, "counted": 6.5 * m, "prior": real}
    return {"run": run, "quantizer": quantizer, "num_codebooks": m, "mse_normalized": error} | bits


ROWS = [row("depthwise", 1, 0.1, 6.0), row("depthwise", 3, 0.001, 16.0), row("shared", 5, 0.02, 11.0)]


def test_error_is_set_beside_that_of_depthwise_codes_of_as_many_real_bits():
    assert real_rate.depthwise_error_at(11, ROWS) == pytest.approx(0.01)  # half way, in the logarithm
    assert real_rate.depthwise_error_at(6, ROWS) == pytest.approx(0.1)
    assert real_rate.depthwise_error_at(17, ROWS) is None
    lines = real_rate.table(ROWS).splitlines()
    assert lines[2] == "| depthwise, M = 1 | 0.1000 | 7.00 | 6.50 | 6.00 |  |"
    assert lines[3] == "| shared, M = 5 | 0.0200 | 35.00 | 32.50 | 11.00 | 2.00 |"


def test_a_run_is_measured_once_and_its_priors_are_kept(tmp_path, monkeypatch, capsys):
    run, out, plot = tmp_path / "run", tmp_path / "rows.json", tmp_path / "plot.png"
    assert depthq(["train", "--preset", "tiny", "--data", "bundled", "--steps", "20", "--out", str(run)]) == 0
    options = ["real_rate", str(run), "--data", "bundled", "--priors", str(tmp_path / "priors"), "--steps", "3"]
    options += ["--train-images", "300", "--test-images", "50", "--out", str(out), "--plot", str(plot)]
    monkeypatch.setattr("sys.argv", options)
    real_rate.main()
    (found,) = json.loads(out.read_text())
    assert found["steps"] == 20
    assert found["uniform"] == pytest.approx(found["num_codebooks"] * 3)  # 8 codes in each of the preset's codebooks
    assert min(found["counted"], found["prior"]) > 0
    assert "| depthwise, M = " in capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
    out.unlink()  # killed behind its priors, it does not train them again
    monkeypatch.setattr(real_rate, "train_prior", None)
    real_rate.main()
    (again,) = json.loads(out.read_text())
    assert again | {"seconds": 0} == found | {"seconds": 0}
    out.unlink()
    monkeypatch.setattr("sys.argv", ["200" if option == "300" else option for option in options])  # other codes
    with pytest.raises(ValueError, match=r"priors/run must hold a prior of this very model's codes; .* move it away"):
        real_rate.main()


def test_runs_of_one_name_are_refused(monkeypatch, capsys):
    options = ["a/run", "b/run", "--data", "bundled", "--priors", "priors", "--out", "rows.json"]
    monkeypatch.setattr("sys.argv", ["real_rate", *options])
    with pytest.raises(SystemExit):
        real_rate.main()
    assert "rows must have different names, those of their runs' folders; got run twice" in capsys.readouterr().err
