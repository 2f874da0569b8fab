"""Parts every gate shares."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from pipeline.stages.gates.result import Null, cohen_d, gate_generator, has_role, json_value


def test_cohen_d_of_shifted_normals_is_the_shift():
    """The standardised difference of two unit normals 0.3 apart is 0.3, signed."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.3, 1.0, 40_000), rng.normal(0.0, 1.0, 60_000)
    assert cohen_d(first, second) == pytest.approx(0.3, abs=0.02)
    assert cohen_d(second, first) == -cohen_d(first, second)


def test_cohen_d_of_constants_is_zero_or_infinite():
    """Equal constants do not differ; different ones differ without limit, also where rounding blurs the mean."""
    assert cohen_d(np.full(7, 0.1), np.full(13, 0.1)) == 0.0
    assert cohen_d(np.full(7, 0.2), np.full(13, 0.1)) == np.inf
    assert cohen_d(np.full(7, 0.0), np.full(13, 0.1)) == -np.inf


def test_json_value_unwraps_numpy_and_drops_what_is_not_finite():
    """Numpy values become JSON types; NaN and infinities, which JSON lacks, become null."""
    value = {"a": np.float32(0.5), "b": np.array([1, 2]), "c": (np.nan, np.inf, True), 4: np.bool_(False), "e": None}
    assert json_value(value) == {"a": 0.5, "b": [1, 2], "c": [None, None, True], "4": False, "e": None}
    json.dumps(json_value(value), allow_nan=False)


def test_json_value_refuses_other_types():
    """A type without JSON form is an error and not its repr."""
    with pytest.raises(ValueError, match="set has no JSON form"):
        json_value({"a": {1, 2}})


def test_gate_generator_is_keyed_by_seed_and_name():
    """The same seed and gate give the same numbers; another seed or gate gives others."""
    draws = {key: gate_generator(*key).random(4).tolist() for key in [(1, "a"), (2, "a"), (1, "b")]}
    assert gate_generator(1, "a").random(4).tolist() == draws[1, "a"]
    assert len({tuple(values) for values in draws.values()}) == 3


def test_has_role_knows_roles_by_name():
    """Roles are looked up by name; a name that is no role is an error."""
    dataset = xr.Dataset({"role": ("sample", np.array([0, 1, 2, 3], dtype=np.uint8))})
    assert has_role(dataset, "pair", "control").tolist() == [False, True, True, False]
    assert has_role(dataset, "injected").tolist() == [False, False, False, True]
    with pytest.raises(ValueError, match="arc"):
        has_role(dataset, "arc")


def test_null_has_a_chance_or_a_reason():
    """Draws without p, p outside [0, 1] and no words are no null."""
    assert Null("none: nothing can be permuted").p is None
    for wrong in (
        {"how": ""},
        {"how": "labels shuffled", "draws": 9},
        {"how": "labels shuffled", "draws": 9, "p": 1.2},
    ):
        with pytest.raises(ValueError, match="expected words"):
            Null(**wrong)
