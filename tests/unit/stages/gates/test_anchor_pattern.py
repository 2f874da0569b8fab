"""The radial pattern of anchors: equal sets pass, brighter cores and empty sets fail, and no anchors is no verdict."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr


def anchors_like(cube, factor: float = 1.0) -> xr.Dataset:
    """The injected stamps of every second pair, shuffled in noise, with their core light scaled."""
    pair = cube.rows("pair")
    cube.stamps = cube.stamps.isel(sample=np.setdiff1d(np.arange(cube.stamps.sizes["sample"]), pair[::2]))
    source = cube.columns["host_id"].to_numpy()[pair[::2]]
    assert not np.isin(source, cube.stamps["host_id"].to_numpy()).any()
    y, x = np.mgrid[:48, :48] - 24
    weight = 1.0 + (factor - 1.0) * np.exp(-0.5 * (x**2 + y**2) / 4.0**2)
    images = cube.original["injected"].to_numpy()[pair[::2]] * weight
    return xr.Dataset({"image": (("sample", "band", "y", "x"), images.astype(np.float32))})


@pytest.fixture
def with_anchors(cube):
    """A cube whose configuration names anchors."""
    cube.original = cube.stamps
    content = cube.config.model_dump()
    content["anchors"] = {"url": "anchors.parquet"}
    cube.config = type(cube.config).model_validate(content)
    return cube


def test_equal_sets_pass_within_their_null(with_anchors):
    """Half of the pairs against the other half; n, interval and null are recorded."""
    with_anchors.anchors = anchors_like(with_anchors)
    found = with_anchors.gate("anchor_pattern")
    assert found.passed
    assert (found.n_positive, found.n_control) == (200, 200)
    assert found.null_p > 0.01
    assert found.value < found.detail["null_q95"] * 1.3
    low, high = found.interval_95
    assert low <= found.value <= high


def test_brighter_cores_of_real_lenses_fail(with_anchors):
    """Cores twice as bright are far outside the null; the ring that decides lies in the core."""
    with_anchors.anchors = anchors_like(with_anchors, factor=2.0)
    found = with_anchors.gate("anchor_pattern")
    assert not found.passed
    assert found.null_p == pytest.approx(1 / 401)
    assert "injected stamps are fainter" in found.message
    core = found.detail["medians"]
    assert core["anchors raw core"]["r"] > 1.5 * core["injected raw core"]["r"]


def test_few_or_no_anchors_fail_closed(with_anchors):
    """A configuration that names anchors without any usable one has no verdict by default."""
    assert "one class only" in with_anchors.gate("anchor_pattern").message
    with_anchors.anchors = anchors_like(with_anchors).isel(sample=slice(0, 20))
    found = with_anchors.gate("anchor_pattern")
    assert (found.passed, found.value, found.n_control) == (False, None, 20)


def test_a_pixel_that_is_not_finite_fails(with_anchors):
    """An unreadable profile is no profile of zero."""
    with_anchors.anchors = anchors_like(with_anchors)
    with_anchors.anchors["image"][3, 1, 24, 24] = np.nan
    with_anchors.anchors["image"][3, 1, 20:28, 20:28] = np.nan
    found = with_anchors.gate("anchor_pattern")
    assert not found.passed
    assert "could not be measured" in found.message


def test_without_anchors_the_gate_does_not_apply(cube):
    """The reason is recorded."""
    found = cube.gate("anchor_pattern")
    assert found.passed
    assert "names no anchors" in found.message
