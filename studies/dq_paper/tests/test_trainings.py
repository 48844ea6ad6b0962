"""Progressive training: each stage starts from the last one's model, and an interrupted run goes on in its stage."""

import pytest

from depthq.runs import load_model
from depthq.training.module import DQAETraining
from studies.dq_paper import run_tasks, trainings

STAGES = {"kind": "progressive", "codebook_size": (8, 8), "likelihood": "logistic_mixture"}


@pytest.fixture
def started(monkeypatch):
    """The models that stages started from, by the fingerprints of their first weights; None where drawn anew."""
    fingerprints = []

    def train(*arguments, start_from=None, original=trainings.train, **options):
        fingerprints.append(start_from and start_from.fingerprint())
        return original(*arguments, start_from=start_from, **options)

    monkeypatch.setattr(trainings, "train", train)
    return fingerprints


def test_each_stage_starts_from_the_last(task, execution, started, photos, declare):
    declare("photos", str(photos), (3, 16, 16), 35, 5)
    staged = task(data="photos", image_sizes=[8, 16], **STAGES)
    assert run_tasks([staged], execution) == 0
    folder = execution.runs / staged.key
    small, large = (load_model(folder / f"size={size}") for size in (8, 16))
    assert started == [None, small.fingerprint()]
    assert large.fingerprint() != small.fingerprint()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "size=16", "size=8"]
    assert not list(folder.rglob("checkpoints"))
    figures = execution.results.find(staged.experiment).figures
    first, last = figures.pop("stages")
    assert (first["image_size"], last["image_size"]) == (8, 16)
    assert first["images"] == last["images"] == 5
    assert last == figures | {"image_size": 16}
    assert first["nll_nats_per_dim"] != last["nll_nats_per_dim"]
    assert first["code_bits_per_dim"] == last["code_bits_per_dim"]  # as many codes per pixel


def test_interrupted_run_goes_on_in_its_stage(task, execution, photos, declare, monkeypatch):
    declare("photos", str(photos), (3, 16, 16), 35, 5)
    staged = task(data="photos", image_sizes=[8, 16], **STAGES)
    original = DQAETraining.training_step
    steps = []

    def training_step(self, images, index):
        size = images.shape[-1]
        if "interrupted" not in steps and (size, self.global_step) == (16, 7):
            steps.append("interrupted")
            raise KeyboardInterrupt
        steps.append((size, self.global_step))
        return original(self, images, index)

    monkeypatch.setattr(DQAETraining, "training_step", training_step)
    with pytest.raises(KeyboardInterrupt):
        run_tasks([staged], execution)
    steps[:] = ["interrupted"]
    assert run_tasks([staged], execution) == 0
    assert steps[1:] == [(16, step) for step in range(5, 20)]
    resumed = execution.results.find(staged.experiment).figures
    next(execution.results.folder.glob("*.json")).unlink()
    assert run_tasks([staged], execution) == 0  # from scratch: the checkpoints are gone
    assert steps[16:][:20] == [(8, step) for step in range(20)]
    assert execution.results.find(staged.experiment).figures == resumed
