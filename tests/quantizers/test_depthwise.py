import re
import sys

import faiss
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vector_quantize_pytorch import VectorQuantize

from depthq import DepthwiseQuantizer


def with_codebooks(quantizer, codebooks):
    """The quantizer in eval mode, with the given codebooks (M, K, D)."""
    quantizer.state.weight.copy_(codebooks)
    return quantizer.eval()


def test_literal_codes_and_codewords():
    """Two slices of one channel; codewords 0, 1, 2 and 0, 10, 20."""
    codebooks = torch.tensor([[[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]]])
    quantizer = with_codebooks(DepthwiseQuantizer(2, 2, 3), codebooks)
    out = quantizer(torch.tensor([[0.9, 16.0], [5.0, -3.0]]))
    assert out.codes.tolist() == [[1, 2], [2, 0]]
    assert out.quantized.tolist() == [[1, 20], [2, 0]]
    # Slice 0: 0.1^2 and 3^2; slice 1: 4^2 and 3^2; each a mean over two vectors of one dimension.
    assert out.commitment_loss.item() == pytest.approx((0.01 + 9) / 2 + (16 + 9) / 2)


def test_equal_distances_go_to_the_lowest_code():
    quantizer = with_codebooks(DepthwiseQuantizer(1, 1, 4), torch.tensor([[[1.0], [-1.0], [1.0], [-1.0]]]))
    assert quantizer.encode(torch.tensor([[0.0], [-1.0], [1.0]])).tolist() == [[0], [1], [0]]


def test_slices_are_quantized_by_their_own_codebooks_alone():
    torch.manual_seed(0)
    quantizer = DepthwiseQuantizer(12, 3, 8).eval()
    x = torch.randn(50, 12)
    codes = quantizer.encode(x)
    x[:, 4:8] = torch.randn(50, 4)
    changed = (quantizer.encode(x) != codes).any(0)
    assert changed.tolist() == [False, True, False]


def test_axis_that_does_not_divide_is_padded_as_in_the_paper():
    """512 channels, 7 slices of 74: the last has 6 columns of zeros, which come out as if never there."""
    quantizer = DepthwiseQuantizer(512, 7, 16)
    assert quantizer.codebooks.shape == (7, 16, 74)
    x = torch.randn(40, 512)
    out = quantizer(x)
    assert out.quantized.shape == (40, 512)
    assert (quantizer.codebooks[6, :, 68:] == 0).all()
    padded = DepthwiseQuantizer(518, 7, 16)
    expected = padded(torch.nn.functional.pad(x, (0, 6)))
    assert torch.equal(out.codes, expected.codes)
    assert torch.equal(out.quantized, expected.quantized[:, :512])
    assert torch.equal(out.loss, expected.loss)


def test_uneven_slices_behave_as_quantizers_of_their_own():
    torch.manual_seed(0)
    joint = DepthwiseQuantizer(6, 3, [4, 8, 2], codebook_dim=[1, 3, 2])
    x = torch.randn(30, 6)
    joint(x)
    out = joint.eval()(x)
    assert [tuple(codebook.shape) for codebook in joint.codebooks] == [(4, 1), (8, 3), (2, 2)]
    losses = []
    for m, part in enumerate(x.split([1, 3, 2], dim=1)):
        alone = DepthwiseQuantizer(part.shape[1], 1, joint.codebook_sizes[m])
        single = with_codebooks(alone, joint.codebooks[m][None])(part)
        assert torch.equal(out.codes[:, m], single.codes[:, 0])
        losses.append(single.loss)
    torch.testing.assert_close(out.loss, sum(losses))


@pytest.mark.parametrize(
    ("arguments", "codebook_dim", "message"),
    [
        (
            (4, 5, 8),
            None,
            r"dim must fill num_codebooks slices .* got dim=4, num_codebooks=5, codebook_dim=1; take 4 codebooks$",
        ),
        ((9, 6, 8), None, r"got dim=9, num_codebooks=6, codebook_dim=2; take 5 or 9 codebooks, or in Python one cod"),
        ((16, 5, 8), None, r"got dim=16, num_codebooks=5, codebook_dim=4; take 4 or 6 codebooks, or in Python one cod"),
        (
            (12, 3, 8),
            7,
            r"num_codebooks=3, codebook_dim=7; take 2 codebooks, or a smaller codebook_dim, which projects",
        ),
        ((8, 9, 8), 2, r"num_codebooks=9, codebook_dim=2; take 4 codebooks$"),
        ((12, 3, True), None, r"codebook_size must be an integer; got True"),
        ((12, 3, 8), [4, 4, 5], r"codebook_dim must sum to dim=12; got \[4, 4, 5\] with sum 13"),
        ((12, 3, 8), [4, 8], r"codebook_dim must be an int or have one entry for each of 3 codebooks; got \[4, 8\]"),
        ((12, 3, 8), [12, 0, 0], r"codebook_dim must be at least 1; got 0"),
    ],
)
def test_slices_that_do_not_fit_are_refused(arguments, codebook_dim, message):
    with pytest.raises(ValueError, match=message):
        DepthwiseQuantizer(*arguments, codebook_dim=codebook_dim)


