"""The bank of galaxies that are lensed as sources: HDF5 names, units, limits, and the tables that hold it in memory.

The file is that of the EMR system with columns and attributes added; a file without the added ones is a bank too.
A template is light per pixel, not surface brightness: flux_nmgy * template / pixel_scale_arcsec**2 is nmgy arcsec**-2.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ConfigError

BANK_SCHEMA_VERSION = 1
IMAGES = "images"
IMAGES_DTYPE = "float32"
UNIT_SUM_TOLERANCE = 1e-4
MIN_STAMP_SIZE_PX = 16
REQUIRED_ATTRIBUTES = ("src_pixscale_arcsec", "stamp_size", "created_utc", "galaxy_kind")

TEMPLATE_REJECT_REASONS = (
    "none",
    "non_finite",
    "too_faint",
    "touches_edge",
    "pedestal_dominated",
    "hlr_out_of_range",
    "blended",
)


@dataclass(frozen=True)
class BankColumn:
    """One value per template, stored as `meta/<name>`; `missing` stands where a file lacks an optional column."""

    name: str
    dtype: str
    unit: str
    description: str
    missing: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Name of the dataset in the file."""
        return f"meta/{self.name}"


BANK_COLUMNS = (
    BankColumn("index", "int64", "1", "Identity of the galaxy in the catalogue or bank it came from"),
    BankColumn("hlr_arcsec", "float32", "arcsec", "Radius of the circle around the centroid that holds half the light"),
    BankColumn("clumpiness", "float32", "1", "sum |image - Gaussian of 1 px| / sum image"),
    BankColumn(
        "pedestal_fraction",
        "float32",
        "1",
        "Share of the flux of the uncured stamp, negatives clipped, that a flat level as bright as its border carries",
        math.nan,
    ),
    BankColumn("snr", "float32", "1", "Flux of the segment over its noise, taken as white", math.nan),
    BankColumn("mag", "float32", "mag", "AB magnitude of the galaxy in its catalogue", math.nan),
    BankColumn("redshift", "float32", "1", "Redshift of the galaxy in its catalogue", math.nan),
    BankColumn("psf_fwhm_arcsec", "float32", "arcsec", "Half-maximum FWHM of the template's resolution", math.nan),
    BankColumn("offset_x_px", "float32", "pixel", "Flux-weighted centroid minus the stamp centre, +x", math.nan),
    BankColumn("offset_y_px", "float32", "pixel", "Flux-weighted centroid minus the stamp centre, +y", math.nan),
    BankColumn("usable", "uint8", "1", "1 if the template passes every limit of the bank", 1.0),
    BankColumn("reject_reason", "uint8", "1", "Why the template is not usable", 0.0, TEMPLATE_REJECT_REASONS),
)


@dataclass(frozen=True)
class BankLimits:
    """How stamps become templates, and which templates may be used.

    Attributes:
        stamp_size_px: side of a template, even, at least 16. [pixel]
        min_snr: smallest SNR of the segment.
        hlr_range_arcsec: half-light radii allowed. [arcsec]
        max_pedestal_fraction: largest share of the light inside the segment that the background may be.
        detection_sigma: isophote of the segment, in sigmas of the smoothed background.
        smoothing_px: sigma of the Gaussian that is applied for detection only. [pixel]
        max_edge_fraction: largest share of the stamp's border pixels that the segment may cover.
        blend_flux_fraction: a second peak with this share of the segment's flux makes a blend.
        blend_separation_arcsec: peaks closer than this are clumps of one galaxy. [arcsec]
        common_psf_fwhm_arcsec: resolution that every template is brought to; None keeps each its own. [arcsec]

    Raises:
        ConfigError: a value outside its range; says which.
    """

    stamp_size_px: int = 96
    min_snr: float = 20.0
    hlr_range_arcsec: tuple[float, float] = (0.1, 1.0)
    max_pedestal_fraction: float = 0.5
    detection_sigma: float = 1.5
    smoothing_px: float = 1.5
    max_edge_fraction: float = 0.1
    blend_flux_fraction: float = 0.2
    blend_separation_arcsec: float = 0.4
    common_psf_fwhm_arcsec: float | None = None

    def __post_init__(self) -> None:
        low, high = self.hlr_range_arcsec
        common = self.common_psf_fwhm_arcsec
        wrong = [
            text
            for text, good in (
                (f"stamp_size_px {self.stamp_size_px}: expected even, >= {MIN_STAMP_SIZE_PX}", self._size_is_allowed()),
                (f"min_snr {self.min_snr}: expected > 0", self.min_snr > 0),
                (f"hlr_range_arcsec {low} to {high}: expected 0 <= low < high", 0 <= low < high),
                (
                    f"max_pedestal_fraction {self.max_pedestal_fraction}: expected in (0, 1]",
                    0 < self.max_pedestal_fraction <= 1,
                ),
                (f"detection_sigma {self.detection_sigma}: expected > 0", self.detection_sigma > 0),
                (f"smoothing_px {self.smoothing_px}: expected > 0", self.smoothing_px > 0),
                (f"max_edge_fraction {self.max_edge_fraction}: expected in [0, 1]", 0 <= self.max_edge_fraction <= 1),
                (
                    f"blend_flux_fraction {self.blend_flux_fraction}: expected in (0, 0.5]",
                    0 < self.blend_flux_fraction <= 0.5,
                ),
                (
                    f"blend_separation_arcsec {self.blend_separation_arcsec}: expected >= 0",
                    self.blend_separation_arcsec >= 0,
                ),
                (f"common_psf_fwhm_arcsec {common}: expected > 0", common is None or common > 0),
            )
            if not good
        ]
        if wrong:
            raise ConfigError("limits of a source bank: " + "; ".join(wrong))

    def _size_is_allowed(self) -> bool:
        return self.stamp_size_px >= MIN_STAMP_SIZE_PX and self.stamp_size_px % 2 == 0


