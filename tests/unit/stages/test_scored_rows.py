"""Scores joined with the training cube: coordinates, failures, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.datasets import REJECT_REASONS, ROLES, SPLITS, TRAINING
from pipeline.contracts.errors import VerificationError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_snr import sigma_pix_from_depth
from pipeline.stages.scored_rows import (
    MEASURED_DEPTH,
    SURVEY_DEPTH,
    depth_definition,
    injection_rows,
    measured_depth_mag,
    scored_examples,
)

BANDS = ("g", "r", "z")


def _columns(n: int = 6) -> xr.Dataset:
    """Rows 0-2 pairs, 3 a control, 4 masked, 5 exhausted; all of the test split."""
    sizes = {"sample": n, "band": 3}
    data = {}
    for variable in TRAINING.variables:
        if not variable.is_pixels:
            shape = tuple(sizes[dim] for dim in variable.dims)
            dtype = object if variable.dtype == "str" else variable.dtype
            data[variable.name] = (variable.dims, np.full(shape, variable.fill_value, dtype))
    columns = xr.Dataset(data)
    columns["task_id"][:] = [f"t{row}" for row in range(n)]
    columns["host_id"][:] = np.arange(n)
    columns["split"][:] = SPLITS.index("test")
    columns["role"][:] = [ROLES.index(role) for role in ("pair", "pair", "pair", "control", "unused", "unused")]
    columns["is_control"][:] = [0, 0, 0, 1, 0, 0]
    columns["reject_reason"][4:] = [REJECT_REASONS.index("masked"), REJECT_REASONS.index("sampler_exhausted")]
    columns["theta_e_arcsec"][:] = [1.2, 0.6, 2.4, 0.0, np.nan, np.nan]
    columns["psfsize_arcsec"][:, 1] = 1.2
    columns["psfdepth_r_mag"][:] = 23.6
    columns["sky_sigma_nmgy"][:, 1] = 0.01
    columns["mag_r"][:] = 19.5
    columns["arc_flux_nmgy"][:3, 1] = [1.0, 10.0, 100.0]
    columns["src_mag"][:3, 1] = [24.0, 23.0, 22.0]
    columns["arc_snr"][:3] = [1.0, 5.0, 30.0]
    columns["weight_prior"][:3] = [0.5, 1.0, 2.0]
    return columns


def _scores() -> pd.DataFrame:
    """Both stamps of each pair and the control, in no particular order."""
    task = ["t2", "t0", "t1", "t0", "t1", "t2", "t3"]
    return pd.DataFrame({"task_id": task, "label": [1, 1, 1, 0, 0, 0, 0], "logit": [3.0, -1.0, 1.0, -2, -3, -4, -5]})


def test_examples_follow_the_scores_and_controls_have_no_arc() -> None:
    """Row order, coordinates in band r, magnitudes of fluxes; label 0 has host values only."""
    found = scored_examples(_columns(), _scores(), BANDS, "r")
    assert found["task_id"].tolist() == _scores()["task_id"].tolist()
    assert found["theta_e_over_psf"][0] == pytest.approx(2.0)
    assert found["lensed_mag"].tolist()[:3] == pytest.approx([17.5, 22.5, 20.0])
    assert found["weight"].tolist()[:3] == [2.0, 0.5, 1.0]
    controls = found[found["label"] == 0]
    assert controls[["theta_e", "arc_snr", "source_mag", "weight"]].isna().all(axis=None)
    assert controls["host_mag"].notna().all()


def test_injections_keep_failures_apart() -> None:
    """Controls were not asked for an arc; failed rows have a reason, no score and weight 0."""
    found = injection_rows(_columns(), _scores(), "test", BANDS, "r")
    assert found["task_id"].tolist() == ["t0", "t1", "t2", "t4", "t5"]
    assert found["failed"].tolist() == [False, False, False, True, True]
    assert found["reject_reason"].tolist()[3:] == ["masked", "sampler_exhausted"]
    assert found["logit"].tolist()[:3] == [-1.0, 1.0, 3.0]
    assert found["logit"].isna().tolist() == found["failed"].tolist()
    assert found["weight"].tolist() == [0.5, 1.0, 2.0, 0.0, 0.0]
    assert injection_rows(_columns(), _scores().head(0), "val", BANDS, "r").empty


def test_depth_is_the_survey_s_only_where_all_used_rows_have_it() -> None:
    """One unknown depth of a used row changes the definition of all; of a failed row it does not."""
    columns = _columns()
    assert depth_definition(columns, "r") == SURVEY_DEPTH
    assert depth_definition(columns, "g") == MEASURED_DEPTH
    columns["psfdepth_r_mag"][4] = np.nan
    assert depth_definition(columns, "r") == SURVEY_DEPTH
    columns["psfdepth_r_mag"][1] = np.nan
    assert depth_definition(columns, "r") == MEASURED_DEPTH
    found = scored_examples(columns, _scores(), BANDS, "r")["depth_5sig"]
    assert found.nunique() == 1
    assert found[0] == pytest.approx(measured_depth_mag(np.array([0.01]), np.array([1.2]))[0])


def test_measured_depth_inverts_the_noise_of_a_depth() -> None:
    """The depth of sigma_pix(depth) is the depth; unknown noise gives NaN."""
    for depth, psfsize in ((22.5, 1.6), (24.0, 1.0)):
        sigma = sigma_pix_from_depth(depth, psfsize, PIXEL_SCALE_ARCSEC)
        assert measured_depth_mag(np.array([sigma]), np.array([psfsize]))[0] == pytest.approx(depth, abs=1e-6)
    assert np.isnan(measured_depth_mag(np.array([0.0, np.nan, 1.0]), np.array([1.0, 1.0, np.nan]))).all()


def test_scores_that_do_not_fit_the_cube_are_refused() -> None:
    """Unknown task, score of an unused row, missing score, two scores, a weight of zero: each is an error."""
    columns, scores = _columns(), _scores()
    with pytest.raises(VerificationError, match="does not hold"):
        scored_examples(columns, scores.assign(task_id="x"), BANDS, "r")
    with pytest.raises(VerificationError, match="does not offer"):
        scored_examples(columns, scores.replace("t3", "t4"), BANDS, "r")
    with pytest.raises(VerificationError, match="does not offer"):
        scored_examples(columns, scores.assign(label=1), BANDS, "r")
    for wrong in (scores.iloc[1:], pd.concat([scores, scores.iloc[:1]])):
        with pytest.raises(VerificationError, match="one finite score per pair"):
            injection_rows(columns, wrong, "test", BANDS, "r")
    columns["weight_prior"][1] = 0.0
    with pytest.raises(VerificationError, match="weight_prior"):
        injection_rows(columns, scores, "test", BANDS, "r")
