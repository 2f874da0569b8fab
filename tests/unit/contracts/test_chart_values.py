from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.contracts.chart_components import Resources
from pipeline.contracts.chart_values import ChartValues, values_schema, values_table, values_text


def test_values_are_the_defaults_of_the_model() -> None:
    """Read back, the file is the model; every key has its meaning above it."""
    text = values_text()
    assert ChartValues.model_validate(yaml.safe_load(text)) == ChartValues()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("#"):
            assert lines[number - 1].lstrip().startswith("#"), line
    assert max(map(len, lines)) <= 120


def test_table_names_every_leaf_once() -> None:
    """With its default and a meaning."""
    rows = {key: (default, meaning) for key, default, meaning in values_table()}
    assert len(rows) == len(values_table()) > 90
    assert rows["worker.spillSpace"][0] == '"10Gi"'
    assert all(meaning for _, meaning in rows.values())


def test_no_object_of_the_schema_is_open() -> None:
    """An unknown key is refused everywhere but where keys are the user's own, such as labels."""
    open_objects = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties") is not False:
                open_objects.append(path.rsplit("/", 1)[-1])
            for key, child in node.items():
                walk(child, f"{path}/{key}")
        elif isinstance(node, list):
            for child in node:
                walk(child, f"{path}/items")

    walk({key: value for key, value in values_schema()["$defs"].items() if key in ("Driver", "Images", "Spot")}, "")
    assert set(open_objects) <= {"nodeSelector", "affinity", "podAnnotations", "items"}


@pytest.mark.parametrize("quantity", ["4GiB", "lots", "-1Gi", "1e3"])
def test_quantities_are_those_of_kubernetes(quantity: str) -> None:
    """Not those of Dask."""
    with pytest.raises(ValidationError):
        Resources(memory=quantity)
