"""What learned codebooks take besides: projections, the entropy loss, the rotation trick, micro-batches."""

import math

import numpy as np
import pytest
import torch

import depthq
from depthq.quantizers import micro_batch
from depthq.quantizers.code_entropy import code_entropy_loss
from depthq.quantizers.straight_through import rotate


class TestProjection:
    @pytest.mark.parametrize(
        ("make", "out_dim", "inner"),
        [
            (lambda: depthq.DepthwiseQuantizer(32, 4, 16, codebook_dim=2), 32, (8, 8)),
            (lambda: depthq.SharedQuantizer(32, 4, 16, codebook_dim=2), 32, (2, 8)),
            (lambda: depthq.SharedQuantizer(32, 4, 16, codebook_dim=2, combine="sum"), 32, (2, 2)),
            (lambda: depthq.ResidualQuantizer(32, 4, 16, codebook_dim=2), 32, (2, 2)),
        ],
    )
    def test_codebooks_see_fewer_entries(self, make, out_dim, inner):
        torch.manual_seed(0)
        quantizer = make()
        x = torch.randn(3, 32, 50, requires_grad=True)
        out = quantizer(x)
        assert out.quantized.shape == (3, out_dim, 50)
        assert quantizer.codebooks.shape == (4, 16, 2)
        assert (quantizer.project_in.out_features, quantizer.project_out.in_features) == inner
        assert torch.equal(quantizer.decode(out.codes), out.quantized)
        (out.quantized.square().mean() + out.loss).backward()
        for layer in (quantizer.project_in, quantizer.project_out):
            assert layer.weight.grad.abs().sum() > 0
        assert x.grad.abs().sum() > 0

    def test_the_widths_of_slices_need_none(self):
        assert depthq.DepthwiseQuantizer(32, 4, 16, codebook_dim=8).project_in is None
        assert depthq.ResidualQuantizer(32, 4, 16, codebook_dim=32).project_in is None

    def test_wider_codewords_than_the_vector_are_refused(self):
        with pytest.raises(ValueError, match="codebook_dim must be at most dim=32; got 33"):
            depthq.ResidualQuantizer(32, 4, 16, codebook_dim=33)

    def test_it_survives_saving(self, tmp_path):
        quantizer = depthq.DepthwiseQuantizer(32, 4, 16, codebook_dim=2).eval()
        quantizer.save_pretrained(tmp_path)
        x = torch.randn(2, 32, 9)
        assert torch.equal(depthq.DepthwiseQuantizer.from_pretrained(tmp_path)(x).quantized, quantizer(x).quantized)

    def test_what_learns_codebooks_alone_is_refused(self):
        quantizer = depthq.DepthwiseQuantizer(32, 4, 16, codebook_dim=2)
        with pytest.raises(ValueError, match="codebook_dim must be the slice's width for fit"):
            quantizer.fit(torch.randn(100, 32), steps=1)
        with pytest.raises(ValueError, match="codebook_dim must be the slice's width for faiss"):
            quantizer.to_faiss()

    def test_the_network_learns_through_it(self):
        """A rank-2 signal in 16 dimensions: behind a projection to 2, codes describe it as well as it goes."""
        torch.manual_seed(0)
        basis = torch.randn(2, 16)
        quantizer = depthq.SharedQuantizer(16, 1, 64, codebook_dim=2, decay=0.9)
        optimizer = torch.optim.Adam(quantizer.parameters(), 0.01)
        errors = []
        for _ in range(200):
            x = (torch.randn(256, 2) @ basis)[:, :, None]
            out = quantizer(x)
            error = (out.quantized - x).square().mean() / x.square().mean()
            optimizer.zero_grad()
            (error + out.loss).backward()
            optimizer.step()
            errors.append(error.item())
        assert errors[-1] < 0.1 < errors[0]


def plain_entropy_loss(latents, codebooks, t):
    """Written out, with all N x K in memory."""
    loss = 0.0
    for rows, codewords in zip(latents, codebooks, strict=True):
        p = torch.softmax(-t * torch.cdist(rows, codewords).square(), dim=1)
        mean = p.mean(0)
        loss = loss - (p * p.log()).sum(1).mean() + (mean * mean.log()).sum()
    return loss


