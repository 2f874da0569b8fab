"""The tables of `dhs score`: what is known of every position, and of the best ranked ones."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.contracts.schema import CubeSchema, Variable

POSITION_INVALID = "position_invalid"
NOT_NORMALISABLE = "not_normalisable"
FEATURE_MISSING = "feature_missing"
SEARCH_REJECT_REASONS = (*REJECT_REASONS, POSITION_INVALID, NOT_NORMALISABLE, FEATURE_MISSING)

# Names under which a table may give its columns, the first that is there counts.
POSITION_COLUMNS = {
    "position_id": ("id", "task_id", "anchor_id"),
    "ra_deg": ("ra_deg", "ra"),
    "dec_deg": ("dec_deg", "dec"),
    "brickname": ("brickname",),
    "ebv_mag": ("ebv_mag", "ebv"),
    "psfdepth_r_mag": ("psfdepth_r_mag", "psfdepth_r"),
}


def _column(name: str, dtype: str, unit: str, description: str) -> Variable:
    return Variable(name, ("sample",), dtype, unit, description)


def search_scores(bands: Sequence[str]) -> CubeSchema:
    """Columns of scores.parquet: one row per position, in the order of the input."""
    return CubeSchema(
        "search_scores",
        1,
        (
            _column("position_id", "str", "1", "Identity given in the table, else the position as JDDD.ddddd+DD.ddddd"),
            _column("ra_deg", "float64", "deg", "ICRS right ascension as given"),
            _column("dec_deg", "float64", "deg", "ICRS declination as given"),
            _column("brickname", "str", "1", "DR10 brick that was read; empty for an invalid position"),
            _column("score", "float32", "1", "Logistic of logit; NaN if not usable"),
            _column("logit", "float32", "1", "Output of the network; NaN if not usable"),
            _column("usable", "uint8", "1", "1 if the stamp passed every limit and was scored"),
            _column("reject_reason", "str", "1", "First reason why it was not; none if it was"),
            *(_column(f"psfsize_{band}_arcsec", "float32", "arcsec", f"Seeing FWHM in {band}") for band in bands),
            *(
                _column(f"depth_{band}_mag", "float32", "mag", f"5-sigma point-source depth in {band}, from the stamp")
                for band in bands
            ),
            _column("ebv_mag", "float32", "mag", "Galactic E(B-V) as given; NaN if it was not"),
            _column("psfdepth_r_mag", "float32", "mag", "5-sigma depth of the brick in r as given; NaN if it was not"),
            _column("bad_pixel_frac", "float32", "1", "Fraction of pixels with an EMR bad-pixel r bit"),
            _column("wise_brightmask_frac", "float32", "1", "Fraction of pixels with WISEM1 or WISEM2"),
        ),
    )


def search_candidates(bands: Sequence[str]) -> CubeSchema:
    """Columns of candidates.parquet: the best ranked positions, each once."""
    return CubeSchema(
        "search_candidates",
        1,
        (
            _column("rank", "int64", "1", "1 for the highest logit"),
            _column("row", "int64", "1", "Row of scores.parquet, the first with this position"),
            _column("n_rows", "int64", "1", "Rows of scores.parquet with this position"),
            *search_scores(bands).variables,
        ),
    )
