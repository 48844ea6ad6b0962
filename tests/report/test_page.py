import base64
import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.codecs import BesideCodecs, ComparedRates
from depthq.measure import PerImage, measure
from depthq.pixels import psnr_db
from depthq.report import write_report
from depthq.report.page import headline_metrics
from depthq.report.patches import patches_of_codes


class Outline(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def write(make_run):
    def write(**settings) -> str:
        return write_report(*make_run(**settings)).read_text()

    return write


def test_it_is_one_file_that_asks_for_nothing(write):
    text = write()
    outline = Outline(text)
    assert not re.search(r"https?:", text)
    assert all(image["src"].startswith("data:image/png;base64,") for image in outline.all("img"))
    assert [link["href"] for link in outline.all("link")] == ["data:,"]
    assert all("src" not in script for script in outline.all("script"))
    policy = next(meta["content"] for meta in outline.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_headings_descend_without_a_gap(write):
    headings = [int(tag[1]) for tag, _ in Outline(write()).tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(headings))


def test_landmarks_labels_and_header_cells(write):
    outline = Outline(write())
    for landmark in ("header", "nav", "main", "footer"):
        assert len(outline.all(landmark)) == 1, landmark
    ids = {attributes["id"] for _, attributes in outline.tags if "id" in attributes}
    assert all(section["aria-labelledby"] in ids for section in outline.all("section"))
    assert all(link["href"][1:] in ids for link in outline.all("a"))
    assert all("alt" in image for image in outline.all("img"))
    assert all(cell["scope"] in ("row", "col") for cell in outline.all("th"))
    assert all(field.get("aria-label") for field in outline.all("input"))
    assert outline.all("html") == [{"lang": "en"}]


def test_what_comes_from_the_run_is_escaped(write):
    hostile = "<script>alert('x')\" onload=\"alert(1)"
    text = write(data=hostile)
    assert "<script>alert" not in text
    assert 'onload="alert' not in text
    assert "&lt;script&gt;alert" in text


@pytest.mark.parametrize("data", ["/home/someone/secret/photos", "secret/photos/", "~/secret/photos"])
def test_paths_stay_at_home(write, data):
    text = write(data=data)
    assert text.count("photos") == 3
    assert "secret" not in text
    assert "someone" not in text


def test_it_says_what_was_trained_and_how(write):
    text = " ".join(write().split())
    assert "3 codebooks of 4 codes at 4 x 4 positions; then 3 codebooks of 8 codes at 8 x 8 positions" in text
    assert "10 of 10 steps of 64 images from photos" in text
    assert "<dt>learning_rate</dt>" in text
    assert "<dt>codebook_size</dt><dd>4, 8</dd>" in text


def test_each_level_alone_and_each_prefix_has_its_psnr(write):
    captions = re.findall(r"<figcaption>(.*?)(?: <span>([\d.]+) dB</span>)?</figcaption>", write())
    psnr_db = {name: float(psnr) for name, psnr in captions if psnr}
    levels = ["level 0 alone", "level 1 alone", "all levels"]
    assert list(psnr_db) == [*levels, "level 0", "first codebook", "first 2 codebooks", "all codes"]
    assert psnr_db["level 0"] == psnr_db["level 0 alone"]
    assert psnr_db["all codes"] == psnr_db["all levels"]


def test_one_level_needs_no_ablation(write):
    text = write(codebook_size=8)
    assert 'id="levels"' not in text
    assert "across levels" not in text
    assert 'id="codes"' in text


def test_one_codebook_has_no_pairs(write):
    text = write(codebook_size=8, num_codebooks=1)
    assert "Mutual information" not in text
    assert "Codebook health" in text


def test_collapsed_codebooks_and_redrawn_codes_are_told(make_run):
    run, model, measured = make_run(codebook_size=16)
    state = model.levels[0].quantizer.state
    state.recent_count.fill_(1.0)
    state.recent_count[1, 1:] = 0.0  # one code of 16 is left
    state.recently_redrawn[:, 1] = torch.arange(100) % 2
    rows = re.findall(r"<td>(\d+)</td>\s*<td>(.*?)</td>\s*</tr>", write_report(run, model, measured).read_text())
    assert rows == [("0", "alive"), ("50", '<strong class="alarm">collapsed</strong>'), ("0", "alive")]


def test_without_a_quantizer_there_are_no_codes(write):
    text = write(quantizer="none")
    assert "no quantizer" in text
    assert 'id="codes"' not in text
    assert 'type="range"' in text


def test_a_run_without_metrics_has_no_curves(make_run):
    run, model, measured = make_run()
    (run / "metrics.jsonl").unlink()
    assert 'id="training"' not in write_report(run, model, measured).read_text()


def test_total_comes_first_where_it_exists(make_run):
    _, _, measured = make_run(likelihood="categorical")
    first = headline_metrics(measured.measurement)[0]
    assert (first.name, first.unit) == ("total", "bits/dim")
    assert first.value == f"{measured.measurement.total_bits_per_dim:.3f}"


def test_l2_shows_reconstruction_and_rate(make_run):
    _, _, measured = make_run()
    names = [metric.name for metric in headline_metrics(measured.measurement)]
    assert names == ["PSNR", "SSIM", "L2", "codes", "codes per pixel"]


def test_a_report_replaces_the_one_before(make_run):
    run, model, measured = make_run()
    (run / "report.html").write_text("old")
    write_report(run, model, measured)
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_pictures_are_the_worst_and_the_best_by_psnr(make_run, images):
    run, model, measured = make_run()
    text = write_report(run, model, measured).read_text()
    shown = [image["src"] for image in Outline(text).all("img") if image.get("class") == "original"]
    quality = psnr_db(model.reconstruct(images).float(), images.float())
    order = quality.argsort().tolist()
    expected = [*order[:3], *order[::-1][:3]]
    assert len(shown) == 1 + 6
    for url, index in zip(shown[1:], expected, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
        assert (np.asarray(picture) == images[index].permute(1, 2, 0).numpy()).all()
    assert "The worst of 40 by PSNR" in text
    assert f"worst image 1, {quality.min():.1f} dB" in text
    assert f"best image 1, {quality.max():.1f} dB" in text


def test_images_that_are_not_square_are_shown_whole(make_run):
    run, model, measured = make_run()
    per_image = PerImage(kept=1)
    wide = torch.randint(0, 256, (2, 3, 9, 30), dtype=torch.uint8)
    measure(model, [wide], per_image=per_image)
    text = write_report(run, model, replace(measured, per_image=per_image)).read_text()
    assert "aspect-ratio: 30 / 9" in text


def test_a_histogram_tells_its_ends_and_its_median(make_run):
    run, model, measured = make_run()
    text = write_report(run, model, measured).read_text()
    values = np.array(measured.per_image.psnr_db)
    assert (
        f"From {values.min():.3g} to {values.max():.3g}, half of the images at or below {np.median(values):.3g}" in text
    )


@pytest.mark.parametrize(("horizon", "title"), [(0, "Image given codes"), (1, "Image given codes and neighbours")])
def test_a_histogram_says_by_which_head_pixels_are_told(make_run, horizon, title):
    run, model, measured = make_run(likelihood="logistic_mixture", horizon=horizon)
    assert f"<figcaption>{title} per image, bits/dim" in write_report(run, model, measured).read_text()


def test_rates_stand_beside_codecs(make_run):
    run, model, measured = make_run()
    rates = ComparedRates(2.5, 1.25, BesideCodecs(64, 30.0, 14.0, 3.75, True))
    text = " ".join(write_report(run, model, replace(measured, rates=rates)).read_text().split())
    told = (
        "The first 64 take 2.50 bits/pixel as codes (1.25 under the prior), 3.75 as JPEG of equal PSNR, 14.00 as PNG."
    )
    assert told in text


def test_patches_of_a_code_are_where_the_code_is(make_model, images):
    model = make_model()
    found = patches_of_codes(model, images)
    codes = model.encode(images)
    assert {row.level for row in found} == {0, 1}
    for row in found:
        grid = codes.levels[row.level][:, row.codebook]
        assert row.share == float((grid == row.code).double().mean())
        stride = 16 // grid.shape[-1]
        margin = (row.patches.shape[-1] - stride) // 2
        for patch in row.patches:
            core = patch[:, margin : margin + stride, margin : margin + stride]
            assert any(
                torch.equal(core, images[i, :, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride])
                for i, y, x in (grid == row.code).nonzero().tolist()
            )
