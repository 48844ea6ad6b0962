"""Files and folders are whole or absent."""

import errno
import io
from pathlib import Path

import numpy as np
import pytest

from depthq.files import check_is_new, is_leftover, new_folder, open_npy, remove_leftovers, replacing, reserve


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


def test_a_full_disk_shows_before_a_memory_map_is_written_to(tmp_path, monkeypatch):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(2**20)
    reserve(path)
    assert path.stat().st_blocks * 512 >= path.stat().st_size == 2**20
    monkeypatch.setattr("depthq.files.os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: .*file") as caught:
        reserve(path)
    assert caught.value.errno == errno.ENOSPC


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_array_is_opened_and_any_other_file_is_a_value_error(tmp_path):
    path, whole = tmp_path / "array.npy", io.BytesIO()
    np.save(whole, np.arange(6).reshape(2, 3))
    path.write_bytes(whole.getvalue())
    assert open_npy(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    archive = io.BytesIO()
    np.savez(archive, np.ones(3))
    unclosed = whole.getvalue().replace(b"(2, 3)", b"(2, 3 ")
    for content, message in (
        (archive.getvalue(), "the magic string is not correct"),
        (b"PK\x03\x04 no archive", "the magic string is not correct"),
        (unclosed, "a damaged header"),
        (whole.getvalue()[:-1], "mmap length is greater than file size"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_npy(path)


def test_nothing_of_a_user_is_written_over_whatever_its_name(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").touch()
    (tmp_path / "file.partial").write_bytes(b"mine")
    with new_folder(tmp_path / "out"), replacing(tmp_path / "file"):
        pass
    assert (tmp_path / "out.partial" / "mine").exists()
    assert (tmp_path / "file.partial").read_bytes() == b"mine"


def test_what_killed_writers_left_is_known_and_removed_and_nothing_else(tmp_path):
    for kept in (".depthq-notes", "file.partial", "folder"):
        (tmp_path / kept).touch()
    with replacing(tmp_path / "file") as file, new_folder(tmp_path / "out") as folder:
        names_while_writing = [file.name, str(folder)]
    for name in names_while_writing:  # as a killed process leaves them
        Path(name).mkdir()
        (Path(name) / "half").touch()
    assert {path.name for path in tmp_path.iterdir() if is_leftover(path)} == {
        Path(p).name for p in names_while_writing
    }
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".depthq-notes", "file", "file.partial", "folder", "out"]


def test_what_another_writes_in_a_folder_of_its_own_is_no_leftover(tmp_path):
    with replacing(tmp_path / "prior" / "file"), replacing(tmp_path / "model" / "file") as half:
        remove_leftovers(tmp_path, but_in=tmp_path / "prior")
        assert not Path(half.name).exists()
        Path(half.name).touch()
    assert names(tmp_path / "prior") == ["file"]


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


class TestFoldersThatAreThere:
    """An empty folder cannot be replaced where it is the root of a file system: it is filled."""

    def fill(self, path):
        with new_folder(path) as folder:
            (folder / "a.txt").write_text("a")
            (folder / "sub").mkdir()
            (folder / "sub" / "b.txt").write_text("b")

    def test_an_empty_folder_keeps_its_identity(self, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        before = out.stat().st_ino
        self.fill(out)
        assert out.stat().st_ino == before
        assert sorted(path.name for path in out.iterdir()) == ["a.txt", "sub"]

    def test_a_link_to_an_empty_folder_stays_a_link(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "out").symlink_to("real")
        self.fill(tmp_path / "out")
        assert (tmp_path / "out").is_symlink()
        assert (tmp_path / "real" / "sub" / "b.txt").read_text() == "b"

    def test_the_folder_one_is_in(self, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        tmp_path.chmod(0o555)  # nothing is written beside it, where another file system may be
        self.fill(Path())
        tmp_path.chmod(0o755)
        assert (tmp_path / "here" / "a.txt").read_text() == "a"

    def test_a_link_to_nothing_is_refused(self, tmp_path):
        (tmp_path / "out").symlink_to("nowhere")
        with pytest.raises(ValueError, match="must not exist yet"):
            self.fill(tmp_path / "out")

    def test_work_that_cannot_be_moved_stays(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(16, "Device or resource busy")

        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="what was written is whole in ") as caught:
            self.fill(tmp_path / "out")
        left = Path(str(caught.value).split("is whole in ")[1].split(";")[0])
        assert (left / "a.txt").read_text() == "a"
