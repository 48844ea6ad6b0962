import http.server
import io
import re
import tarfile
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from depthq.data import DataError, count_images, open_images, what_was_taken
from depthq.data.sources import count_encoded_images, find_images


def write_tar(path, members):
    """A tar file of these names and contents, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def samples(encode):
    """Members of samples whose pixels hold their number, with its class."""

    def samples(numbers, extension="png"):
        for number in numbers:
            yield f"{number:04}.{extension}", encode(np.full((8, 8, 3), number, np.uint8))
            yield f"{number:04}.cls", str(number % 3).encode()

    return samples


@pytest.fixture
def two_shards(tmp_path, samples):
    write_tar(tmp_path / "shards" / "b-1.tar", samples(range(5, 8)))
    write_tar(tmp_path / "shards" / "b-0.tar", samples(range(5)))
    return tmp_path / "shards"


def values(images):
    return [int(images[number][0, 0, 0]) for number in range(len(images))]


def test_images_come_in_the_order_of_files_and_of_their_place_with_keys_and_classes(two_shards):
    images = open_images(two_shards, "all")
    assert values(images) == list(range(8))
    origins = images.origins([4, 5])
    assert [origin.id for origin in origins] == ["b-0.tar:0004", "b-1.tar:0005"]
    assert [origin.label for origin in origins] == [1, 2]
    assert images.label_type is int


def test_a_single_file_is_a_source(two_shards):
    assert values(open_images(two_shards / "b-0.tar", "all")) == [0, 1, 2, 3, 4]
    assert find_images(str(two_shards / "b-0.tar"), "all").origins([1])[0].id == "0001"
    assert count_encoded_images(str(two_shards)) == 8


def test_keys_that_lead_out_of_a_folder_are_ids_that_do_not(tmp_path, encode):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    names = ["/data/1.png", "x/../2.png", "../../3.png", "./4.png", b"caf\xe9.png".decode(errors="surrogateescape")]
    write_tar(tmp_path / "a.tar", [(name, picture) for name in names])
    inside = ["data/1", "x/2", "3", "./4", r"caf\udce9"]
    images = open_images(tmp_path / "a.tar", "all")
    assert [origin.id for origin in images.origins(range(5))] == inside
    images = open_images(tmp_path, "all")
    assert [origin.id for origin in images.origins(range(5))] == [f"a.tar:{name}" for name in inside]


def test_images_may_be_counted_that_want_their_extension_named(tmp_path, encode):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    members = [("1.jpg", picture), ("1.png", picture), ("1.cls", b"one"), ("1.name", b"one")]
    file = write_tar(tmp_path / "a.tar", members)
    assert count_images(file, image_column="png", label_column="name") == 1


def test_extensions_are_meant_in_any_case(tmp_path, encode):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    members = [("1.JPG", picture), ("1.Cls", b"4"), ("1.Seg.PNG", picture), ("2.jpg", picture), ("2.cls", b"5")]
    images = open_images(write_tar(tmp_path / "a.tar", members), "all")
    assert [origin.label for origin in images.origins([0, 1])] == [4, 5]
    assert len(open_images(tmp_path / "a.tar", "all", image_column="JPG", label_column="CLS")) == 2
    assert len(open_images(tmp_path / "a.tar", "all", image_column="seg.png")) == 1


def test_an_extension_twice_in_a_sample_is_refused_in_any_case(tmp_path, encode):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    file = write_tar(tmp_path / "a.tar", [("1.JPG", picture), ("1.jpg", picture), ("1.cls", b"4")])
    with pytest.raises(DataError, match=r"different extensions, in any case; got 1.JPG and 1.jpg in .*a.tar; rename"):
        open_images(file, "all")


def test_ids_differ_where_keys_do_not(tmp_path, encode):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    names = ["/a.png", "b.png", "../a.png", "a.png", "b(2).png", "c.png", "b.png"]
    images = open_images(write_tar(tmp_path / "a.tar", [(name, picture) for name in names]), "all")
    ids = [origin.id for origin in images.origins(range(7))]
    assert ids == ["a", "b", "a(2)", "a(3)", "b(2)", "c", "b(3)"]


def test_a_label_that_is_too_long_is_told(tmp_path, encode):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    file = write_tar(tmp_path / "a.tar", [("1.png", picture), ("1.cls", b"1" * 4097)])
    images = open_images(file, "all")
    assert (images.label_type, images.left_out) == (None, ("1 of .cls too long for a label",))


def test_words_in_names_tell_the_split(tmp_path, samples):
    write_tar(tmp_path / "train-000.tar", samples(range(5)))
    write_tar(tmp_path / "val-000.tar", samples(range(5, 7)))
    assert values(open_images(tmp_path, "train")) == [0, 1, 2, 3, 4]
    assert values(open_images(tmp_path, "test")) == [5, 6]


def test_shards_behind_a_url_are_those_of_the_folder(two_shards):
    images = open_images(f"file://{two_shards}", "all")
    assert values(images) == list(range(8))
    assert images.origins([5])[0].id == "b-1.tar:0005"


class ServesRanges(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            return super().do_GET()
        content = Path(self.translate_path(self.path)).read_bytes()
        start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        return self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


class ServesWholeFiles(ServesRanges):
    def do_GET(self):
        del self.headers["Range"]
        return super().do_GET()


@contextmanager
def served(folder, handler):
    """The address under which a folder is served."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_shards_on_a_server_are_read_where_they_lie(two_shards):
    with served(two_shards, ServesRanges) as address:
        assert values(open_images(f"{address}/b-0.tar", "all")) == [0, 1, 2, 3, 4]
        assert values(open_images(address, "all")) == list(range(8))


