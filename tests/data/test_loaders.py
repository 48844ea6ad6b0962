from itertools import pairwise

import numpy as np
import pytest
import torch

from depthq.data import (
    DataError,
    HeldImages,
    ImageBatches,
    Origin,
    evaluation_loader,
    loaders,
    open_images,
    open_whole_images,
    opening,
    training_loader,
    whole,
)

NUM_IMAGES = 20
SETTINGS = {"batch_size": 4, "num_steps": 12, "seed": 5}


def coordinates(num_images=NUM_IMAGES, side=8, image_size=5):
    """Images whose three channels hold the number of the image, the row and the column."""
    number, row, column = np.indices((num_images, side, side))
    pixels = torch.from_numpy(np.stack([number, row, column], axis=1).astype(np.uint8))
    return HeldImages(pixels, image_size)


def numbers(batches):
    return [batch[:, 0, 0, 0].tolist() for batch in batches]


@pytest.fixture
def lazy_folder(tmp_path, write_images, monkeypatch):
    """A folder with 20 training images, whose pixels hold their number; too large to be held."""
    monkeypatch.setattr(opening, "DECODED_BYTES", 0)
    return write_images(tmp_path, [f"train/{number:02}.png" for number in range(NUM_IMAGES)] + ["test/0.png"])


def test_each_image_occurs_once_per_epoch():
    seen = np.concatenate(numbers(training_loader(coordinates(), **SETTINGS | {"num_steps": 10})))
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20].tolist() != seen[20:].tolist()


def test_batches_run_across_the_end_of_an_epoch():
    loader = training_loader(coordinates(num_images=3), batch_size=4, num_steps=3, seed=0)
    seen = np.concatenate(numbers(loader)).reshape(4, 3)  # 12 images in four epochs
    assert np.sort(seen, axis=1).tolist() == [[0, 1, 2]] * 4


def test_crops_are_windows_of_the_images_and_half_are_flipped():
    batches = torch.cat(list(training_loader(coordinates(), batch_size=50, num_steps=40, seed=0)))
    assert batches.shape == (2000, 3, 5, 5)
    assert batches.dtype == torch.uint8
    assert batches.is_contiguous()
    rows, columns = batches[:, 1, :, 0].int(), batches[:, 2, 0].int()
    assert torch.equal(batches[:, 1].int(), rows[:, :, None].expand(-1, 5, 5))
    assert torch.equal(batches[:, 2].int(), columns[:, None].expand(-1, 5, 5))
    assert torch.equal(rows.diff(), torch.ones(2000, 4, dtype=torch.int32))
    flipped = columns[:, 0] > columns[:, 1]
    assert torch.equal(columns.diff(), torch.where(flipped, -1, 1).int()[:, None].expand(-1, 4))
    assert 900 < int(flipped.sum()) < 1100
    for corner in (rows[:, 0], columns.min(1).values):  # all of the 8 - 5 + 1 places, equally often
        assert corner.bincount().tolist() == pytest.approx([500] * 4, abs=80)


def test_flips_can_be_turned_off():
    batches = torch.cat(list(training_loader(coordinates(), **SETTINGS, flip=False)))
    assert (batches[:, 2, 0].int().diff() == 1).all()


def test_resumed_run_sees_what_the_uninterrupted_one_saw():
    whole = list(training_loader(coordinates(), **SETTINGS))
    resumed = list(training_loader(coordinates(), **SETTINGS, first_step=7))
    assert (len(whole), len(resumed)) == (12, 5)
    assert all(torch.equal(a, b) for a, b in zip(whole[7:], resumed, strict=True))


def test_length_is_that_of_the_whole_run():
    assert len(training_loader(coordinates(), **SETTINGS, first_step=7)) == 12
    assert list(training_loader(coordinates(), **SETTINGS, first_step=12)) == []


def test_ranks_share_the_batch_that_one_process_would_see():
    ranks = [training_loader(coordinates(), **SETTINGS, rank=rank, world_size=3) for rank in range(3)]
    alone = training_loader(coordinates(), **SETTINGS | {"batch_size": 12})
    for *shares, batch in zip(*ranks, alone, strict=True):
        assert torch.equal(torch.cat(shares), batch)


