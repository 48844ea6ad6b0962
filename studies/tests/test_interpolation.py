"""Paths between images: their ends are the images, and the figures are those that a person can work out."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from depthq.cli import main as depthq
from depthq.models import DQAE, DQAEConfig
from studies import interpolation


def network() -> nn.Module:
    """Maps with the images' own channels."""
    return nn.Sequential(nn.Identity()).eval()


def images(*colours: tuple[int, int, int]) -> torch.Tensor:
    """(T + 1, 1, 3, 2, 2), each of one colour."""
    return torch.tensor(colours).float()[:, None, :, None, None].expand(-1, 1, 3, 2, 2)


@pytest.fixture
def eye():
    return interpolation.Eye(network(), ("0",), lambda pixels: pixels / 255, image_size=2)


def test_steps_are_between_vectors_of_length_one(eye):
    steps, direct = eye.distances(images((255, 0, 0), (9, 9, 0), (0, 51, 0)))
    # Unit vectors along red and green are the root of 2 apart; half way between both, the root of 2 - 2 cos 45 degrees.
    assert direct.tolist() == pytest.approx([2**0.5])
    assert steps[:, 0].tolist() == pytest.approx([(2 - 2**0.5) ** 0.5] * 2)


def test_no_path_is_shorter_than_the_straight_one(eye):
    generator = torch.Generator().manual_seed(0)
    steps, direct = eye.distances(torch.randint(0, 256, (6, 8, 3, 2, 2), generator=generator).float())
    assert (steps.sum(0) >= direct).all()


def test_detail_of_a_blend_with_the_negative_is_lost_and_of_a_still_image_kept():
    image = torch.randint(0, 256, (1, 3, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    blend = torch.stack([image, (image + 255 - image) / 2, 255 - image])
    assert interpolation.detail_kept(blend).item() == 0
    assert interpolation.detail_kept(torch.stack([image] * 4)).item() == 1


@pytest.mark.parametrize("quantizer", ["depthwise", "shared", "residual", "scalar", "binary"])
def test_paths_lead_from_one_image_to_the_other(quantizer):
    torch.manual_seed(0)
    config = DQAEConfig(
        channels=(8, 8), num_residual_blocks=1, likelihood="l2", quantizer=quantizer, num_codebooks=3, codebook_size=8,
        codebook_dim=4,
    )  # fmt: skip
    model = DQAE(config).train()
    pictures = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    model(pictures)  # fills the codebooks
    model.eval()
    first, second = pictures[:2], pictures[2:]
    for kind in interpolation.PATHS:
        path = interpolation.path_between(model, first, second, kind)
        assert path.shape == (4, 2, 3, 16, 16)
        assert torch.equal(path[0], model.reconstruct(first).float())
        assert torch.equal(path[-1], model.reconstruct(second).float())
    latents = interpolation.latents_of(model, first)
    assert torch.equal(interpolation.decode_latents(model, latents), model.reconstruct(first))


def test_runs_are_measured_once_and_the_table_has_each_path(tmp_path, monkeypatch, capsys):
    run, out = tmp_path / "run", tmp_path / "rows.json"
    assert depthq(["train", "--preset", "tiny", "--data", "bundled", "--steps", "5", "--out", str(run)]) == 0
    options = ["interpolation", str(run), "--data", "bundled", "--pairs", "4", "--layers", "0", "--image-size", "32"]
    options += ["--backbone", f"{__name__}:network", "--out", str(out)]
    monkeypatch.setattr("sys.argv", options)
    interpolation.main()
    (row,) = json.loads(out.read_text())
    for kind in interpolation.PATHS:
        assert row[kind]["length"] >= 1
        assert 0.2 <= row[kind]["longest_step"] <= row[kind]["length"]
    assert row["pixels"]["detail"] < row["positions"]["detail"]
    printed = capsys.readouterr().out
    assert all(f"| depthwise | {kind} | " in printed for kind in interpolation.PATHS)
    written = out.stat().st_mtime_ns
    interpolation.main()
    assert out.stat().st_mtime_ns == written


def test_runs_of_one_name_are_refused(monkeypatch, capsys):
    options = ["a/run", "b/run", "--data", "bundled", "--backbone", f"{__name__}:network", "--out", "rows.json"]
    monkeypatch.setattr("sys.argv", ["interpolation", *options])
    with pytest.raises(SystemExit):
        interpolation.main()
    assert "got run twice; rename one" in capsys.readouterr().err


def test_the_page_has_the_table_of_the_rows_that_are_kept():
    rows = json.loads((Path(interpolation.__file__).parent / "interpolation.json").read_text())
    page = Path(interpolation.__file__).parents[1] / "docs/which-quantizer.md"
    assert interpolation.table(rows) in page.read_text()
