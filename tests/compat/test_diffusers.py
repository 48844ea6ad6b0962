"""diffusers' own `VQModel` with our quantizers in it."""

import pytest
import torch
from diffusers import VQModel

import depthq
from depthq.compat.diffusers import from_pretrained, import_quantizer, swap_quantizer


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VQModel(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=8,
        num_vq_embeddings=64,
        mid_block_add_attention=False,
    ).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_an_imported_codebook_changes_nothing(model, images):
    with torch.no_grad():
        before = model(images)
        latents = model.encode(images).latents
        _, _, (_, _, codes) = model.quantize(latents)
        swap_quantizer(model, import_quantizer(model, commitment_weight=1.0).eval())
        after = model(images)
        _, _, (_, _, ours) = model.quantize(latents)
    assert torch.equal(ours, codes)
    torch.testing.assert_close(after.sample, before.sample, atol=1e-5, rtol=0)


def test_indices_lead_back(model, images):
    swap_quantizer(model, depthq.DepthwiseQuantizer(dim=8, num_codebooks=4, codebook_size=16).eval())
    with torch.no_grad():
        latents = model.encode(images).latents
        quantized, loss, (perplexity, encodings, indices) = model.quantize(latents)
    assert (perplexity, encodings) == (None, None)
    assert indices.shape == (2 * 8 * 8, 4)
    assert loss > 0
    assert torch.equal(model.quantize.get_codebook_entry(indices, (2, 8, 8, 8)), quantized)


@pytest.mark.parametrize("swapped_first", [True, False])
def test_in_a_half_precision_model_indices_lead_to_its_dtype(model, images, swapped_first):
    quantizer = depthq.DepthwiseQuantizer(dim=8, num_codebooks=4, codebook_size=16).eval()
    if swapped_first:
        swap_quantizer(model, quantizer).bfloat16()
    else:
        swap_quantizer(model.bfloat16(), quantizer)
    with torch.no_grad():
        quantized, _, (_, _, indices) = model.quantize(model.encode(images.bfloat16()).latents)
        again = model.quantize.get_codebook_entry(indices, (2, 8, 8, 8))
        assert torch.equal(again, quantized)
        assert model.decode(again, force_not_quantize=True).sample.dtype == torch.bfloat16


def test_it_trains(model, images):
    swap_quantizer(model, depthq.DepthwiseQuantizer(dim=8, num_codebooks=2, codebook_size=16)).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    errors = []
    for _ in range(30):
        out = model(images)
        error = (out.sample - images).square().mean()
        optimizer.zero_grad()
        (error + out.commit_loss).backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]


def test_saving_goes_round(model, images, tmp_path):
    swap_quantizer(model, depthq.ResidualQuantizer(dim=8, num_codebooks=2, codebook_size=16)).train()
    model(images)
    model.eval().save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(images).sample, model(images).sample)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("size", ["10GB", "20KB"])
def test_variants_and_shards_are_read(model, images, tmp_path, variant, size):
    swap_quantizer(model, depthq.ResidualQuantizer(dim=8, num_codebooks=2, codebook_size=16)).train()
    model(images)
    model.eval().save_pretrained(tmp_path, variant=variant, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (size == "20KB")
    loaded = from_pretrained(tmp_path, variant)
    with torch.no_grad():
        assert torch.equal(loaded(images).sample, model(images).sample)


def test_weights_that_are_not_read_are_named(model, tmp_path):
    swap_quantizer(model, depthq.ResidualQuantizer(dim=8, num_codebooks=2, codebook_size=16))
    model.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(ValueError, match=r"got diffusion_pytorch_model.bin; pickled weights are not read: save the"):
        from_pretrained(tmp_path / "pickled")
    model.save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(ValueError, match=r"got diffusion_pytorch_model.fp16.safetensors; pass the variant that it"):
        from_pretrained(tmp_path / "half")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    (index,) = (tmp_path / "shards").glob("*.index.json")
    whole = index.read_text()
    for damaged in ("{}", whole[:-20]):
        index.write_text(damaged)
        with pytest.raises(ValueError, match=r"index.json must be an index of weights; got: .*; copy the folder again"):
            from_pretrained(tmp_path / "shards")
    index.write_text(whole)
    shard = min((tmp_path / "shards").glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(ValueError, match=rf"must hold config.json and {shard.name}; got .*; copy the folder again"):
        from_pretrained(tmp_path / "shards")


def test_a_model_that_has_ours_has_nothing_to_import(model):
    swap_quantizer(model, depthq.ResidualQuantizer(dim=8, num_codebooks=2, codebook_size=16))
    with pytest.raises(ValueError, match="model must have diffusers' own quantizer; got ours, ResidualQuantizer; take"):
        import_quantizer(model)


def test_what_does_not_fit_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="dim must be the model's vq_embed_dim, 8; got 9"):
        swap_quantizer(model, depthq.DepthwiseQuantizer(dim=9, num_codebooks=3, codebook_size=16))
    with pytest.raises(ValueError, match="quantizer must take and give one number of channels on axis 1"):
        swap_quantizer(model, depthq.SharedQuantizer(dim=8, num_codebooks=3, codebook_size=16))
    with pytest.raises(ValueError, match=r"must hold config.json and diffusion_pytorch_model.safetensors"):
        from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must name a depthq_quantizer; got a model with diffusers' own"):
        from_pretrained(tmp_path)
