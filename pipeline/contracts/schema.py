"""What a cube variable is, and the check that a dataset satisfies its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.contracts.errors import ContractError

SAMPLE_DIM = "sample"


@dataclass(frozen=True)
class Variable:
    """One variable of a cube.

    Attributes:
        dims: names, the first always `sample`.
        dtype: a numpy name, or "str" for variable-length UTF-8.
        unit: as astropy would write it; "1" for a pure number.
        description: one sentence for a person who has only the cube.
        flags: meanings of the codes 0, 1, 2 ... of an integer flag variable.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    unit: str
    description: str
    flags: tuple[str, ...] = ()

    @property
    def is_pixels(self) -> bool:
        """True for stamps, which are stored as sharded arrays."""
        return self.dims[-2:] == ("y", "x")

    @property
    def fill_value(self) -> float | int | str:
        """NaN, 0 or "": what an unwritten element reads as."""
        if self.dtype == "str":
            return ""
        return float("nan") if np.dtype(self.dtype).kind == "f" else 0

    def attributes(self) -> dict[str, object]:
        """Attributes stored with the variable, CF flag conventions for flags."""
        attributes: dict[str, object] = {"units": self.unit, "description": self.description}
        if self.flags:
            attributes["flag_values"] = list(range(len(self.flags)))
            attributes["flag_meanings"] = " ".join(self.flags)
        return attributes


@dataclass(frozen=True)
class CubeSchema:
    """A cube's variables in storage order, with the version that readers check."""

    name: str
    version: int
    variables: tuple[Variable, ...]

    def __getitem__(self, name: str) -> Variable:
        for variable in self.variables:
            if variable.name == name:
                return variable
        raise KeyError(f"cube {self.name!r} has no variable {name!r}")


def validate(dataset: xr.Dataset, schema: CubeSchema, sizes: Mapping[str, int]) -> None:
    """Raise one ContractError that lists every way in which a dataset breaks its schema.

    Args:
        dataset: what is about to be written, or was read.
        schema: what it must be; extra variables are errors too.
        sizes: expected length of every dimension.
    """
    problems: list[str] = []
    names = {variable.name for variable in schema.variables}
    problems += [f"unknown variable {name!r}" for name in map(str, dataset.variables) if name not in names]
    for variable in schema.variables:
        if variable.name not in dataset.variables:
            problems.append(f"missing variable {variable.name!r}")
            continue
        array = dataset[variable.name]
        if array.dims != variable.dims:
            problems.append(f"{variable.name}: expected dims {variable.dims}, got {array.dims}")
            continue
        expected_shape = tuple(sizes[dim] for dim in variable.dims)
        if array.shape != expected_shape:
            problems.append(f"{variable.name}: expected shape {expected_shape}, got {array.shape}")
        if not _dtype_matches(array.dtype, variable.dtype):
            problems.append(f"{variable.name}: expected dtype {variable.dtype}, got {array.dtype}")
        if variable.flags and array.size and not 0 <= int(array.min()) <= int(array.max()) < len(variable.flags):
            problems.append(f"{variable.name}: flags {int(array.min())}..{int(array.max())} are not all defined")
        if array.dtype.kind == "O" and not all(isinstance(value, str) for value in array.to_numpy().flat):
            problems.append(f"{variable.name}: expected text, got other objects")
    if problems:
        raise ContractError(f"dataset does not satisfy cube schema {schema.name!r}: " + "; ".join(problems))


def _dtype_matches(dtype: np.dtype, expected: str) -> bool:
    if expected == "str":
        return dtype.kind in "UOT"
    return dtype == np.dtype(expected)