def test_seeds_differ():
    first, second = (list(training_loader(coordinates(), **SETTINGS | {"seed": seed})) for seed in (0, 1))
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("first_step", [0, 5])
def test_workers_make_the_same_batches(lazy_folder, first_step):
    images = open_images(lazy_folder, "train", image_size=5)
    alone = list(training_loader(images, **SETTINGS, first_step=first_step))
    helped = list(training_loader(images, **SETTINGS, first_step=first_step, num_workers=2))
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_lazy_and_held_images_give_the_same_batches(lazy_folder, monkeypatch):
    lazy = open_images(lazy_folder, "train", image_size=5)
    monkeypatch.setattr(opening, "DECODED_BYTES", 2**30)
    held = open_images(lazy_folder, "train", image_size=5)
    assert type(lazy) is not type(held)
    for make in (
        lambda images: training_loader(images, **SETTINGS),
        lambda images: evaluation_loader(images, batch_size=3),
    ):
        assert all(torch.equal(a, b) for a, b in zip(make(lazy), make(held), strict=True))


def test_random_state_of_the_run_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(training_loader(coordinates(), **SETTINGS))
    list(evaluation_loader(coordinates(), batch_size=4))
    assert torch.equal(torch.rand(3), expected)


def test_evaluation_goes_in_order_and_the_last_batch_is_smaller():
    loader = evaluation_loader(coordinates(num_images=7), batch_size=3)
    assert len(loader) == 3
    assert numbers(loader) == [[0, 1, 2], [3, 4, 5], [6]]


def test_evaluation_crops_the_centre():
    (batch,) = evaluation_loader(coordinates(num_images=1, side=8, image_size=4), batch_size=1)
    assert batch[0, 1, :, 0].tolist() == batch[0, 2, 0].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(("limit", "expected"), [(4, [[0, 1, 2], [3]]), (99, [[0, 1, 2], [3, 4]])])
def test_evaluation_stops_at_the_limit(limit, expected):
    assert numbers(evaluation_loader(coordinates(num_images=5), batch_size=3, limit=limit)) == expected


def test_image_batches_are_the_crops_with_the_origin_of_each(lazy_folder):
    (lazy_folder / "train" / "05.png").write_bytes(b"no image")
    images = open_images(lazy_folder, "train", image_size=5, on_bad_image="skip")
    with pytest.warns(UserWarning, match="skipped 1 bad images"):
        batches = list(ImageBatches(images, batch_size=8, crop=5))
    plain = torch.cat(list(evaluation_loader(images, batch_size=8)))
    assert torch.equal(torch.cat([batch.images for batch in batches]), plain)
    origins = [origin for batch in batches for origin in batch.origins]
    assert images.label_type is None
    assert origins == [Origin(f"train/{number:02}.png") for number in range(NUM_IMAGES) if number != 5]


def test_whole_images_come_in_order_in_batches_of_one_size(lazy_folder, write_images):
    write_images(lazy_folder, ["train/13.png"], size=(9, 7), start=13)
    images = open_whole_images(lazy_folder, "train")
    batches = list(ImageBatches(images, batch_size=8))
    assert [tuple(batch.images.shape) for batch in batches] == [(8, 3, 8, 8), (5, 3, 8, 8), (1, 3, 9, 7), (6, 3, 8, 8)]
    ids = [origin.id for batch in batches for origin in batch.origins]
    assert ids == [f"train/{number:02}.png" for number in range(NUM_IMAGES)]
    assert sum(len(batch) for batch in ImageBatches(images, batch_size=8, limit=15)) == 15


def test_batches_of_large_images_are_small(monkeypatch):
    monkeypatch.setattr(whole, "BATCH_PIXELS", 150)
    batches = ImageBatches(coordinates(num_images=5), batch_size=64)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    monkeypatch.setattr(whole, "BATCH_PIXELS", 63)
    assert [len(batch) for batch in batches] == [1] * 5


def test_decoded_images_are_kept_within_the_limit(lazy_folder, monkeypatch):
    """All but the one that no longer fits are read once; batches are the same."""
    images = open_images(lazy_folder, "train", image_size=5)
    plain = list(training_loader(images, **SETTINGS))
    reads = []
    read = type(images).__getitem__
    monkeypatch.setattr(type(images), "__getitem__", lambda self, index: reads.append(index) or read(self, index))
    monkeypatch.setattr(loaders, "DECODED_BYTES", 10**6)
    kept = list(training_loader(images, **SETTINGS))
    assert sorted(reads) == list(range(NUM_IMAGES))
    assert all(map(torch.equal, kept, plain))
    reads.clear()
    monkeypatch.setattr(loaders, "DECODED_BYTES", images.num_bytes)
    monkeypatch.setattr(images, "num_bytes", 0)  # as if headers had told of less
    assert all(map(torch.equal, training_loader(images, **SETTINGS), plain))
    assert len(reads) <= NUM_IMAGES + 2


