"""Injection without flux, and light that is no arc."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.contracts.datasets import ROLES


def with_stored(cube, **variables):
    """Replace variables of the stored rows that are injected again."""
    again = cube.reinjection
    cube.reinjection = dataclasses.replace(again, stored=again.stored.copy(deep=True).assign(variables))


def test_pairs_injected_without_flux_are_their_controls(cube):
    """The pipeline's own code with sources of no flux gives the stored control in every pixel."""
    result = cube.gate("null_injection")
    assert result.passed
    assert result.detail["injected_again"] == 4
    assert result.detail["changed_without_flux"] == 0


def test_a_control_that_is_not_the_host_is_found(cube):
    """One pixel of one stored control that differs from the host's pixels fails."""
    control = cube.reinjection.stored["control"].copy(deep=True)
    control[2, 1, 5, 5] += 1e-4
    with_stored(cube, control=control)
    result = cube.gate("null_injection")
    assert not result.passed
    assert result.detail["changed_without_flux"] == 1


def test_null_needs_pairs(cube):
    """Without rows, with rows that are no pairs, or with a host that cannot be used, the gate fails."""
    with_stored(cube, role=("sample", np.full(4, ROLES.index("control"), np.uint8)))
    assert "must be pairs" in cube.gate("null_injection").message
    cube.reinjection = None
    result = cube.gate("null_injection")
    assert (result.passed, result.value) == (False, None)
    assert "no pairs were given" in result.message


def test_a_row_that_is_no_pair_again_is_found(cube):
    """A host without extinction cannot be injected again, which its stored pair contradicts."""
    again = cube.reinjection
    cutouts = again.cutouts.copy(deep=True)
    cutouts["ebv_mag"][1] = np.nan
    cube.reinjection = dataclasses.replace(again, cutouts=cutouts, rows=cutouts)
    assert cube.gate("null_injection").detail["no_pair_when_injected_again"] == 1


def test_light_that_is_not_the_arcs_is_found(cube):
    """Flux beyond the recorded arc, a hole in the host and an arc in a control row are counted apart."""
    cube.stamps["injected"][5, 2, 30, 30] += 0.1
    cube.stamps["injected"][6, 0, 24, 24] -= 0.05
    cube.stamps["injected"][410, 0, 5, 5] += 1.0
    result = cube.gate("null_injection")
    assert not result.passed
    assert result.detail["flux_is_not_the_arc"] == 2
    assert result.detail["negative_light"] == 1
    assert result.detail["control_rows_with_arc"] == 1


def test_shot_noise_of_the_arc_is_no_other_light(cube):
    """With a recorded sky level the difference may scatter by the arc's shot noise, and not by ten times that."""
    rng = np.random.default_rng(3)
    added = (cube.stamps["injected"][:400] - cube.stamps["control"][:400]).to_numpy()
    sigma = cube.stamps["sky_sigma_nmgy"].to_numpy()[:400, :, None, None]
    noise = sigma * np.sqrt(np.maximum(added, 0.0) / 0.5) * rng.standard_normal(added.shape)
    cube.stamps["injected"][:400] += noise.astype(np.float32)
    assert not cube.gate("null_injection").passed
    cube.stamps["sky_nmgy"][:400] = 0.5
    assert cube.gate("null_injection").passed
    cube.stamps["injected"][:400] += (9.0 * noise).astype(np.float32)
    assert not cube.gate("null_injection").passed
