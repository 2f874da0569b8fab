"""Converged images of lensed, PSF-convolved arcs, against which renderers are judged.

    OMP_NUM_THREADS=1 python tests/data/reference_arcs.py -o tests/data/reference_arcs.npz

Definition
* Draws: a Latin hypercube over the ranges in `sample_draws`. Of every four sources, two lie within 0.45 theta_e of
  the lens, one on the tangential caustic (give or take 0.2 Re), one within 0.03 theta_e of the lens.
* Stamp: 64x64 px of 0.262 arcsec; pixel (row i, column j) is centred at ((j - 32), (i - 32)) * 0.262 arcsec.
  Light beyond the footprints of these pixels does not exist.
* Light: lenstronomy's SIE and SHEAR (centred on the lens) and its SERSIC_ELLIPSE, in float64. Source radii are
  along the major axis and b_n is exact, as in `pipeline.kernels.profiles`, so R_sersic = sqrt(q) Re (b' / b)**n
  with lenstronomy's b' = 1.9992 n - 0.3271. Its default core of 1e-4 arcsec is removed. Unlensed total flux is 1.
* Cells: 16x16 per pixel. A cell's flux is the sum over 3x3 sub-samples with weights (3, 2, 3) / 8, the midpoint
  rule with its second-order error removed. A cell that may err is divided into 3x3, and so on, until the error
  estimates of what is left undivided sum to at most 1e-5 on each level; near the cusp of the source the
  estimate is all the light the cell could hold. Cells that hold at most 1e-9 keep one sample.
* PSF: round Moffat, beta 3.5, half-maximum FWHM from `psf_fwhm_arcsec`; it contains the pixel response. The
  image at a pixel centre is sum_c flux_c P(x - x_c) over cell centres x_c; P is cut at +-32 px in x and in y, and
  its samples at all cell offsets sum to 256.

Columns of the result: the parameters by name (float64), `placement` of the source, `unit_flux_in_stamp` before
the PSF, `peak` of the image, `image` as uint16, round(image / peak * 65000). `cell_centre_error` is the largest
pixel of |image - image in which each cell's light keeps its first and second moments| / peak, so what placing
light at cell centres costs; `--moments` writes those other images instead.

`--check N` renders the N draws that needed most samples anew with ten times the tolerance and prints the
differences, at most 4e-7 of the peak for N = 20; the hardest draw needs 6 GB of memory. `--checkpoint` is a file of
this version's results to resume from.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from numpy.typing import NDArray
from scipy import fft

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.profiles import sersic_bn, sersic_flux_factor
from pipeline.kernels.psf import psf_fwhm_arcsec

Array = NDArray[np.float64]
Draw = dict[str, float]

DRAWS = 512
SEED = 20260301
SIZE = 64
FINE = 16
CELLS = SIZE * FINE
CELL_ARCSEC = PIXEL_SCALE_ARCSEC / FINE
MOFFAT_BETA = 3.5
TOLERANCE = 1e-5
NEGLIGIBLE_FLUX = 1e-9
MAX_LEVEL = 16
IMAGE_SCALE = 65000
PLACEMENTS = ("disc", "disc", "caustic", "centre")
CHUNK_CELLS = 4096
CHECKPOINT_DRAWS = 32
# Nodes and weights of the 3x3 sub-samples of a cell of side 1.
_NODE = np.array([-1.0, 0.0, 1.0]) / 3.0
_WEIGHT = np.array([3.0, 2.0, 3.0]) / 8.0
NODE_X, NODE_Y = np.tile(_NODE, 3), np.repeat(_NODE, 3)
NODE_WEIGHT = np.outer(_WEIGHT, _WEIGHT).ravel()


class Render(NamedTuple):
    """One draw: flux in the stamp, error estimate of the fluxes, samples taken, images by the two light placements."""

    flux: float
    error: float
    samples: int
    image: Array
    moment_image: Array


class Scene:
    """lenstronomy's models of one draw, and source offsets in units of Re, circularised."""

    def __init__(self, draw: Draw) -> None:
        self.n, q, re, phi = draw["src_n"], draw["src_q"], draw["src_re_arcsec"], draw["src_phi_rad"]
        self.lens_x, self.lens_y = draw["lens_x_arcsec"], draw["lens_y_arcsec"]
        self.src_x, self.src_y = self.lens_x + draw["src_x_arcsec"], self.lens_y + draw["src_y_arcsec"]
        self.b, lenstronomy_b = sersic_bn(self.n), 1.9992 * self.n - 0.3271
        radius_arcsec = re * math.sqrt(q) * (lenstronomy_b / self.b) ** self.n
        amplitude = 1.0 / (sersic_flux_factor(self.n, lenstronomy_b) * radius_arcsec**2)
        sie = {"theta_E": draw["theta_e_arcsec"], "center_x": self.lens_x, "center_y": self.lens_y}
        shear = {"gamma1": draw["gamma1"], "gamma2": draw["gamma2"], "ra_0": self.lens_x, "dec_0": self.lens_y}
        sersic = {"amp": amplitude, "R_sersic": radius_arcsec, "n_sersic": self.n}
        sersic |= {"center_x": self.src_x, "center_y": self.src_y}
        self.lens_arguments = [sie | _ellipticity(draw["lens_q"], draw["lens_phi_rad"]), shear]
        self.source_arguments = [sersic | _ellipticity(q, phi)]
        self.lens = LensModel(["SIE", "SHEAR"])
        self.source = LightModel(["SERSIC_ELLIPSE"], profile_kwargs_list=[{"smoothing": 1e-13}])
        self.to_u = (math.cos(phi) / re, math.sin(phi) / re)
        self.to_v = (-math.sin(phi) / (q * re), math.cos(phi) / (q * re))
        self.centre_brightness = math.exp(self.b) / (sersic_flux_factor(self.n, self.b) * re**2 * q)

    def sample(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Brightness [1/arcsec**2] and source offsets u, v [Re] at flat image positions [arcsec]."""
        beta_x, beta_y = self.lens.ray_shooting(x, y, self.lens_arguments)
        brightness = self.source.surface_brightness(beta_x, beta_y, self.source_arguments)
        dx, dy = beta_x - self.src_x, beta_y - self.src_y
        return brightness, self.to_u[0] * dx + self.to_u[1] * dy, self.to_v[0] * dx + self.to_v[1] * dy

    def brightness_at(self, radius: Array) -> Array:
        """Our Sersic profile at elliptical radii [Re]; bounds and checks only. [1/arcsec**2]"""
        return np.asarray(self.centre_brightness * np.exp(-self.b * radius ** (1.0 / self.n)))


def main() -> None:
    """Render the first `--count` draws and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=DRAWS, choices=range(1, DRAWS + 1), metavar="DRAWS")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, help="kept up to date every 32 draws, and resumed from")
    parser.add_argument("--check", type=int, default=0, help="draws to render with a finer quadrature")
    parser.add_argument("--moments", action="store_true", help="keep the moments of each cell's light")
    arguments = parser.parse_args()
    parameters, placement = sample_draws()
    draws = [{name: float(column[k]) for name, column in parameters.items()} for k in range(arguments.count)]
    for draw in draws:
        check_profile(draw)
    results = _load(arguments.checkpoint)[: arguments.count]
    start, first = time.monotonic(), len(results)
    with Pool(arguments.processes) as pool:
        for render in pool.imap(render_draw, draws[first:]):
            results.append(render)
            if len(results) % CHECKPOINT_DRAWS == 0 or len(results) == arguments.count:
                _save(arguments.checkpoint, results)
                _tell(f"{len(results)} draws, {(time.monotonic() - start) / (len(results) - first):.2f} s per draw")
    _tell(f"error estimates of the fluxes: at most {max(r.error for r in results):.1e}")

    images = np.array([r.moment_image if arguments.moments else r.image for r in results])
    peak = images.max(axis=(1, 2))
    difference = np.array([np.abs(r.image - r.moment_image).max() for r in results]) / peak
    columns: dict[str, Any] = {name: column[: arguments.count] for name, column in parameters.items()}
    columns |= {
        "placement": placement[: arguments.count],
        "unit_flux_in_stamp": np.array([r.flux for r in results]),
        "peak": peak,
        "image": np.rint(np.clip(images / peak[:, None, None], 0.0, 1.0) * IMAGE_SCALE).astype(np.uint16),
        "cell_centre_error": difference,
    }
    np.savez_compressed(arguments.output, **columns)
    _tell(f"light at cell centres: median {np.median(difference):.1e}, max {difference.max():.1e} of the peak")
    hardest = np.argsort([-r.samples for r in results])[: arguments.check]
    with Pool(arguments.processes) as pool:
        for k, coarse in zip(hardest, pool.imap(_render_coarser, [draws[k] for k in hardest]), strict=True):
            pixel = np.abs(coarse.image - results[k].image).max() / results[k].image.max()
            _tell(f"draw {k}: pixel/peak {pixel:.1e}, samples {results[k].samples:.1e} and {coarse.samples:.1e}")