def test_a_server_without_ranges_is_refused(two_shards):
    with (
        served(two_shards, ServesWholeFiles) as address,
        pytest.raises(DataError, match=r"must be read in parts; got 20480 bytes .*; take a server that serves ranges"),
    ):
        open_images(f"{address}/b-0.tar", "all")


def test_parquet_behind_a_url_is_that_of_the_path(tmp_path, write_parquet):
    write_parquet(tmp_path / "a.parquet", [3, 1, 2])
    assert values(open_images(f"file://{tmp_path}/a.parquet", "all")) == [3, 1, 2]
    assert values(open_images(f"file://{tmp_path}", "all")) == [3, 1, 2]
    assert count_images(f"file://{tmp_path}") == count_images(f"file://{tmp_path}/a.parquet") == 3


def test_images_are_counted_whatever_columns_their_splits_have(tmp_path, write_parquet):
    write_parquet(tmp_path / "train.parquet", [3, 1, 2], column="photo")
    write_parquet(tmp_path / "test.parquet", [4, 5], column="scan")
    for source in (str(tmp_path), f"file://{tmp_path}"):
        assert count_images(source, image_column="photo") == 5


def test_an_address_that_nobody_answers_is_named():
    with pytest.raises(DataError, match=r"must be reachable.*http://127\.0\.0\.1:9/shards"):
        find_images("http://127.0.0.1:9/shards", "all")


@pytest.mark.parametrize("num_bytes", [3 * 512, 2 * 512 + 100, 4 * 512])
def test_a_file_that_is_cut_off_is_named_wherever_it_ends(tmp_path, samples, num_bytes):
    file = write_tar(tmp_path / "a.tar", samples(range(3)))
    content = file.read_bytes()
    file.write_bytes(content[:num_bytes])
    with pytest.raises(DataError, match=r"must be whole and not compressed; got .*a\.tar"):
        find_images(str(tmp_path), "all")


def test_compressed_files_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"not compressed; got .*a\.tar"):
        find_images(str(tmp_path), "all")


