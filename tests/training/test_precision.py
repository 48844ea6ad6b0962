"""What `precision="auto"` stands for follows from the hardware that would train."""

import pytest
import torch

from depthq.training import default_precision


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({}, "32-true"),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ({"avx2": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
    ],
)
def test_cpu_trains_in_bfloat16_only_where_it_computes_in_it(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert default_precision() == default_precision("cpu") == precision


@pytest.mark.parametrize(("computes_in_bfloat16", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_gpu_trains_in_half_precision_unless_the_cpu_is_asked_for(monkeypatch, computes_in_bfloat16, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: computes_in_bfloat16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert default_precision() == precision
    assert default_precision("cpu") == "32-true"
