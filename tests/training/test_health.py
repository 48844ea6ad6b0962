"""The health callback in a module that is none of ours."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from depthq import DepthwiseQuantizer, ResidualQuantizer
from depthq.training import HealthCallback


class Tokenizer(LightningModule):
    """Two quantizers around a projection; `value` is where all latents of the first lie, if they are not spread, and no
    code is re-drawn then."""

    def __init__(self, value=None):
        super().__init__()
        self.value = value
        self.first = DepthwiseQuantizer(8, 2, 16, decay=0.5, rare_code_threshold=0.1 if value is None else 0.0)
        self.second = ResidualQuantizer(8, 2, 16)
        self.project = nn.Linear(8, 8)

    def training_step(self, batch, _):
        latents = self.project(batch) if self.value is None else self.project(batch) * 0 + self.value
        first = self.first(latents)
        return first.loss + self.second(self.project(batch)).loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def fit(module, folder, steps=40, every=10, accumulate=1, checkpoint=None):
    torch.manual_seed(0)
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[HealthCallback(every)],
        accumulate_grad_batches=accumulate,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    batches = DataLoader(torch.randn(64 * steps * accumulate, 8), batch_size=64, num_workers=0)
    trainer.fit(module, batches, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / "last.ckpt")
    return (folder / "metrics.csv").read_text().splitlines()


pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # of Lightning's own code
]


def test_usage_and_perplexity_of_every_quantizer_are_logged_by_name(tmp_path):
    header, *rows = fit(Tokenizer(), tmp_path)
    names = header.split(",")
    assert {f"{name}/{what}" for name in ("first", "second") for what in ("usage", "perplexity", "redrawn")} <= set(
        names
    )
    assert [row.split(",")[names.index("step")] for row in rows] == ["10", "20", "30", "40"]
    assert 8 < float(rows[-1].split(",")[names.index("first/perplexity")]) <= 16


def steps_of(lines):
    return [int(row.split(",")[lines[0].split(",").index("step")]) for row in lines[1:]]


def test_a_step_of_several_batches_is_logged_once(tmp_path):
    assert steps_of(fit(Tokenizer(), tmp_path, steps=5, every=2, accumulate=3)) == [2, 4]


def test_a_resumed_run_logs_its_own_steps_alone(tmp_path):
    fit(Tokenizer(), tmp_path / "first", steps=4, every=2, accumulate=3)
    last = tmp_path / "first" / "last.ckpt"
    assert steps_of(fit(Tokenizer(), tmp_path / "second", steps=8, every=2, accumulate=3, checkpoint=last)) == [6, 8]


def test_a_collapsed_codebook_is_told_once(tmp_path):
    with pytest.warns(
        UserWarning, match=r"codebook [01] of first has collapsed by step \d+: perplexity 1\.0 of 16"
    ) as told:
        fit(Tokenizer(value=1.0), tmp_path)
    assert sum("codebook 0 of first" in str(warning.message) for warning in told) == 1
    assert not any("second" in str(warning.message) for warning in told)


def test_a_module_without_quantizers_is_refused(tmp_path):
    module = Tokenizer()
    module.first = module.second = nn.Identity()
    with pytest.raises(ValueError, match="must have a quantizer of depthq; got none"):
        fit(module, tmp_path)
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        HealthCallback(0)