def test_workers_read_what_memory_cannot_hold(lazy_folder, monkeypatch):
    images = open_images(lazy_folder, "train", image_size=5)
    assert training_loader(images, **SETTINGS).num_workers == 0
    monkeypatch.setattr(loaders, "DECODED_BYTES", images.num_bytes - 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    loader = training_loader(images, **SETTINGS)
    assert loader.num_workers == 2
    assert all(map(torch.equal, loader, training_loader(images, **SETTINGS, num_workers=1)))


def test_a_new_source_of_ids_is_a_list_of_origins():
    """As of a table of birds, whose names and numbers stand in no file that depthq reads."""
    names = ["wren", "crow", "wren"]
    origins = [Origin(f"bird {number}", name) for number, name in enumerate(names)]
    birds = HeldImages(coordinates(num_images=3).pixels, image_size=5, origins=origins)
    assert birds.label_type is str
    (batch,) = ImageBatches(birds, batch_size=8)
    assert [(origin.id, origin.label) for origin in batch.origins] == [
        ("bird 0", "wren"),
        ("bird 1", "crow"),
        ("bird 2", "wren"),
    ]
    assert batch.images.shape == (3, 3, 8, 8)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_image_raises_by_name_without_a_worker_traceback(lazy_folder, num_workers):
    images = open_images(lazy_folder, "train", image_size=5)
    (lazy_folder / "train" / "13.png").write_bytes(b"no image")
    for loader in (
        training_loader(images, **SETTINGS, num_workers=num_workers),
        evaluation_loader(images, batch_size=4, num_workers=num_workers),
    ):
        with pytest.raises(DataError, match=r"^images must be whole and readable; got .*13\.png \(of no known"):
            list(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_takes_the_next_good_image_for_a_skipped_one(lazy_folder, num_workers):
    images = open_images(lazy_folder, "train", image_size=5, on_bad_image="skip")
    whole = numbers(training_loader(images, **SETTINGS))
    (lazy_folder / "train" / "13.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"skipped 1 bad images of 20: .*13\.png$"):
        patched = numbers(training_loader(images, **SETTINGS, num_workers=num_workers))
    stream = np.concatenate([*whole, [whole[0][0]]])
    expected = [after if number == 13 else number for number, after in pairwise(stream)]
    assert np.concatenate(patched)[:47].tolist() == expected[:47]
    assert images.num_skipped == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_leaves_skipped_images_out(lazy_folder, num_workers):
    images = open_images(lazy_folder, "train", image_size=5, on_bad_image="skip")
    for number in (1, 4, 5, 6, 7):
        (lazy_folder / "train" / f"{number:02}.png").write_bytes(b"no image")
    loader = evaluation_loader(images, batch_size=4, limit=12, num_workers=num_workers)
    with pytest.warns(UserWarning, match="skipped 5 bad images of 20"):
        first = numbers(loader)
    assert first == numbers(loader) == [[0, 2, 3], [8, 9, 10, 11]]  # told of once: a second warning would raise
    assert images.num_skipped == 5


@pytest.mark.parametrize("seed", range(8))
def test_a_single_good_image_is_found_wherever_it_lies_in_two_epochs(seed):
    class OneGood(HeldImages):
        def __getitem__(self, index):
            return super().__getitem__(index) if index == 2 else None

    images = OneGood(coordinates(num_images=5).pixels, image_size=5)
    for batch in training_loader(images, batch_size=5, num_steps=4, seed=seed):
        assert batch[:, 0, 0, 0].tolist() == [2] * 5


def test_all_images_bad_raises_even_when_skipping(lazy_folder):
    images = open_images(lazy_folder, "train", image_size=5, on_bad_image="skip")
    for number in range(NUM_IMAGES):
        (lazy_folder / "train" / f"{number:02}.png").write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match="skipped 20 bad images"),
        pytest.raises(DataError, match="must hold a readable image; got 20 that are all bad"),
    ):
        list(training_loader(images, **SETTINGS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size and world_size must be at least 1"),
        ({"seed": -1}, "num_steps and seed at least 0; got 4, 1, 12 and -1"),
        ({"first_step": 13}, r"first_step must lie in 0\.\.num_steps \(12\); got 13"),
        ({"rank": 2, "world_size": 2}, r"rank must lie in \[0, world_size\) with world_size 2; got 2"),
    ],
)
def test_training_arguments_out_of_range_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        training_loader(coordinates(), **SETTINGS | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"batch_size": 1, "limit": 0}, "limit must be at least 1; got 0; leave it out"),
    ],
)
def test_evaluation_arguments_out_of_range_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluation_loader(coordinates(), **arguments)
