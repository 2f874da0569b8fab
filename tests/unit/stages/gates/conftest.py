"""A small training cube that passes every gate, for tests to spoil."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import REJECT_REASONS, ROLES
from pipeline.contracts.network_gate_config import NetworkGateSection, mask_name
from pipeline.stages.gates.result import GateInput, GateResult, Reinjection
from pipeline.stages.gates.suite import GATES, run_gate, run_gates
from pipeline.stages.splits import assign_splits

BANDS = ("g", "r", "z")
THETA_E = (0.7, 2.2)
EDGES, SHARES = (0.8, 2.0, 8.0, 20.0, 100.0), (0.4, 0.4, 0.15, 0.05)


@dataclass
class Cube:
    """Arguments of run_gates."""

    columns: xr.Dataset
    stamps: xr.Dataset
    config: RunConfig
    bands_found: tuple[str, ...] = BANDS
    reinjection: Reinjection | None = None
    anchors: xr.Dataset | None = None

    def sample(self) -> GateInput:
        """What the gates see."""
        return GateInput(self.columns, self.stamps, self.config, self.bands_found, self.reinjection, None, self.anchors)

    def gate(self, name: str) -> GateResult:
        """Verdict of one gate."""
        return next(run_gate(gate, self.sample()) for gate in GATES if gate.name == name)

    def verdicts(self) -> list[GateResult]:
        """Verdict of every gate."""
        return run_gates(self.columns, self.stamps, self.config, self.bands_found, self.reinjection)

    def configure(self, section: str, **values: object) -> None:
        """Set values of one section of the configuration."""
        content = self.config.model_dump()
        content[section].update(values)
        self.config = RunConfig.model_validate(content)

    def keep(self, *roles: str) -> None:
        """Keep only the rows of the named roles, in columns and stamps."""
        codes = [ROLES.index(role) for role in roles]
        self.columns = self.columns.isel(sample=np.isin(self.columns["role"], codes))
        self.stamps = self.stamps.isel(sample=np.isin(self.stamps["role"], codes))

    def failing(self) -> set[str]:
        """Names of the gates that fail."""
        return {result.name for result in self.verdicts() if not result.passed}

    def rows(self, role: str) -> np.ndarray:
        """Rows of a role in columns; pair and control rows are the first rows and those of stamps."""
        return np.flatnonzero(self.columns["role"].to_numpy() == ROLES.index(role))


def configuration() -> RunConfig:
    """A configuration with a bins target and default gates."""
    names = ("theta_e_arcsec", "lens_q", "shear", "lens_jitter_arcsec", "beta_over_theta_e", "src_re_arcsec")
    names += ("src_n", "src_q", "src_gr", "src_rz")
    priors = {name: {"kind": "fixed", "value": 0.5} for name in names}
    priors["theta_e_arcsec"] = {"kind": "uniform", "low": THETA_E[0], "high": THETA_E[1]}
    priors["shear"] = {"kind": "fixed", "value": 0.02}
    priors["src_mag_r"] = {"kind": "uniform", "low": 14.0, "high": 32.0}
    return RunConfig.model_validate(
        {
            "run": {"name": "gates", "root": "runs", "region": None, "seed": 20260901},
            "survey": {"bands": list(BANDS), "stamp_size_px": 48, "bricks": "bricks", "layout": "cache"},
            "manifest": {"kind": "parent", "url": "parent.parquet"},
            "injection": {
                "mode": "sample",
                "extinction": True,
                "accuracy": 0.02,
                "priors": priors,
            },
            "sampling": {
                "method": "snr_first",
                "metric": "arc_snr_sum",
                "target": {"kind": "bins", "edges": EDGES, "shares": SHARES},
            },
            "splits": {"tolerance": 0.06},
            "gates": {"grid_n_min": 2},
            "training": {"epochs": 1},
            "shards": {"samples": 64},
            "cluster": {"kind": "local"},
        }
    )


def target_snr(rng: np.random.Generator, n: int) -> np.ndarray:
    """Ideal draws of the bins target."""
    log_edges = np.log(EDGES)
    bin_index = rng.choice(len(SHARES), size=n, p=SHARES)
    return np.exp(rng.uniform(log_edges[bin_index], log_edges[bin_index + 1])).astype(np.float32)


def host_stamps(rng: np.random.Generator, flux: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """(sample, band, 48, 48) round galaxies with noise."""
    y, x = np.mgrid[:48, :48] - 24.0
    r2 = (x - dx[:, None, None]) ** 2 + (y - dy[:, None, None]) ** 2
    galaxy = flux[:, None, None] * np.exp(-0.5 * r2 / 3.0**2)
    colour = np.array([0.4, 1.0, 1.5])[:, None, None]
    noise = 0.02 * rng.standard_normal((flux.size, 3, 48, 48))
    return (galaxy[:, None] * colour + noise).astype(np.float32)


def blobs(rng: np.random.Generator, n: int) -> np.ndarray:
    """(sample, band, 48, 48) faint spots 13 to 20 px from the centre, too small to show in a radial profile."""
    radius, angle = rng.uniform(13.0, 20.0, n), rng.uniform(0.0, 2.0 * np.pi, n)
    y, x = np.mgrid[:48, :48] - 24.0
    dx, dy = x - (radius * np.cos(angle))[:, None, None], y - (radius * np.sin(angle))[:, None, None]
    spot = 0.03 * np.exp(-0.5 * (dx**2 + dy**2) / 0.8**2)
    return np.repeat(spot[:, None], 3, axis=1).astype(np.float32)


def build_cube(n_pair: int = 400, n_control: int = 120, n_exhausted: int = 60, n_missing: int = 20) -> Cube:
    """Rows in the order pair, control, unused (exhausted), unused (brick_missing)."""
    rng, more = np.random.default_rng(7), np.random.default_rng(8)
    n = n_pair + n_control + n_exhausted + n_missing
    role = np.repeat([ROLES.index("pair"), ROLES.index("control"), 0, 0], [n_pair, n_control, n_exhausted, n_missing])
    reason = np.zeros(n, dtype=np.uint8)
    reason[n_pair + n_control : n_pair + n_control + n_exhausted] = REJECT_REASONS.index("sampler_exhausted")
    reason[n - n_missing :] = REJECT_REASONS.index("brick_missing")
    is_pair = role == ROLES.index("pair")
    config = configuration()
    ra, dec = rng.uniform(0.0, 360.0, n), rng.uniform(-60.0, 30.0, n)
    split, cell = assign_splits(ra, dec, config.run.seed, config.splits)
    dx, dy = (rng.uniform(-0.5, 0.5, n).astype(np.float32) for _ in range(2))
    flux = rng.lognormal(0.0, 0.3, n)
    columns: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "host_id": (("sample",), np.arange(n) + 10_000),
        "role": (("sample",), role.astype(np.uint8)),
        "reject_reason": (("sample",), reason),
        "split": (("sample",), split),
        "split_healpix": (("sample",), cell),
        "centre_dx_px": (("sample",), dx),
        "centre_dy_px": (("sample",), dy),
        **{
            f"mag_{band}": (("sample",), (zero - 2.5 * np.log10(flux)).astype(np.float32))
            for band, zero in (("g", 21.0), ("r", 20.0), ("z", 19.5))
        },
        "ra_deg": (("sample",), ra),
        "dec_deg": (("sample",), dec),
        "ebv_mag": (("sample",), more.uniform(0.01, 0.1, n).astype(np.float32)),
        "psfdepth_r_mag": (("sample",), more.normal(24.0, 0.2, n).astype(np.float32)),
        "theta_e_arcsec": (("sample",), np.where(is_pair, more.uniform(*THETA_E, n), 0.0).astype(np.float32)),
        "sky_nmgy": (("sample", "band"), np.full((n, 3), np.nan, dtype=np.float32)),
        "bad_pixel_frac": (("sample",), rng.beta(1, 20, n).astype(np.float32)),
        "wise_brightmask_frac": (("sample",), np.full(n, np.nan, dtype=np.float32)),
        "psfsize_arcsec": (("sample", "band"), rng.normal(1.3, 0.1, (n, 3)).astype(np.float32)),
        "sky_sigma_nmgy": (("sample", "band"), rng.normal(0.02, 0.002, (n, 3)).astype(np.float32)),
        "weight_prior": (("sample",), np.where(is_pair, rng.uniform(0.5, 2.0, n), np.nan)),
    }
    columns["arc_snr_annulus"] = (("sample",), np.full(n, np.nan, dtype=np.float32))
    for metric in ("arc_snr", "arc_snr_sum", "arc_snr_matched", "arc_snr_aperture"):
        columns[metric] = (("sample",), np.where(is_pair, target_snr(rng, n), np.float32(np.nan)))
    rows = xr.Dataset(columns)
    stamps = rows.isel(sample=slice(0, n_pair + n_control)).copy(deep=True)
    used = slice(0, n_pair + n_control)
    control = host_stamps(rng, flux[used], dx[used], dy[used])
    injected = control.copy()
    arcs = blobs(more, n_pair)
    injected[:n_pair] += arcs
    stamps["arc_flux_nmgy"] = (("sample", "band"), np.zeros((n_pair + n_control, 3), dtype=np.float32))
    stamps["arc_flux_nmgy"][:n_pair] = arcs.sum(axis=(2, 3), dtype=np.float64)
    stamps["control"] = (("sample", "band", "y", "x"), control)
    stamps["injected"] = (("sample", "band", "y", "x"), injected)
    return Cube(rows, stamps, config)


def reinjection_of(cube: Cube, make_cutouts: Callable[..., xr.Dataset], n: int = 4) -> Reinjection:
    """The first pairs of a cube as rows of a cutouts cube, to be injected again by the pipeline's own code."""
    stored = cube.stamps[["role", "injected", "control"]].isel(sample=slice(0, n)).copy(deep=True)
    cutouts = make_cutouts(n, size=48, image=stored["control"].to_numpy())
    return Reinjection(cutouts, cutouts, stored)


