import multiprocessing
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from depthq import Codes
from depthq.analysis import CodeCounts, counting

ROWS = np.array([[0, 2], [0, 2], [1, 0], [1, 1]])


def random_hierarchy(images: int, seed: int = 0) -> Codes:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 4, (images, 2, 2, 3), generator=generator)
    fine = torch.randint(0, 5, (images, 3, 4, 6), generator=generator)
    return Codes((coarse, fine), ((4, 4), (5, 6, 7)))


def tables(counts: CodeCounts) -> list[torch.Tensor]:
    levels = range(len(counts.codebook_sizes))
    pairs = [counts.joint(a, b) for b in counts.codebooks for a in counts.codebooks if a < b]
    whole = [table for level in levels if (table := counts.joint_of_level(level)) is not None]
    return [counts.per_position(level) for level in levels] + pairs + whole


def assert_same_counts(counts: CodeCounts, expected: CodeCounts) -> None:
    assert counts.grids == expected.grids
    for ours, theirs in zip(tables(counts), tables(expected), strict=True):
        assert torch.equal(ours, theirs)


def test_counts_by_hand():
    counts = CodeCounts([2, 3]).update(ROWS)
    assert counts.marginal().tolist() == [[2, 2, 0], [1, 1, 2]]
    assert counts.joint((0, 0), (0, 1)).tolist() == [[0, 0, 2], [1, 1, 0]]
    assert counts.joint((0, 1), (0, 0)).tolist() == [[0, 1], [0, 1], [2, 0]]
    assert counts.per_position().shape == (2, 3)


def test_all_codebooks_of_a_level_are_counted_together():
    rows = np.array([[0, 2, 1], [0, 2, 1], [1, 0, 0]])
    table = CodeCounts([2, 3, 2]).update(rows).joint_of_level()
    assert table is not None
    assert table.nonzero().tolist() == [[0, 2, 1], [1, 0, 0]]
    assert (int(table[0, 2, 1]), int(table[1, 0, 0])) == (2, 1)


def test_of_one_codebook_or_two_the_table_is_theirs():
    counts = CodeCounts([[2], [3, 4]]).update([np.array([[0], [1]]), np.array([[2, 3], [0, 1]])])
    assert torch.equal(counts.joint_of_level(0), counts.marginal(0)[0])  # pyright: ignore[reportArgumentType]
    assert torch.equal(counts.joint_of_level(1), counts.joint((1, 0), (1, 1)))  # pyright: ignore[reportArgumentType]


def test_a_level_of_too_many_combinations_has_no_table_of_them():
    counts = CodeCounts([[128, 128, 256], [128, 128, 257]]).update([np.zeros((1, 3), dtype=np.int64)] * 2)
    assert counts.joint_of_level(0).shape == (128, 128, 256)  # pyright: ignore[reportOptionalMemberAccess]
    assert counts.joint_of_level(1) is None


def test_positions_are_counted_apart():
    codes = torch.tensor([[[0, 1]], [[0, 0]], [[0, 1]]])  # 3 sequences, 1 codebook, 2 positions
    assert CodeCounts([2]).update(codes).per_position().tolist() == [[[3, 0], [1, 2]]]


def test_across_levels_a_fine_position_meets_the_coarse_one_that_covers_it():
    coarse = torch.tensor([[[[0, 1]]]])  # 1 x 2
    fine = torch.tensor([[[[0, 0, 1, 1], [2, 2, 2, 0]]]])  # 2 x 4
    counts = CodeCounts([[2], [3]]).update([coarse, fine])
    assert counts.joint((0, 0), (1, 0)).tolist() == [[2, 0, 2], [1, 2, 1]]
    assert counts.marginal(0).tolist() == [[1, 1]]  # the coarse level itself is counted on its own grid


@pytest.mark.parametrize(("coarse", "fine"), [(2, 4), (2, 5), (3, 4), (1, 7), (4, 4)])
def test_upsampling_is_that_of_torch(coarse, fine):
    codes = torch.randint(0, 9, (2, 3, coarse, coarse))
    expected = torch.nn.functional.interpolate(codes.float(), size=(fine, fine), mode="nearest").long()
    assert torch.equal(counting.upsample_codes(codes, (fine, fine)), expected)


