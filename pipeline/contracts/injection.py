"""Configuration of the injected arcs: mass, source, colours, PSF, noise."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.contracts.priors import Fraction, Positive, Prior, Priors, Section

# Names that a lenstronomy parameter may take its value from.
LENS_QUANTITIES = ("theta_e_arcsec", "lens_q", "lens_e1", "lens_e2", "lens_phi_rad", "shear_gamma1", "shear_gamma2")


class PsfSection(Section):
    """PSF model. A profile's width is solved from psfsize so that N_eff agrees; `measured` reads pixel stamps."""

    profile: Literal["moffat", "gaussian", "measured"] = "moffat"
    moffat_beta: Annotated[float, Field(gt=1.0, le=10.0)] = 3.5
    psfsize_from: Literal["map", "manifest"] = "map"
    stamps: str | None = Field(
        None, description="URL of the FITS file of a measured PSF, with {band} and, if it differs by brick, {brickname}"
    )

    @model_validator(mode="after")
    def _stamps_given(self) -> PsfSection:
        if (self.profile == "measured") != (self.stamps is not None):
            raise ValueError("injection.psf.stamps is needed by, and only by, profile: measured")
        if self.stamps is not None:
            fields = {field for _, field, _, _ in Formatter().parse(self.stamps) if field is not None}
            if "band" not in fields or fields - {"band", "brickname"}:
                raise ValueError(
                    f"injection.psf.stamps must contain {{band}}, may contain {{brickname}}, got {self.stamps!r}"
                )
        return self


class IsothermalLens(Section):
    """Singular isothermal ellipsoid with external shear."""

    kind: Literal["sie"] = "sie"


class PowerLawLens(Section):
    """Elliptical power law with external shear; slope 2 is isothermal."""

    kind: Literal["epl"]
    slope: Prior

    @model_validator(mode="after")
    def _slope_is_physical(self) -> PowerLawLens:
        low, high = self.slope.bounds
        if not 1.0 < low <= high < 3.0:
            raise ValueError(f"slope must lie in (1, 3), got {low}..{high}")
        return self


class LenstronomyLens(Section):
    """Any lens model of lenstronomy, about the lens centre; values are numbers or names of drawn quantities.

    Its deflection, shear included, is sampled four times a pixel and interpolated. Angles and ellipticities in the
    frame of the stamp: e = (1 - q) / (1 + q) along lens_phi_rad.
    """

    kind: Literal["lenstronomy"]
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    parameters: tuple[dict[str, float | str], ...]

    @model_validator(mode="after")
    def _parameters_are_known(self) -> LenstronomyLens:
        if len(self.models) != len(self.parameters):
            raise ValueError(f"{len(self.models)} models need as many parameters, got {len(self.parameters)}")
        for parameters in self.parameters:
            unknown = {value for value in parameters.values() if isinstance(value, str)} - set(LENS_QUANTITIES)
            if unknown:
                raise ValueError(f"unknown quantities {sorted(unknown)}; known: {', '.join(LENS_QUANTITIES)}")
        return self


class SersicSource(Section):
    """One Sersic profile."""

    kind: Literal["sersic"] = "sersic"


class ClumpySource(Section):
    """A Sersic profile with round exponential-like clumps (n = 0.5) that carry a share of its flux in equal parts."""

    kind: Literal["clumpy"]
    count: tuple[Annotated[int, Field(ge=1, le=16)], Annotated[int, Field(ge=1, le=16)]] = (1, 3)
    flux_share: tuple[Fraction, Fraction] = (0.15, 0.45)
    re_over_re: tuple[Positive, Positive] = Field((0.05, 0.2), description="clump Re over the source's Re")
    reach_re: Positive = Field(1.5, description="largest distance of a clump from the centre, in Re")

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> ClumpySource:
        for name in ("count", "flux_share", "re_over_re"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} needs low <= high, got {low}, {high}")
        return self


class BulgeDiscSource(Section):
    """A disc (the drawn Re and axis ratio, n = 1) with a bulge at its centre, of its own colour.

    src_gr and src_rz stay the colours of the whole; bulge_gr and bulge_rz are bulge minus disc.
    """

    kind: Literal["bulge_disc"]
    bulge_share: Prior = Field(description="share of the r flux in the bulge, in [0, 1]")
    bulge_re_over_re: Prior = Field(description="bulge Re over disc Re, > 0")
    bulge_n: Prior
    bulge_q: Prior
    bulge_gr: float = 0.0
    bulge_rz: float = 0.0

    @model_validator(mode="after")
    def _ranges_are_physical(self) -> BulgeDiscSource:
        limits = {
            "bulge_share": (0.0, 1.0),
            "bulge_re_over_re": (1e-3, 10.0),
            "bulge_n": (0.3, 8.0),
            "bulge_q": (0.05, 1.0),
        }
        for name, (lowest, highest) in limits.items():
            low, high = getattr(self, name).bounds
            if low < lowest or high > highest:
                raise ValueError(f"{name} must lie in [{lowest}, {highest}], got {low}..{high}")
        return self