def network_scores(n_pairs: int = 150, n_rows: int = 120) -> xr.Dataset:
    """What a good network says: arcs are lenses while they can be seen, nothing else is."""
    rng = np.random.default_rng(5)
    kind = np.repeat(["injected", "control", "control_row"], [n_pairs, n_pairs, n_rows]).astype(object)
    n, injected, control = kind.size, kind == "injected", kind == "control"
    pair_id = np.concatenate([np.arange(n_pairs), np.arange(n_pairs)[::-1], np.arange(n_rows) + 1000])

    def logits(mean: float, noise: float = 0.8) -> np.ndarray:
        return rng.normal(np.where(injected, mean, -3.0), noise)

    def some(where: np.ndarray, values: np.ndarray | float) -> np.ndarray:
        return np.where(where, values, np.nan)

    columns: dict[str, np.ndarray] = {
        "kind": kind,
        "label": injected.astype(np.uint8),
        "pair_id": pair_id,
        "host_id": pair_id + 2**60,
        "theta_e_arcsec": some(pair_id < 1000, 1.4),
        "psfsize_arcsec": rng.normal(1.3, 0.1, n),
        "sky_sigma_nmgy": rng.lognormal(-5.0, 0.1, n),
        "arc_snr": some(injected, rng.uniform(2.0, 20.0, n)),
        "logit": logits(3.0),
    }
    columns["logit_snr_image"] = columns["logit"] + rng.normal(0.0, 0.1, n)
    columns["logit_arc_suppressed"] = some(injected, rng.normal(-3.0, 0.8, n))
    columns["logit_ring"] = some(control, rng.normal(-2.0, 0.8, n))
    columns["logit_fixed_ring"] = some(control, rng.normal(-2.5, 0.8, n))
    for radius in NetworkGateSection().mask_radii_px:
        columns[f"logit_{mask_name(radius)}"] = logits(3.0 - 6.0 * min(radius / 15.0, 1.0) ** 3)
        columns[f"arc_power_{mask_name(radius)}"] = some(injected, (radius / 15.0) ** 2)
    return xr.Dataset({name: ("example", values) for name, values in columns.items()})


