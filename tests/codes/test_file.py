"""codes.parquet: a law (what is read is what was written) and every way a file can be wrong."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from depthq.codes import Codes
from depthq.codes.file import read_codes, write_codes

MAKER = "a" * 64


def random_codes(batch, sizes=((8, 5), (300, 300)), seed=0):
    generator = torch.Generator().manual_seed(seed)

    def level(level_sizes, side):
        maps = [torch.randint(0, size, (batch, side, side), generator=generator) for size in level_sizes]
        return torch.stack(maps, dim=1)

    return Codes(tuple(level(s, 2 * 2**index) for index, s in enumerate(sizes)), sizes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "codes.parquet"


def same(ours: Codes, theirs: Codes) -> bool:
    pairs = zip(ours.levels, theirs.levels, strict=True)
    return ours.codebook_sizes == theirs.codebook_sizes and all(torch.equal(a, b) for a, b in pairs)


def test_codes_come_back_in_the_batches_they_were_written_in(path):
    batches = [random_codes(3, seed=1), random_codes(1, seed=2), random_codes(2, seed=3)]
    assert write_codes(path, batches, model_fingerprint=MAKER) == 6
    again = list(read_codes(path, model_fingerprint=MAKER))
    assert [len(codes) for codes in again] == [3, 1, 2]
    assert all(map(same, again, batches))


def test_each_level_takes_the_smallest_type_that_holds_its_codes(path):
    sizes = ((256,), (257,), (65537,))
    write_codes(path, [random_codes(1, sizes)], model_fingerprint=MAKER)
    assert [str(field.type.value_type) for field in pq.read_schema(path)] == ["uint8", "uint16", "uint32"]
    (again,) = read_codes(path)
    assert same(again, random_codes(1, sizes))


def test_largest_code_of_the_smallest_type_survives(path):
    codes = Codes((torch.full((1, 1, 2, 2), 255),), ((256,),))
    write_codes(path, [codes], model_fingerprint=MAKER)
    assert same(next(read_codes(path)), codes)


def test_other_programs_can_read_it(path):
    codes = random_codes(2)
    write_codes(path, [codes], model_fingerprint=MAKER)
    table = pq.read_table(path)
    assert table.num_rows == 2
    assert table.column_names == ["level_0", "level_1"]
    assert table["level_1"][1].as_py() == codes.levels[1][1].flatten().tolist()


def test_no_images_are_refused_and_leave_nothing(path):
    with pytest.raises(ValueError, match="batches must hold at least one image; got none"):
        write_codes(path, [], model_fingerprint=MAKER)
    assert not list(path.parent.iterdir())


def test_failure_on_the_way_leaves_nothing(path):
    def batches():
        yield random_codes(1)
        raise RuntimeError("the model broke")

    with pytest.raises(RuntimeError, match="the model broke"):
        write_codes(path, batches(), model_fingerprint=MAKER)
    assert not list(path.parent.iterdir())


def test_codes_of_another_model_are_refused(path):
    write_codes(path, [random_codes(1)], model_fingerprint=MAKER)
    with pytest.raises(ValueError, match=r"must hold codes of this model \(bbbbbbbbbbbb\); got .* \(aaaaaaaaaaaa\)"):
        read_codes(path, model_fingerprint="b" * 64)


def test_any_flipped_byte_is_noticed_or_harmless(path):
    codes = random_codes(20)
    write_codes(path, [codes], model_fingerprint=MAKER)
    content = path.read_bytes()
    noticed = 0
    for place in range(0, len(content), 13):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            (again,) = read_codes(path, model_fingerprint=MAKER)
        except ValueError:
            noticed += 1
        else:
            assert same(again, codes)
    assert noticed > 100


@pytest.mark.parametrize("length", [0, 3, 100, -1])
def test_cut_off_file_is_named_with_the_remedy(path, length):
    write_codes(path, [random_codes(20)], model_fingerprint=MAKER)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"codes.parquet must be a whole file of codes; got: .*; encode the images"):
        read_codes(path)


def test_parquet_of_other_things_is_refused(path):
    pq.write_table(pa.table({"price": [1, 2]}), path)
    with pytest.raises(ValueError, match="must be a whole file of codes"):
        read_codes(path)


def rewrite(path, **changes):
    """The file at `path` again, with another header."""
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[b"depthq"])
    pq.write_table(table.replace_schema_metadata({b"depthq": json.dumps(header | changes)}), path)


def test_newer_format_is_refused(path):
    write_codes(path, [random_codes(1)], model_fingerprint=MAKER)
    rewrite(path, format_version=2)
    with pytest.raises(ValueError, match="must be of format 1; got 2; update depthq"):
        read_codes(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"codebook_sizes": [[2, 2], [2, 2]]},  # smaller than the codes
        {"codebook_sizes": [[8, 5]]},
        {"shapes": [[2, 2, 3], [2, 4, 4]]},
        {"shapes": 3},
    ],
)
def test_header_that_does_not_fit_the_codes_is_refused(path, changes):
    write_codes(path, [random_codes(5)], model_fingerprint=MAKER)
    rewrite(path, **changes)
    with pytest.raises(ValueError, match="must be a whole file of codes"):
        list(read_codes(path))


def test_missing_codes_are_refused(path):
    write_codes(path, [random_codes(2)], model_fingerprint=MAKER)
    table = pq.read_table(path)
    holes = pa.array([None, table["level_0"][1].as_py()], table.schema[0].type)
    pq.write_table(table.set_column(0, table.schema[0], holes), path)
    with pytest.raises(ValueError, match="must be a whole file of codes"):
        list(read_codes(path))


def test_missing_file_is_a_file_not_found(path):
    with pytest.raises(FileNotFoundError):
        read_codes(path)