def test_joint_tables_agree_with_numpy():
    codes = np.random.default_rng(0).integers(0, 7, (5000, 3))
    counts = CodeCounts([7, 8, 9]).update(codes)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        sizes = np.array([7, 8, 9])[[a, b]]
        expected = np.histogram2d(codes[:, a], codes[:, b], bins=[np.arange(size + 1) for size in sizes])[0]
        assert np.array_equal(counts.joint((0, a), (0, b)).numpy(), expected)


@pytest.mark.parametrize("positions_at_once", [1, 50, 10**6])
def test_streaming_equals_one_shot(monkeypatch, positions_at_once):
    codes = random_hierarchy(20)
    expected = CodeCounts(codes.codebook_sizes).update(codes)
    monkeypatch.setattr(counting, "POSITIONS_AT_ONCE", positions_at_once)
    streamed = CodeCounts(codes.codebook_sizes)
    for start in (0, 7, 8):
        streamed.update(codes[start : {0: 7, 7: 8, 8: 20}[start]])
    assert_same_counts(streamed, expected)


def test_tables_over_the_limit_are_left_out_and_all_else_is_counted():
    codes = random_hierarchy(20)
    whole = CodeCounts(codes.codebook_sizes).update(codes)
    assert whole.has_pairs
    assert whole.has_positions
    assert whole.joint_bytes < whole.position_bytes
    for limit, has_pairs, has_positions in (
        (whole.position_bytes, True, True),
        (whole.position_bytes - 1, True, False),
        (whole.joint_bytes - 1, False, False),
    ):
        counts = CodeCounts(codes.codebook_sizes, limit_bytes=limit).update(codes)
        assert (counts.has_pairs, counts.has_positions) == (has_pairs, has_positions)
        assert counts.num_images == 20
        for level in (0, 1):
            assert torch.equal(counts.marginal(level), whole.marginal(level))


def test_what_was_left_out_cannot_be_asked_for():
    codes = random_hierarchy(20)
    counts = CodeCounts(codes.codebook_sizes, limit_bytes=0).update(codes)
    with pytest.raises(
        ValueError, match=r"must have joint tables; theirs, [\d,]+ bytes, are left out as more than .* 0;"
    ):
        counts.joint((0, 0), (0, 1))
    with pytest.raises(ValueError, match=r"must tell positions apart; their tables, [\d,]+ bytes, are left out .* 0;"):
        counts.per_position()
    assert counts.joint_of_level(1) is None


def test_merge_needs_the_same_limit():
    first, second = (CodeCounts([2, 3], limit_bytes=limit).update(ROWS) for limit in (0, 1))
    with pytest.raises(ValueError, match="other must have limit_bytes 0; got 1"):
        first.merge(second)
    again = CodeCounts([2, 3], limit_bytes=0).update(ROWS)
    assert first.merge(again).marginal().tolist() == (2 * again.marginal()).tolist()


def test_nothing_counted_is_no_image():
    assert CodeCounts([2]).num_images == 0


def test_merge_equals_concatenation():
    first, second = random_hierarchy(5, seed=1), random_hierarchy(8, seed=2)
    merged = CodeCounts(first.codebook_sizes).update(first).merge(CodeCounts(first.codebook_sizes).update(second))
    assert_same_counts(merged, CodeCounts(first.codebook_sizes).update(Codes.cat([first, second])))


def test_merge_with_nothing_changes_nothing():
    codes = random_hierarchy(3)
    counts, empty = CodeCounts(codes.codebook_sizes).update(codes), CodeCounts(codes.codebook_sizes)
    expected = CodeCounts(codes.codebook_sizes).update(codes)
    assert_same_counts(counts.merge(empty), expected)
    assert_same_counts(empty.merge(counts), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.uint16, np.int64, ">i4"])
def test_any_integer_dtype_counts_alike(dtype):
    assert_same_counts(CodeCounts([2, 3]).update(ROWS.astype(dtype)), CodeCounts([2, 3]).update(ROWS))


def test_codes_tensors_and_arrays_count_alike():
    codes = random_hierarchy(4)
    expected = CodeCounts(codes.codebook_sizes).update(codes)
    assert_same_counts(CodeCounts(codes.codebook_sizes).update(codes.levels), expected)
    assert_same_counts(CodeCounts(codes.codebook_sizes).update([level.numpy() for level in codes.levels]), expected)


