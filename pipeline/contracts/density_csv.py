"""Tabulated densities in CSV files, inlined into the configuration that names them.

A `kind: table` section may say `csv: FILE` instead of its two lists of numbers. The file lies beside the
configuration file, or at an absolute path. Only the numbers are kept, so that the run record and the plan's hash
hold them.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pipeline.contracts.errors import ConfigError

# The list that holds the points of a table, by the heading of the file's first column.
_POINTS = {"snr": "snr", "mag": "points", "value": "points"}


def inline_tables(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with the numbers of every CSV file that a table names in place of its name.

    Args:
        content: parsed configuration; not changed.
        folder: where relative file names start.

    Raises:
        ConfigError: a file that cannot be read, is not a table, or is named beside numbers.
    """
    return {key: _inlined(value, folder, key) for key, value in content.items()}


def _inlined(value: Any, folder: Path, key: str) -> Any:
    if not isinstance(value, dict):
        return value
    if value.get("kind") != "table" or "csv" not in value:
        return {inner: _inlined(item, folder, f"{key}.{inner}") for inner, item in value.items()}
    if set(value) != {"kind", "csv"}:
        raise ConfigError(f"{key}: a table with csv takes no other numbers, got {', '.join(sorted(set(value)))}")
    return {"kind": "table", **_read_table(folder / str(value["csv"]), key)}


def _read_table(path: Path, key: str) -> dict[str, list[float]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except OSError as error:
        raise ConfigError(f"{key}.csv: {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ConfigError(f"{key}.csv: {path} is not a CSV file with a header: {error}") from error
    points = "snr" if key.endswith("target") else "points"
    if len(header) != 2 or _POINTS.get(header[0]) != points or header[1] != "density":
        known = " or ".join(f"{name},density" for name, target in _POINTS.items() if target == points)
        raise ConfigError(f"{key}.csv: {path}: expected the header {known}, got {','.join(header)}")
    try:
        numbers = [(float(first), float(second)) for first, second in rows]
    except ValueError as error:
        raise ConfigError(f"{key}.csv: {path}: expected two numbers per row: {error}") from error
    return {points: [first for first, _ in numbers], "density": [second for _, second in numbers]}
