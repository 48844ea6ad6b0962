"""depthq fit: embeddings from a file to codebooks, codes, figures and an index."""

import errno
import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from depthq import DepthwiseQuantizer, ResidualQuantizer, read_codes
from depthq.cli import main


def vectors(count=3000, dim=16):
    rng = np.random.default_rng(0)
    return (rng.standard_normal((count, 4)) @ rng.standard_normal((4, dim))).astype(np.float32)


@pytest.fixture
def array(tmp_path):
    path = tmp_path / "vectors.npy"
    np.save(path, vectors())
    return path


def fit(source, out, *options):
    return main(["fit", str(source), "--num-codebooks", "4", "--codebook-size", "16", "--out", str(out), *options])


def codes_of(folder):
    return torch.cat([batch.codes.levels[0] for batch in read_codes(folder / "codes.parquet")])


def test_what_is_written_agrees(array, tmp_path):
    out = tmp_path / "pq"
    assert fit(array, out) == 0
    quantizer, x, codes = DepthwiseQuantizer.from_pretrained(out), torch.from_numpy(vectors()), codes_of(out)
    assert torch.equal(quantizer.encode(x), codes)
    figures = json.loads((out / "figures.json").read_text())
    error = (quantizer.decode(codes) - x).double().square().mean().item()
    assert figures["mse"] == pytest.approx(error, rel=1e-5)
    assert figures["mse_standardized"] == pytest.approx(error / x.double().var(0, correction=0).mean().item(), rel=1e-5)
    assert figures["mse_standardized"] < 0.2
    assert figures["bits_per_vector"] == 16
    assert figures["vectors"] == 3000
    _, repeats = codes.unique(dim=0, return_counts=True)
    assert figures["colliding"] == repeats[repeats > 1].sum()
    assert all(3 < entropy <= 4 for entropy in figures["entropy_bits"])
    assert figures["mean_mutual_information_bits"] > 0.2


def test_few_independent_vectors_share_nothing(tmp_path, capsys):
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32))
    assert fit(tmp_path / "noise.npy", tmp_path / "out", "--codebook-size", "64") == 0
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["mean_mutual_information_bits"] == pytest.approx(0, abs=0.05)
    assert f"{sum(figures['entropy_bits']):.2f} bits of entropy, summed over codebooks" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_what_few_vectors_cannot_tell_is_said(tmp_path, capsys):
    column = np.random.default_rng(0).standard_normal((200, 1))
    np.save(tmp_path / "few.npy", np.repeat(column, 4, axis=1).astype(np.float32))
    assert fit(tmp_path / "few.npy", tmp_path / "out", "--codebook-size", "64") == 0
    error = capsys.readouterr().err
    assert "code_entropy has only 200 positions for up to 64 codes in use" in error
    assert "pairwise_mutual_information has only 200 positions for a table of 64 x 64 codes in use" in error


@pytest.mark.parametrize("options", [["--num-codebooks", "1"], []], ids=["no pair", "too large a table"])
def test_mutual_information_may_be_left_out(array, tmp_path, monkeypatch, capsys, options):
    monkeypatch.setattr("depthq.analysis.counting.TABLES_LIMIT_BYTES", 8 * 4 * 16)
    assert fit(array, tmp_path / "out", *options) == 0
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["mean_mutual_information_bits"] is None
    assert "mutual information not counted" in capsys.readouterr().out


def test_residual_stages_describe_more_of_the_same_bits(array, tmp_path):
    errors = {}
    for kind in ("depthwise", "residual"):
        assert fit(array, tmp_path / kind, "--quantizer", kind) == 0
        errors[kind] = json.loads((tmp_path / kind / "figures.json").read_text())["mse"]
    assert errors["residual"] < errors["depthwise"]  # the slices of these vectors depend on each other
    assert isinstance(ResidualQuantizer.from_pretrained(tmp_path / "residual"), ResidualQuantizer)


@pytest.mark.parametrize("kind", ["depthwise", "residual"])
def test_balanced_codes_are_used_evenly(array, tmp_path, kind):
    entropies = {}
    for name, options in {"plain": [], "balanced": ["--balanced"]}.items():
        assert fit(array, tmp_path / name, "--quantizer", kind, *options) == 0
        entropies[name] = json.loads((tmp_path / name / "figures.json").read_text())["entropy_bits"]
    assert all(entropy > 3.98 for entropy in entropies["balanced"])  # of 4
    assert sum(entropies["balanced"]) > sum(entropies["plain"])


def test_faiss_index_has_all_vectors_and_goes_back(array, tmp_path):
    faiss = pytest.importorskip("faiss")
    out = tmp_path / "pq"
    assert fit(array, out, "--index", "faiss") == 0
    index = faiss.read_index(str(out / "index.faiss"))
    assert index.ntotal == 3000
    ours = DepthwiseQuantizer.from_faiss(index, axis=-1)
    assert torch.equal(ours.encode(torch.from_numpy(vectors())), codes_of(out))


@pytest.mark.parametrize("kind", ["list", "fixed"])
def test_parquet_gives_the_same_as_the_array(array, tmp_path, kind):
    rows = vectors()
    column = pa.array(list(rows)) if kind == "list" else pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])
    pq.write_table(pa.table({"name": pa.array(["x"] * len(rows)), "vector": column}), tmp_path / "vectors.parquet")
    assert fit(array, tmp_path / "a") == 0
    assert fit(tmp_path / "vectors.parquet", tmp_path / "b") == 0
    assert torch.equal(codes_of(tmp_path / "a"), codes_of(tmp_path / "b"))


