"""torch.compile, torch.export and ONNX."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from quantizer_table import TABLE
from torch import nn

# Of third parties: the exporter's own deprecations, and what the compiler looks at when its graph breaks.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(
    params=["depthwise-uneven-sizes", "depthwise-padded", "shared-sum", "residual-uneven-sizes", "scalar", "binary"]
)
def make(request):
    """Those of the table whose paths differ."""
    return TABLE[request.param].make


class Encoder(nn.Module):
    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x):
        return self.quantizer.encode(x)


class Decoder(nn.Module):
    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, codes):
        return self.quantizer.decode(codes)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


def test_compiles_whole_in_eval(trained, latents):
    trained.eval()
    x = latents(trained, 6, 5)
    expected = trained(x)
    compiled = torch.compile(trained, fullgraph=True, backend="aot_eager")
    out = compiled(x)
    assert torch.equal(out.quantized, expected.quantized)
    assert torch.equal(out.codes, expected.codes)
    torch.testing.assert_close(out.loss, expected.loss)


class MaskedEncoder(Encoder):
    def forward(self, x, mask):
        return self.quantizer.encode(x, mask=mask)


def test_mask_compiles_whole_and_exports(trained, latents):
    trained.eval()
    x, mask = latents(trained, 7), torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) < 0.6
    out, expected = torch.compile(trained, fullgraph=True, backend="aot_eager")(x, mask=mask), trained(x, mask=mask)
    assert torch.equal(out.codes, expected.codes)
    assert torch.equal(out.quantized, expected.quantized)
    program = torch.export.export(MaskedEncoder(trained), (x, mask))
    assert torch.equal(program.module()(x, ~mask), trained.encode(x, mask=~mask))


def test_compiled_training_equals_eager(make, latents):
    """From the second step on: a graph has no place for the start of the codebooks by k-means++."""
    eager, other = make(), make()
    for quantizer in (eager, other):
        quantizer(latents(quantizer, 6, 5, seed=4))
    compiled = torch.compile(other, backend="aot_eager")
    for seed in range(4):
        x, y = (latents(eager, 6, 5, seed=seed).requires_grad_() for _ in range(2))
        expected, out = eager(x), compiled(y)
        assert torch.equal(out.codes, expected.codes)
        assert torch.equal(out.quantized, expected.quantized)
        torch.testing.assert_close(out.loss, expected.loss)
        (expected.loss + expected.quantized.square().sum()).backward()
        (out.loss + out.quantized.square().sum()).backward()
        torch.testing.assert_close(x.grad, y.grad)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


@pytest.mark.parametrize(("check_finite", "num_breaks"), [(True, 2), (False, 0)])
def test_training_breaks_the_graph_at_the_check_of_finiteness_alone(make, latents, check_finite, num_breaks):
    """Two nested functions wait for its answer."""
    quantizer = make(check_finite=check_finite)
    explanation = torch._dynamo.explain(quantizer)(latents(quantizer, 6, 5))
    assert explanation.graph_break_count == num_breaks


@pytest.mark.parametrize("part", [Encoder, Decoder])
def test_exports_with_any_batch_and_grid(trained, latents, part):
    trained.eval()
    small, large = latents(trained, 6, 5), latents(trained, 4, 9, batch=7)
    if part is Decoder:
        small, large = trained.encode(small), trained.encode(large)
    dynamic = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.export.export(part(trained), (small,), dynamic_shapes=(dynamic,))
    assert torch.equal(program.module()(large), part(trained)(large))


@pytest.mark.parametrize("part", [Encoder, Decoder])
def test_onnx_runtime_gives_the_same(trained, latents, tmp_path, part):
    trained.eval()
    small, large = latents(trained, 6, 5), latents(trained, 6, 5, batch=7)
    if part is Decoder:
        small, large = trained.encode(small), trained.encode(large)
    path = tmp_path / "part.onnx"
    dynamic = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        part(copy.deepcopy(trained)).eval(), (small,), path, dynamo=True, dynamic_shapes=dynamic, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: large.numpy()})
    np.testing.assert_array_equal(result, part(trained)(large).detach().numpy())
