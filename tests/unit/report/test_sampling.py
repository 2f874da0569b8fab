"""Facts about the sampler's account."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.report.inputs import RunInputs
from pipeline.report.sampling import sampling_part
from pipeline.storage.runs import read_json, write_json


def changed(inputs: RunInputs, **values: Any) -> RunInputs:
    """The inputs with top-level values of sampling.json replaced."""
    return dataclasses.replace(inputs, sampling={**copy.deepcopy(dict(inputs.sampling or {})), **values})


def test_account_holds_bins_selection_and_cost(inputs: RunInputs) -> None:
    """The counters of the run, the pilot and the correlations are on the page."""
    page = sampling_part(inputs)
    assert "<td>300</td>" in page
    assert "<td>0.533</td>" in page
    assert "1024 on 1024" in page
    for name in ("psfdepth_r_mag", "psfsize_arcsec", "theta_e_arcsec", "KL(target || achieved)"):
        assert name in page


def test_run_without_account_says_so(inputs: RunInputs) -> None:
    """No sampling.json, no tables."""
    assert "There is no sampling.json" in sampling_part(dataclasses.replace(inputs, sampling=None))


def test_bins_left_out_and_magnitudes_outside_are_said_loudly(inputs: RunInputs) -> None:
    """Both are banners."""
    assert inputs.sampling is not None
    assert "banner" not in sampling_part(inputs)
    pilot = {**inputs.sampling["pilot"], "unreachable_bins": [3]}
    assert "The priors never reach arc_snr in 20 \u2013 100" in sampling_part(changed(inputs, pilot=pilot))
    outside = {"outside_prior": 0.25, "quantiles": None}
    assert "need a magnitude outside its prior" in sampling_part(changed(inputs, required_mag_r=outside))


def test_method_none_has_no_bins(inputs: RunInputs) -> None:
    """Without target there is neither acceptance nor pilot."""
    assert inputs.sampling is not None
    bare = {key: value for key, value in inputs.sampling.items() if key not in ("acceptance", "pilot", "achieved")}
    page = sampling_part(dataclasses.replace(inputs, sampling=bare))
    assert "Method none" in page
    assert "Renders per accepted arc" in page


def test_account_of_another_plan_is_refused(run_copy: Any) -> None:
    """sampling.json belongs to the run's plan, and has its parts."""
    content = read_json(run_copy.layout.sampling)
    write_json(run_copy.layout.sampling, {**content, "plan_sha256": "b" * 64})
    with pytest.raises(VerificationError):
        run_copy.inputs()
    write_json(run_copy.layout.sampling, {"plan_sha256": content["plan_sha256"]})
    with pytest.raises(VerificationError):
        run_copy.inputs()
