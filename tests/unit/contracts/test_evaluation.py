"""Settings of the evaluation: the default grid, and refusals."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from pipeline.contracts.evaluation import SELECTION_FUNCTION_COLUMNS, EvaluationSettings


def test_default_grid_is_eleven_by_seven_by_five() -> None:
    """385 cells whose bins are centred on 0.5 ... 3.0 arcsec, 0.9 ... 1.8 arcsec, 22.5 ... 24.5 mag."""
    settings = EvaluationSettings()
    assert settings.theta_e.n_bins * settings.psf_fwhm.n_bins * settings.depth_5sig.n_bins == 385
    assert settings.theta_e.edges[:2] == (0.375, 0.625)
    assert settings.psf_fwhm.edges[-1] == 1.875
    assert settings.depth_5sig.edges == (22.25, 22.75, 23.25, 23.75, 24.25, 24.75)
    assert len(SELECTION_FUNCTION_COLUMNS) == 18


def test_base_rate_is_stated_and_settings_are_json() -> None:
    """The default base rate is 1e-4; the document holds it and every edge, and reads back."""
    document = json.loads(json.dumps(EvaluationSettings().document(), allow_nan=False))
    assert document["base_rate"] == 1e-4
    assert document["edges"]["theta_e_arcsec"][:2] == [0.375, 0.625]
    assert EvaluationSettings.model_validate(document) == EvaluationSettings()


def test_surfaces_hold_the_whole_the_axes_and_the_grids() -> None:
    """The sample as a whole, eight single axes, (theta_E, PSF), and all five coordinates."""
    names = [",".join(axis.name for axis in axes) for axes in EvaluationSettings().surfaces]
    assert names[0] == ""
    assert len(names) == 11
    assert names[-2:] == ["theta_e,psf_fwhm", "theta_e,psf_fwhm,depth_5sig,source_mag,arc_snr"]


def test_axes_have_the_edges_of_the_section() -> None:
    """Each axis carries its name in the tables and its own edges."""
    settings = EvaluationSettings.model_validate({"edges": {"host_mag": [17, 18, 20]}})
    assert (settings.host_mag.name, settings.host_mag.edges, settings.host_mag.n_bins) == ("host_mag", (17, 18, 20), 2)
    for axis in (axis for axes in settings.surfaces for axis in axes):
        assert axis == getattr(settings, axis.name)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"base_rate": 0.0}, "base_rate"),
        ({"score_thresholds": [1.0]}, "score_thresholds"),
        ({"score_thresholds": []}, "score_thresholds"),
        ({"score_thresholds": [0.5, 0.5]}, "distinct"),
        ({"false_positive_rates": [0.0]}, "false_positive_rates"),
        ({"false_positive_rates": []}, "false_positive_rates"),
        ({"bootstrap_replicates": 10}, "bootstrap_replicates"),
        ({"min_effective_n": 0.5}, "min_effective_n"),
        ({"calibration_bins": 1}, "calibration_bins"),
        ({"edges": {"arc_snr": [1.0]}}, "arc_snr"),
        ({"edges": {"theta_e_arcsec": [1.0, 1.0]}}, "edges must increase"),
        ({"edges": {"depth_5sig_mag": [2.0, 1.0]}}, "edges must increase"),
        ({"edges": {"host_mag": [0.0, float("nan")]}}, "host_mag"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], key: str) -> None:
    """Each bad value is an error that names its key or what was expected of it."""
    with pytest.raises(ValidationError, match=key):
        EvaluationSettings.model_validate(change)
