"""What people do to modules: other default dtypes, casts, functional calls, batches of batches, second derivatives."""

import pytest
import torch

import depthq
from depthq.models import PRESETS
from depthq.pixels import pad_to_multiple

QUANTIZERS = {
    "depthwise": lambda **options: depthq.DepthwiseQuantizer(8, 2, 16, **options),
    "shared": lambda **options: depthq.SharedQuantizer(8, 2, 16, **options),
    "residual": lambda **options: depthq.ResidualQuantizer(8, 2, 16, **options),
}
OPTIONS = [
    {},
    {"distance": "cosine"},
    {"codebook_update": "gradient"},
    {"codebook_dim": 2},
    {"rotation_trick": True},
    {"entropy_weight": 0.1},
]


@pytest.fixture(params=QUANTIZERS)
def make(request):
    torch.manual_seed(0)
    return QUANTIZERS[request.param]


@pytest.fixture(params=[torch.float64, torch.float16, torch.bfloat16], ids=str)
def default_dtype(request):
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_codebooks_are_float32_whatever_the_default(make, options, default_dtype):
    quantizer = make(**options)
    x = torch.randn(4, 8, 30).requires_grad_()
    out = quantizer(x)
    (out.quantized.sum() + out.loss).backward()
    assert out.quantized.dtype == x.grad.dtype == default_dtype
    assert quantizer.codebooks.dtype == torch.float32
    assert torch.equal(quantizer.decode(out.codes).to(default_dtype), out.quantized)
    assert quantizer.health().is_trained.all()


@pytest.mark.parametrize("make", [lambda: depthq.BinaryQuantizer(8, 2, 16), lambda: depthq.ScalarQuantizer(6, 3, 12)])
def test_grids_work_under_any_default(make, default_dtype):
    quantizer = make()
    out = quantizer(torch.randn(4, quantizer.dim, 30))
    assert torch.equal(quantizer.decode(out.codes).to(default_dtype), out.quantized)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_vmap_encodes_as_a_loop_does(make, options):
    quantizer = make(**options)
    quantizer(torch.randn(4, 8, 50))
    x = torch.randn(3, 4, 8, 5)
    expected = torch.stack([quantizer.eval().encode(part) for part in x])
    assert torch.equal(torch.vmap(quantizer.encode)(x), expected)
    assert torch.equal(torch.vmap(quantizer.encode, in_dims=2)(x.movedim(0, 2)), expected)


def test_vmap_over_codebooks_as_an_ensemble(make):
    """As `torch.func.stack_module_state` has it: one input, several quantizers."""
    ensemble = [make().eval() for _ in range(3)]
    _, buffers = torch.func.stack_module_state(ensemble)
    x = torch.randn(4, 8, 5)
    codes = torch.vmap(lambda state: torch.func.functional_call(ensemble[0], state, (x,)).codes)(buffers)
    assert torch.equal(codes, torch.stack([quantizer.encode(x) for quantizer in ensemble]))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_func_grad_is_that_of_backward(make, options):
    quantizer = make(**options).eval()
    state = {**dict(quantizer.named_buffers()), **dict(quantizer.named_parameters())}

    def loss(x):
        out = torch.func.functional_call(quantizer, state, (x,))
        return out.quantized.square().sum() + out.loss

    x = torch.randn(4, 8, 5)
    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(torch.func.grad(loss)(x), leaf.grad)
    if "entropy_weight" not in options:
        per_sample = torch.vmap(torch.func.grad(lambda one: loss(one[None])))(x)
        for one, grad in zip(x, per_sample, strict=True):
            torch.testing.assert_close(grad, torch.func.grad(lambda one: loss(one[None]))(one))


def test_second_derivatives_of_the_commitment_loss(make):
    """A gradient penalty. Each of a latent's terms w (x - c)^2, w = 1 / (N D), has the second derivative 2 w."""
    quantizer = make().eval()
    x = torch.randn(4, 8, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(quantizer(x).commitment_loss, x, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    num_terms = 1 if isinstance(quantizer, depthq.DepthwiseQuantizer) else 2
    width = quantizer.state.codebook_dims[0]
    torch.testing.assert_close(second, 2 * grad.detach() * num_terms * 2 / (20 * width))


def test_second_derivatives_of_the_entropy_are_refused():
    quantizer = depthq.DepthwiseQuantizer(8, 2, 16, entropy_weight=0.1)
    x = torch.randn(4, 8, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(quantizer(x).entropy_loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="set entropy_weight to 0 where a gradient is penalised"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "fields",
    [{}, {"likelihood": "logistic_mixture", "horizon": 2}, {"codebook_size": (16, 16)}],
    ids=["l2", "mixture-causal", "two-levels"],
)
def test_a_model_may_be_cast(dtype, fields):
    torch.manual_seed(0)
    model = depthq.DQAE(depthq.DQAEConfig(num_codebooks=2, channels=(8, 8), **{"codebook_size": 16, **fields})).to(
        dtype
    )
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    out = model(images)
    assert out.parameters.dtype == dtype
    codes = model.eval().encode(images)
    assert model.decode(codes).dtype == torch.uint8
    assert model.sample(codes).shape == images.shape
    assert all(level.quantizer.codebooks.dtype == torch.float32 for level in model.levels)


def test_a_grid_made_under_any_default_gives_the_same_codes(default_dtype):
    x = torch.randn(40, 6, 30, dtype=torch.float32)
    codes = depthq.ScalarQuantizer(6, 2, 64).encode(x)
    torch.set_default_dtype(torch.float32)
    assert torch.equal(codes, depthq.ScalarQuantizer(6, 2, 64).encode(x))


def test_work_stays_on_the_cpu_whatever_the_default_device():
    quantizer, x = depthq.DepthwiseQuantizer(8, 2, 4, codebook_dropout=0.5), torch.randn(2, 8, 5)
    with torch.device("meta"):
        out = quantizer(x)
    assert out.quantized.device == out.codes.device == torch.device("cpu")


def test_a_model_stays_on_the_cpu_whatever_the_default_device():
    model, images = depthq.DQAE(PRESETS["tiny"]).eval(), torch.randint(256, (2, 3, 10, 9), dtype=torch.uint8)
    padded = pad_to_multiple(images, model.config.image_multiple)
    codes, fingerprint = model.encode(padded), model.fingerprint()
    decoded = model.decode(codes)
    with torch.device("meta"):
        assert torch.equal(pad_to_multiple(images, model.config.image_multiple), padded)
        assert torch.equal(model.encode(padded).levels[0], codes.levels[0])
        assert torch.equal(model.decode(codes), decoded)
        assert model.fingerprint() == fingerprint


@pytest.mark.parametrize("options", [{"rotation_trick": True}, {"distance": "cosine"}], ids=str)
def test_second_derivative_is_finite_beside_a_latent_of_length_zero(options):
    torch.manual_seed(0)
    quantizer, weight = depthq.DepthwiseQuantizer(8, 2, 4, **options), torch.ones(8, requires_grad=True)
    x = torch.randn(16, 8)
    x[0] = 0
    x.requires_grad_()
    (grad,) = torch.autograd.grad(quantizer(x * weight).quantized.square().sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert weight.grad.any()
