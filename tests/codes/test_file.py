"""codes.parquet: a law (what is read is what was written) and every way a file can be wrong."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from depthq.codes import Codes, CodesBatch
from depthq.codes.file import read_codes, read_header, write_codes

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


def same(ours: CodesBatch, theirs: Codes) -> bool:
    pairs = zip(ours.codes.levels, theirs.levels, strict=True)
    return ours.codes.codebook_sizes == theirs.codebook_sizes and all(torch.equal(a, b) for a, b in pairs)


def known_images(labels=(7, None, 2), seed=0) -> CodesBatch:
    """Codes of 3 images of which all is known."""
    return CodesBatch(random_codes(3, seed=seed), ("a/1.png", "a/2.png", "b.png"), labels, ((4, 5), (30, 20), (4, 4)))


def test_codes_come_back_in_the_batches_they_were_written_in(path):
    batches = [random_codes(3, seed=1), random_codes(1, seed=2), random_codes(2, seed=3)]
    assert write_codes(path, batches, model_fingerprint=MAKER) == 6
    again = list(read_codes(path, model_fingerprint=MAKER))
    assert [len(batch.codes) for batch in again] == [3, 1, 2]
    assert all(map(same, again, batches))
    assert {(batch.ids, batch.labels, batch.sizes) for batch in again} == {(None, None, None)}


def test_a_path_may_be_a_string(path):
    write_codes(str(path), [random_codes(2)], model_fingerprint=MAKER)
    assert read_header(str(path)).num_images == 2
    assert len(next(read_codes(str(path))).codes) == 2


def test_batches_share_row_groups_and_come_back_apart(path):
    batches = [random_codes(number, seed=number) for number in (3, 1, 2)]
    write_codes(path, batches, model_fingerprint=MAKER)
    assert pq.ParquetFile(path).num_row_groups == 1
    large = [
        random_codes(64, sizes=((8, 5), (300,) * 600), seed=number) for number in range(3)
    ]  # 64 * 600 * 16 * 2 bytes
    write_codes(path, large, model_fingerprint=MAKER)
    assert pq.ParquetFile(path).num_row_groups == 3
    assert [len(batch.codes) for batch in read_codes(path)] == [64, 64, 64]


@pytest.mark.parametrize("labels", [(7, None, 2), (2**63 - 1, -(2**63), 0), ("cat", "dog", None), (None, None, None)])
def test_what_is_known_of_the_images_comes_back(path, labels):
    batches = [known_images(labels, seed) for seed in (1, 2)]
    assert write_codes(path, batches, model_fingerprint=MAKER) == 6
    for again, batch in zip(read_codes(path), batches, strict=True):
        assert same(again, batch.codes)
        assert (again.ids, again.labels, again.sizes) == (list(batch.ids), list(labels), list(batch.sizes))


def test_label_type_says_what_the_first_batch_cannot(path):
    batches = [known_images((None,) * 3), known_images(("cat", None, "dog"))]
    write_codes(path, batches, model_fingerprint=MAKER, label_type=str)
    assert [batch.labels for batch in read_codes(path)] == [[None] * 3, ["cat", None, "dog"]]


@pytest.mark.parametrize("first", [(None, None, None), (7, None, 2)])
def test_labels_of_another_type_than_the_first_are_refused_and_leave_nothing(path, first):
    message = r"labels must all be int in .*codes\.parquet, as .* says; got str; give label_type=str, or convert them"
    with pytest.raises(ValueError, match=message):
        write_codes(path, [known_images(first), known_images(("cat", None, "dog"))], model_fingerprint=MAKER)
    assert not list(path.parent.iterdir())


def test_codebook_size_beyond_every_type_is_refused_and_leaves_nothing(path):
    codes = Codes((torch.zeros(1, 1, 2, dtype=torch.int64),), ((2**32 + 1,),))
    with pytest.raises(
        ValueError, match=r"codebook_sizes must be at most 2\*\*32 to be written; got 4294967297; split"
    ):
        write_codes(path, [codes], model_fingerprint=None)
    assert not list(path.parent.iterdir())


def test_what_is_not_known_has_no_column(path):
    write_codes(path, [CodesBatch(random_codes(2), ids=["a", "b"])], model_fingerprint=MAKER)
    assert pq.read_schema(path).names == ["id", "level_0", "level_1", "shape_0", "shape_1"]
    (again,) = read_codes(path)
    assert (again.ids, again.labels, again.sizes) == (["a", "b"], None, None)


@pytest.mark.parametrize("labels", [np.array([3, 1, 2]), [np.int32(3), None, 2], np.array(["a", "b", "c"])], ids=str)
def test_numbers_of_numpy_come_back_as_python_s_own(path, labels):
    sizes = np.array([[4, 5], [30, 20], [4, 4]])
    batch = CodesBatch(random_codes(3), np.array(["a", "b", "c"]), labels, sizes)
    write_codes(path, [batch], model_fingerprint=MAKER)
    (again,) = read_codes(path)
    assert again.ids == ["a", "b", "c"]
    assert again.labels == list(labels)
    assert again.sizes == [(4, 5), (30, 20), (4, 4)]


@pytest.mark.parametrize("where", [0, 1, 2])
def test_batches_of_no_image_are_left_out(path, where):
    batches = [random_codes(3, seed=1), random_codes(1, seed=2)]
    assert write_codes(path, [*batches[:where], random_codes(0), *batches[where:]], model_fingerprint=MAKER) == 4
    assert all(map(same, read_codes(path), batches))
    assert read_header(path).num_images == 4


@pytest.mark.parametrize("positions", [(), (0,), (7,), (2, 0), (2, 3), (2, 3, 4)])
def test_positions_of_any_rank_come_back(path, positions):
    codes = Codes((torch.randint(0, 9, (3, 2, *positions)),), ((9, 9),))
    write_codes(path, [codes], model_fingerprint=None)
    assert same(next(read_codes(path)), codes)


def test_many_levels_come_back(path):
    codes = Codes(tuple(torch.full((2, 1, 3), level) for level in range(12)), ((12,),) * 12)
    write_codes(path, [codes], model_fingerprint=None)
    assert same(next(read_codes(path)), codes)


def test_header_tells_what_there_is_without_the_codes(path):
    write_codes(path, [random_codes(3), random_codes(2)], model_fingerprint=MAKER)
    header = read_header(path)
    assert (header.model_fingerprint, header.num_images) == (MAKER, 5)
    assert header.codebook_sizes == ((8, 5), (300, 300))


def test_codes_of_images_of_several_sizes_lie_in_one_file(path):
    batches = [random_codes(3), wider(random_codes(2, seed=1)), random_codes(1, seed=2)]
    write_codes(path, batches, model_fingerprint=MAKER)
    again = list(read_codes(path))
    assert all(map(same, again, batches))
    assert pq.read_table(path)["shape_1"].to_pylist() == [[2, 4, 4]] * 3 + [[2, 2, 8]] * 2 + [[2, 4, 4]]


def wider(codes):
    """The same codes on grids of half the height and twice the width."""
    levels = (level.view(*level.shape[:2], level.shape[2] // 2, -1) for level in codes.levels)
    return Codes(tuple(levels), codes.codebook_sizes)


def write_version_1(path, batches, model_fingerprint):
    """As the first version wrote it: levels alone, their header with the version."""
    sizes = batches[0].codebook_sizes
    shapes = [tuple(level.shape[1:]) for level in batches[0].levels]
    header = {"format_version": 1, "model_fingerprint": model_fingerprint, "codebook_sizes": sizes, "shapes": shapes}
    kinds = [pa.list_(pa.uint16(), level[0].numel()) for level in batches[0].levels]
    fields = [pa.field(f"level_{index}", kind) for index, kind in enumerate(kinds)]
    schema = pa.schema(fields, metadata={b"depthq": json.dumps(header)})
    with pq.ParquetWriter(path, schema) as writer:
        for codes in batches:
            flat = [pa.array(level.flatten().numpy().astype("uint16")) for level in codes.levels]
            columns = [pa.FixedSizeListArray.from_arrays(*each) for each in zip(flat, (2 * 4, 2 * 16), strict=True)]
            writer.write_table(pa.table(columns, schema=schema))


def test_files_of_version_1_are_read(path):
    batches = [random_codes(3, seed=1), random_codes(2, seed=2)]
    write_version_1(path, batches, MAKER)
    again = list(read_codes(path, model_fingerprint=MAKER))
    assert all(map(same, again, batches))
    assert {(batch.ids, batch.labels, batch.sizes) for batch in again} == {(None, None, None)}


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"ids": ["a"]}, "ids must be one per image; got 1 for 3 images"),
        ({"labels": [1, "cat", 2]}, "labels must be all int or all str; got int, str; convert them"),
        ({"labels": [1.5, 2, 2]}, "labels must be all int or all str; got float, int"),
        ({"labels": [1, None, 2**63]}, r"labels must lie in .*; got 9223372036854775808; convert them to strings"),
        ({"labels": [1, None, -(2**63) - 1]}, r"labels must lie in -2\*\*63\.\.2\*\*63 - 1; got -9223372036854775809"),
        ({"sizes": [(4, 4), (0, 4), (4, 4)]}, r"sizes must be at least 1 x 1 pixels, .*; got \(0, 4\)"),
        ({"sizes": [(4, 4), (4, 2**31), (4, 4)]}, r"each side below 2\*\*31; got \(4, 2147483648\)"),
        ({"sizes": [(4, 4), (4,), (4, 4)]}, r"sizes must be \(height, width\), whole numbers; got \[4\]"),
        ({"sizes": [4, 4, 4]}, r"sizes must be \(height, width\), whole numbers; got 4"),
        ({"sizes": np.full((3, 2), 4.5)}, r"sizes must be \(height, width\), whole numbers; got \[4.5, 4.5\]"),
        ({"ids": ["a", None, "c"]}, "ids must be strings; got None; name each image, or leave ids out"),
        ({"ids": np.arange(3)}, "ids must be strings; got 0"),
        ({"labels": np.array([1.0, 2.0, np.nan])}, "labels must be all int or all str; got float"),
    ],
)
def test_what_cannot_be_known_of_images_is_refused(known, message):
    with pytest.raises(ValueError, match=message):
        CodesBatch(random_codes(3), **known)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (random_codes(3, ((8, 5), (300, 301))), "batches must all have the same codebook sizes; got "),
        (
            Codes(tuple(level.flatten(2) for level in random_codes(3).levels), ((8, 5), (300, 300))),
            r"must all have the same ranks; got \(2, 2\) after \(3, 3\)",
        ),
        (known_images(), r"same columns; got \('id', 'label', 'height', 'width'\) after \(\)"),
    ],
)
def test_batches_that_are_not_alike_are_refused_and_leave_nothing(path, other, message):
    with pytest.raises(ValueError, match=message):
        write_codes(path, [random_codes(3), other], model_fingerprint=MAKER)
    assert not list(path.parent.iterdir())


def test_codes_of_no_codebooks_are_refused(path):
    nothing = Codes((torch.zeros(1, 0, 2, 2, dtype=torch.int64),), ((),))
    with pytest.raises(ValueError, match=r"batches must have codebooks at each level; got codebook_sizes \(\(\),\)"):
        write_codes(path, [nothing], model_fingerprint=MAKER)


def test_each_level_takes_the_smallest_type_that_holds_its_codes(path):
    sizes = ((256,), (257,), (65537,))
    write_codes(path, [random_codes(1, sizes)], model_fingerprint=MAKER)
    levels = list(pq.read_schema(path))[:3]
    assert [str(field.type.value_type) for field in levels] == ["uint8", "uint16", "uint32"]
    (again,) = read_codes(path)
    assert same(again, random_codes(1, sizes))


def test_largest_code_of_the_smallest_type_survives(path):
    codes = Codes((torch.full((1, 1, 2, 2), 255),), ((256,),))
    write_codes(path, [codes], model_fingerprint=MAKER)
    assert same(next(read_codes(path)), codes)


def test_other_programs_can_read_it(path):
    batch = known_images()
    write_codes(path, [batch], model_fingerprint=MAKER)
    table = pq.read_table(path)
    assert table.num_rows == 3
    assert table.column_names == ["id", "label", "height", "width", "level_0", "level_1", "shape_0", "shape_1"]
    assert [str(table.schema.field(name).type) for name in ("id", "label", "height")] == ["string", "int64", "int32"]
    first = table.slice(0, 1).to_pylist()[0]
    assert [first[name] for name in ("id", "label", "height", "width")] == ["a/1.png", 7, 4, 5]
    assert first["level_1"] == batch.codes.levels[1][0].flatten().tolist()


@pytest.mark.parametrize("batches", [[], [random_codes(0)]], ids=["no batch", "no image"])
def test_no_images_are_refused_and_leave_nothing(path, batches):
    with pytest.raises(ValueError, match="batches must hold at least one image; got none"):
        write_codes(path, batches, model_fingerprint=MAKER)
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
    write_codes(path, [random_codes(1)], model_fingerprint=None)
    with pytest.raises(ValueError, match="got those of no depthq model; decode them with the model that made them"):
        read_codes(path, model_fingerprint="b" * 64)


def test_any_flipped_byte_is_noticed_or_harmless(path):
    codes = random_codes(20)
    known = {"ids": [f"{number}.png" for number in range(20)], "labels": range(20), "sizes": [(9, 9)] * 20}
    write_codes(path, [CodesBatch(codes, **known)], model_fingerprint=MAKER)
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
            assert again.ids == known["ids"]
    assert noticed > 100


@pytest.mark.parametrize("length", [0, 3, 100, -1])
def test_cut_off_file_is_named_with_the_remedy(path, length):
    write_codes(path, [random_codes(20)], model_fingerprint=MAKER)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"codes.parquet must be a whole file of codes; got: .*; encode the images"):
        read_codes(path)


def test_parquet_of_other_things_is_refused(path):
    table = pa.table({"price": [1, 2]})
    for metadata in (None, {"pandas": "{}"}):
        pq.write_table(table.replace_schema_metadata(metadata), path)
        message = r"codes\.parquet must be a file of codes .* got a parquet file without codes, made by something else"
        with pytest.raises(ValueError, match=message):
            read_codes(path)


def rewrite(path, **changes):
    """The file at `path` again, with another header."""
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[b"depthq"])
    pq.write_table(table.replace_schema_metadata({b"depthq": json.dumps(header | changes)}), path)


def test_newer_format_is_refused(path):
    write_codes(path, [random_codes(1)], model_fingerprint=MAKER)
    rewrite(path, format_version=5)
    with pytest.raises(ValueError, match="must be of format 4 or before; got 5; update depthq"):
        read_codes(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"codebook_sizes": [[2, 2], [2, 2]]},  # smaller than the codes
        {"codebook_sizes": [[8, 5]]},
        {"codebook_sizes": [[8, 5], [300, 300], [300, 300]]},
        {"codebook_sizes": [[8], [300, 300]]},
        {"codebook_sizes": 3},
        {"codebook_sizes": [[8, 5], [300, float("inf")]]},
        {"codebook_sizes": [[8, 5], [300, 2**70]]},
        {"model_fingerprint": 3},
    ],
)
def test_header_that_does_not_fit_the_codes_is_refused(path, changes):
    write_codes(path, [random_codes(5)], model_fingerprint=MAKER)
    rewrite(path, **changes)
    with pytest.raises(ValueError, match="must be a whole file of codes"):
        list(read_codes(path))


@pytest.mark.parametrize(
    "changes",
    [
        {"shapes": [[2, 2, 3], [2, 4, 4]]},
        {"shapes": [[2, 2, 2]]},
        {"codebook_sizes": [[8, 5]], "shapes": [[2, 2, 2]]},
        {"shapes": [[2, 4], [2, 4, 4]]},  # as many codes, but of another rank
        {"shapes": 3},
    ],
)
def test_header_of_version_1_that_does_not_fit_the_codes_is_refused(path, changes):
    write_version_1(path, [random_codes(5)], MAKER)
    rewrite(path, **changes)
    with pytest.raises(ValueError, match="must be a whole file of codes"):
        list(read_codes(path))


@pytest.mark.parametrize("shape", [[2, 2, 3], [1, 2, 2], [2, -2, -2], [0, 2, 2]])
def test_shape_that_does_not_fit_the_codes_is_refused(path, shape):
    write_codes(path, [random_codes(5)], model_fingerprint=MAKER)
    table = pq.read_table(path)
    place = table.column_names.index("shape_0")
    column = pa.array([shape] * 5, table.schema[place].type)
    pq.write_table(table.set_column(place, table.schema[place], column), path)
    with pytest.raises(ValueError, match="must be a whole file of codes"):
        list(read_codes(path))


def test_missing_codes_are_refused(path):
    write_codes(path, [known_images()], model_fingerprint=MAKER)
    table = pq.read_table(path)
    for place, name in enumerate(table.column_names):
        if name == "label":
            continue
        holes = pa.array([None, *table[name][1:].to_pylist()], table.schema[place].type)
        pq.write_table(table.set_column(place, table.schema[place], holes), path)
        with pytest.raises(ValueError, match="must be a whole file of codes"):
            list(read_codes(path))


def test_missing_file_is_a_file_not_found(path):
    with pytest.raises(FileNotFoundError):
        read_codes(path)
