"""What all priors promise."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch

from depthq import CodePrior, Codes
from depthq.priors import CountedPrior, TransformerPrior, UniformPrior

SIZES, GRIDS = ((3, 2), (4,)), ((1, 2), (2, 4))


def random_codes(sizes, grids, batch=16, seed=0) -> Codes:
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(
        torch.stack([torch.randint(size, (batch, *grid), generator=generator) for size in of_level], dim=1)
        for of_level, grid in zip(sizes, grids, strict=True)
    )
    return Codes(levels, sizes)


def counted(sizes, grids, given_left):
    return CountedPrior.from_codes([random_codes(sizes, grids), random_codes(sizes, grids, seed=1)], given_left)


def transformer(sizes, grids, factorization):
    torch.manual_seed(0)
    prior = TransformerPrior(sizes, grids, factorization, width=16, num_layers=2, num_heads=2)
    with torch.no_grad():
        for weight in prior.parameters():  # far from uniform, as trained ones are
            weight.add_(0.2 * torch.randn_like(weight))
    return prior.eval()


PRIORS = {
    "uniform": UniformPrior,
    "counted": partial(counted, given_left=False),
    "counted given left": partial(counted, given_left=True),
    "parallel": partial(transformer, factorization="parallel"),
    "sequential": partial(transformer, factorization="sequential"),
}


@pytest.fixture(params=PRIORS)
def make_prior(request):
    return PRIORS[request.param]


@pytest.fixture
def prior(make_prior) -> CodePrior:
    return make_prior(SIZES, GRIDS)


def test_probabilities_of_all_codes_add_up_to_one(make_prior):
    sizes, grids = ((3, 2), (2,)), ((1, 1), (1, 3))
    places = [range(3), range(2), *[range(2)] * 3]
    every = torch.tensor(list(itertools.product(*places)))
    codes = Codes((every[:, :2, None, None], every[:, None, None, 2:]), sizes)
    assert make_prior(sizes, grids).double().nll_nats(codes).neg().exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_walk_costs_what_nll_nats_says(prior):
    codes = random_codes(SIZES, GRIDS)
    prior.double()
    steps, nats = prior.steps(len(codes)), torch.zeros(len(codes), dtype=torch.float64)
    while (logits := steps.next_logits()) is not None:
        known = steps.read(codes.levels[steps.group.level])
        for of_code, code in zip(logits, known.unbind(1), strict=True):
            assert of_code.dtype == torch.float64
            nats -= of_code.log_softmax(1).gather(1, code[:, None]).squeeze(1)
        steps.push(known)
    torch.testing.assert_close(nats, prior.nll_nats(codes), rtol=1e-9, atol=0)
    assert all(map(torch.equal, steps.codes().levels, codes.levels))


def test_cost_of_an_image_does_not_depend_on_its_batch(prior):
    codes, prior = random_codes(SIZES, GRIDS), prior.double()
    alone = torch.cat([prior.nll_nats(codes[i : i + 1]) for i in range(len(codes))])
    torch.testing.assert_close(alone, prior.nll_nats(codes), rtol=1e-12, atol=0)


def test_other_grids_are_taken(prior):
    grids = ((2, 3), (4, 6))
    nats = prior.nll_nats(random_codes(SIZES, grids))
    assert nats.isfinite().all()
    assert (nats > 0).all()
    assert prior.sample(2, grids=grids).shapes == ((2, 2, 3), (1, 4, 6))


def test_saved_prior_costs_the_same(prior, tmp_path):
    prior.save_pretrained(tmp_path)
    loaded, codes = CodePrior.from_pretrained(tmp_path), random_codes(SIZES, GRIDS)
    assert type(loaded) is type(prior)
    assert not loaded.training
    assert torch.equal(loaded.nll_nats(codes), prior.nll_nats(codes))


def test_sizes_of_any_kind_survive_saving(make_prior, tmp_path):
    prior = make_prior(tuple(map(np.array, SIZES)), GRIDS)
    prior.save_pretrained(tmp_path)
    assert CodePrior.from_pretrained(tmp_path).fingerprint() == prior.fingerprint()


def test_seed_decides_the_sample(prior):
    first, again, other = (prior.sample(8, seed=seed) for seed in (3, 3, 4))
    assert first.shapes == ((2, 1, 2), (1, 2, 4))
    assert all(map(torch.equal, first.levels, again.levels))
    assert not all(map(torch.equal, first.levels, other.levels))


def test_samples_occur_as_often_as_the_prior_says(make_prior):
    sizes, grids = ((3, 2),), ((1, 1),)
    prior = make_prior(sizes, grids)
    every = torch.tensor(list(itertools.product(range(3), range(2))))
    expected = prior.nll_nats(Codes((every[:, :, None, None],), sizes)).neg().exp()
    drawn = prior.sample(20_000).levels[0].flatten(1)
    shares = torch.bincount(drawn[:, 0] * 2 + drawn[:, 1], minlength=6) / 20_000
    torch.testing.assert_close(shares.double(), expected, rtol=0, atol=0.015)  # four standard deviations


def test_coarse_codes_are_completed(prior):
    coarse = random_codes(SIZES, GRIDS, batch=4).levels[0]
    sample = prior.sample(4, coarse=[coarse])
    assert torch.equal(sample.levels[0], coarse)
    assert len(sample.levels) == 2


@pytest.mark.parametrize("options", [{"top_k": 1}, {"temperature": 0}, {"top_p": 1e-9}])
def test_what_leaves_one_code_takes_the_likeliest(make_prior, options):
    sizes, grids = ((4,),), ((1, 1),)
    prior = make_prior(sizes, grids)
    nats = prior.nll_nats(Codes((torch.arange(4).view(4, 1, 1, 1),), sizes))
    assert set(prior.sample(16, **options).levels[0].flatten().tolist()) == {nats.argmin().item()}


def test_numbers_may_be_those_of_numpy(make_prior):
    prior = make_prior(((4,),), ((2, 2),))
    drawn = prior.sample(np.int64(3), seed=np.int64(5))
    assert torch.equal(drawn.levels[0], prior.sample(3, seed=5).levels[0])


def test_high_temperature_forgets_the_prior(make_prior):
    drawn = make_prior(((4,),), ((1, 1),)).sample(20_000, temperature=1e9).levels[0].flatten()
    assert torch.bincount(drawn, minlength=4).div(20_000).tolist() == pytest.approx([0.25] * 4, abs=0.015)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1; got 0"),
        ({"n": 2.0}, "n must be a whole number; got 2.0"),
        ({"n": torch.tensor(2.0)}, r"n must be a whole number; got tensor\(2\.\)"),
        ({"seed": 2**64}, r"seed must lie in \[-2\*\*63, 2\*\*64\); got 18446744073709551616"),
        ({"seed": None}, "seed must be a whole number; got None"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"temperature": math.nan}, "temperature must be at least 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must lie in"),
        ({"top_p": 1.5}, "top_p must lie in"),
        ({"grids": ((1, 2),)}, "grids must be one"),
        ({"grids": ((1,), (2,))}, "grids must be one"),
        ({"grids": (2, 2)}, "grids must be one"),
        ({"grids": ((1, 2), (0, 4))}, "grids must be one"),
        ({"coarse": [torch.zeros(1, 2, 2, 2, dtype=torch.int64)]}, "coarse must hold the first levels"),
        (
            {"coarse": [torch.full((1, 2, 1, 2), 2)]},
            r"coarse\[0\] of codebook 1 must lie in \[0, 2\); got 2; were they made by another model",
        ),
        ({"coarse": [torch.zeros(1, 2, 1, 2)]}, r"coarse\[0\] must be int64; got torch.float32"),
    ],
)
def test_bad_arguments_of_sample_are_named(prior, options, message):
    with pytest.raises(ValueError, match=message):
        prior.sample(**{"n": 1} | options)


def test_codes_of_other_codebooks_are_refused(prior):
    with pytest.raises(ValueError, match="codebook sizes"):
        prior.nll_nats(random_codes(((3, 3), (4,)), GRIDS))


def test_damaged_folders_are_refused(prior, tmp_path):
    with pytest.raises(ValueError, match=r"must hold config\.json"):
        CodePrior.from_pretrained(tmp_path)
    prior.save_pretrained(tmp_path)
    for name, content in (("model.safetensors", b"half"), ("config.json", b'{"kind": "other"}')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"must be whole|must be a JSON object of config fields"):
            CodePrior.from_pretrained(tmp_path)


def test_a_model_without_a_prior_is_named_as_that():
    with pytest.raises(ValueError, match=r"must hold a prior; it holds a model without one; make one: depthq prior"):
        CodePrior.from_pretrained("cifar10-lossless")