def test_extensions_that_leave_open_which_are_the_images_are_asked_for(tmp_path, encode):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    members = [("1.left.png", picture), ("1.right.png", picture), ("1.name", b"one")]
    file = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match="got 0 in"):  # left.png is no image's extension
        open_images(file, "all")
    images = open_images(file, "all", image_column="left.png", label_column="name")
    assert values(images) == [0]
    assert images.origins([0])[0].label == "one"
    both = write_tar(tmp_path / "b.tar", [("1.jpg", picture), ("1.png", picture)])
    with pytest.raises(DataError, match=r"got 1 with jpg, png in .*pass the extension as image_column"):
        open_images(both, "all")


@pytest.mark.parametrize("text", ["cat", str(2**63), str(-(2**63) - 1)])
def test_a_class_that_is_no_number_of_64_bits_is_refused_and_is_a_string_elsewhere(tmp_path, encode, text):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    file = write_tar(tmp_path / "a.tar", [("1.png", picture), ("1.cls", text.encode())])
    message = rf"files \.cls must hold whole numbers, .*; got '{text}' .*; give such files another extension, and"
    with pytest.raises(DataError, match=message):
        open_images(file, "all")
    file = write_tar(tmp_path / "b.tar", [("1.png", picture), ("1.name", text.encode())])
    assert open_images(file, "all", label_column="name").origins([0])[0].label == text


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_a_class_of_64_bits_is_a_number(tmp_path, encode, number):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    file = write_tar(tmp_path / "a.tar", [("1.png", picture), ("1.cls", str(number).encode())])
    assert open_images(file, "all").origins([0])[0].label == number


def test_a_label_that_is_not_there_is_refused(two_shards):
    with pytest.raises(DataError, match="label_column must be an extension of files"):
        open_images(two_shards, "all", label_column="txt")


def test_samples_without_an_image_and_hidden_files_are_no_images(tmp_path, samples):
    members = [("._0000.png", b"junk"), *samples(range(2)), ("0009.cls", b"1")]
    assert values(open_images(write_tar(tmp_path / "a.tar", members), "all")) == [0, 1]


def test_members_that_give_no_image_are_told_as_those_of_folders(tmp_path, encode):
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    named = ["cat.png", "cat.cls", "cat.2.png", "IMG_2020.01.02.png", "dog.hei", "z.JPE", "z.cls", "Makefile"]
    file = write_tar(tmp_path / "shards" / "a.tar", [(name, b"1" if "cls" in name else picture) for name in named])
    (tmp_path / "shards" / "notes.txt").write_text("")
    with tarfile.open(file, "a") as tar:
        for name, kind in (("again.png", tarfile.LNKTYPE), ("soft.png", tarfile.SYMTYPE), ("more", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "cat.png"
            tar.addfile(info)
    assert what_was_taken("all", open_images(tmp_path / "shards", "all")) == (
        f"all: 1 images from {tmp_path / 'shards'}; left out: 1 of .txt; 1 of .cls; 1 of .hei; 1 of .jpe; 2 of .png "
        "behind a link; 1 of .png beside another image of the sample; 1 of .png with more dots in the name; "
        "1 of no suffix"
    )
    none = write_tar(tmp_path / "none.tar", [("IMG_2020.01.02.png", picture)])
    with pytest.raises(DataError, match=r"got 0 in .*none\.tar beside 1 of \.png with more dots in the name; add some"):
        open_images(none, "all")


def test_a_damaged_image_is_named_by_its_key(tmp_path, samples):
    members = [*samples([0]), ("0001.png", b"no image"), ("0001.cls", b"1"), *samples([2])]
    file = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"got 0001 of .*a\.tar"):
        open_images(file, "all")
    with pytest.warns(UserWarning, match=r"skipped 1 bad images of 3: 0001 of .*a\.tar"):
        images = open_images(file, "all", on_bad_image="skip")
    assert values(images) == [0, 2]
