"""What the sections of the injected arcs may say, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.contracts.injection import (
    ArcNoiseSection,
    BankSource,
    BulgeDiscSource,
    ClumpySource,
    ColourTable,
    CoreSuppression,
    InjectionSection,
    IsothermalLens,
    Lens,
    LenstronomyLens,
    PowerLawLens,
    PsfSection,
    SersicSource,
    Source,
)

FIXED = {"kind": "fixed", "value": 0.5}
PRIORS: dict[str, Any] = {
    "theta_e_arcsec": {"kind": "uniform", "low": 0.7, "high": 2.2},
    "lens_q": {"kind": "uniform", "low": 0.5, "high": 1.0},
    "shear": {"kind": "uniform", "low": 0.0, "high": 0.08},
    "lens_jitter_arcsec": {"kind": "fixed", "value": 0.0},
    "beta_over_theta_e": {"kind": "disc", "low": 0.05, "high": 0.8},
    "src_re_arcsec": {"kind": "loguniform", "low": 0.1, "high": 0.5},
    "src_n": {"kind": "uniform", "low": 0.7, "high": 3.0},
    "src_q": {"kind": "uniform", "low": 0.4, "high": 1.0},
    "src_mag_r": {"kind": "uniform", "low": 20.0, "high": 25.0},
    "src_gr": {"kind": "fixed", "value": 0.4},
    "src_rz": {"kind": "fixed", "value": 0.3},
}
SAMPLED: dict[str, Any] = {"mode": "sample", "extinction": True, "priors": PRIORS}
FROZEN: dict[str, Any] = {"mode": "frozen", "extinction": False}
SLOPE = {"kind": "uniform", "low": 1.8, "high": 2.2}
SIE: dict[str, Any] = {
    "kind": "lenstronomy",
    "models": ["SIE", "SHEAR"],
    "parameters": [
        {"theta_E": "theta_e_arcsec", "e1": "lens_e1", "e2": "lens_e2", "center_x": 0.0},
        {"gamma1": "shear_gamma1", "gamma2": "shear_gamma2"},
    ],
}
BULGE: dict[str, Any] = {
    "kind": "bulge_disc",
    "bulge_share": {"kind": "uniform", "low": 0.0, "high": 0.6},
    "bulge_re_over_re": FIXED,
    "bulge_n": {"kind": "fixed", "value": 4.0},
    "bulge_q": FIXED,
}
BANK = {"kind": "bank", "url": "bank.h5", "sha256": "0" * 64}
COLOURS: dict[str, Any] = {
    "src_redshift": {"kind": "uniform", "low": 0.5, "high": 3.0},
    "redshift": [0.5, 1.5, 3.0],
    "gr": [0.8, 0.5, 0.2],
    "rz": [0.6, 0.4, 0.1],
}
LENS: TypeAdapter[Any] = TypeAdapter(Lens)
SOURCE: TypeAdapter[Any] = TypeAdapter(Source)


def test_what_is_not_written_is_the_plain_model() -> None:
    """An SIE, one Sersic profile, a Moffat PSF from the map, no noise, no table of colours."""
    section = InjectionSection.model_validate(SAMPLED)
    assert section.lens == IsothermalLens()
    assert section.source == SersicSource()
    assert (section.psf.profile, section.psf.moffat_beta, section.psf.psfsize_from) == ("moffat", 3.5, "map")
    assert section.psf.stamps is None
    assert section.colours is None
    assert section.arc_noise is None
    assert section.accuracy == 5e-3


@pytest.mark.parametrize(
    ("written", "kind"),
    [({"kind": "sie"}, IsothermalLens), ({"kind": "epl", "slope": SLOPE}, PowerLawLens), (SIE, LenstronomyLens)],
)
def test_lens_kinds(written: dict[str, Any], kind: type) -> None:
    """`kind` decides which lens model is meant."""
    assert isinstance(InjectionSection.model_validate({**SAMPLED, "lens": written}).lens, kind)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ({"kind": "sersic"}, SersicSource),
        ({"kind": "clumpy"}, ClumpySource),
        (BULGE, BulgeDiscSource),
        (BANK, BankSource),
    ],
)
def test_source_kinds(written: dict[str, Any], kind: type) -> None:
    """`kind` decides which source model is meant."""
    assert isinstance(InjectionSection.model_validate({**SAMPLED, "source": written}).source, kind)


def test_unknown_kinds_and_keys_are_refused() -> None:
    """A kind that does not exist, and a key of another kind, are errors."""
    lenses: list[dict[str, Any]] = [{"kind": "nfw"}, {"kind": "sie", "slope": SLOPE}, {}]
    sources: list[dict[str, Any]] = [{"kind": "shapelets"}, {"kind": "sersic", "count": [1, 2]}, {**BANK, "count": 1}]
    for adapter, refused in ((LENS, lenses), (SOURCE, sources)):
        for written in refused:
            with pytest.raises(ValidationError):
                adapter.validate_python(written)


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (2.0, 3.0), (0.5, 4.0)])
def test_slope_outside_its_range_is_refused(low: float, high: float) -> None:
    """The density slope of a power law lies between 1 and 3, both excluded."""
    with pytest.raises(ValidationError, match=r"slope must lie in \(1, 3\)"):
        PowerLawLens.model_validate({"kind": "epl", "slope": {"kind": "uniform", "low": low, "high": high}})


def test_lenstronomy_models_and_parameters_belong_together() -> None:
    """As many parameters as models, at least one model, and only names of drawn quantities."""
    with pytest.raises(ValidationError, match="2 models need as many parameters, got 1"):
        LenstronomyLens.model_validate({**SIE, "parameters": SIE["parameters"][:1]})
    with pytest.raises(ValidationError, match="models"):
        LenstronomyLens.model_validate({**SIE, "models": [], "parameters": []})
    wrong = [{"theta_E": "theta_e"}, {"gamma1": 0.0, "gamma2": 0.0}]
    with pytest.raises(ValidationError, match=r"unknown quantities \['theta_e'\]; known: theta_e_arcsec, lens_q"):
        LenstronomyLens.model_validate({**SIE, "parameters": wrong})


@pytest.mark.parametrize(
    "written",
    [
        {"count": [3, 1]},
        {"count": [0, 2]},
        {"count": [1, 17]},
        {"flux_share": [0.5, 0.1]},
        {"flux_share": [0.5, 1.1]},
        {"re_over_re": [0.0, 0.1]},
        {"re_over_re": [0.2, 0.1]},
        {"reach_re": 0.0},
    ],
)
def test_clumps_outside_their_ranges_are_refused(written: dict[str, Any]) -> None:
    """Counts, shares and sizes of clumps are ordered and possible, and the error names the key."""
    with pytest.raises(ValidationError, match=next(iter(written))):
        ClumpySource.model_validate({"kind": "clumpy", **written})


@pytest.mark.parametrize(
    ("name", "value"), [("bulge_share", 1.1), ("bulge_re_over_re", 0.0), ("bulge_n", 9.0), ("bulge_q", 0.0)]
)
def test_bulges_outside_their_ranges_are_refused(name: str, value: float) -> None:
    """A bulge that cannot be rendered is refused by the name of its prior."""
    with pytest.raises(ValidationError, match=f"{name} must lie in"):
        BulgeDiscSource.model_validate({**BULGE, name: {"kind": "fixed", "value": value}})


@pytest.mark.parametrize("digest", ["", "0" * 63, "g" * 64, "A" * 64])
def test_bank_needs_its_digest(digest: str) -> None:
    """A bank is named by URL and the SHA-256 of its content."""
    with pytest.raises(ValidationError, match="sha256"):
        BankSource.model_validate({**BANK, "sha256": digest})
    with pytest.raises(ValidationError, match="size_factor"):
        BankSource.model_validate({**BANK, "size_factor": 0.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gr": [0.8, 0.5]}, "equally many"),
        ({"redshift": [0.5, 3.0, 1.5]}, "increasing redshifts"),
        ({"redshift": [0.5, 0.5, 3.0]}, "increasing redshifts"),
        ({"src_redshift": {"kind": "uniform", "low": 0.4, "high": 3.0}}, r"0.4..3.0 leaves the table 0.5..3.0"),
        ({"src_redshift": {"kind": "uniform", "low": 0.5, "high": 3.1}}, r"0.5..3.1 leaves the table 0.5..3.0"),
        ({"src_redshift": {"kind": "normal", "mean": 1.5, "sigma": 0.5}}, "leaves the table"),
        ({"gr": [0.8, float("nan"), 0.2]}, "finite"),
        ({"redshift": [0.5], "gr": [0.8], "rz": [0.6]}, "redshift"),
    ],
)
def test_incomplete_colour_table_is_refused(changes: dict[str, Any], message: str) -> None:
    """A table that would be extrapolated, or is not one, is an error."""
    assert ColourTable.model_validate(COLOURS).gr == (0.8, 0.5, 0.2)
    with pytest.raises(ValidationError, match=message):
        ColourTable.model_validate({**COLOURS, **changes})


def test_measured_psf_and_its_stamps_belong_together() -> None:
    """A measured PSF needs a URL with {band}; another profile must not have one."""
    url = "s3://bucket/{brickname}/coadd-{band}.fits"
    assert PsfSection(profile="measured", stamps=url).stamps == url
    for profile, stamps in (("measured", None), ("moffat", url), ("gaussian", url)):
        with pytest.raises(ValidationError, match="needed by, and only by, profile: measured"):
            PsfSection.model_validate({"profile": profile, "stamps": stamps})
    with pytest.raises(ValidationError, match=r"must contain \{band\}"):
        PsfSection(profile="measured", stamps="coadd-r.fits")


@pytest.mark.parametrize("stamps", ["{band}-{brick}.fits", "{band}-{}.fits", "{band}-{0}.fits"])
def test_unknown_field_of_the_psf_url_is_refused(stamps: str) -> None:
    """Only {band} and {brickname} can be filled in; anything else would fail in the middle of a run."""
    with pytest.raises(ValidationError, match=r"injection\.psf\.stamps"):
        PsfSection(profile="measured", stamps=stamps)
    with pytest.raises(ValidationError, match="expected '}' before end of string"):
        PsfSection(profile="measured", stamps="{band}/{brickname")


def test_sky_levels_are_positive_and_of_known_bands() -> None:
    """The shot noise takes a positive sky level per band; bands may be left out."""
    assert ArcNoiseSection().sky_nmgy == {}
    assert ArcNoiseSection(sky_nmgy={"r": 0.3}).sky_nmgy == {"r": 0.3}
    for wrong in ({"r": 0.0}, {"r": -1.0}, {"y": 1.0}):
        with pytest.raises(ValidationError):
            ArcNoiseSection.model_validate({"sky_nmgy": wrong})


def test_frozen_rows_bring_their_own_lens_source_and_colours() -> None:
    """Nothing that the rows decide can be configured in frozen mode; PSF and noise can."""
    kept = {"psf": {"profile": "gaussian"}, "arc_noise": {}}
    section = InjectionSection.model_validate({**FROZEN, **kept})
    assert section.arc_noise is not None
    for key, value in (("lens", {"kind": "epl", "slope": SLOPE}), ("source", {"kind": "clumpy"}), ("colours", COLOURS)):
        with pytest.raises(ValidationError, match="frozen takes lens, source and colours from the rows"):
            InjectionSection.model_validate({**FROZEN, key: value})


def test_a_bank_needs_the_salt_of_emr_for_frozen_rows_alone() -> None:
    """Without it a frozen row has no template; a size factor is no part of the row; drawn templates have no salt."""
    bank = {"kind": "bank", "url": "bank.h5", "sha256": "0" * 64}
    salted = {**bank, "emr_salt": ""}
    assert InjectionSection.model_validate({**FROZEN, "source": salted}).source.kind == "bank"
    for content in (
        {**FROZEN, "source": bank},
        {**FROZEN, "source": {**salted, "size_factor": 2.0}},
        {**SAMPLED, "source": salted},
    ):
        with pytest.raises(ValidationError, match="a bank needs emr_salt"):
            InjectionSection.model_validate(content)


def test_sample_mode_needs_priors() -> None:
    """Drawing needs something to draw from."""
    with pytest.raises(ValidationError, match=r"sample needs injection\.priors"):
        InjectionSection.model_validate({**SAMPLED, "priors": None})


@pytest.mark.parametrize("accuracy", [0.0, 9e-5, 0.11])
def test_accuracy_has_limits(accuracy: float) -> None:
    """The renderer's accuracy lies between 1e-4 and 0.1."""
    with pytest.raises(ValidationError, match="accuracy"):
        InjectionSection.model_validate({**SAMPLED, "accuracy": accuracy})


