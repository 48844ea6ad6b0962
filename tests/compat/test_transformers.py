"""transformers' own EnCodec and Mimi, made from a configuration, with our quantizers in them."""

import pytest
import torch
from transformers import EncodecConfig, EncodecModel, MimiConfig, MimiModel

import depthq
from depthq.compat.transformers import EncodecQuantizer, MimiQuantizer, import_encodec, import_mimi


def fill(module):
    """Random codebooks: models made from a configuration have zeros."""
    for codebook in (
        child for child in module.modules() if hasattr(child, "codebook_size") and hasattr(child, "embed")
    ):
        values = torch.randn_like(codebook.embed)
        if hasattr(codebook, "embed_sum"):
            codebook.embed_sum.copy_(values)
            codebook._embed = None
        else:
            codebook.embed.copy_(values)


@pytest.fixture
def encodec():
    torch.manual_seed(0)
    config = EncodecConfig(
        num_filters=4,
        hidden_size=16,
        codebook_dim=16,
        codebook_size=64,
        num_lstm_layers=1,
        target_bandwidths=[3.0, 12.0],
    )
    model = EncodecModel(config).eval()
    fill(model)
    return model


@pytest.fixture
def mimi():
    torch.manual_seed(0)
    config = MimiConfig(
        num_filters=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=16,
        codebook_size=64,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        num_quantizers=6,
        upsample_groups=16,
    )
    model = MimiModel(config).eval()
    fill(model)
    return model


@pytest.fixture
def audio():
    time = torch.arange(24_000) / 24_000
    return torch.stack([torch.sin(6.28 * 220 * time), torch.sin(6.28 * 330 * time**2)])[:, None]


@pytest.mark.parametrize("bandwidth", [3.0, 12.0])
def test_encodec_with_its_codebooks_in_ours_is_the_same(encodec, audio, bandwidth):
    with torch.no_grad():
        before = encodec(audio, bandwidth=bandwidth)
        encodec.quantizer = EncodecQuantizer(import_encodec(encodec), encodec.config.frame_rate)
        after = encodec(audio, bandwidth=bandwidth)
    assert torch.equal(after.audio_codes, before.audio_codes)
    torch.testing.assert_close(after.audio_values, before.audio_values, atol=1e-5, rtol=0)


def test_mimi_with_its_codebooks_in_ours_is_the_same(mimi, audio):
    with torch.no_grad():
        before = mimi(audio)
        few = mimi.encode(audio, num_quantizers=3).audio_codes
        mimi.quantizer = MimiQuantizer(import_mimi(mimi))
        after = mimi(audio)
        assert torch.equal(mimi.encode(audio, num_quantizers=3).audio_codes, few)
        mimi.decode(few)
    assert torch.equal(after.audio_codes, before.audio_codes)
    torch.testing.assert_close(after.audio_values, before.audio_values, atol=1e-5, rtol=0)


def test_depthwise_takes_their_place(encodec, mimi, audio):
    quantizer = depthq.DepthwiseQuantizer(dim=16, num_codebooks=4, codebook_size=64).eval()
    encodec.quantizer = EncodecQuantizer(quantizer, encodec.config.frame_rate)
    mimi.quantizer = MimiQuantizer([quantizer])
    with torch.no_grad():
        for model, options in ((encodec, {"bandwidth": 12.0}), (mimi, {"num_quantizers": 4})):
            out = model(audio, **options)
            assert out.audio_codes.shape[-2] == 4
            assert out.audio_values.shape == audio.shape


def test_encodec_trains_by_the_loop_of_the_docs(encodec, audio):
    quantizer = depthq.DepthwiseQuantizer(dim=16, num_codebooks=4, codebook_size=64)
    encodec.quantizer = EncodecQuantizer(quantizer, encodec.config.frame_rate)
    encodec.train()
    optimizer, errors = torch.optim.Adam(encodec.parameters(), 1e-3), []
    for _ in range(4):
        out = encodec.quantizer.quantizer(encodec.encoder(audio))
        error = (encodec.decoder(out.quantized) - audio).square().mean()
        optimizer.zero_grad()
        (error + out.loss).backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < errors[0]
    assert quantizer.state.num_updates == 4
    assert all(weight.grad is not None and weight.grad.any() for weight in encodec.encoder.parameters())


@pytest.mark.parametrize("swapped_first", [True, False])
def test_in_a_half_precision_model_they_decode_to_its_dtype(encodec, mimi, audio, swapped_first):
    quantizer = depthq.DepthwiseQuantizer(dim=16, num_codebooks=4, codebook_size=64).eval()
    for model, make in (
        (encodec, lambda: EncodecQuantizer(quantizer, encodec.config.frame_rate)),
        (mimi, lambda: MimiQuantizer([quantizer])),
    ):
        if swapped_first:
            model.quantizer = make()
            model.bfloat16()
        else:
            model.bfloat16()
            model.quantizer = make().to(model.dtype)
        with torch.no_grad():
            assert model(audio.bfloat16()).audio_values.dtype == torch.bfloat16


def test_bandwidth_buys_codebooks(encodec):
    quantizer = EncodecQuantizer(depthq.ResidualQuantizer(dim=16, num_codebooks=4, codebook_size=64), frame_rate=75)
    asked = (None, 0.1, 0.45, 0.9, 99)  # kbit/s; one codebook takes 6 bits x 75 = 0.45
    assert [quantizer.get_num_quantizers_for_bandwidth(bandwidth) for bandwidth in asked] == [4, 1, 1, 2, 4]


def test_what_does_not_fit_is_refused(mimi):
    with pytest.raises(ValueError, match="with one K for all codebooks"):
        EncodecQuantizer(depthq.ResidualQuantizer(dim=16, num_codebooks=2, codebook_size=[64, 32]), frame_rate=75)
    quantizer = MimiQuantizer([depthq.ResidualQuantizer(dim=16, num_codebooks=2, codebook_size=64)])
    with pytest.raises(ValueError, match=r"num_quantizers must lie in \[1, 2\]; got 3"):
        quantizer.encode(torch.randn(1, 16, 5), num_quantizers=3)