@dataclass(frozen=True)
class GalaxyStamp:
    """One galaxy as observed, before anything is done to it.

    Attributes:
        index: identity in its catalogue.
        image: (y, x) float32 light per pixel, in any flux unit, the galaxy near the centre.
        psf: (y, x) float32 point-spread function at the same pixel scale; None if unknown.
        psf_fwhm_arcsec: its FWHM where `psf` is None; NaN if unknown. [arcsec]
        noise_sigma: standard deviation of the noise per pixel, in the unit of `image`; NaN to measure it.
        mag: AB magnitude; NaN if unknown. [mag]
        redshift: NaN if unknown.
    """

    index: int
    image: NDArray[np.float32]
    psf: NDArray[np.float32] | None = None
    psf_fwhm_arcsec: float = math.nan
    noise_sigma: float = math.nan
    mag: float = math.nan
    redshift: float = math.nan


@dataclass(frozen=True)
class SourceBank:
    """A bank in memory; N templates of S pixels a side.

    Attributes:
        images: (N, S, S) float32, finite and >= 0. Usable templates sum to 1 within 1e-4; others may be all zero.
        columns: the BANK_COLUMNS by name, each (N,); NaN, or usable, where the file had none.
        pixel_scale_arcsec: pixel side. [arcsec]
        psf_fwhm_arcsec: median resolution of the usable templates; NaN if unknown. [arcsec]
        galaxy_kind: what the galaxies are.
        source: where they came from, with digests.
        created_utc: ISO 8601.
        digest: SHA-256 of what a renderer uses; equal banks have equal digests, whenever they were written.
    """

    images: NDArray[np.float32]
    columns: dict[str, NDArray[np.generic]] = field(repr=False)
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: float
    galaxy_kind: str
    source: str
    created_utc: str
    digest: str

    @property
    def stamp_size_px(self) -> int:
        """Side of a template. [pixel]"""
        return int(self.images.shape[1])

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) templates that may be lensed."""
        return self.columns["usable"].astype(np.bool_)

    @property
    def hlr_arcsec(self) -> NDArray[np.float32]:
        """(N,) half-light radius. [arcsec]"""
        return self.columns["hlr_arcsec"].astype(np.float32)

    @property
    def clumpiness(self) -> NDArray[np.float32]:
        """(N,) sum |image - Gaussian of 1 px| / sum image."""
        return self.columns["clumpiness"].astype(np.float32)

    @property
    def mag(self) -> NDArray[np.float32]:
        """(N,) AB magnitude; NaN if unknown. [mag]"""
        return self.columns["mag"].astype(np.float32)

    @property
    def redshift(self) -> NDArray[np.float32]:
        """(N,) NaN if unknown."""
        return self.columns["redshift"].astype(np.float32)


def bank_digest(images: NDArray[np.float32], columns: dict[str, NDArray[np.generic]], pixel_scale_arcsec: float) -> str:
    """SHA-256 of pixel scale, shape, templates and every column, little-endian."""
    digest = hashlib.sha256(f"{pixel_scale_arcsec:.9g} {images.shape}".encode())
    digest.update(
        np.ascontiguousarray(images, dtype="<f4").tobytes()
        if not images.size
        else np.ascontiguousarray(images, dtype="<f4").data
    )
    for column in BANK_COLUMNS:
        values = np.ascontiguousarray(columns[column.name], dtype=np.dtype(column.dtype).newbyteorder("<"))
        digest.update(column.name.encode() + b"\0" + values.tobytes())
    return digest.hexdigest()