def test_core_suppression_is_off_unless_asked_for() -> None:
    """Arcs are physical by default; frozen and sampled injections may both ask for the ablation."""
    for content in (SAMPLED, FROZEN):
        assert InjectionSection.model_validate(content).core_suppression is None
        asked = InjectionSection.model_validate({**content, "core_suppression": {"radius_theta_e": 0.5}})
        assert asked.core_suppression == CoreSuppression(radius_theta_e=0.5)


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({}, "needs one of radius_px"),
        ({"taper": 0.5}, "needs one of radius_px"),
        ({"radius_px": 0.0}, "radius_px"),
        ({"radius_theta_e": 1.0}, "radius_theta_e"),
        ({"radius_px": 5, "taper": 0.0}, "taper"),
        ({"radius_px": 5, "taper": 1.5}, "taper"),
    ],
)
def test_bad_core_suppressions_are_refused(section: dict[str, float], reason: str) -> None:
    """Each error names the key; a core as large as the ring is none."""
    with pytest.raises(ValidationError, match=reason):
        InjectionSection.model_validate({**SAMPLED, "core_suppression": section})


def test_emr_compat_is_for_frozen_rows_as_emr_rendered_them() -> None:
    """Off unless asked for; refused with draws of our own, with extinction or with shot noise."""
    assert InjectionSection(**FROZEN).emr_compat is False
    assert InjectionSection(**FROZEN, emr_compat=True).emr_compat is True
    for changed in ({"mode": "sample", "priors": None}, {"extinction": True}, {"arc_noise": {}}):
        with pytest.raises(ValidationError, match=r"emr_compat needs|needs injection\.priors"):
            InjectionSection(**{**FROZEN, "emr_compat": True, **changed})
