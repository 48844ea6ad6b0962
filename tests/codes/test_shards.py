"""A folder of shards: which are done, and what a run may go on with."""

from dataclasses import replace

import pytest
import torch

from depthq.analysis import summarize_codes
from depthq.cli.stored_codes import count_stored_codes
from depthq.codes import Codes
from depthq.codes.file import read_codes, read_header, write_codes
from depthq.codes.shards import Done, ShardFolder, ShardPlan, is_shard_folder

MODEL = "a" * 64
PLAN = ShardPlan(MODEL, {"source": "photos/", "split": "all", "crop": None}, num_images=10, images_per_shard=4)


def write(folder, shard, num_images, fingerprint=MODEL):
    codes = Codes((torch.full((num_images, 1, 2), shard),), ((8,),))
    write_codes(folder.file(shard), [codes], model_fingerprint=fingerprint)
    folder.mark(Done(shard, num_images))


@pytest.fixture
def folder(tmp_path):
    folder = ShardFolder.of_plan(tmp_path / "codes", PLAN)
    folder.begin()
    return folder


def test_a_plan_cuts_images_into_shards_of_which_the_last_may_be_smaller():
    assert PLAN.num_shards == 3
    assert list(map(PLAN.images_of, range(3))) == [range(4), range(4, 8), range(8, 10)]
    with pytest.raises(ValueError, match="must be at least 1; got 0 and 4"):
        replace(PLAN, num_images=0)


def test_nothing_is_written_before_it_begins(tmp_path):
    ShardFolder.of_plan(tmp_path / "codes", PLAN)
    assert not (tmp_path / "codes").exists()


def test_a_run_goes_on_with_what_is_missing(folder):
    assert folder.missing() == [0, 1, 2]
    write(folder, 1, 4)
    again = ShardFolder.of_plan(folder.path, PLAN)
    assert again.missing() == [0, 2]
    assert again.num_images == 4
    again.file(1).unlink()
    assert ShardFolder.of_plan(folder.path, PLAN).missing() == [0, 1, 2]


def test_a_file_that_no_line_tells_of_is_done_again(folder):
    write_codes(folder.file(0), [Codes((torch.zeros(4, 1, 2, dtype=torch.int64),), ((8,),))], model_fingerprint=MODEL)
    assert ShardFolder.open(folder.path).missing() == [0, 1, 2]


def test_a_line_that_was_left_half_counts_for_nothing_and_harms_no_other(folder):
    write(folder, 0, 4)
    with (folder.path / "done.jsonl").open("a") as file:
        file.write('{"shard": 1, "num_im')
    again = ShardFolder.open(folder.path)
    assert again.missing() == [1, 2]
    write(again, 2, 2)
    assert ShardFolder.open(folder.path).missing() == [1]


def test_shards_are_read_in_order_one_batch_after_the_other(folder):
    for shard, num_images in ((2, 2), (0, 4), (1, 4)):
        write(folder, shard, num_images)
    batches = list(read_codes(folder.path, model_fingerprint=MODEL))
    assert [int(batch.codes.levels[0][0, 0, 0]) for batch in batches] == [0, 1, 2]
    assert read_header(folder.path).num_images == 10
    assert read_header(folder.path).codebook_sizes == ((8,),)


def test_they_are_counted_as_one_file_of_codes_is(folder):
    for shard, num_images in ((0, 4), (1, 4), (2, 2)):
        write(folder, shard, num_images)
    counts = count_stored_codes(folder.path, ())
    assert summarize_codes(counts).images == 10
    assert summarize_codes(count_stored_codes(folder.path, (), limit=5)).images == 5


def test_a_shard_of_bad_images_alone_has_no_file(folder):
    folder.mark(Done(0, 0, ("a.png", "b.png", "c.png", "d.png")))
    write(folder, 1, 4)
    write(folder, 2, 2)
    again = ShardFolder.open(folder.path)
    assert again.missing() == []
    assert again.skipped == ["a.png", "b.png", "c.png", "d.png"]
    assert read_header(again.path).num_images == 6


def test_a_folder_that_misses_shards_is_not_read(folder):
    write(folder, 0, 4)
    message = (
        r"must hold all of its 3 shards; 2 are missing, such as codes-00001-of-00003\.parquet; run the depthq encode"
    )
    with pytest.raises(ValueError, match=message):
        read_codes(folder.path)


def test_shards_of_two_models_are_not_read_as_one(folder):
    for shard, num_images in ((0, 4), (1, 4), (2, 2)):
        write(folder, shard, num_images, fingerprint=MODEL if shard else "b" * 64)
    with pytest.raises(ValueError, match=r"must hold codes of one model; codes-00001-of-00003\.parquet is of another"):
        read_header(folder.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_images": 11}, "it has num_images 10, got 11"),
        ({"images_per_shard": 2}, "it has images_per_shard 4, got 2"),
        ({"model_fingerprint": "b"}, "it has model_fingerprint aaa"),
        ({"source": PLAN.source | {"source": "others/"}}, "it has source photos/, got others/; run the same command"),
        ({"source": PLAN.source | {"split": "test"}}, "it has split all, got test; run the same command"),
        ({"source": PLAN.source | {"new": 1}}, "it has new None, got 1"),
    ],
)
def test_another_plan_is_not_gone_on_with(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        ShardFolder.of_plan(folder.path, replace(PLAN, **changes))


def test_a_background_may_be_added_as_long_as_nothing_was_left_out(folder):
    white = replace(PLAN, source=PLAN.source | {"background": "white"})
    write(folder, 0, 4)
    folder = ShardFolder.of_plan(folder.path, white)
    folder.begin()
    assert ShardFolder.open(folder.path).plan == white
    assert folder.missing() == [1, 2]
    with pytest.raises(ValueError, match="it has background white, got None"):
        ShardFolder.of_plan(folder.path, PLAN)


def test_a_background_is_not_added_once_images_were_left_out(folder):
    folder.mark(Done(0, 3, ("transparent.png",)))
    with pytest.raises(ValueError, match="it has background None, got white"):
        ShardFolder.of_plan(folder.path, replace(PLAN, source=PLAN.source | {"background": "white"}))


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="must not exist yet, be empty or hold shards; it does not"):
        ShardFolder.of_plan(tmp_path, PLAN)
    with pytest.raises(ValueError, match=r"must be a folder of shards; it has no shards\.json"):
        read_codes(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format_version": 1}', b"\xff", b'{"format_version": 2}'])
def test_a_damaged_plan_is_named(folder, content):
    (folder.path / "shards.json").write_bytes(content)
    assert is_shard_folder(folder.path)
    with pytest.raises(
        ValueError, match=r"must be a whole folder of shards; got|shards\.json must be of format 1; got 2"
    ):
        ShardFolder.open(folder.path)