def sample_draws() -> tuple[dict[str, Array], NDArray[np.str_]]:
    """Parameters of all draws, one Latin hypercube with the source placements and index ranges interleaved."""
    generator = np.random.default_rng(SEED)

    def uniform(low: float, high: float, count: int = DRAWS) -> Array:
        return low + (high - low) * (generator.permutation(count) + generator.random(count)) / count

    placement = np.array(PLACEMENTS)[np.arange(DRAWS) % len(PLACEMENTS)]
    wide = np.arange(DRAWS) // len(PLACEMENTS) % 2 == 0
    drawn = {"theta_e_arcsec": uniform(0.3, 3.0), "lens_q": uniform(0.3, 1.0), "lens_phi_rad": uniform(0.0, math.pi)}
    shear, shear_rad = uniform(0.0, 0.1), uniform(0.0, math.pi)
    drawn["gamma1"], drawn["gamma2"] = shear * np.cos(2.0 * shear_rad), shear * np.sin(2.0 * shear_rad)
    drawn |= {"lens_x_arcsec": uniform(-0.3, 0.3), "lens_y_arcsec": uniform(-0.3, 0.3)}
    re_arcsec = np.exp(uniform(math.log(0.05), math.log(0.6)))
    azimuth, area = uniform(0.0, 2.0 * math.pi), uniform(0.0, 1.0)
    jitter = 0.2 * re_arcsec * generator.standard_normal((2, DRAWS))
    offset = drawn["theta_e_arcsec"] * np.where(placement == "centre", 0.03, 0.45) * np.sqrt(area)
    src_x, src_y = offset * np.cos(azimuth), offset * np.sin(azimuth)
    for k in np.flatnonzero(placement == "caustic"):
        point = _caustic_point({name: float(column[k]) for name, column in drawn.items()}, azimuth[k])
        src_x[k], src_y[k] = point[0] + jitter[0, k], point[1] + jitter[1, k]
    src_n = np.empty(DRAWS)
    src_n[wide], src_n[~wide] = uniform(0.5, 6.0, DRAWS // 2), uniform(0.5, 4.0, DRAWS // 2)
    drawn |= {"src_x_arcsec": src_x, "src_y_arcsec": src_y, "src_re_arcsec": re_arcsec, "src_n": src_n}
    drawn |= {"src_q": uniform(0.3, 1.0), "src_phi_rad": uniform(0.0, math.pi), "psfsize_arcsec": uniform(0.9, 1.6)}
    return drawn, placement


def _ellipticity(q: float, phi_rad: float) -> dict[str, float]:
    e = (1.0 - q) / (1.0 + q)
    return {"e1": e * math.cos(2.0 * phi_rad), "e2": e * math.sin(2.0 * phi_rad)}


def _caustic_point(lens: Draw, azimuth_rad: float) -> tuple[float, float]:
    """Source position, relative to the lens, of the tangential critical point in a direction.

    With n the radial unit vector, det A = 1 - g**2 - 2 kappa n'(1 - shear) n, and kappa = k / r along a ray.
    """
    source = dict.fromkeys(("src_x_arcsec", "src_y_arcsec", "src_phi_rad"), 0.0)
    scene = Scene(lens | source | dict.fromkeys(("src_re_arcsec", "src_n", "src_q"), 1.0))
    angle = azimuth_rad - lens["lens_phi_rad"]
    two_k = lens["theta_e_arcsec"] * math.sqrt(lens["lens_q"])
    two_k /= math.hypot(lens["lens_q"] * math.cos(angle), math.sin(angle))
    g1, g2 = lens["gamma1"], lens["gamma2"]
    stretch = 1.0 - g1 * math.cos(2.0 * azimuth_rad) - g2 * math.sin(2.0 * azimuth_rad)
    r = two_k * stretch / (1.0 - g1 * g1 - g2 * g2)
    x, y = scene.lens_x + r * math.cos(azimuth_rad), scene.lens_y + r * math.sin(azimuth_rad)
    beta_x, beta_y = scene.lens.ray_shooting(np.array([x]), np.array([y]), scene.lens_arguments)
    return float(beta_x[0]) - scene.lens_x, float(beta_y[0]) - scene.lens_y


def check_profile(draw: Draw) -> None:
    """Compare lenstronomy's brightness with our Sersic profile; raise RuntimeError beyond a relative 1e-10."""
    scene = Scene(draw)
    x, y = np.random.default_rng(0).uniform(-8.0, 8.0, (2, 1000))
    brightness, u, v = scene.sample(x, y)
    expected = scene.brightness_at(np.hypot(u, v))
    seen = expected > 1e-12 * scene.centre_brightness
    error = float(np.abs(brightness[seen] / expected[seen] - 1.0).max())
    if not error < 1e-10:
        raise RuntimeError(f"check_profile: expected our Sersic profile to 1e-10, got {error:.1e} for {draw}")


def render_draw(draw: Draw, tolerance: float = TOLERANCE) -> Render:
    """Integrate and convolve one draw."""
    moments, error, samples = cell_moments(Scene(draw), tolerance)
    image, moment_image = convolve_cells(moments, draw["psfsize_arcsec"])
    return Render(float(moments[0].sum()), error, samples, image, moment_image)


def _render_coarser(draw: Draw) -> Render:
    return render_draw(draw, 10.0 * TOLERANCE)


def cell_moments(scene: Scene, tolerance: float) -> tuple[Array, float, int]:
    """Flux and moments x, y, xx, xy, yy about the centre of all cells, (6, rows, columns); error left; samples."""
    axis = (np.arange(CELLS, dtype=np.float64) + 0.5) * CELL_ARCSEC - (SIZE // 2 + 0.5) * PIXEL_SCALE_ARCSEC
    brightness, u, v = (np.empty((CELLS, CELLS)) for _ in range(3))
    rows = CHUNK_CELLS * 9 // CELLS
    for i in range(0, CELLS, rows):
        grid_y, grid_x = np.meshgrid(axis[i : i + rows], axis, indexing="ij")
        sampled = scene.sample(grid_x.ravel(), grid_y.ravel())
        brightness[i : i + rows], u[i : i + rows], v[i : i + rows] = (a.reshape(-1, CELLS) for a in sampled)
    # Steps to the neighbours bound the source radius within a cell, twice over.
    reach = np.zeros((CELLS, CELLS))
    for one, other in (((slice(1, None),), (slice(None, -1),)), ((..., slice(1, None)), (..., slice(None, -1)))):
        step, largest = np.hypot(u[one] - u[other], v[one] - v[other]), np.zeros((CELLS, CELLS))
        largest[one] = step
        np.maximum(largest[other], step, out=largest[other])
        reach += largest
    area = CELL_ARCSEC**2
    matters = area * scene.brightness_at(np.maximum(np.hypot(u, v) - reach, 0.0)) > NEGLIGIBLE_FLUX

    moments = np.zeros((6, CELLS * CELLS))
    moments[0] = np.where(matters, 0.0, area * brightness).ravel()
    moments[3] = moments[5] = moments[0] * area / 12.0
    cell = np.flatnonzero(matters)
    x, y, side = axis[cell % CELLS], axis[cell // CELLS], CELL_ARCSEC
    error_sum, samples = 0.0, CELLS * CELLS
    for _ in range(MAX_LEVEL):
        found, error = np.empty((6, cell.size)), np.empty(cell.size)
        for k in range(0, cell.size, CHUNK_CELLS):
            part = slice(k, k + CHUNK_CELLS)
            from_x, from_y = x[part] - axis[cell[part] % CELLS], y[part] - axis[cell[part] // CELLS]
            found[:, part], error[part] = _divide(scene, x[part], y[part], side, from_x, from_y)
        samples += 9 * cell.size
        order = np.argsort(error)
        sums = np.cumsum(error[order])
        kept = int(np.searchsorted(sums, tolerance, side="right"))
        done, left = order[:kept], order[kept:]
        for k, values in enumerate(found):
            moments[k] += np.bincount(cell[done], weights=values[done], minlength=CELLS * CELLS)
        error_sum += float(sums[kept - 1]) if kept else 0.0
        if left.size == 0:
            return moments.reshape(6, CELLS, CELLS), error_sum, samples
        cell = np.repeat(cell[left], 9)
        x, y = (x[left, None] + side * NODE_X).ravel(), (y[left, None] + side * NODE_Y).ravel()
        side /= 3.0
    raise RuntimeError(f"cell_moments: expected convergence by level {MAX_LEVEL}, got {cell.size} cells left")


def _divide(scene: Scene, x: Array, y: Array, side: float, from_x: Array, from_y: Array) -> tuple[Array, Array]:
    """Moments (6, n) of squares about their cell's centre, `from` which their own is displaced, and error estimates."""
    node_x, node_y = side * NODE_X, side * NODE_Y
    sampled = scene.sample((x[:, None] + node_x).ravel(), (y[:, None] + node_y).ravel())
    brightness, u, v = (a.reshape(-1, 9) for a in sampled)
    area = side * side
    flux = brightness * (NODE_WEIGHT * area)
    dx, dy = from_x[:, None] + node_x, from_y[:, None] + node_y
    fx, fy = flux * dx, flux * dy
    moments = np.array([a.sum(axis=1) for a in (flux, fx, fy, fx * dx, fx * dy, fy * dy)])
    error = np.abs(moments[0] - brightness.mean(axis=1) * area)
    # The outer samples lie 2/3 of the way to the corners.
    reach = 1.5 * np.sqrt(((u - u[:, 4:5]) ** 2 + (v - v[:, 4:5]) ** 2).max(axis=1))
    radius = np.hypot(u[:, 4], v[:, 4])
    cusp = np.flatnonzero(radius < 2.0 * reach)
    bound = area * scene.brightness_at(np.maximum(radius[cusp] - reach[cusp], 0.0))
    error[cusp] = np.maximum(error[cusp], bound)
    lens = np.flatnonzero((np.abs(x - scene.lens_x) < side) & (np.abs(y - scene.lens_y) < side))
    error[lens] = np.maximum(error[lens], area * np.ptp(brightness[lens], axis=1))
    return moments, error


def convolve_cells(moments: Array, psfsize_arcsec: float) -> tuple[Array, Array]:
    """Images (64, 64) with light at the cell centres, and with the moments of each cell's light kept."""
    fwhm_arcsec = float(psf_fwhm_arcsec(psfsize_arcsec, "moffat", MOFFAT_BETA))
    alpha_arcsec = fwhm_arcsec / (2.0 * math.sqrt(2.0 ** (1.0 / MOFFAT_BETA) - 1.0))
    offset2 = ((np.arange(-CELLS // 2, CELLS // 2) + 0.5) * (CELL_ARCSEC / alpha_arcsec)) ** 2
    kernel = (1.0 + offset2[:, None] + offset2[None, :]) ** -MOFFAT_BETA
    kernel *= FINE**2 / kernel.sum()
    shape = (2 * CELLS, 2 * CELLS)
    ky = 2.0 * math.pi * fft.fftfreq(shape[0], CELL_ARCSEC)[:, None]
    kx = 2.0 * math.pi * fft.rfftfreq(shape[1], CELL_ARCSEC)[None, :]
    transfer = fft.rfft2(kernel, shape)
    # P(x - d) = P - d P' + d**2 P'' / 2, with derivatives taken as powers of i k.
    factors = (1.0, -1j * kx, -1j * ky, -0.5 * kx * kx, -kx * ky, -0.5 * ky * ky)
    terms = [factor * fft.rfft2(moment, shape) for factor, moment in zip(factors, moments, strict=True)]
    # Entry t of the full convolution lies t - CELLS / 2 + 1 cells from the stamp's edge; pixel centres are corners.
    first = CELLS // 2 + FINE // 2 - 1
    centres = slice(first, first + CELLS, FINE)
    images = [fft.irfft2(transfer * term, shape)[centres, centres].copy() for term in (terms[0], sum(terms))]
    return images[0], images[1]


def _save(path: Path | None, results: list[Render]) -> None:
    if path is not None:
        columns: dict[str, Any] = {name: np.array([getattr(r, name) for r in results]) for name in Render._fields}
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **columns)
        partial.replace(path)


def _load(path: Path | None) -> list[Render]:
    if path is None or not path.exists():
        return []
    with np.load(path) as stored:
        columns = [stored[name] for name in Render._fields]
    return [Render(float(row[0]), float(row[1]), int(row[2]), *row[3:]) for row in zip(*columns, strict=True)]


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
