"""Schemas: what a dataset must be, and how violations are told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.errors import ContractError
from pipeline.contracts.schema import CubeSchema, Variable, validate

SCHEMA = CubeSchema(
    "toy",
    1,
    (
        Variable("image", ("sample", "y", "x"), "float32", "nmgy", "Pixels"),
        Variable("name", ("sample",), "str", "1", "Name"),
        Variable("colour", ("sample",), "uint8", "1", "Flag", ("red", "blue")),
    ),
)
SIZES = {"sample": 3, "y": 4, "x": 4}


def good(**replaced: object) -> xr.Dataset:
    """A dataset that satisfies SCHEMA, with variables replaced, or removed by None."""
    variables: dict[str, object] = {
        "image": (("sample", "y", "x"), np.zeros((3, 4, 4), np.float32)),
        "name": (("sample",), np.array(["a", "b", "c"], dtype=object)),
        "colour": (("sample",), np.array([0, 1, 0], np.uint8)),
        **replaced,
    }
    return xr.Dataset({name: value for name, value in variables.items() if value is not None})


@pytest.mark.parametrize("dtype", [object, "U1", np.dtypes.StringDType()])
def test_valid_dataset_passes_with_any_string_dtype(dtype: object) -> None:
    """Text may be objects, fixed-width or numpy strings."""
    validate(good(name=(("sample",), np.array(["a", "b", "c"], dtype=dtype))), SCHEMA, SIZES)


def test_all_violations_are_in_one_error() -> None:
    """Missing, unknown, wrongly shaped, typed and flagged variables are all listed."""
    bad = good(
        image=(("sample", "y", "x"), np.zeros((3, 4, 5), np.float64)),
        name=None,
        colour=(("sample",), np.array([0, 2, 0], np.uint8)),
        extra=(("sample",), np.zeros(3)),
    )
    with pytest.raises(ContractError) as caught:
        validate(bad, SCHEMA, SIZES)
    message = str(caught.value)
    for expected in (
        "schema 'toy'",
        "missing variable 'name'",
        "unknown variable 'extra'",
        "image: expected shape (3, 4, 4), got (3, 4, 5)",
        "image: expected dtype float32, got float64",
        "colour: flags 0..2 are not all defined",
    ):
        assert expected in message


def test_wrong_dims_are_named() -> None:
    """Dimensions in another order are an error."""
    swapped = good(image=(("sample", "x", "y"), np.zeros((3, 4, 4), np.float32)))
    with pytest.raises(ContractError, match=r"image: expected dims \('sample', 'y', 'x'\), got \('sample', 'x', 'y'\)"):
        validate(swapped, SCHEMA, SIZES)


def test_big_endian_pixels_are_not_the_schema_dtype() -> None:
    """Byte order is part of the type."""
    swapped = np.zeros((3, 4, 4), dtype=">f4")
    with pytest.raises(ContractError, match="expected dtype float32"):
        validate(good(image=(("sample", "y", "x"), swapped)), SCHEMA, SIZES)


def test_objects_that_are_not_text_are_refused() -> None:
    """An object array of numbers or None is not a text variable."""
    for values in ([1, 2, 3], ["a", None, "c"]):
        with pytest.raises(ContractError, match="name"):
            validate(good(name=(("sample",), np.array(values, dtype=object))), SCHEMA, SIZES)


def test_negative_flag_has_no_meaning() -> None:
    """A flag below 0 is as unknown as one above the last."""
    schema = CubeSchema("toy", 1, (Variable("colour", ("sample",), "int8", "1", "Flag", ("red", "blue")),))
    flags = xr.Dataset({"colour": (("sample",), np.array([0, -1, 1], np.int8))})
    with pytest.raises(ContractError, match="flag"):
        validate(flags, schema, SIZES)


def test_empty_dataset_of_zero_rows_is_valid() -> None:
    """No rows is a shape like any other."""
    validate(good().isel(sample=slice(0, 0)), SCHEMA, {**SIZES, "sample": 0})


def test_fill_values_and_pixels() -> None:
    """Floats fill with NaN, integers with 0, text with nothing; only stamps are pixels."""
    image, name, colour = SCHEMA.variables
    assert isinstance(image.fill_value, float)
    assert math.isnan(image.fill_value)
    assert (name.fill_value, colour.fill_value) == ("", 0)
    assert [variable.is_pixels for variable in SCHEMA.variables] == [True, False, False]


def test_attributes_follow_the_flag_convention() -> None:
    """Every variable has units and description; flags have values and meanings of equal number."""
    attributes = SCHEMA["colour"].attributes()
    assert attributes["units"] == "1"
    assert attributes["flag_values"] == [0, 1]
    assert attributes["flag_meanings"] == "red blue"
    assert set(SCHEMA["image"].attributes()) == {"units", "description"}


def test_unknown_variable_of_a_schema_is_named() -> None:
    """Looking up a name that the schema lacks says which and where."""
    with pytest.raises(KeyError, match="'toy' has no variable 'nope'"):
        SCHEMA["nope"]
