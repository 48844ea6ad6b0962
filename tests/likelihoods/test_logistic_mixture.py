import copy
import math

import pytest
import torch
from torch.distributions import AffineTransform, SigmoidTransform, TransformedDistribution, Uniform

from depthq.likelihoods import LogisticMixtureLikelihood
from depthq.likelihoods.chunked_mixture import ChunkedLogProb

ALL_VALUES = torch.arange(256, dtype=torch.uint8)


def pixel_parameters(logits, means, log_scales, couplings=()) -> torch.Tensor:
    """Parameters of one pixel, (1, P, 1, 1): per component, then per channel and per component."""
    parts = [torch.as_tensor(part, dtype=torch.float32).flatten() for part in (logits, means, log_scales, couplings)]
    return torch.cat(parts).view(1, -1, 1, 1)


def log_probs_of_all_values(likelihood, parameters, earlier=()) -> torch.Tensor:
    """log p(value | earlier channels) of the next channel, for all 256 values: (256,)."""
    images = torch.zeros(256, likelihood.image_channels, 1, 1, dtype=torch.uint8)
    for channel, value in enumerate(earlier):
        images[:, channel] = value
    images[:, len(earlier), 0, 0] = ALL_VALUES
    return likelihood.log_prob(parameters.expand(256, -1, -1, -1), images)[:, len(earlier), 0, 0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_one_logistic_at_the_middle_and_both_edges():
    mean, scale, half_bin = 0.2, math.exp(-1.5), 1 / 255
    log_prob = log_probs_of_all_values(LogisticMixtureLikelihood(1, 1), pixel_parameters(0, mean, -1.5))
    middle = 128 / 127.5 - 1
    below = sigmoid((-1 + half_bin - mean) / scale)
    inside = sigmoid((middle + half_bin - mean) / scale) - sigmoid((middle - half_bin - mean) / scale)
    above = 1 - sigmoid((1 - half_bin - mean) / scale)
    expected = torch.tensor([below, inside, above], dtype=torch.float64).log().float()
    torch.testing.assert_close(log_prob[[0, 128, 255]], expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_start_gives_narrow_components_whose_means_move_together(channels):
    likelihood = LogisticMixtureLikelihood(channels, 3)
    head = torch.nn.Conv2d(4, likelihood.num_parameters, 1)
    drawn = copy.deepcopy(head)
    likelihood.start(head)
    one, image = torch.randn(2, 4, 1, 1), slice(3, 3 + 3 * channels)
    means = head(one)[:, image].view(2, channels, 3)
    torch.testing.assert_close(means.diff(dim=2), torch.full((2, channels, 2), 0.1))  # whatever the features
    assert not torch.equal(means[0], means[1])
    assert head.bias[3 + 3 * channels : 3 + 6 * channels].tolist() == 3 * channels * [-2.0]
    for start, stop in ((0, 3), (3 + 6 * channels, None)):  # logits and couplings are as they were drawn
        assert torch.equal(head.weight[start:stop], drawn.weight[start:stop])
        assert torch.equal(head.bias[start:stop], drawn.bias[start:stop])


def test_a_logistic_far_away_costs_its_distance_in_scales():
    # 254/255 - (-9) of a scale of e^-7 above the mean: log P = -distance + log(1 - e^-width), no underflow.
    log_prob = log_probs_of_all_values(LogisticMixtureLikelihood(1, 1), pixel_parameters(0, -9, -7))
    lower_edge_of_254 = (254 / 127.5 - 1 - 1 / 255 + 9) * math.exp(7)
    inside = math.log1p(-math.exp(-2 / 255 * math.exp(7)))
    assert log_prob[254].item() == pytest.approx(-lower_edge_of_254 + inside, rel=1e-6)


def test_coupling_moves_the_means_of_green_and_blue():
    likelihood = LogisticMixtureLikelihood(3, 1)
    scales = [-2, -2, -2]
    half = math.atanh(0.5)
    red, green = 255, 0  # +1 and -1
    coupled = pixel_parameters(0, [0.1, 0.1, 0.1], scales, [half, half, -half])
    moved = pixel_parameters(0, [0.1, 0.1 + 0.5 * 1, 0.1 + 0.5 * 1 - 0.5 * -1], scales, [0, 0, 0])
    for earlier in ((red,), (red, green)):
        torch.testing.assert_close(
            log_probs_of_all_values(likelihood, coupled, earlier),
            log_probs_of_all_values(likelihood, moved, earlier),
        )


def test_red_tells_which_component_green_comes_from():
    likelihood, alone = LogisticMixtureLikelihood(3, 2), LogisticMixtureLikelihood(3, 1)
    two = pixel_parameters([0, 0], [[-0.9, 0.9], [0.3, -0.4], [0, 0]], torch.full((3, 2), -4.0), torch.zeros(3, 2))
    second = pixel_parameters(0, [0.9, -0.4, 0], torch.full((3,), -4.0), torch.zeros(3))
    red = round((0.9 + 1) * 127.5)
    torch.testing.assert_close(
        log_probs_of_all_values(likelihood, two, (red,)), log_probs_of_all_values(alone, second, (red,))
    )


PIXELS = {
    "random": lambda k, n: (torch.randn(k), torch.randn(n, k), torch.randn(n, k) - 2),
    "tiny scales": lambda k, n: (torch.randn(k), torch.randn(n, k), torch.full((n, k), -20.0)),
    "huge scales": lambda k, n: (torch.randn(k), torch.randn(n, k), torch.full((n, k), 10.0)),
    "means far outside": lambda k, n: (torch.randn(k), 50 * torch.randn(n, k), torch.randn(n, k) - 2),
    "far outside and tiny": lambda k, n: (torch.randn(k), 1e4 * torch.randn(n, k), torch.full((n, k), -20.0)),
    "one component rules": lambda k, n: (1e4 * torch.randn(k), torch.randn(n, k), torch.randn(n, k) - 2),
}


@pytest.mark.parametrize("pixel", PIXELS.values(), ids=PIXELS)
@pytest.mark.parametrize("image_channels", [1, 3])
def test_probabilities_of_all_values_sum_to_one_along_the_chain(pixel, image_channels):
    torch.manual_seed(0)
    likelihood = LogisticMixtureLikelihood(image_channels)
    couplings = torch.randn(image_channels * (image_channels - 1) // 2, 10)
    parameters = pixel_parameters(*pixel(10, image_channels), couplings)
    for earlier in [(), (0,), (100,), (255,), (0, 255), (77, 180)]:
        if len(earlier) < image_channels:
            total = log_probs_of_all_values(likelihood, parameters, earlier).exp().sum().item()
            assert total == pytest.approx(1, abs=1e-4), earlier


def logistic_mixture_log_prob(parameters: torch.Tensor, image: torch.Tensor, num_components: int) -> torch.Tensor:
    """log p(R, G, B) of one RGB pixel, in float64 straight from the definition; (P,) and uint8 (3,)."""
    rows = parameters.double().view(10, num_components)
    values = image.double() / 127.5 - 1
    couplings = rows[7:].tanh()
    means = (
        rows[1],
        rows[2] + couplings[0] * values[0],
        rows[3] + couplings[1] * values[0] + couplings[2] * values[1],
    )
    joint = rows[0].softmax(0)
    for value, mean, log_scale in zip(values, means, rows[4:7], strict=True):
        uniform = Uniform(torch.zeros_like(mean), torch.ones_like(mean))
        logistic = TransformedDistribution(uniform, [SigmoidTransform().inv, AffineTransform(mean, log_scale.exp())])
        upper = 1.0 if value == 1 else logistic.cdf(value + 1 / 255)
        lower = 0.0 if value == -1 else logistic.cdf(value - 1 / 255)
        joint = joint * (upper - lower)
    return joint.sum().log()


def test_agrees_with_torch_distributions_in_value_and_gradient():
    torch.manual_seed(0)
    likelihood = LogisticMixtureLikelihood(3, 4)
    images = torch.randint(256, (12, 3, 1, 1), dtype=torch.uint8)
    images[0], images[1] = 0, 255
    ours = torch.randn(12, 40, 1, 1)
    ours[:, 16:28] -= 1  # log scales
    theirs = ours.clone().requires_grad_()
    ours.requires_grad_()
    log_prob = likelihood.log_prob(ours, images).sum((1, 2, 3))
    pixels = zip(theirs[:, :, 0, 0], images[:, :, 0, 0], strict=True)
    expected = torch.stack([logistic_mixture_log_prob(*pixel, num_components=4) for pixel in pixels])
    torch.testing.assert_close(log_prob, expected.float(), atol=1e-5, rtol=1e-5)
    log_prob.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("magnitude", [1e8, 1e30, 3e38])
def test_no_finite_parameters_give_nan_or_inf(magnitude):
    torch.manual_seed(0)
    likelihood = LogisticMixtureLikelihood(3)
    parameters = (magnitude * torch.randn(8, 100, 4, 4).sign()).requires_grad_()
    images = torch.randint(256, (8, 3, 4, 4), dtype=torch.uint8)
    images[0], images[1] = 0, 255
    log_prob = likelihood.log_prob(parameters, images)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert parameters.grad.isfinite().all()
    assert likelihood.mean(parameters).isfinite().all()


@pytest.mark.parametrize("pixel", PIXELS.values(), ids=PIXELS)
def test_gray_mean_is_the_expectation_over_all_values(pixel):
    torch.manual_seed(0)
    likelihood = LogisticMixtureLikelihood(1)
    parameters = pixel_parameters(*pixel(10, 1))
    expected = (log_probs_of_all_values(likelihood, parameters).exp() * ALL_VALUES).sum().item()
    # Half a grey value: the mean is that of the logistics before they are rounded to 8 bits.
    assert likelihood.mean(parameters).item() == pytest.approx(expected, abs=0.5)


def test_mean_of_a_logistic_at_the_edge_stays_below_it():
    # E[min(X, 1)] = 1 - scale * ln 2 for a logistic around 1; in grey values of 1 / 127.5.
    mean = LogisticMixtureLikelihood(1, 1).mean(pixel_parameters(0, 1, math.log(0.05)))
    assert mean.item() == pytest.approx(255 - 127.5 * 0.05 * math.log(2), abs=1e-3)


def test_samples_follow_the_chain():
    likelihood = LogisticMixtureLikelihood(3, 2)
    # Red and green are all but certain given the component, so that each (red, green) is met often.
    parameters = pixel_parameters(
        [0, 0.5],
        [[-0.6, 3.0], [0.4, -0.4], [0, 0.1]],  # red 3.0 is cut to 255, and counts as 1 in the couplings
        [[-9, -9], [-9, -9], [-2.5, -3]],
        [[0.5, 0.5], [1.0, -1.0], [-0.5, 0.8]],
    )
    sample = likelihood.sample(parameters.expand(-1, -1, 200, 200), torch.Generator().manual_seed(5))
    pixels = sample.movedim(1, -1).reshape(-1, 3).long()
    pairs, counts = pixels[:, :2].unique(dim=0, return_counts=True)
    frequent = pairs[counts > 10_000]
    assert len(frequent) == 2
    for red, green in frequent.tolist():
        blue = pixels[(pixels[:, 0] == red) & (pixels[:, 1] == green), 2]
        observed = torch.bincount(blue, minlength=256) / len(blue)
        expected = log_probs_of_all_values(likelihood, parameters, (red, green)).exp()
        # Kolmogorov-Smirnov, 999 in 1,000 cases
        assert (observed.cumsum(0) - expected.cumsum(0)).abs().max() < 1.95 / math.sqrt(len(blue))


def test_num_components_must_be_positive():
    with pytest.raises(ValueError, match="num_components must be at least 1; got 0"):
        LogisticMixtureLikelihood(3, num_components=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spread", [1, 4])  # 4: log scales beyond their bounds, means far outside
def test_chunked_form_agrees_with_the_written_out_one_and_so_do_the_gradients(channels, spread):
    likelihood = LogisticMixtureLikelihood(channels, 4)
    generator = torch.Generator().manual_seed(0)
    shape = (3, likelihood.num_parameters, 37, 31)  # more pixels than a chunk has, and no multiple of them
    parameters = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    images = torch.randint(0, 256, (3, channels, 37, 31), generator=generator, dtype=torch.uint8)
    images[0, :, :5], images[1, 0] = 0, 255
    slopes = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    found = []
    for log_prob in (likelihood.log_prob, likelihood.reference_log_prob):
        at = parameters.clone().requires_grad_()
        value = log_prob(at, images)
        value.backward(slopes.to(value.dtype))
        found.append((value.detach(), at.grad))
    (value, gradient), (expected_value, expected_gradient) = found
    torch.testing.assert_close(value.float(), expected_value.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.float(), expected_gradient.float(), rtol=1e-4, atol=1e-5 * gradient.abs().max())


def test_gradient_of_the_chunked_form_is_its_slope():
    parameters = torch.randn(6, LogisticMixtureLikelihood(3, 2).num_parameters, dtype=torch.float64)
    values = torch.tensor([0, 255, 3, 128, 254, 77], dtype=torch.uint8)[:, None].repeat(1, 3)
    log_prob = lambda at: ChunkedLogProb.apply(at, values, 2, 7.0)  # noqa: E731
    assert torch.autograd.gradcheck(log_prob, parameters.requires_grad_())


def test_no_pixels_have_no_likelihood():
    likelihood = LogisticMixtureLikelihood(3)
    parameters = torch.zeros(0, likelihood.num_parameters, 4, 4, requires_grad=True)
    log_prob = likelihood.log_prob(parameters, torch.zeros(0, 3, 4, 4, dtype=torch.uint8))
    log_prob.sum().backward()
    assert log_prob.shape == (0, 3, 4, 4)