def test_a_memory_mapped_file_counts_as_its_array(tmp_path):
    np.save(tmp_path / "codes.npy", ROWS)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    assert_same_counts(CodeCounts([2, 3]).update(mapped), CodeCounts([2, 3]).update(ROWS))


@pytest.mark.parametrize("kind", ["memory-mapped", "column after column"])
def test_no_array_is_copied_whole(tmp_path, kind):
    codes = np.zeros((2**23, 2), dtype=np.int16, order="F")  # 32 MiB
    if kind == "memory-mapped":
        np.save(tmp_path / "codes.npy", codes)
        codes = np.load(tmp_path / "codes.npy", mmap_mode="r")
    tracemalloc.start()
    CodeCounts([2, 3]).update(codes)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8 * 2**20


def run_side_by_side(script: str, folder: Path, *, processes: int) -> None:
    """Run a script in several processes, which know the `folder` and their `rank`; all must end well."""
    context = multiprocessing.get_context("forkserver")
    names = [{"folder": str(folder), "rank": rank} for rank in range(processes)]
    children = [context.Process(target=exec, args=(script, own), daemon=True) for own in names]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == processes * [0]


WORKER = """
import torch, torch.distributed as dist
from depthq.analysis import CodeCounts

dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=3)
counts = CodeCounts([[4, 4], [5, 6, 7]])
for batch in torch.load(f"{folder}/batches{rank}"):
    counts.update(batch)
counts.all_reduce()
try:
    counts.all_reduce()
except ValueError as error:
    assert "all_reduce must be called once; got a second call" in str(error)
else:
    raise AssertionError("a second call counted everything again")
pairs = [counts.joint(a, b) for b in counts.codebooks for a in counts.codebooks if a < b]
whole = [counts.joint_of_level(0), counts.joint_of_level(1)]
torch.save([counts.per_position(0), counts.per_position(1), *pairs, *whole], f"{folder}/tables{rank}")
dist.barrier()  # who leaves early takes the others' connections along
dist.destroy_process_group()
"""


def test_all_reduce_gives_each_process_the_counts_of_all(tmp_path):
    codes = random_hierarchy(9)
    batches = [[codes[0:2].levels, codes[2:3].levels], [codes[3:9].levels], []]  # the third process sees nothing
    for rank in range(3):
        torch.save(batches[rank], tmp_path / f"batches{rank}")
    run_side_by_side(WORKER, tmp_path, processes=3)
    expected = CodeCounts(codes.codebook_sizes).update(codes)
    for rank in range(3):
        for reduced, table in zip(torch.load(tmp_path / f"tables{rank}"), tables(expected), strict=True):
            assert torch.equal(reduced, table)


WORKER_OF_OTHER_SIZES = """
import torch.distributed as dist
from depthq.analysis import CodeCounts

dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
try:
    CodeCounts([2, 3 + rank]).all_reduce()
except ValueError as error:
    assert str(error) == "codebook_sizes must be the same on all processes; got [((2, 3),), ((2, 4),)]"
else:
    raise AssertionError("other sizes were taken")
dist.barrier()
dist.destroy_process_group()
"""


def test_all_reduce_refuses_other_sizes_on_every_process(tmp_path):
    run_side_by_side(WORKER_OF_OTHER_SIZES, tmp_path, processes=2)


def test_all_reduce_without_processes_changes_nothing():
    assert_same_counts(CodeCounts([2, 3]).update(ROWS).all_reduce(), CodeCounts([2, 3]).update(ROWS))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.array([[0, 3]]), r"codes\[0\] of codebook 1 must lie in \[0, 3\); got 3"),
        (
            np.array([[-1, 0]]),
            r"codes\[0\] of codebook 0 must lie in \[0, 2\); got -1; -1 marks .*, or count valid positions alone",
        ),
        (
            np.array([[2**64 - 1, 0]], dtype=np.uint64),
            r"codes\[0\] must be below 2\^63; got 18446744073709551615; were they",
        ),
        (np.zeros((0, 2), dtype=np.int64), r"not empty; got shape \(0, 2\)"),
        (np.zeros(3, dtype=np.int64), r"codes must be \(N, M\) or \(B, M, \*positions\)"),
        (np.zeros((4, 2)), "codes must be integers; got float64"),
        (np.zeros((4, 2), dtype=bool), "codes must be integers; got bool"),
        (torch.zeros(4, 2), "codes must be integers; got torch.float32"),
        (np.array([["1", "2"]]), "codes must be integers; got <U1"),
        (ROWS.tolist(), r"one array per level; got list of list; pass numpy\.asarray\(codes\)"),
        (np.zeros((4, 3), dtype=np.int64), "with M = 2 codebooks"),
        ([ROWS, ROWS], "one array per level, 1 in all; got 2"),
        (random_hierarchy(1), "codes must have codebook_sizes"),
    ],
)
def test_bad_codes_are_refused_and_not_counted(codes, message):
    counts = CodeCounts([2, 3]).update(ROWS)
    with pytest.raises(ValueError, match=message):
        counts.update(codes)
    assert_same_counts(counts, CodeCounts([2, 3]).update(ROWS))


