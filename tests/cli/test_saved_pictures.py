"""Where decode and decompress put images: every one of them has a file."""

import pytest
import torch
from PIL import Image

from depthq.cli.pictures import save_by_name


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["cat.jpg", "dog"], ["cat.png", "dog.png"]),
        (["0", "12"], ["00000000.png", "00000012.png"]),
        (["a.parquet:7", "b/c.tar:n01_1"], ["a.parquet/00000007.png", "b/c.tar/n01_1.png"]),
        (["c.tar:sub/n02"], ["c.tar/sub/n02.png"]),
        (["chelsea.png:0,32", "chelsea.png:0,64"], ["chelsea.png/0,32.png", "chelsea.png/0,64.png"]),
        (["10:30.png"], ["10:30.png"]),
        (["a.bmp", "a.jpg.bmp", "a.jpg"], ["a.png", "a.jpg.png", "a.jpg-2.png"]),
        (["cat.jpg", "cat.png/0.bmp", "cat.png/1.bmp"], ["cat.png", "cat.png-2/0.png", "cat.png-2/1.png"]),
        (["cat.png/0.bmp", "cat.jpg"], ["cat.png/0.png", "cat.jpg.png"]),
        (["a/b.jpg", "a/b.png/c.png/d.bmp"], ["a/b.png", "a/b.png-2/c.png/d.png"]),
        (["a.tar:1", "a.tar:01", "a.tar:001"], ["a.tar/00000001.png", "a.tar/00000001-2.png", "a.tar/00000001-3.png"]),
    ],
)  # fmt: skip
def test_every_image_has_a_file_of_its_own(tmp_path, names, files):
    images = [(name, torch.full((3, 1, 1), value, dtype=torch.uint8)) for value, name in enumerate(names)]
    assert save_by_name(images, tmp_path) == len(files)
    for value, file in enumerate(files):
        with Image.open(tmp_path / file) as picture:
            assert picture.getpixel((0, 0)) == (value, value, value)


@pytest.mark.parametrize("name", ["/etc/cat.png", "../cat.png", "a/../../cat.png", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="names in the file must lie within a folder"):
        save_by_name([(name, torch.zeros((3, 1, 1), dtype=torch.uint8))], tmp_path)
    assert not list(tmp_path.iterdir())
