"""Every verb takes a run of every quantizer with codes; the others' tests take the default one."""

import json

import pytest

from depthq.cli import main


@pytest.mark.parametrize("quantizer", ["shared", "residual", "scalar", "binary"])
def test_every_verb_takes_its_run(quantizer, photos, tmp_path, capsys):
    run, codes = tmp_path / "run", tmp_path / "codes.parquet"
    options = ["--preset", "tiny", "--steps", "3", "--validate-every", "3", "--quantizer", quantizer]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["levels"][0]["perplexity"]) == 2
    assert main(["encode", str(run), "--split", "test", "--out", str(codes)]) == 0
    assert main(["decode", str(run), str(codes), "--out", str(tmp_path / "decoded")]) == 0
    assert len(list((tmp_path / "decoded").iterdir())) == 5
    assert main(["analyze", str(run), "--out", str(tmp_path / "analysis")]) == 0
    assert main(["report", str(run)]) == 0
    assert "Codebook health" in (run / "report.html").read_text()
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["level_0_lowest_perplexity"] >= 1


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        ("scalar", "codebook_size must be a product of factors from 3 to 16 for a scalar quantizer; got 127"),
        ("binary", "codebook_size must be a power of two, at least 2, for binary codes; got 127"),
    ],
)
def test_a_codebook_size_that_it_cannot_have_is_told_in_one_line(quantizer, message, photos, tmp_path, capsys):
    options = ["--preset", "tiny", "--steps", "1", "--quantizer", quantizer, "--codebook-size", "127"]
    assert main(["train", "--data", str(photos), "--out", str(tmp_path / "run"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
