"""The two cubes as data: every variable, its dims, dtype, unit and meaning.

Both cubes have one row per manifest row, in manifest order: row i of the training cube was made
from row i of the cutouts cube.
"""

from __future__ import annotations

from pipeline.contracts.schema import CubeSchema, Variable

REJECT_REASONS = (
    "none",
    "brick_missing",
    "brick_corrupt",
    "out_of_bounds",
    "nonfinite_pixels",
    "invvar_zero",
    "masked",
    "psfsize_invalid",
    "host_mag_missing",
    "ebv_missing",
    "sampler_exhausted",
    "arc_masked",
    "mask_unreadable",
    "psf_unreadable",
    "row_incomplete",
    "duplicate_row",
    "stamp_unreadable",
    "band_missing",
    "stamp_shape",
    "implausible_pixels",
    "template_unusable",
)
SPLITS = ("train", "val", "test", "guard")
TRAINED_SPLITS = SPLITS[:3]
ROLES = ("unused", "pair", "control", "injected")
# Roles whose stamp `injected` is an example of an arc; only of a pair is the control known.
INJECTED_ROLES = ("pair", "injected")

_SAMPLE = ("sample",)
_BAND = ("sample", "band")
_STAMP = ("sample", "band", "y", "x")


def _column(name: str, dtype: str, unit: str, description: str, flags: tuple[str, ...] = ()) -> Variable:
    return Variable(name, _SAMPLE, dtype, unit, description, flags)


def _per_band(name: str, unit: str, description: str) -> Variable:
    return Variable(name, _BAND, "float32", unit, description)


# Columns that both cubes carry, copied unchanged from the cutouts to the training cube.
HOST_COLUMNS = (
    _column("task_id", "str", "1", "Identity of the manifest row; keys every random number of the row"),
    _column("host_id", "int64", "1", "Hash of brick and position to 1e-6 deg; equal for repeated hosts"),
    _column("brickname", "str", "1", "DR10 brick the pixels came from"),
    _column("ra_deg", "float64", "deg", "ICRS right ascension of the host"),
    _column("dec_deg", "float64", "deg", "ICRS declination of the host"),
    _column("region_split", "str", "1", "Split column of the EMR manifest, carried unchanged; empty if none"),
    _column("is_control", "uint8", "1", "1 if the manifest row asks for no injection"),
    _column("mag_g", "float32", "mag", "Host g magnitude, AB, not dereddened; NaN if unknown"),
    _column("mag_r", "float32", "mag", "Host r magnitude, AB, not dereddened; NaN if unknown"),
    _column("mag_z", "float32", "mag", "Host z magnitude, AB, not dereddened; NaN if unknown"),
    _column("ebv_mag", "float32", "mag", "Galactic E(B-V); NaN if unknown"),
    _column("psfdepth_r_mag", "float32", "mag", "5-sigma point-source depth of the brick in r; NaN if unknown"),
    _column("centre_dx_px", "float32", "pixel", "Host x position minus stamp column size//2"),
    _column("centre_dy_px", "float32", "pixel", "Host y position minus stamp row size//2"),
    _per_band("psfsize_arcsec", "arcsec", "Gaussian-equivalent seeing FWHM (N_eff convention) used per band"),
    _per_band("sky_sigma_nmgy", "nmgy", "1.4826 MAD of the pixels of the stamp's outer ring, r >= 24/64 of the size"),
    _column("bad_pixel_frac", "float32", "1", "Fraction of pixels with an EMR bad-pixel r bit; NaN without mask"),
    _column("wise_brightmask_frac", "float32", "1", "Fraction of pixels with WISEM1 or WISEM2; NaN without mask"),
)

CUTOUTS = CubeSchema(
    "cutouts",
    1,
    (
        Variable("image", _STAMP, "float32", "nmgy", "Coadd flux per pixel around the host"),
        Variable("invvar", _STAMP, "float32", "nmgy**-2", "Coadd inverse variance per pixel; 0 where no data"),
        Variable("maskbits", ("sample", "y", "x"), "int32", "1", "DR10 MASKBITS of each pixel"),
        *HOST_COLUMNS,
        _column("brick_x_px", "float64", "pixel", "Host column in the brick, 0-based, fractional"),
        _column("brick_y_px", "float64", "pixel", "Host row in the brick, 0-based, fractional"),
        _column("in_bounds", "uint8", "1", "1 if the whole stamp lies inside the brick image"),
        _per_band("finite_frac", "1", "Fraction of pixels with finite image and invvar"),
        _per_band("invvar_zero_frac", "1", "Fraction of pixels whose invvar is not positive"),
        _column("cutout_ok", "uint8", "1", "EMR meaning: every file readable and the stamp in bounds"),
        _column("usable", "uint8", "1", "1 if the stamp passes every configured quality limit"),
        _column("reject_reason", "uint8", "1", "First reason why the row is not usable", REJECT_REASONS),
    ),
)