def test_same_seed_same_codes(array, tmp_path):
    for name in ("a", "b"):
        assert fit(array, tmp_path / name, "--seed", "3", "--sample", "500") == 0
    assert torch.equal(codes_of(tmp_path / "a"), codes_of(tmp_path / "b"))


def test_two_processes_fit_the_codebooks_of_one(array, tmp_path):
    """The sample is shared out; each codeword is the mean of all processes' vectors."""
    command = [sys.executable, "-m", "depthq", "fit", str(array), "--num-codebooks", "4", "--codebook-size", "16"]
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    out = ["--out", str(tmp_path / "two"), "--quiet"]
    processes = [
        subprocess.Popen([*command, *out], env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert fit(array, tmp_path / "one") == 0
    errors = [json.loads((tmp_path / name / "figures.json").read_text())["mse"] for name in ("one", "two")]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)  # other rows are drawn to start from
    assert len(codes_of(tmp_path / "two")) == 3000


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_a_folder_that_is_not_empty_is_refused_before_the_work(array, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert fit(array, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert (
        error == f"depthq fit: error: {tmp_path / 'out'} must not exist yet; it does, and is not overwritten; "
        "choose another --out\n"
    )


def test_an_empty_folder_is_filled_and_a_small_sample_refused(array, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert fit(array, tmp_path / "out", "--sample", "15") == 1
    assert "sample must hold at least as many vectors as a codebook has codes, 16; got 15" in capsys.readouterr().err
    assert fit(array, tmp_path / "out", "--sample", "16") == 0
    assert (tmp_path / "out" / "figures.json").is_file()


BAD = {
    "rank 1": (lambda x: x[0], r"must hold numbers of shape \(N, D\); got float32 of shape \(16,\)"),
    "rank 3": (lambda x: x[None], r"must hold numbers of shape \(N, D\)"),
    "text": (lambda x: x.astype(str), r"must hold numbers of shape \(N, D\)"),
    "empty": (lambda x: x[:0], "must hold at least one vector"),
    "NaN": (
        lambda x: np.where(np.arange(3000)[:, None] == 7, np.nan, x),
        "must be finite; got NaN or infinity in row 7",
    ),
    "few": (lambda x: x[:15], "at least as many vectors as a codebook has codes, 16; got 15"),
    "narrow": (lambda x: x[:, :3], "num_codebooks must be at most 3, the size of a vector; got 4"),
    "not filled": (lambda x: x[:, :6], "got dim=6, num_codebooks=4, codebook_dim=2; take 3 or 6 codebooks"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_get_one_line(tmp_path, capsys, case):
    spoil, message = BAD[case]
    np.save(tmp_path / "bad.npy", spoil(vectors()))
    assert fit(tmp_path / "bad.npy", tmp_path / "out") in (1, 2)
    error = capsys.readouterr().err
    assert re.search(message, error.replace("\n", " "))
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_bad_files_get_one_line(array, tmp_path, capsys):
    (tmp_path / "cut.npy").write_bytes(array.read_bytes()[:40])
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, vectors())
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (tmp_path / "vectors.txt").write_text("1 2 3")
    pq.write_table(pa.table({"a": [[1.0], [2.0]], "b": [[1.0], [2.0]]}), tmp_path / "two.parquet")
    pq.write_table(pa.table({"a": [[1.0], [2.0, 3.0]]}), tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"a": pa.array([[1.0], None])}), tmp_path / "nulls.parquet")
    for name, message in {
        "absent.npy": "which is not there",
        "cut.npy": "must be a whole .npy array",
        "archive.npy": "must be a whole .npy array",
        "cut.parquet": "must be a whole parquet file",
        "vectors.txt": "must be a .npy or .parquet file",
        "two.parquet": "got a, b; name one with --column",
        "ragged.parquet": "must hold vectors of one length in a",
        "nulls.parquet": "must hold a vector in every row of a",
    }.items():
        assert fit(tmp_path / name, tmp_path / "out") in (1, 2), name
        assert message in capsys.readouterr().err.replace("\n", " "), name
    assert fit(tmp_path / "two.parquet", tmp_path / "out", "--column", "c") == 1
    assert "column must be one of lists of numbers, a, b; got c" in capsys.readouterr().err


def test_a_column_of_an_array_is_refused(array, tmp_path, capsys):
    assert fit(array, tmp_path / "out", "--column", "vector") == 1
    assert "column must be of a .parquet file; got vector and " in capsys.readouterr().err


def test_a_temporary_folder_without_room_gets_one_line(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    pq.write_table(pa.table({"vector": list(vectors())}), tmp_path / "vectors.parquet")
    monkeypatch.setattr("depthq.files.os.posix_fallocate", full)
    assert fit(tmp_path / "vectors.parquet", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert (
        "TMPDIR must be a folder with room for a copy of the vectors, 192000 bytes; got: [Errno 28] No space" in error
    )
    assert error.endswith("; set it to another\n")


def test_an_index_that_faiss_cannot_have_is_refused_first(array, tmp_path, capsys):
    assert fit(array, tmp_path / "out", "--index", "faiss", "--quantizer", "residual") == 1
    assert "index must be left out for residual or balanced codes" in capsys.readouterr().err
    command = ["fit", str(array), "--codebook-size", "100", "--index", "faiss", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "codebook_size must be one power of two for faiss; got 100" in capsys.readouterr().err


def test_from_faiss_wants_a_trained_product_quantizer():
    faiss = pytest.importorskip("faiss")
    for index in (faiss.IndexFlatL2(8), faiss.IndexPQ(8, 2, 4)):
        with pytest.raises(ValueError, match=r"index must be a trained faiss.IndexPQ; got Index"):
            DepthwiseQuantizer.from_faiss(index)
