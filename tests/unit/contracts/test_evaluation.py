"""Settings of the evaluation: the default grid, and refusals."""

from __future__ import annotations

import json

import pytest

from pipeline.contracts.errors import ConfigError
from pipeline.contracts.evaluation import SELECTION_FUNCTION_COLUMNS, Axis, EvaluationSettings, centred_axis


def test_default_grid_is_eleven_by_seven_by_five() -> None:
    """385 cells whose bins are centred on 0.5 ... 3.0 arcsec, 0.9 ... 1.8 arcsec, 22.5 ... 24.5 mag."""
    settings = EvaluationSettings()
    assert settings.theta_e.n_bins * settings.psf_fwhm.n_bins * settings.depth_5sig.n_bins == 385
    assert settings.theta_e.edges[:2] == (0.375, 0.625)
    assert settings.psf_fwhm.edges[-1] == 1.875
    assert settings.depth_5sig.edges == (22.25, 22.75, 23.25, 23.75, 24.25, 24.75)
    assert len(SELECTION_FUNCTION_COLUMNS) == 18


def test_base_rate_is_stated_and_settings_are_json() -> None:
    """The default base rate is 1e-4; the document holds it and every axis."""
    document = json.loads(json.dumps(EvaluationSettings().document(), allow_nan=False))
    assert document["base_rate"] == 1e-4
    assert document["arc_snr"]["name"] == "arc_snr"


def test_surfaces_hold_the_whole_the_axes_and_the_grids() -> None:
    """The sample as a whole, eight single axes, (theta_E, PSF), and all five coordinates."""
    names = [",".join(axis.name for axis in axes) for axes in EvaluationSettings().surfaces]
    assert names[0] == ""
    assert len(names) == 11
    assert names[-2:] == ["theta_e,psf_fwhm", "theta_e,psf_fwhm,depth_5sig,source_mag,arc_snr"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base_rate": 0.0}, "rates"),
        ({"score_thresholds": (1.0,)}, "rates"),
        ({"false_positive_rates": (0.0,)}, "rates"),
        ({"bootstrap_replicates": 10}, "replicates"),
        ({"min_effective_n": 0.5}, "min_effective_n"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], reason: str) -> None:
    """Each bad value names what was expected."""
    with pytest.raises(ConfigError, match=reason):
        EvaluationSettings(**change)  # type: ignore[arg-type]


def test_edges_that_do_not_increase_are_refused() -> None:
    """An axis needs two increasing edges; a centred one has them."""
    assert centred_axis("x", 1.0, 0.5, 2).edges == (0.75, 1.25, 1.75)
    for edges in ((1.0,), (1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))):
        with pytest.raises(ConfigError, match="increasing"):
            Axis("x", edges)