class TestEntropyLoss:
    @pytest.mark.parametrize("block_numel", [2**22, 40])
    def test_value_and_gradients_are_those_of_autograd(self, monkeypatch, block_numel):
        monkeypatch.setattr("depthq.quantizers.code_entropy.BLOCK_NUMEL", block_numel)
        torch.manual_seed(0)
        latents, codebooks = torch.randn(3, 50, 4, requires_grad=True), torch.randn(3, 7, 4, requires_grad=True)
        ours = code_entropy_loss(latents, codebooks, (7, 7, 7), 0.7, None)
        plain = plain_entropy_loss(latents, codebooks, 0.7)
        torch.testing.assert_close(ours, plain)
        for mine, expected in zip(
            torch.autograd.grad(3 * ours, (latents, codebooks)),
            torch.autograd.grad(3 * plain, (latents, codebooks)),
            strict=True,
        ):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)

    def test_bounds(self):
        """Each vector on a codeword of its own: certain and even, -log K; all on the middle of all: 0."""
        codebooks = 100 * torch.eye(4)[None]
        assert code_entropy_loss(codebooks, codebooks, (4,), 1.0, None).item() == pytest.approx(-math.log(4), abs=1e-5)
        middle = torch.full((1, 10, 4), 25.0)
        assert code_entropy_loss(middle, codebooks, (4,), 1.0, None).item() == pytest.approx(0, abs=1e-5)

    def test_padding_codes_have_no_share(self):
        latents, codebooks = torch.randn(2, 9, 3), torch.randn(2, 5, 3)
        padded = code_entropy_loss(latents, codebooks, (5, 3), 1.0, None)
        whole = sum(plain_entropy_loss(latents[[m]], codebooks[[m], :k], 1.0) for m, k in enumerate((5, 3)))
        torch.testing.assert_close(padded, whole)

    @pytest.mark.parametrize("kind", ["DepthwiseQuantizer", "SharedQuantizer", "ResidualQuantizer"])
    @pytest.mark.parametrize("distance", ["euclidean", "cosine"])
    def test_weight_scales_what_quantizers_return(self, kind, distance):
        torch.manual_seed(0)
        quantizer = getattr(depthq, kind)(8, 2, 16, distance=distance, entropy_weight=0.5, inverse_temperature=3.0)
        x = torch.randn(4, 8, 30, requires_grad=True)
        quantizer(x)
        half = quantizer.eval()(x).entropy_loss
        (grad,) = torch.autograd.grad(half, x)
        assert half < 0
        assert grad.abs().sum() > 0
        quantizer.entropy_weight = 1.0
        torch.testing.assert_close(quantizer(x).entropy_loss, 2 * half)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"entropy_weight": -1.0}, "entropy_weight must be finite and at least 0; got -1.0"),
            ({"inverse_temperature": 0.0}, "inverse_temperature must be finite and positive; got 0.0"),
        ],
    )
    def test_numbers_out_of_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            depthq.DepthwiseQuantizer(8, 2, 16, **options)


