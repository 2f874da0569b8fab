"""Anchors: real lenses that a finder is tested on. Columns of their tables, reasons, and the limits of their tests.

Three definitions of a tier exist and are never merged. `annulus_tier` and `visibility_tier` are measured on the cutout;
`grade_tier` is what the source catalogues say. The grade says nothing about the measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.contracts.schema import CubeSchema, Variable

# Why a row is no anchor, in the order in which the tests are made; "none" is an anchor.
ANCHOR_REASONS = (
    "none",
    "invalid_position",
    "cluster_survey_only",
    "type_excluded",
    "unmatched",
    "outside_footprint",
    "outside_dec_range",
    "no_cutout",
    "cutout_unusable",
    "annulus_unmeasurable",
    "no_central_galaxy",
)
FOOTPRINT_STATES = ("inside", "outside", "unknown")
GRADE_TIERS = ("grade_confident", "grade_probable", "grade_unknown")
VISIBILITY_TIERS = ("A", "B")
# Definitions of a tier; each is reported apart.
TIER_COLUMNS = ("visibility_tier", "annulus_tier", "grade_tier")
UNKNOWN_METHOD = "unknown"
CLUSTER_SURVEY = "cluster_survey"

# Columns of a source table: our name -> names under which it is looked for, in this order.
SOURCE_COLUMNS = {
    "name": ("name",),
    "ra_deg": ("ra_deg", "ra", "RA [deg]", "RA"),
    "dec_deg": ("dec_deg", "dec", "DEC [deg]", "DEC"),
    "redshift_text": ("zlens", "z_lens"),
    "lens_type": ("type",),
    "grade": ("grading", "grade"),
    "discovery_method": ("discovery_method", "discovery", "method"),
    "reference": ("ref", "reference"),
}
REQUIRED_SOURCE_COLUMNS = ("ra_deg", "dec_deg")

# legacysurvey.org/dr10/files: survey-bricks.fits.gz lists every brick of the sky, observed or not.
ALL_SKY_BRICKS = 662_174


@dataclass(frozen=True)
class AnchorLimits:
    """What makes two catalogue entries one lens, and what counts as inside the survey.

    Attributes:
        match_radius_arcsec: entries nearer than this to one another are one lens. Published positions of one lens
            agree to about 3 arcsec. [arcsec]
        dec_range_deg: used where no bricks are given: positions outside are rejected, those inside are "unknown". [deg]
        lens_types: kept types; empty keeps all. Lenses of no stated type are kept.
        keep_cluster_surveys: keep entries whose only references are surveys of clusters, which list no lenses.
        allow_unmatched: keep listed positions that match no known lens.
    """

    match_radius_arcsec: float = 3.0
    dec_range_deg: tuple[float, float] = (-18.0, 32.0)
    lens_types: tuple[str, ...] = ()
    keep_cluster_surveys: bool = False
    allow_unmatched: bool = False


@dataclass(frozen=True)
class VisibilityLimits:
    """How arc visibility is measured; the first three and the threshold are those of the EMR definition.

    Attributes:
        inner_px: the annulus is inner <= r < outer. [pixel]
        outer_px: see inner_px. [pixel]
        threshold: both measured tiers A need an arc_visibility_snr above it.
        min_annulus_frac: share of the annulus that must be good pixels.
        centre_radius_px: radius of the central aperture. [pixel]
        centre_ring_px: ring whose median is the local background of the central aperture. [pixel]
        centre_snr_min: central aperture significance below which no galaxy sits at the centre.
        clip_sigma: pixels further above the lens model than this do not belong to the lens.
        model_error: error of the lens model in one pixel as a share of its light.
        light_error: error of the lens light summed over the annulus, as a share of it.
        significance_min: visibility_tier A needs an arc_significance above it.
        region_snr_min: a region of arc_significance is where the smoothed residual exceeds this.
        peak_snr_min: its maximum must exceed this.
        elongation_min: rms extent along the circle about the lens over that across it, at least.
    """

    inner_px: float = 4.0
    outer_px: float = 16.0
    threshold: float = 2.0
    min_annulus_frac: float = 0.7
    centre_radius_px: float = 4.0
    centre_ring_px: tuple[float, float] = (8.0, 12.0)
    centre_snr_min: float = 5.0
    clip_sigma: float = 3.0
    model_error: float = 0.05
    light_error: float = 0.01
    significance_min: float = 4.0
    region_snr_min: float = 2.5
    peak_snr_min: float = 4.0
    elongation_min: float = 1.15


@dataclass(frozen=True)
class ParityLimits:
    """Differences beyond which two cutout sources do not agree.

    Attributes:
        ratio_tolerance: largest |median flux ratio - 1|.
        offset_sigma_max: largest |median background difference| in units of the sky sigma.
        rms_sigma_max: largest median rms difference of a stamp's pixels in units of the sky sigma.
        aperture_radius_px: aperture of the flux ratio. [pixel]
        aperture_snr_min: stamps whose aperture flux is fainter give no ratio.
        min_stamps: fewer stamps with a ratio, in any band, give no verdict.
        match_radius_arcsec: stamps nearer than this show the same position. [arcsec]
    """

    ratio_tolerance: float = 0.02
    offset_sigma_max: float = 0.1
    rms_sigma_max: float = 0.5
    aperture_radius_px: float = 8.0
    aperture_snr_min: float = 20.0
    min_stamps: int = 3
    match_radius_arcsec: float = 0.5


def _column(name: str, dtype: str, unit: str, description: str) -> Variable:
    return Variable(name, ("sample",), dtype, unit, description)


ENTRIES = CubeSchema(
    "anchor_entries",
    1,
    (
        _column("anchor_id", "str", "1", "Anchor that the entry belongs to; empty for an invalid position"),
        _column("source", "str", "1", "Table the entry came from"),
        _column("source_row", "int64", "1", "Row of that table, from 0"),
        _column("name", "str", "1", "Name as written there"),
        _column("ra_deg", "float64", "deg", "ICRS right ascension; NaN if it cannot be read"),
        _column("dec_deg", "float64", "deg", "ICRS declination; NaN if it cannot be read"),
        _column("redshift_text", "str", "1", "Lens redshift as written there"),
        _column("lens_type", "str", "1", "Type as written there, such as galaxy, group, cluster"),
        _column("grade", "str", "1", "Grade as written there, lower case"),
        _column("discovery_method", "str", "1", "As written there, else from the references"),
        _column("reference", "str", "1", "References as written there"),
        _column("known_separation_arcsec", "float64", "arcsec", "Distance to the nearest known lens; 0 for one"),
        _column("nearest_known", "str", "1", "Name of the nearest known lens"),
        _column("reject_reason", "str", "1", "Why the entry makes no anchor, or that of its anchor"),
    ),
)

ANCHORS = CubeSchema(
    "anchors",
    1,
    (
        _column("anchor_id", "str", "1", "Position as JDDD.ddddd+DD.ddddd"),
        _column("ra_deg", "float64", "deg", "ICRS right ascension, of the first source's best graded entry"),
        _column("dec_deg", "float64", "deg", "ICRS declination of the same entry"),
        _column("names", "str", "1", "Distinct names, separated by |"),
        _column("sources", "str", "1", "Distinct source tables, separated by |"),
        _column("n_entries", "int64", "1", "Source entries merged into this anchor"),
        _column("extent_arcsec", "float64", "arcsec", "Largest distance of a merged entry from the anchor"),
        _column("lens_types", "str", "1", "Distinct types, separated by |"),
        _column("lens_redshift", "float64", "1", "First number among the entries' redshifts; NaN if none"),
        _column("grades", "str", "1", "source:grade of every entry, separated by |"),
        _column("grade_tier", "str", "1", "Best grade: grade_confident, grade_probable or grade_unknown"),
        _column("discovery_methods", "str", "1", "Distinct discovery methods, separated by |"),
        _column("references", "str", "1", "Distinct references, separated by |"),
        _column("known_separation_arcsec", "float64", "arcsec", "Distance to the nearest known lens; 0 for one"),
        _column("nearest_known", "str", "1", "Name of the nearest known lens"),
        _column("nearest_anchor_arcsec", "float64", "arcsec", "Distance to the next anchor of the table"),
        _column("brickname", "str", "1", "DR10 brick of the position"),
        _column("footprint", "str", "1", "inside, outside or unknown"),
        _column("reject_reason", "str", "1", "Why the row is no anchor; none if it is one"),
    ),
)

MEASUREMENTS = CubeSchema(
    "anchor_measurements",
    2,
    (
        _column("cube_row", "int64", "1", "Row of the cutouts cube; -1 without cutout"),
        _column("cutout_reject_reason", "str", "1", "reject_reason of that row; empty without cutout"),
        _column("band", "str", "1", "Band that was measured"),
        _column("sky_sigma_nmgy", "float64", "nmgy", "1.4826 MAD of the pixels at r >= outer radius"),
        _column("centre_snr", "float64", "1", "Central aperture above its surrounding ring, in sigma"),
        _column("annulus_px", "int64", "pixel", "Good pixels of the annulus"),
        _column("annulus_good_frac", "float64", "1", "Share of the annulus that is good pixels"),
        _column("annulus_snr_with_lens", "float64", "1", "EMR meaning: annulus flux / noise, lens light included"),
        _column("lens_axis_ratio", "float64", "1", "Axis ratio of the lens light that was subtracted"),
        _column("lens_annulus_nmgy", "float64", "nmgy", "Lens light in the annulus that was subtracted"),
        _column("arc_annulus_nmgy", "float64", "nmgy", "Light in the annulus that remained"),
        _column("arc_visibility_snr", "float64", "1", "arc_annulus_nmgy / its noise, that of the lens model included"),
        _column("arc_significance", "float64", "1", "Light of the annulus in regions shaped like arcs / its noise"),
        _column("annulus_tier", "str", "1", "A if arc_visibility_snr exceeds its threshold, else B; empty unmeasured"),
        _column("visibility_tier", "str", "1", "A if arc_significance exceeds its own as well, else B"),
    ),
)
MEASURED_ANCHORS = CubeSchema("measured_anchors", 2, (*ANCHORS.variables, *MEASUREMENTS.variables))