class BankSource(Section):
    """Real galaxies of a bank (docs/source-banks.md), turned and mirrored at random, at their own angular size.

    src_re_arcsec, src_n and src_q of the priors are not used; the cube records the template and its half-light radius.
    In mode frozen the EMR system's hash of task_id and `emr_salt` names the template, which is not turned.
    """

    kind: Literal["bank"]
    url: str = Field(description="HDF5 bank, local or s3://")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="digest that `dhs bank inspect` prints; another bank is refused"
    )
    size_factor: Annotated[float, Field(gt=0.0, le=10.0)] = Field(1.0, description="angular size over that in the bank")
    emr_salt: str | None = Field(None, description="mode frozen alone, and needed there: EMR's --cosmos-salt, often ''")


class ColourTable(Section):
    """Colours from redshift: linear interpolation in a table; src_gr and src_rz are then offsets from it."""

    src_redshift: Prior
    redshift: Annotated[tuple[float, ...], Field(min_length=2)]
    gr: tuple[float, ...]
    rz: tuple[float, ...]

    @model_validator(mode="after")
    def _table_is_complete(self) -> ColourTable:
        if not len(self.redshift) == len(self.gr) == len(self.rz):
            raise ValueError("colours need equally many redshift, gr and rz")
        if list(self.redshift) != sorted(set(self.redshift)):
            raise ValueError("colours need increasing redshifts")
        low, high = self.src_redshift.bounds
        if low < self.redshift[0] or high > self.redshift[-1]:
            raise ValueError(f"src_redshift {low}..{high} leaves the table {self.redshift[0]}..{self.redshift[-1]}")
        return self


class ArcNoiseSection(Section):
    """Shot noise of the arc, variance arc / (sky * invvar); `sky_nmgy` is the sky level per pixel of each band."""

    sky_nmgy: dict[Literal["g", "r", "i", "z"], Positive] = Field(
        default_factory=dict, description="per band; a band that is not named takes the default of kernels.arc_noise"
    )


class CoreSuppression(Section):
    """Ablation, not physics: the arc, as the PSF left it, is faded out towards the lens before it is added.

    It is untouched beyond the core radius, zero within (1 - taper) of it, and multiplied by a squared sine between,
    alike in every band. With several radii the smallest applies.
    """

    radius_px: Positive | None = None
    radius_arcsec: Positive | None = None
    radius_theta_e: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=None, description="in Einstein radii of the draw, below 1 so that the ring itself stays"
    )
    radius_psf_fwhm: Positive | None = Field(default=None, description="in psfsize of sampling.band")
    taper: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.5, description="share of the radius that the fade takes"
    )

    @model_validator(mode="after")
    def _has_a_radius(self) -> CoreSuppression:
        if all(
            radius is None for radius in (self.radius_px, self.radius_arcsec, self.radius_theta_e, self.radius_psf_fwhm)
        ):
            raise ValueError(
                "injection.core_suppression needs one of radius_px, radius_arcsec, radius_theta_e, radius_psf_fwhm"
            )
        return self


Lens = Annotated[IsothermalLens | PowerLawLens | LenstronomyLens, Field(discriminator="kind")]
Source = Annotated[SersicSource | ClumpySource | BulgeDiscSource | BankSource, Field(discriminator="kind")]


class InjectionSection(Section):
    """How arcs are made. `frozen` renders EMR rows as they stand; `sample` draws from the priors."""

    mode: Literal["sample", "frozen"]
    extinction: bool = Field(description="dim the source by the row's E(B-V)")
    accuracy: Annotated[float, Field(ge=1e-4, le=0.1)] = Field(5e-3, description="largest pixel error over the peak")
    psf: PsfSection = PsfSection(stamps=None)
    lens: Lens = IsothermalLens()
    source: Source = SersicSource()
    colours: ColourTable | None = None
    arc_noise: ArcNoiseSection | None = Field(None, description="null adds none")
    core_suppression: CoreSuppression | None = Field(None, description="null leaves arcs as physics makes them")
    priors: Priors | None = None
    emr_compat: bool = Field(
        False,
        description="frozen only: make the stamps of rows that quality keeps out too, as EMR did; they stay unused",
    )

    @model_validator(mode="after")
    def _mode_has_its_sections(self) -> InjectionSection:
        if self.mode == "frozen":
            if self.lens.kind != "sie" or self.source.kind not in ("sersic", "bank") or self.colours is not None:
                raise ValueError("injection.mode: frozen takes lens, source and colours from the rows")
        elif self.priors is None:
            raise ValueError("injection.mode: sample needs injection.priors")
        if self.source.kind == "bank":
            frozen = self.mode == "frozen"
            if frozen != (self.source.emr_salt is not None) or (frozen and self.source.size_factor != 1.0):
                raise ValueError(
                    "injection.source: a bank needs emr_salt, and size_factor 1, in mode: frozen, and has no emr_salt "
                    "in mode: sample"
                )
        if self.emr_compat and (self.mode != "frozen" or self.extinction or self.arc_noise is not None):
            raise ValueError("injection.emr_compat needs mode: frozen, extinction: false and no arc_noise")
        return self
