import sys

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans

from depthq import DepthwiseQuantizer, ResidualQuantizer, SharedQuantizer


def clusters(num_rows=4000, seed=0) -> np.ndarray:
    """Two slices of 4 columns, each a mixture of 16 blobs."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(2, 16, 4)) * 5
    which = rng.integers(16, size=(2, num_rows))
    blobs = np.concatenate([centres[m, which[m]] for m in range(2)], axis=1)
    return (blobs + 0.3 * rng.normal(size=blobs.shape)).astype(np.float32)


def mse(quantizer, features) -> float:
    x = torch.as_tensor(features)
    return (quantizer.decode(quantizer.encode(x)) - x).square().mean().item()


def fitted(features, **options) -> DepthwiseQuantizer:
    arguments = {"steps": 40, "batch_size": 500, "progress": False} | options
    return DepthwiseQuantizer(8, 2, 16, axis=-1).fit(features, **arguments)


def test_finds_the_clusters_as_well_as_scikit_learn():
    train, test = clusters(), clusters(seed=1)
    peers = [MiniBatchKMeans(16, batch_size=500, n_init=3, random_state=0).fit(x) for x in np.split(train, 2, axis=1)]
    errors = [p.transform(x).min(1) for p, x in zip(peers, np.split(test, 2, axis=1), strict=True)]
    theirs = float(np.square(errors).sum() / test.size)
    assert mse(fitted(train), test) < 1.02 * theirs


def test_a_memory_mapped_array_a_tensor_and_an_array_fit_alike(tmp_path):
    features = clusters()
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    expected = fitted(features).codebooks
    assert torch.equal(fitted(mapped).codebooks, expected)
    assert torch.equal(fitted(torch.from_numpy(features)).codebooks, expected)


def test_an_iterator_of_batches_may_end_early():
    features = clusters()
    quantizer = fitted(iter(np.split(features, 20)), steps=1000)
    assert quantizer.state.num_updates == 20
    assert mse(quantizer, features) < 0.3  # the variance is 25


def test_feature_maps_fit_along_their_axis():
    maps = clusters(num_rows=1600).reshape(100, 4, 4, 8).transpose(0, 3, 1, 2)
    quantizer = DepthwiseQuantizer(8, 2, 16).fit(maps, steps=20, batch_size=50, progress=False)
    assert mse(quantizer, maps.copy()) < 0.3


def test_one_step_on_all_data_is_one_step_of_lloyd():
    """Decay starts at 0: codewords become the means of the vectors that chose them, whatever came before."""
    features = torch.from_numpy(clusters(num_rows=300))
    quantizer = fitted(features, steps=1)
    quantizer.state.epsilon = 1e-12
    counts, sums = quantizer.state.ema_count, quantizer.state.ema_sum
    assert counts.sum(1).tolist() == [300, 300]
    torch.testing.assert_close(sums.sum(1).flatten(), features.sum(0), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(quantizer.codebooks, sums / counts[..., None], rtol=1e-4, atol=1e-4)


def test_fit_leaves_mode_and_decay_as_they_were():
    quantizer = DepthwiseQuantizer(8, 2, 16, decay=0.9).eval()
    quantizer.fit(clusters(), steps=2, batch_size=100, progress=False)
    assert not quantizer.training
    assert quantizer.state.decay == 0.9
    assert not quantizer.state.fitting


def test_fit_forgets_what_was_learned_before():
    features = clusters()
    again = fitted(features).fit(features, steps=40, batch_size=500, progress=False)
    assert torch.equal(again.codebooks, fitted(features).codebooks)


def test_other_quantizers_fit_too():
    features = clusters()
    quantizer = ResidualQuantizer(8, 3, 16).fit(features, steps=40, batch_size=500, progress=False)
    codes = quantizer.encode(torch.from_numpy(features))
    errors = [(quantizer.decode(codes[:, :n]) - torch.from_numpy(features)).square().mean() for n in (1, 2, 3)]
    assert errors[0] > 1.3 * errors[1] > 1.3 * errors[2]


def test_progress_is_shown_on_demand(capsys):
    fitted(clusters(), steps=3, progress=True)
    assert "fit: 100%" in capsys.readouterr().err
    fitted(clusters(), steps=3)
    assert capsys.readouterr().err == ""


def test_progress_is_not_shown_where_there_is_no_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    shown = fitted(clusters(), steps=3, progress=True)
    assert capsys.readouterr().err == ""
    assert torch.equal(shown.codebooks, fitted(clusters(), steps=3).codebooks)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (clusters(0), {}, "features must hold at least one vector; got none"),
        (iter([]), {}, "features must hold at least one vector; got none"),
        (clusters(9), {"steps": 0}, "steps must be at least 1; got 0"),
        (clusters(9), {"batch_size": 0}, "batch_size must be at least 1; got 0"),
        (clusters(9)[:, 1:], {}, "dim must be the size of axis -1; got dim=8"),
        (clusters(9).astype(int), {}, "x must be floating point; got torch.int64"),
        (np.full((9, 8), np.nan, dtype=np.float32), {}, "x must be finite in training"),
    ],
)
def test_bad_features_are_refused(features, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(features, **options)


@pytest.mark.parametrize(
    "features", [clusters(0), clusters(9)[:, 1:], iter([]), [clusters(9), np.full((9, 8), np.nan, dtype=np.float32)]]
)
def test_an_error_leaves_what_was_learned(features):
    quantizer = fitted(clusters())
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    with pytest.raises(ValueError, match=r"features|dim|finite"):
        quantizer.fit(features, steps=5, progress=False)
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_codebooks_that_a_failed_fit_leaves_are_trained_on():
    given = torch.from_numpy(clusters(16)).unflatten(1, (2, 4)).movedim(1, 0).contiguous()
    quantizer, features = DepthwiseQuantizer.from_codebooks(given, axis=-1), clusters()
    with pytest.raises(ValueError, match="x must be finite in training"):
        quantizer.fit([features, np.full((9, 8), np.nan, dtype=np.float32)], steps=5, progress=False)
    quantizer.train()(torch.from_numpy(features))
    torch.testing.assert_close(quantizer.codebooks, given)


def test_takes_no_batch_more_than_steps():
    batches = iter([clusters(100, seed=seed) for seed in range(5)])
    fitted(batches, steps=3)
    assert len(list(batches)) == 2


def test_all_codebooks_learn_in_every_step_despite_quantizer_dropout():
    codebooks = [
        ResidualQuantizer(8, 3, 16, quantizer_dropout=share).fit(clusters(), steps=5, progress=False).codebooks
        for share in (0.0, 1.0)
    ]
    assert torch.equal(*codebooks)


def test_progress_shows_the_final_error_of_all_stages():
    quantizer, x = ResidualQuantizer(8, 3, 16).eval(), torch.from_numpy(clusters())
    out = quantizer(x)
    torch.testing.assert_close(quantizer._mean_squared_error(x, out), (quantizer.decode(out.codes) - x).square().mean())


def test_codebooks_learned_by_gradient_are_refused():
    with pytest.raises(ValueError, match="codebook_update must be 'ema' for fit; got 'gradient'"):
        DepthwiseQuantizer(8, 2, 16, codebook_update="gradient").fit(clusters(), steps=1)


def test_a_frozen_quantizer_is_refused():
    message = r"quantizer must not be frozen for fit, which sets codebooks anew; got a frozen one; unfreeze\(\) it"
    with pytest.raises(ValueError, match=message):
        DepthwiseQuantizer(8, 2, 16).freeze().fit(clusters(), steps=1)


@pytest.mark.parametrize("kind", [DepthwiseQuantizer, SharedQuantizer, ResidualQuantizer])
def test_autocast_changes_nothing(kind):
    fits = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            quantizer = kind(8, 2, 16, axis=-1).fit(clusters(), steps=5, batch_size=500, progress=False)
        fits.append(quantizer.codebooks)
    assert torch.equal(*fits)


@pytest.mark.parametrize("count", [500, 5000])
def test_a_seed_decides_however_few_the_vectors(count):
    features = torch.randn(count, 16, generator=torch.Generator().manual_seed(0))
    one, other, again = (
        DepthwiseQuantizer(16, 4, 8).fit(features, steps=3, batch_size=1000, seed=seed, progress=False).codebooks
        for seed in (1, 2, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