def anchor_embeddings(n_anchors: int = 60, shift: float = 0.0, host_shift: float = 0.0) -> xr.Dataset:
    """Noise as embedding, whose first feature follows the host's flux; anchors or their hosts may be shifted."""
    rng = np.random.default_rng(2)
    kind = np.repeat(["injected", "control", "anchor"], [300, 200, n_anchors]).astype(object)
    anchor, n = kind == "anchor", kind.size
    log_flux = rng.normal(0.0, 1.0, n) + host_shift * anchor
    last = rng.normal(0.0, 1.0, (n, 12))
    last[:, 0] += 3.0 * log_flux
    last[:, 1] += shift * anchor
    last[:, 2] += 4.0 * (kind == "control")
    columns = {
        "embedded_kind": kind,
        "embedded_host_id": np.where(anchor, -1 - np.arange(n), np.arange(n)),
        "embedded_psfsize_arcsec": rng.normal(1.3, 0.1, n),
        "embedded_sky_sigma_nmgy": rng.lognormal(-5.0, 0.1, n),
        "embedded_aperture_nmgy": np.exp(log_flux),
    }
    scores = xr.Dataset({name: ("stamp", values) for name, values in columns.items()}, attrs={"anchors": {"used": 60}})
    scores["layer_0"] = (("stamp", "feature_0"), rng.normal(0.0, 1.0, (n, 4)))
    scores["layer_2"] = (("stamp", "feature_2"), last)
    return scores


@pytest.fixture
def gate_config() -> RunConfig:
    """A configuration with default gates."""
    return configuration()


@pytest.fixture
def good_scores() -> Callable[..., xr.Dataset]:
    """Builder of the scores of a good network."""
    return network_scores


@pytest.fixture
def embeddings() -> Callable[..., xr.Dataset]:
    """Builder of embeddings of injections, controls and real lenses."""
    return anchor_embeddings


@pytest.fixture(scope="session")
def make_cube(make_cutouts) -> Callable[..., Cube]:
    """Builder of a cube that passes every gate; counts of rows may be given."""
    pristine: dict[tuple[int, ...], Cube] = {}

    def make(*counts: int) -> Cube:
        if counts not in pristine:
            pristine[counts] = build_cube(*counts)
            pristine[counts].reinjection = reinjection_of(pristine[counts], make_cutouts)
        cube = pristine[counts]
        return Cube(
            cube.columns.copy(deep=True), cube.stamps.copy(deep=True), cube.config, reinjection=cube.reinjection
        )

    return make


@pytest.fixture
def cube(make_cube) -> Cube:
    """A cube that passes every gate."""
    return make_cube()


@pytest.fixture(scope="session")
def good_verdicts(make_cube) -> list[GateResult]:
    """Verdicts on that cube."""
    return make_cube().verdicts()