TRAINING = CubeSchema(
    "training",
    3,
    (
        Variable("injected", _STAMP, "float32", "nmgy", "Host plus lensed arc; equals control where role is control"),
        Variable("control", _STAMP, "float32", "nmgy", "The same host pixels without arc"),
        *HOST_COLUMNS,
        _column("pair_id", "int64", "1", "Number shared by the injected and control stamp of one row"),
        _column(
            "role",
            "uint8",
            "1",
            "What the row offers: nothing, a pair, a control, an imported arc without control",
            ROLES,
        ),
        _column("reject_reason", "uint8", "1", "Why role is unused", REJECT_REASONS),
        _column("split", "uint8", "1", "Sky split; guard rows are never trained or tested on", SPLITS),
        _column("split_healpix", "int64", "1", "HEALPix pixel (NESTED) that decided the split"),
        _column(
            "region_split_relabel", "str", "1", "region_split after EMR phase 4p5 moved val rows to train; or empty"
        ),
        _column("theta_e_arcsec", "float32", "arcsec", "Einstein radius, intermediate axis; 0 without arc"),
        _column("lens_q", "float32", "1", "Axis ratio of the SIE mass"),
        _column("lens_phi_rad", "float32", "rad", "Major axis of the mass, from +x to +y of the pixel grid"),
        _column("lens_slope", "float32", "1", "Density slope of the mass; 2 is isothermal, NaN for other models"),
        _column("shear_gamma1", "float32", "1", "External shear along +x"),
        _column("shear_gamma2", "float32", "1", "External shear along the diagonal"),
        _column("lens_x_arcsec", "float32", "arcsec", "Lens centre relative to the stamp centre, +x"),
        _column("lens_y_arcsec", "float32", "arcsec", "Lens centre relative to the stamp centre, +y"),
        _column("src_x_arcsec", "float32", "arcsec", "Source position relative to the lens, +x"),
        _column("src_y_arcsec", "float32", "arcsec", "Source position relative to the lens, +y"),
        _column(
            "src_re_arcsec", "float32", "arcsec", "Sersic half-light radius along the major axis; of a template, round"
        ),
        _column("src_n", "float32", "1", "Sersic index; NaN for a template"),
        _column("src_q", "float32", "1", "Axis ratio of the source; NaN for a template"),
        _column("src_phi_rad", "float32", "rad", "Major axis of the source, from +x to +y"),
        _column("src_template", "int32", "1", "Row of the source bank; -1 for a source of profiles"),
        _column("src_mirror", "int8", "1", "1, or -1 for a mirrored template"),
        _column("src_components", "int8", "1", "Number of light components of the source"),
        _column("src_redshift", "float32", "1", "Source redshift that its colours came from; NaN if none was drawn"),
        _per_band("src_mag", "mag", "Unlensed source magnitude, AB, before Galactic extinction"),
        _per_band("src_flux_nmgy", "nmgy", "Unlensed source flux as injected, extinction applied if configured"),
        _per_band("arc_flux_nmgy", "nmgy", "Flux of the arc inside the stamp"),
        _per_band("psf_fwhm_arcsec", "arcsec", "Half-maximum FWHM of the PSF model whose N_eff is that of psfsize"),
        _column(
            "arc_snr", "float32", "1", "EMR meaning: largest arc flux * sqrt(invvar) over good pixels, in sampling.band"
        ),
        _column("arc_snr_sum", "float32", "1", "EMR meaning: sum of arc flux / sqrt(sum 1/invvar) over good pixels"),
        _column("arc_snr_matched", "float32", "1", "sqrt(sum arc**2 * invvar) over good pixels"),
        _column("arc_snr_aperture", "float32", "1", "arc_snr_sum restricted to 4 <= r <= 16 px around the host"),
        _column(
            "arc_snr_annulus",
            "float32",
            "1",
            "Arc flux at 4 <= r <= 16 px / (sqrt(N) sigma of psfdepth_r); NaN without",
        ),
        _column(
            "arc_snr_region", "float32", "1", "Largest arc flux / noise of a 4-connected region of pixels above 1 sigma"
        ),
        _column(
            "arc_snr_cumulative", "float32", "1", "Largest arc flux / noise of the k pixels of highest arc SNR, any k"
        ),
        _column("magnification", "float32", "1", "Lensed over unlensed flux, light beyond the stamp included"),
        _column("arc_radius_arcsec", "float32", "arcsec", "Flux-weighted mean radius of the arc about the lens"),
        _column("arc_core_frac", "float32", "1", "Share of the arc's flux within 8 px of the lens, after the PSF"),
        _column(
            "arc_suppressed_frac",
            "float32",
            "1",
            "Share of the arc's flux in the stamp that core suppression took away, in sampling.band; 0 without",
        ),
        _column(
            "arc_tangential_extent_rad", "float32", "rad", "Angle that an even ring section as concentrated covers"
        ),
        _column(
            "lensed_hlr_arcsec", "float32", "arcsec", "EMR meaning: radius about the stamp middle with half the arc"
        ),
        _per_band("sky_nmgy", "nmgy", "Sky level per pixel behind the arc's shot noise; NaN if none was added"),
        _column("snr_target", "float32", "1", "Value of the target metric that was assigned; NaN if none"),
        _column("attempts", "int32", "1", "Draws tried until acceptance or the limit"),
        _column("weight_prior", "float64", "1", "Importance weight that turns accepted rows back into the prior"),
        _column("mag_outside_prior", "uint8", "1", "1 if src_mag lies outside its prior, sampling.method direct only"),
    ),
)

# Those proportional to the arc's flux, which a target can be set for.
SNR_METRICS = ("arc_snr", "arc_snr_sum", "arc_snr_matched", "arc_snr_aperture", "arc_snr_annulus")