@pytest.mark.parametrize("dim", range(1, 20))
def test_the_numbers_of_codebooks_that_are_told_work(dim):
    for num_codebooks in range(1, 25):
        try:
            DepthwiseQuantizer(dim, num_codebooks, 2)
        except ValueError as error:
            told = re.findall(r"\d+", str(error).partition("; take ")[2])
            assert told
            for number in map(int, told):
                DepthwiseQuantizer(dim, number, 2)


def test_agrees_with_vector_quantize_pytorch():
    """Codes, codewords and commitment loss of separate codebooks per head, from the same codebooks."""
    torch.manual_seed(0)
    peer = VectorQuantize(24, 16, codebook_dim=8, heads=3, separate_codebook_per_head=True).eval()
    quantizer = with_codebooks(DepthwiseQuantizer(24, 3, 16, axis=-1), peer._codebook.embed)
    x = torch.randn(5, 7, 24)
    quantized, codes, _ = peer(x)
    out = quantizer(x)
    assert torch.equal(out.codes.movedim(1, -1), codes)
    torch.testing.assert_close(out.quantized, quantized)
    mean = (quantized - x).square().mean()
    torch.testing.assert_close(out.commitment_loss, 3 * mean)


def test_agrees_with_k_means_of_scikit_learn():
    """From its fixed point, one step of ours assigns as it does and leaves the centres where they are."""
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    peer = KMeans(6, n_init=1, tol=0, random_state=0).fit(x)
    quantizer = DepthwiseQuantizer(4, 1, 6, decay=0.0, epsilon=1e-12)
    state = quantizer.state
    state.weight.copy_(torch.from_numpy(peer.cluster_centers_)[None])
    state.ema_count.fill_(1)
    state.ema_sum.copy_(state.weight)
    assert (quantizer(torch.from_numpy(x)).codes[:, 0].numpy() == peer.labels_).all()
    state.move_to_ema()
    np.testing.assert_allclose(state.weight[0], peer.cluster_centers_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [4, 256, 1024])
def test_faiss_index_gives_the_same_codes(size):
    torch.manual_seed(0)
    quantizer = DepthwiseQuantizer(12, 3, size).eval()
    x = torch.randn(500, 12)
    index = quantizer.to_faiss()
    bits = size.bit_length() - 1
    packed = index.pq.compute_codes(x.numpy())
    codes = faiss.unpack_bitstrings(packed, 3, bits)
    assert (codes == quantizer.encode(x).numpy()).all()
    assert (index.pq.decode(packed) == quantizer(x).quantized.numpy()).all()
    index.add(x.numpy())
    assert index.ntotal == 500


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (lambda: DepthwiseQuantizer(12, 3, 10), r"codebook_size must be one power of two for faiss; got 10"),
        (lambda: DepthwiseQuantizer(12, 3, [8, 8, 4]), r"codebook_size must be one power of two .* got \[8, 8, 4\]"),
        (lambda: DepthwiseQuantizer(10, 3, 8), r"dim must be num_codebooks equal slices for faiss; got dim=10"),
        (lambda: DepthwiseQuantizer(12, 3, 8, codebook_dim=[3, 4, 5]), r"equal slices .* codebook_dim=\[3, 4, 5\]"),
    ],
)
def test_what_faiss_cannot_hold_is_refused(quantizer, message):
    with pytest.raises(ValueError, match=message):
        quantizer().to_faiss()


def test_faiss_index_of_other_codebooks_is_refused():
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(8), 8, 2, 2, 4)  # its codebooks are of residuals
    index.train(np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32))
    message = "index must be a trained faiss.IndexPQ; got IndexIVFPQ; train one on the vectors"
    with pytest.raises(ValueError, match=message):
        DepthwiseQuantizer.from_faiss(index)


def test_missing_faiss_is_named(monkeypatch):
    index = faiss.IndexPQ(8, 2, 4)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="faiss must be installed for to_faiss; run pip install faiss-cpu"):
        DepthwiseQuantizer(4, 2, 8).to_faiss()
    with pytest.raises(ImportError, match="faiss must be installed for from_faiss; run pip install faiss-cpu"):
        DepthwiseQuantizer.from_faiss(index)


class LargestTensor(TorchDispatchMode):
    """Notes the most entries of any tensor that an operation of this thread makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *(tensor.numel() for tensor in tensors)])
        return result


def test_a_training_pass_never_holds_all_distances_nor_one_hot_codes(set_num_threads):
    num_rows, size = 8192, 4096  # 2^25 distances
    quantizer = DepthwiseQuantizer(4, 1, size)
    x = torch.randn(num_rows, 4, requires_grad=True)
    set_num_threads(1)  # the search then stays in this thread
    with LargestTensor() as largest:
        out = quantizer(x)
        (out.loss + out.quantized.sum()).backward()
    assert num_rows * 4 <= largest.numel <= 2**21


def test_gradient_codebooks_follow_their_loss():
    """The second term of Eq. 5 alone, by plain gradient descent, takes each codeword to the mean of its vectors."""
    quantizer = DepthwiseQuantizer(1, 1, 2, codebook_update="gradient", rare_code_threshold=0.0)
    x = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    quantizer(x)
    optimizer = torch.optim.SGD(quantizer.parameters(), 0.5)
    for _ in range(60):
        optimizer.zero_grad()
        quantizer(x).codebook_loss.backward()
        optimizer.step()
    assert sorted(quantizer.codebooks.flatten().tolist()) == pytest.approx([1, 12], abs=1e-3)
