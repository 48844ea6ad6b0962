"""Names that have left depthq.analysis are still found there, with word of where they are now."""

import re
from importlib import import_module

import pytest

import depthq.analysis

TABLE = re.findall(r"^\| (`.*`) \| `(.*)` \|$", depthq.analysis.__doc__ or "", re.MULTILINE)
MOVED = {name: home for names, home in TABLE for name in re.findall(r"`(\w+)`", names)}


@pytest.mark.parametrize("name", MOVED)
def test_moved_name_is_the_one_in_its_new_place(name):
    home = MOVED[name]
    with pytest.warns(DeprecationWarning, match=rf"depthq\.analysis\.{name} has moved: import it from {home}$"):
        found = getattr(depthq.analysis, name)
    assert found is getattr(import_module(home), name)


def test_the_table_names_what_there_was():
    names = ("recommend_axis", "feature_dependence", "axis_correlation", "quantile_codes", "plot_usage")
    assert {*names} < {*MOVED}


def test_unknown_name_is_refused():
    with pytest.raises(AttributeError, match=r"module 'depthq\.analysis' has no attribute 'plot_everything'"):
        depthq.analysis.plot_everything  # noqa: B018