class TestRotationTrick:
    def test_gradient_is_that_of_the_rotation(self):
        """q = s R e with R = I - 2 r r' + 2 q e' for directions, written out as a matrix."""
        torch.manual_seed(0)
        latents, codewords = torch.randn(20, 5, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64)
        x = latents.clone().requires_grad_()
        upstream = torch.randn_like(latents)
        quantized = rotate(x, codewords)
        assert torch.equal(quantized, codewords)
        (grad,) = torch.autograd.grad(quantized, x, upstream)
        for e, q, g, got in zip(latents, codewords, upstream, grad, strict=True):
            scale = q.norm() / e.norm()
            e, q = e / e.norm(), q / q.norm()
            r = (e + q) / (e + q).norm()
            matrix = torch.eye(5, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(q, e)
            torch.testing.assert_close(matrix @ e, q)
            torch.testing.assert_close(got, scale * matrix.T @ g)

    @pytest.mark.parametrize(("latent", "codeword"), [([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [0.0, 0.0])])
    def test_without_a_direction_it_passes_straight(self, latent, codeword):
        x = torch.tensor([latent], requires_grad=True)
        (grad,) = torch.autograd.grad(rotate(x, torch.tensor([codeword])), x, torch.tensor([[3.0, 4.0]]))
        assert grad.tolist() == [[3.0, 4.0]]

    def test_opposite_directions_pass_straight(self):
        x = torch.tensor([[1.0, 0.0]], requires_grad=True)
        (grad,) = torch.autograd.grad(rotate(x, torch.tensor([[-2.0, 0.0]])), x, torch.tensor([[3.0, 4.0]]))
        assert grad.tolist() == [[3.0, 4.0]]

    @pytest.mark.parametrize("kind", ["DepthwiseQuantizer", "SharedQuantizer", "ResidualQuantizer"])
    @pytest.mark.parametrize("distance", ["euclidean", "cosine"])
    def test_it_changes_the_gradient_alone(self, kind, distance):
        torch.manual_seed(0)
        straight = getattr(depthq, kind)(8, 2, 16, distance=distance)
        x = torch.randn(4, 8, 30, requires_grad=True)
        straight(x)
        rotated = getattr(depthq, kind)(8, 2, 16, distance=distance, rotation_trick=True)
        rotated.load_state_dict(straight.state_dict())
        a, b = straight.eval()(x), rotated.eval()(x)
        assert torch.equal(a.quantized, b.quantized)
        assert torch.equal(a.loss, b.loss)
        upstream = torch.randn_like(a.quantized)
        grads = [torch.autograd.grad(out.quantized, x, upstream)[0] for out in (a, b)]
        assert not torch.allclose(*grads)


class TestMicroBatches:
    @pytest.mark.parametrize("kind", ["DepthwiseQuantizer", "SharedQuantizer", "ResidualQuantizer"])
    @pytest.mark.parametrize("update", ["ema", "gradient"])
    def test_they_are_one_step_of_the_joined_batch(self, kind, update):
        torch.manual_seed(0)
        joined = getattr(depthq, kind)(8, 2, 16, codebook_update=update, decay=0.7, rare_code_threshold=0.0)
        joined(torch.randn(64, 8, 10))
        split = getattr(depthq, kind)(8, 2, 16, codebook_update=update, decay=0.7, rare_code_threshold=0.0)
        split.load_state_dict(joined.state_dict())
        for _ in range(5):
            x = torch.randn(24, 8, 10)
            joined(x).loss.backward() if update == "gradient" else joined(x)
            for index, part in enumerate(x.chunk(3)):
                with micro_batch(split, index, 3):
                    out = split(part)
                    assert torch.equal(split.decode(out.codes), out.quantized)
                    (out.loss / 3).backward() if update == "gradient" else None
        for (name, a), b in zip(joined.state_dict().items(), split.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=name)
        if update == "gradient":
            torch.testing.assert_close(joined.state.weight.grad, split.state.weight.grad)

    def test_one_update_per_step_however_many(self):
        quantizer = depthq.DepthwiseQuantizer(8, 2, 16)
        network = torch.nn.Sequential(quantizer)
        for index in range(4):
            with micro_batch(network, index, 4):
                quantizer(torch.randn(8, 8, 10))
        assert quantizer.state.num_updates == 1
        assert quantizer.state.micro_batch == (0, 1)

    def test_codebooks_without_learning_count_once(self):
        x = torch.randn(24, 9, 10)
        joined, split = depthq.BinaryQuantizer(9, 3, 8), depthq.BinaryQuantizer(9, 3, 8)
        joined(x)
        for index, part in enumerate(x.chunk(3)):
            with micro_batch(split, index, 3):
                split(part)
        torch.testing.assert_close(joined.state.recent_count, split.state.recent_count)

    @pytest.mark.parametrize("index", [-1, 3])
    def test_indices_out_of_range_are_refused(self, index):
        quantizer = depthq.DepthwiseQuantizer(8, 2, 16)
        message = f"index must be one of the count micro-batches, 0..2; got {index}"
        with pytest.raises(ValueError, match=message), micro_batch(quantizer, index, 3):
            pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": None}, "decay must be a number; got None"),
        ({"epsilon": "small"}, "epsilon must be a number; got 'small'"),
        ({"rare_code_threshold": [0.1]}, r"rare_code_threshold must be a number; got \[0.1\]"),
        ({"commitment_weight": "0.25"}, "commitment_weight must be a number; got '0.25'"),
        ({"entropy_weight": None}, "entropy_weight must be a number; got None"),
        ({"inverse_temperature": None}, "inverse_temperature must be a number; got None"),
        ({"codebook_size": 2.5}, "codebook_size must be an integer; got 2.5"),
    ],
)
def test_options_of_another_kind_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        depthq.DepthwiseQuantizer(8, 2, **{"codebook_size": 4} | options)


def test_a_size_may_be_an_array_of_no_axes():
    assert depthq.DepthwiseQuantizer(8, 2, np.array(16)).codebook_sizes == (16, 16)


def test_a_micro_batch_of_none_is_refused():
    with pytest.raises(ValueError, match="count must be at least 1; got 0"), micro_batch(torch.nn.Linear(1, 1), 0, 0):
        pass


def test_what_is_no_tensor_is_refused():
    with pytest.raises(ValueError, match=r"x must be a tensor; got ndarray; convert with torch\.as_tensor"):
        depthq.DepthwiseQuantizer(8, 2, 4)(np.zeros((2, 8), np.float32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: depthq.BinaryQuantizer(3, 3, 2),
            "codebook_size must be at least 4 on the sphere.*got 2; pass on_sphere",
        ),
        (
            lambda: depthq.DepthwiseQuantizer(4, 4, 8, distance="cosine"),
            "codebook_dim must be at least 2 for distance='cosine'.*got 1; take distance='euclidean'",
        ),
    ],
)
def test_a_single_number_on_the_sphere_is_refused_as_it_passes_no_gradient(make, message):
    with pytest.raises(ValueError, match=message):
        make()
