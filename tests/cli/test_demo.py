"""depthq demo: one page, written before the training and after it."""

import re

import pytest

from depthq.cli import demo, main
from depthq.report import demo as pages_of_demo


@pytest.fixture
def small_demo(monkeypatch):
    """Of pieces of the photos, and a few steps."""
    whole = demo._photos
    monkeypatch.setattr(demo, "_photos", lambda: {name: photo[:, 100:149, 100:180] for name, photo in whole().items()})
    monkeypatch.setattr(demo, "_steps_in", lambda seconds: 6)
    monkeypatch.setattr(demo, "SECONDS_BETWEEN_PAGES", 0.05)
    monkeypatch.setattr(demo, "SAMPLES", 4)


@pytest.mark.usefixtures("small_demo")
def test_page_shows_photos_samples_files_and_the_run(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--quiet"]) == 0
    told = capsys.readouterr()
    assert told.out.rstrip().endswith(str(out / "index.html"))
    assert told.err == ""
    page = (out / "index.html").read_text()
    assert re.search(r"chelsea.png, 80 x 49: original on the left, ours on the right,\s+<strong>\d\d\.\d dB", page)
    assert page.count("<img src=") >= 2 * 3 + 5 + 4  # pairs, prefixes, samples
    assert re.findall(r'scope="row">(depthq|PNG|WebP)<', page)
    assert "decoded and compared" in page
    assert "6 of 6 steps" in page
    assert 'http-equiv="refresh"' not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.usefixtures("small_demo")
def test_first_page_loads_itself_anew(tmp_path, monkeypatch):
    pages = []
    original = pages_of_demo.write_demo
    monkeypatch.setattr(
        pages_of_demo, "write_demo", lambda path, page: (original(path, page), pages.append(path.read_text()))
    )
    assert main(["demo", "--out", str(tmp_path / "demo"), "--quiet"]) == 0
    assert 'http-equiv="refresh"' in pages[0]
    assert "It begins in a moment" in pages[0]
    assert "it is being decoded" in pages[0]


def test_out_that_exists_is_not_touched(tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").write_text("three years of work")
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 1
    assert "must not exist yet" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["thesis.tex"]
