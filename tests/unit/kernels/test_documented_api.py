"""docs/kernels.md says what is so."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np

PAGE = (Path(__file__).parents[3] / "docs" / "kernels.md").read_text(encoding="utf-8")


def test_example_runs() -> None:
    """The example as it stands gives two arcs in three bands, of the flux that their magnification allows."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found[1], "docs/kernels.md", "exec"), names)  # noqa: S102 - the text of this repository
    arcs = names["arcs_nmgy"]
    assert arcs.shape == (2, 3, 64, 64)
    assert np.isfinite(arcs).all()
    magnification = arcs.sum(axis=(2, 3)) / names["flux_nmgy"]
    assert (magnification > 2.0).all()
    assert (magnification < 20.0).all()
    assert np.ptp(magnification, axis=1).max() < 0.05


def test_documented_functions_take_the_documented_arguments() -> None:
    """Every function of the table exists and its parameters bear the names and the order of the page."""
    rows = re.findall(r"^\| `(\w+)\.(\w+)\((.*?)\)` \|", PAGE, re.MULTILINE)
    assert len(rows) == 12
    for module, name, arguments in rows:
        function = getattr(importlib.import_module(f"pipeline.kernels.{module}"), name)
        actual = list(inspect.signature(getattr(function, "py_func", function)).parameters)
        named = [argument.split("=")[0] for argument in arguments.split(", ") if argument != "..."]
        assert actual[: len(named)] == named, name
        assert arguments.endswith("...") or len(actual) == len(named), name