def test_a_bad_code_at_the_end_of_a_batch_leaves_its_start_uncounted(monkeypatch):
    monkeypatch.setattr(counting, "POSITIONS_AT_ONCE", 1)
    monkeypatch.setattr(counting, "CODES_CHECKED_AT_ONCE", 1)
    counts = CodeCounts([2, 3]).update(ROWS)
    with pytest.raises(ValueError, match=r"got 9"):
        counts.update(np.array([[0, 0], [0, 9]]))
    assert_same_counts(counts, CodeCounts([2, 3]).update(ROWS))


def test_levels_that_do_not_fit_are_refused():
    fine, coarse = torch.zeros(1, 1, 4, 4, dtype=torch.int64), torch.zeros(1, 1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"coarse grid to the fine one; got \(4, 4\) before \(2, 2\)"):
        CodeCounts([[2], [2]]).update([fine, coarse])
    with pytest.raises(ValueError, match=r"same images at every level; got \[1, 2\]"):
        CodeCounts([[2], [2]]).update([coarse, fine.repeat(2, 1, 1, 1)])


def test_other_positions_than_before_are_refused():
    counts = CodeCounts([2, 3]).update(ROWS)
    with pytest.raises(ValueError, match=r"positions of the batches before, \(\(\),\); got \(\(1,\),\).*flatten"):
        counts.update(ROWS[:, :, None])


def test_merge_refuses_other_codebooks():
    with pytest.raises(ValueError, match=r"other must have codebook_sizes \(\(2, 3\),\); got \(\(2, 4\),\)"):
        CodeCounts([2, 3]).merge(CodeCounts([2, 4]))


def test_questions_without_an_answer_are_refused():
    counts = CodeCounts([2, 3])
    with pytest.raises(ValueError, match="counts must hold at least one position; got none"):
        counts.marginal()
    counts.update(ROWS)
    with pytest.raises(ValueError, match=r"level must lie in \[0, 1\); got 1"):
        counts.marginal(1)
    with pytest.raises(ValueError, match=r"two different codebooks .* got \(0, 0\) and \(0, 0\)"):
        counts.joint((0, 0), (0, 0))


@pytest.mark.parametrize("sizes", [[], [[]], [0], [[2], [-1]]])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="codebook_sizes must hold sizes of at least 1"):
        CodeCounts(sizes)


def test_sizes_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match=r"codebook_sizes must be integers, of each level; got \[2, 2\.7\]"):
        CodeCounts([2, 2.7])  # pyright: ignore[reportArgumentType]
    assert CodeCounts(np.array([2, 3])).codebook_sizes == ((2, 3),)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("size", [10**8, 10**12])
def test_tables_that_memory_cannot_hold_are_told_by_their_bytes(size):
    with pytest.raises(ValueError, match=rf"tables that memory holds; got one of {8 * size**2:,} bytes on cpu"):
        CodeCounts([size, size])


def test_positions_that_memory_cannot_hold_leave_counts_as_they_were():
    counts = CodeCounts([10**13])
    with pytest.raises(
        ValueError, match=r"bytes on cpu for shape \(1, 2, 10000000000000\).* flatten positions to rows"
    ):
        counts.update(np.zeros((1, 1, 2), dtype=np.int64))
    assert counts.grids is None


def test_one_size_and_no_codes_are_refused():
    with pytest.raises(ValueError, match=r"codebook_sizes must be integers, of each level; got 5; pass \[K\]"):
        CodeCounts(5)
    with pytest.raises(ValueError, match="codes must be an array, or a list of one array per level; got NoneType"):
        CodeCounts([2]).update(None)
