import torch

from depthq.quantizers.straight_through import straight_through

CODEBOOK = torch.arange(20.0).view(4, 5)  # codeword k: 5k, 5k + 1, ..., 5k + 4
LATENTS = CODEBOOK[[1, 3]] + torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, -2.0, 0, 0]])


def test_literal_losses_and_gradients():
    """Squared distances 1 and 4, over 2 vectors of 5 dimensions: 0.5. The gradient is 2 * difference / 10."""
    latents = LATENTS[:, None].clone().requires_grad_()
    codebook = CODEBOOK.clone().requires_grad_()
    codewords = codebook[[1, 3]][:, None]
    quantized, commitment_loss, codebook_loss = straight_through(latents, codewords, [5])
    assert torch.equal(quantized, CODEBOOK[[1, 3]][:, None])
    assert commitment_loss.item() == codebook_loss.item() == 0.5

    to_latents, to_codebook = torch.autograd.grad(
        commitment_loss, (latents, codebook), retain_graph=True, allow_unused=True
    )
    torch.testing.assert_close(to_latents[:, 0], torch.tensor([[0.2, 0, 0, 0, 0], [0, 0, -0.4, 0, 0]]))
    assert to_codebook is None  # beta pulls the encoder, never the codebook

    to_latents, to_codebook = torch.autograd.grad(
        codebook_loss, (latents, codebook), retain_graph=True, allow_unused=True
    )
    assert to_latents is None
    expected = torch.zeros(4, 5)
    expected[1, 0], expected[3, 2] = -0.2, 0.4
    torch.testing.assert_close(to_codebook, expected)

    to_latents, to_codebook = torch.autograd.grad(quantized.sum(), (latents, codebook), allow_unused=True)
    assert torch.equal(to_latents, torch.ones(2, 1, 5))
    assert to_codebook is None


def test_codewords_come_out_exactly_where_addition_would_round():
    latents, codewords = torch.full((1, 1, 1), 1e8), torch.full((1, 1, 1), 0.1)
    assert straight_through(latents, codewords, [1])[0].item() == codewords.item()
    assert (latents + (codewords - latents)).item() != codewords.item()


def test_each_codebook_is_averaged_over_its_own_width():
    """Slot 0 has 1 real column, slot 1 has 2: distances 1 and 1 + 1, so losses 1 / 1 + 2 / 2."""
    latents = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    assert straight_through(latents, torch.zeros(1, 2, 2), [1, 2])[1].item() == 2


def test_no_rows_cost_nothing():
    latents = torch.zeros(0, 2, 3, requires_grad=True)
    quantized, commitment_loss, codebook_loss = straight_through(latents, torch.zeros(0, 2, 3), [3, 3])
    (quantized.sum() + commitment_loss + codebook_loss).backward()
    assert commitment_loss.item() == codebook_loss.item() == 0


def test_gradient_agrees_with_finite_differences_of_the_loss():
    generator = torch.Generator().manual_seed(0)
    latents, codewords = torch.randn(2, 4, 3, 2, generator=generator, dtype=torch.float64)
    latents.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: straight_through(x, codewords, [2, 2, 1])[1], latents)
