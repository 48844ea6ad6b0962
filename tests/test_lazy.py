"""Names that load with their first use look like any others."""

import sys
from types import ModuleType

import pytest

import depthq
import depthq.report
import depthq.training
from depthq.lazy import lazy_names


@pytest.mark.parametrize("package", [depthq, depthq.report, depthq.training], ids=lambda package: package.__name__)
def test_every_name_of_a_package_is_there_and_listed(package):
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert {*package.__all__} <= {*dir(package)}
    assert "lazy_names" not in dir(package)


def test_names_come_from_the_rooms():
    assert depthq.DQAE is depthq.models.DQAE
    assert depthq.DQAE.__module__ == "depthq.models.dqae"


def test_unknown_name_is_refused_as_by_any_module():
    with pytest.raises(AttributeError, match="module 'depthq' has no attribute 'DQEA'"):
        depthq.DQEA  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'DQEA'"):
        from depthq import DQEA  # noqa: F401


def test_name_is_looked_up_once(monkeypatch):
    package = ModuleType("some_package")
    monkeypatch.setitem(sys.modules, "some_package", package)
    package.__getattr__, _ = lazy_names("some_package", {"sqrt": "math"})
    assert "sqrt" not in vars(package)
    assert package.sqrt(4) == 2
    assert "sqrt" in vars(package)
