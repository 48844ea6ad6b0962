"""Files and folders are whole or absent."""

import pytest

from depthq.files import check_is_new, new_folder, replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["file"]


def test_file_stays_as_it_was_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"former")

    def write():
        with replacing(path) as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert path.read_bytes() == b"former"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_writer_left_does_not_matter(tmp_path):
    (tmp_path / "file.partial").write_bytes(b"a long piece of what was to be written")
    with replacing(tmp_path / "file") as file:
        file.write(b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert names(tmp_path) == ["file"]


def test_folder_takes_its_place_at_the_end(tmp_path):
    with new_folder(tmp_path / "a" / "out") as folder:
        (folder / "image").touch()
        assert not (tmp_path / "a" / "out").exists()
    assert names(tmp_path / "a") == ["out"]
    assert names(tmp_path / "a" / "out") == ["image"]


def test_folder_is_absent_when_filling_fails(tmp_path):
    def fill():
        with new_folder(tmp_path / "out") as folder:
            (folder / "image").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert names(tmp_path) == []


def test_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "image").touch()
    assert names(tmp_path / "out") == ["image"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_not_overwritten(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").touch()
    with (
        pytest.raises(ValueError, match=r"out must not exist yet; it does, and is not overwritten; choose another"),
        new_folder(out),
    ):
        pass
    with pytest.raises(ValueError, match="must not exist yet"):
        check_is_new(out)
    assert names(tmp_path) == ["out"]
