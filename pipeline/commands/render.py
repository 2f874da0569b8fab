"""`dhs render`: draw one lens system from numbers, as the pipeline would render it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from pipeline.contracts.errors import ConfigError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.render import DEFAULT_ACCURACY
from pipeline.report.arc_figure import draw_system
from pipeline.report.charts import as_png
from pipeline.report.markup import number_text
from pipeline.stages.arc_scene import SCENE_BANDS, ArcScene, Observation, make_scene, sky_noise_nmgy
from pipeline.stages.lens_system import LensSystem
from pipeline.storage.arc_files import write_arc_fits, write_arc_npz
from pipeline.storage.brick_writer import HeaderCard
from pipeline.storage.locations import Location

Noise = NDArray[np.float32] | None

# Header keyword and comment of each number of a lens system and of an observation.
_SYSTEM_CARDS = {
    "theta_e_arcsec": ("THETAE", "Einstein radius, intermediate axis [arcsec]"),
    "lens_q": ("LENSQ", "axis ratio of the convergence"),
    "lens_phi_rad": ("LENSPHI", "major axis of the lens, +x to +y [rad]"),
    "lens_slope": ("SLOPE", "density slope, 2 is isothermal"),
    "shear_gamma1": ("GAMMA1", "external shear along +x"),
    "shear_gamma2": ("GAMMA2", "external shear along the diagonal"),
    "lens_x_arcsec": ("LENSX", "lens centre from the stamp centre [arcsec]"),
    "lens_y_arcsec": ("LENSY", "lens centre from the stamp centre [arcsec]"),
    "src_x_arcsec": ("SRCX", "source from the lens [arcsec]"),
    "src_y_arcsec": ("SRCY", "source from the lens [arcsec]"),
    "src_re_arcsec": ("SRCRE", "half-light radius, major axis [arcsec]"),
    "src_n": ("SRCN", "Sersic index"),
    "src_q": ("SRCQ", "axis ratio of the source"),
    "src_phi_rad": ("SRCPHI", "major axis of the source, +x to +y [rad]"),
    "mag_r": ("MAGR", "unlensed, before extinction [mag]"),
    "gr": ("GR", "colour g - r [mag]"),
    "rz": ("RZ", "colour r - z [mag]"),
}
_SNR_KEYWORDS = {
    "arc_snr": "SNR",
    "arc_snr_sum": "SNRSUM",
    "arc_snr_matched": "SNRMATCH",
    "arc_snr_aperture": "SNRAPER",
    "arc_snr_annulus": "SNRANNUL",
    "arc_snr_region": "SNRREGIO",
    "arc_snr_cumulative": "SNRCUMUL",
}


def render_command(
    output: Annotated[
        list[str], typer.Option("--output", "-o", metavar="FILE", help=".png, .fits or .npz; may be given repeatedly")
    ],
    theta_e_arcsec: Annotated[float, typer.Option(help="Einstein radius, intermediate axis")] = 1.2,
    q: Annotated[float, typer.Option(help="axis ratio of the lens, 0.05 to 1")] = 0.7,
    phi_deg: Annotated[float, typer.Option(help="major axis of the lens, from +x (West) to +y (North)")] = 30.0,
    gamma1: Annotated[float, typer.Option(help="external shear along +x")] = 0.0,
    gamma2: Annotated[float, typer.Option(help="external shear along the diagonal")] = 0.0,
    slope: Annotated[float, typer.Option(help="density slope of the lens, 1 to 3; 2 is isothermal")] = 2.0,
    lens_x_arcsec: Annotated[float, typer.Option(help="lens centre from the stamp centre")] = 0.0,
    lens_y_arcsec: Annotated[float, typer.Option(help="lens centre from the stamp centre")] = 0.0,
    src_x_arcsec: Annotated[float, typer.Option(help="source from the lens")] = 0.2,
    src_y_arcsec: Annotated[float, typer.Option(help="source from the lens")] = 0.1,
    src_re_arcsec: Annotated[float, typer.Option(help="half-light radius along the major axis")] = 0.2,
    src_n: Annotated[float, typer.Option(help="Sersic index, 0.3 to 8")] = 1.0,
    src_q: Annotated[float, typer.Option(help="axis ratio of the source")] = 0.7,
    src_phi_deg: Annotated[float, typer.Option(help="major axis of the source, from +x to +y")] = 0.0,
    mag_r: Annotated[float, typer.Option(help="unlensed r magnitude, before extinction")] = 22.5,
    gr: Annotated[float, typer.Option(help="colour g - r [mag]")] = 0.3,
    rz: Annotated[float, typer.Option(help="colour r - z [mag]")] = 0.2,
    psfsize_arcsec: Annotated[
        str, typer.Option(metavar="G,R,Z", help="psfsize of g, r, z: Gaussian FWHM of equal N_eff")
    ] = "1.3,1.2,1.1",
    depth_mag: Annotated[str, typer.Option(metavar="G,R,Z", help="5-sigma point-source depth")] = "24.7,23.9,23.0",
    ebv_mag: Annotated[float, typer.Option(help="E(B-V) that dims the source")] = 0.0,
    size_px: Annotated[int, typer.Option(help="side of the stamps, even, 16 to 256")] = 64,
    accuracy: Annotated[float, typer.Option(help="largest pixel error over the peak")] = DEFAULT_ACCURACY,
    psf_profile: Annotated[str, typer.Option(help="moffat or gaussian")] = "moffat",
    moffat_beta: Annotated[float, typer.Option(help="of the Moffat")] = 3.5,
    noise: Annotated[bool, typer.Option("--noise", help="add sky noise of the depth; needs --seed")] = False,
    seed: Annotated[int | None, typer.Option(help="adds sky noise, which follows from it")] = None,
) -> None:
    """Draw one lens system.

    Reads nothing. Writes FILE: .png a figure of both planes, stamps, colour and SNR; .fits one image extension a band;
    .npz all arrays and numbers.
    """
    writers = [_writer(name) for name in output]
    if noise and seed is None:
        raise ConfigError("--noise: expected --seed N beside it, so that the same command gives the same noise")
    system = LensSystem(
        theta_e_arcsec=theta_e_arcsec,
        lens_q=q,
        lens_phi_rad=math.radians(phi_deg),
        lens_slope=slope,
        shear_gamma1=gamma1,
        shear_gamma2=gamma2,
        lens_x_arcsec=lens_x_arcsec,
        lens_y_arcsec=lens_y_arcsec,
        src_x_arcsec=src_x_arcsec,
        src_y_arcsec=src_y_arcsec,
        src_re_arcsec=src_re_arcsec,
        src_n=src_n,
        src_q=src_q,
        src_phi_rad=math.radians(src_phi_deg),
        mag_r=mag_r,
        gr=gr,
        rz=rz,
    )
    observation = Observation(
        psfsize_arcsec=_per_band("--psfsize-arcsec", psfsize_arcsec),
        depth_mag=_per_band("--depth-mag", depth_mag),
        ebv_mag=ebv_mag,
        size_px=size_px,
        accuracy=accuracy,
        psf_profile=psf_profile,
        moffat_beta=moffat_beta,
    )
    sky = None if seed is None else sky_noise_nmgy(observation, seed)
    scene = make_scene(system, observation)
    for name, write in zip(output, writers, strict=True):
        location = Location(name)
        write(location, scene, sky, seed)
        typer.echo(location.url)
    matched = ", ".join(
        f"{band} {number_text(float(value))}"
        for band, value in zip(SCENE_BANDS, scene.snr["arc_snr_matched"], strict=True)
    )
    typer.echo(f"magnification {number_text(scene.magnification)}, arc_snr_matched {matched}")


def _writer(name: str) -> Callable[[Location, ArcScene, Noise, int | None], None]:
    suffix = "." + name.rpartition(".")[2].lower()
    if suffix not in _WRITERS:
        raise ConfigError(f"--output {name!r}: expected a name that ends in {', '.join(_WRITERS)}")
    return _WRITERS[suffix]


def _per_band(option: str, text: str) -> tuple[float, ...]:
    parts = text.split(",")
    try:
        values = tuple(float(part) for part in parts)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: expected numbers of {', '.join(SCENE_BANDS)} with commas") from error
    if len(values) != len(SCENE_BANDS):
        raise ConfigError(f"{option} {text!r}: expected {len(SCENE_BANDS)} numbers, of {', '.join(SCENE_BANDS)}")
    return values


def _write_png(location: Location, scene: ArcScene, sky: Noise, _seed: int | None) -> None:
    location.write_bytes(as_png(draw_system(scene, sky)))


def _write_fits(location: Location, scene: ArcScene, sky: Noise, seed: int | None) -> None:
    observation = scene.observation
    cards: list[HeaderCard] = [
        (keyword, float(getattr(scene.system, name)), comment) for name, (keyword, comment) in _SYSTEM_CARDS.items()
    ]
    cards += [
        ("EBV", float(observation.ebv_mag), "E(B-V) that dims the source [mag]"),
        ("PSFPROF", observation.psf_profile, "profile of the PSF"),
        ("PSFBETA", float(observation.moffat_beta), "of the Moffat"),
        ("ACCURACY", float(observation.accuracy), "largest pixel error over the peak"),
        ("PIXSCALE", PIXEL_SCALE_ARCSEC, "side of a pixel [arcsec]"),
        ("MAGNIF", float(scene.magnification), "flux of all images over flux of the source"),
    ]
    if seed is not None:
        cards.append(("SEED", seed, "of the sky noise"))
    band_cards: list[list[HeaderCard]] = [
        [
            ("PSFSIZE", float(observation.psfsize_arcsec[index]), "Gaussian FWHM of equal N_eff [arcsec]"),
            ("PSFFWHM", float(scene.psf_fwhm_arcsec[index]), "half-maximum FWHM of the PSF [arcsec]"),
            ("DEPTH", float(observation.depth_mag[index]), "5-sigma point-source depth [mag]"),
            ("SKYSIG", float(observation.sigma_nmgy[index]), "noise per pixel [nanomaggy]"),
            ("SRCFLUX", float(scene.flux_nmgy[index]), "unlensed, extinction applied [nanomaggy]"),
            *((_SNR_KEYWORDS[metric], float(values[index]), metric) for metric, values in scene.snr.items()),
        ]
        for index in range(len(SCENE_BANDS))
    ]
    images = {"arc": scene.arcs_nmgy} if sky is None else {"arc": scene.arcs_nmgy, "noisy": scene.arcs_nmgy + sky}
    write_arc_fits(location, SCENE_BANDS, images, PIXEL_SCALE_ARCSEC, cards, band_cards)


def _write_npz(location: Location, scene: ArcScene, sky: Noise, seed: int | None) -> None:
    observation, curves = scene.observation, scene.curves
    arrays: dict[str, NDArray[np.generic]] = {
        "bands": np.array(SCENE_BANDS),
        "arcs_nmgy": scene.arcs_nmgy,
        "pixel_scale_arcsec": np.array(PIXEL_SCALE_ARCSEC),
        **{name: np.array(float(value)) for name, value in vars(scene.system).items()},
        "psfsize_arcsec": np.array(observation.psfsize_arcsec, np.float64),
        "psf_fwhm_arcsec": scene.psf_fwhm_arcsec,
        "psf_profile": np.array(observation.psf_profile),
        "moffat_beta": np.array(float(observation.moffat_beta)),
        "depth_mag": np.array(observation.depth_mag, np.float64),
        "ebv_mag": np.array(float(observation.ebv_mag)),
        "accuracy": np.array(float(observation.accuracy)),
        "sigma_nmgy": observation.sigma_nmgy,
        "src_flux_nmgy": scene.flux_nmgy,
        "magnification": np.array(scene.magnification),
        **scene.snr,
        **{f"{name}_arcsec": curve for name, curve in curves._asdict().items()},
        "image_plane": scene.image_plane.brightness,
        "image_plane_axis_arcsec": scene.image_plane.axis_arcsec,
        "source_plane": scene.source_plane.brightness,
        "source_plane_axis_arcsec": scene.source_plane.axis_arcsec,
    }
    if sky is not None:
        arrays |= {"sky_noise_nmgy": sky, "seed": np.array(seed)}
    write_arc_npz(location, arrays)


_WRITERS = {".png": _write_png, ".fits": _write_fits, ".npz": _write_npz}
