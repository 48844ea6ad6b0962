"""What rows are said to have found, for tests of what is made of it."""

from PIL import Image

from studies.dq_paper import SCALES, Outcome, find_item
from studies.dq_paper.row_results import DeclaredResults

CPU = SCALES["cpu"]

LIKELIHOOD = {
    "nll_nats_per_dim": 2.0,
    "nll_bits_per_dim": 2.9,
    "code_bits_per_dim": 0.9,
    "total_bits_per_dim": 3.8,
}

PICTURE = Image.new("RGB", (40, 20), "red")


def at_cpu(store):
    return DeclaredResults(store).at("cpu")


def save(store, item, row, *, seed=0, scale=CPU, curve=None, codes=None, **figures):
    """Keep what a row is said to have found."""
    (declared,) = [declared for declared in find_item(item).rows if declared.name == row]
    if declared.has_scale:
        figures = {"mse_normalized": 0.5, "psnr_db": 20.0} | figures
        if declared.likelihood != "l2":
            figures = LIKELIHOOD | figures
    curve = curve or {"step": [1000], "mse_normalized": [0.1], "nll_bits_per_dim": [3.0]}
    store.save(declared.experiment(scale, seed), Outcome(figures, codes, curve, PICTURE), seconds=3600)


def save_errors(store, depthwise, shared, row="table3/M5-K128-l2", metric="mse_normalized"):
    """Of two seeds each, whose standard deviation is 2.8 % of their mean, and 2 % the mean's standard error."""
    item, _, name = row.partition("/")
    for quantizer, mean in (("depthwise", depthwise), ("shared", shared)):
        for seed, value in enumerate((0.98 * mean, 1.02 * mean)):
            save(store, item, f"{name}-{quantizer}", seed=seed, **{metric: value})
