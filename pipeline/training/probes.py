"""`python -m pipeline.training.probes`: score a checkpoint on changed stamps of the test split, and embed it.

Each probe is the test split with one thing changed: pixels in units of their noise, the arc taken away, a ring put
in, the centre hidden. The gates on networks judge the scores; this program only computes them.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import ROLES, SPLITS
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.network_gate_config import NetworkGateSection, mask_name
from pipeline.logs import configure_logging
from pipeline.stages.cutouts import sky_sigma
from pipeline.stages.probe_stamps import (
    aperture_flux_nmgy,
    arc_power_inside,
    in_noise_units,
    with_fixed_ring,
    with_resampled_annulus,
    with_ring_like_arc,
    without_arc,
)
from pipeline.storage.anchor_stamps import read_anchor_stamps
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.evaluation_tables import evaluation_identity
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.probe_tables import EMBEDDED_COLUMNS, probe_folder, probe_identity, read_probes, write_probes
from pipeline.training.exit_code import exit_code
from pipeline.training.preprocess import stamp_radius
from pipeline.training.processes import configure_torch
from pipeline.training.scorer import LOGIT_TOLERANCE, REPRODUCED_SCORES, Scorer, load_checkpoint, require_cube

PROBED_SPLIT = "test"
EPILOG = """
reads   --config      the run's YAML: gates.network says what to probe
        --run         folder of the run: its training cube, the cutouts cube that was made from, for the inverse
                      variance, and, where the configuration has the section anchors, its cube of real lenses
        --checkpoint  checkpoint.safetensors of a training
writes  probes/<id>/ beside the checkpoint: examples and embeddings (parquet, CSV), anchors.json,
        _SUCCESS last, after everything was read back and a few scores were reproduced
exit    0 verified, 2 configuration or contract, 3 verification failed, 75 retriable
"""
_COLUMNS = ("task_id", "pair_id", "host_id", "arc_snr", "theta_e_arcsec", "lens_x_arcsec", "lens_y_arcsec")
_BAND_COLUMNS = ("psfsize_arcsec", "sky_sigma_nmgy")

logger = logging.getLogger("pipeline.training")


@dataclass(frozen=True)
class Prober:
    """A network and how it is questioned.

    Attributes:
        scorer: the network with its preprocessing.
        section: what to probe.
        band: index of the band of the SNR.
        seed: run seed.
    """

    scorer: Scorer
    section: NetworkGateSection
    band: int
    seed: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the network sees beside the stamp."""
        return () if self.scorer.features is None else self.scorer.features.columns

    def probe(self, kind: str, rows: xr.Dataset, invvar: NDArray[np.float32] | None) -> tuple[pd.DataFrame, list[Any]]:
        """Score and embed one kind of stamps.

        Args:
            kind: injected or control of pairs, or control_row.
            rows: pixels `injected` and `control` [nmgy], _COLUMNS, _BAND_COLUMNS, `columns` and `row`, dim sample.
            invvar: (sample, band, y, x); None leaves the probe in units of the noise out. [nmgy**-2]

        Returns:
            One row per stamp, columns logit and logit_<probe>; and the embeddings per layer.
        """
        injected, control = (rows[name].to_numpy() for name in ("injected", "control"))
        theta_e = rows["theta_e_arcsec"].to_numpy().astype(np.float64)
        lens = tuple(rows[f"lens_{axis}_arcsec"].to_numpy().astype(np.float64) for axis in ("x", "y"))
        stamps = injected if kind == "injected" else control
        beside = None if self.scorer.features is None else self.scorer.features.of_rows(rows)
        plain = self.scorer.normalised(stamps)
        logits = {"logit": self.scorer.logits_of_normalised(plain, beside)}
        radius = stamp_radius(stamps.shape[-1]).numpy()
        for limit in self.section.mask_radii_px:
            hidden = np.where(radius < limit, np.float32(0.0), plain)
            logits[f"logit_{mask_name(limit)}"] = self.scorer.logits_of_normalised(hidden, beside)
        if invvar is not None:
            logits["logit_snr_image"] = self.scorer.logits(in_noise_units(stamps, invvar), beside)
        more: dict[str, Any] = {}
        if kind == "injected":
            if self.section.suppression == "pair":
                bare = without_arc(injected, control, theta_e, (lens[0], lens[1]), self.section.suppression_core)
            else:
                annulus = self.section.suppression_annulus_px
                bare = with_resampled_annulus(injected, annulus, self.seed, rows["row"].to_numpy())
            logits["logit_arc_suppressed"] = self.scorer.logits(bare, beside)
            inside = arc_power_inside(injected, control, self.section.mask_radii_px)
            names = [f"arc_power_{mask_name(limit)}" for limit in self.section.mask_radii_px]
            more = dict(zip(names, inside.T, strict=True))
        if kind == "control":
            seeing = rows["psfsize_arcsec"].to_numpy().astype(np.float64)
            ring = with_ring_like_arc(control, injected, theta_e, (lens[0], lens[1]), seeing, self.band)
            logits["logit_ring"] = self.scorer.logits(ring, beside)
            logits["logit_fixed_ring"] = self.scorer.logits(with_fixed_ring(control), beside)
        described: dict[str, Any] = {name: rows[name].to_numpy() for name in ("row", *_COLUMNS[:5])}
        described |= {name: rows[name].to_numpy()[:, self.band] for name in _BAND_COLUMNS}
        label = np.full(len(stamps), int(kind == "injected"), dtype=np.uint8)
        frame = pd.DataFrame({"kind": [kind] * len(stamps), "label": label, **described, **logits, **more})
        return frame, self.scorer.embeddings(plain) if len(stamps) and kind != "control_row" else []

    def embed_anchors(self, anchors: xr.Dataset) -> tuple[pd.DataFrame, list[NDArray[np.float32]]]:
        """EMBEDDED_COLUMNS and embeddings of real lenses.

        Args:
            anchors: finite `image` [nmgy] and `psfsize_arcsec` [arcsec] of the cutouts contract, at least one.
        """
        stamps, seeing = anchors["image"].to_numpy(), anchors["psfsize_arcsec"].to_numpy()[:, self.band]
        # Hosts of the cube have hashes of 63 bits; the anchors' numbers are negative.
        numbers = -1 - np.arange(len(stamps), dtype=np.int64)
        return self._described("anchor", stamps, numbers, seeing), self.scorer.embeddings(
            self.scorer.normalised(stamps)
        )

    def describe(self, frame: pd.DataFrame, kind: str, stamps: NDArray[np.float32]) -> pd.DataFrame:
        """EMBEDDED_COLUMNS of stamps that `probe` scored."""
        return self._described(kind, stamps, frame["host_id"].to_numpy(), frame["psfsize_arcsec"].to_numpy())

    def _described(
        self, kind: str, stamps: NDArray[np.float32], host_id: NDArray[np.int64], seeing: NDArray[Any]
    ) -> pd.DataFrame:
        values = (
            [kind] * len(stamps),
            host_id,
            seeing.astype(np.float64),
            sky_sigma(stamps[:, self.band]).astype(np.float64),
            aperture_flux_nmgy(stamps[:, self.band]),
        )
        return pd.DataFrame(dict(zip(EMBEDDED_COLUMNS, values, strict=True)))


def run_probes(config: RunConfig, layout: RunLayout, checkpoint: Location) -> None:
    """Probe a checkpoint on the test split of a run's training cube; does nothing if that was done already.

    Raises:
        ContractError: cubes, checkpoint or anchors are missing or do not belong together.
        VerificationError: a score is not finite, or the checkpoint does not reproduce its scores.
        StorageError: a read or write failed.
    """
    cube, cutouts = open_cube(layout.cube("training")), _cutouts_of(config, layout)
    identity = probe_identity(config, layout, checkpoint)
    folder = probe_folder(checkpoint, identity)
    if evaluation_identity(folder) == identity:
        logger.info("already probed", extra={"fields": {"out": folder.url}})
        return
    device = configure_torch(config.training.threads, config.training.deterministic)
    prober = load_prober(config, cube, checkpoint, device)
    frames: list[pd.DataFrame] = []
    described: list[pd.DataFrame] = []
    embedded: list[list[NDArray[np.float32]]] = []
    for shard, rows in chosen_rows(cube, config.gates.network.max_pairs):
        for kind, pixels, invvar in read_kinds(cube, cutouts, shard, rows, prober.columns):
            frame, layers = prober.probe(kind, pixels, invvar)
            frames.append(frame)
            if layers:
                stamps = pixels["injected" if kind == "injected" else "control"].to_numpy()
                described.append(prober.describe(frame, kind, stamps))
                embedded.append(layers)
    counts: dict[str, int] = {}
    if config.anchors is not None:
        anchors = read_anchor_stamps(layout, ["image", "psfsize_arcsec"])
        finite = np.isfinite(anchors["image"].to_numpy()).all(axis=(1, 2, 3))
        counts = {"used": int(finite.sum()), "left out: pixels that are not finite": int((~finite).sum())}
        if finite.any():
            columns, layers = prober.embed_anchors(anchors.isel(sample=np.flatnonzero(finite)))
            described.append(columns)
            embedded.append(layers)
    if not frames or not described:
        raise VerificationError(f"{cube.location.url}: split {PROBED_SPLIT} has no pair to probe")
    examples = pd.concat(frames, ignore_index=True)
    layers = [np.concatenate(parts) for parts in zip(*embedded, strict=True)]
    write_probes(folder, identity, examples, pd.concat(described, ignore_index=True), layers, counts)
    verify_probes(config, layout, checkpoint, device)
    logger.info("probed", extra={"fields": {"out": folder.url, "stamps": len(examples), "anchors": counts}})


def load_prober(config: RunConfig, cube: PublishedCube, checkpoint: Location, device: torch.device) -> Prober:
    """The network of a checkpoint.

    Raises:
        ContractError: not a checkpoint, or one for other bands or stamps than the cube's.
    """
    loaded, scorer = load_checkpoint(checkpoint, device)
    require_cube(loaded, cube, config.survey.stamp_size_px)
    return Prober(scorer, config.gates.network, loaded.bands.index(config.sampling.band), config.run.seed)


def chosen_rows(cube: PublishedCube, max_pairs: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Shards with the rows of the test split to probe, spread evenly over the cube, at most `max_pairs` of a role.

    Yields:
        shard and rows of the cube in it, ascending.
    """
    columns = cube.columns(["role", "split"])
    role = columns["role"].to_numpy()
    inside = columns["split"].to_numpy() == SPLITS.index(PROBED_SPLIT)
    pairs = np.flatnonzero(inside & (role == ROLES.index("pair")))
    controls = np.flatnonzero(inside & (role == ROLES.index("control")))
    shards, counts = np.unique(pairs // cube.shard_samples, return_counts=True)
    if pairs.size > max_pairs:
        needed = min(int(np.ceil(max_pairs / counts.mean())), shards.size)
        shards = shards[np.unique(np.linspace(0, shards.size - 1, needed).astype(np.int64))]
    kept = [rows[np.isin(rows // cube.shard_samples, shards)][:max_pairs] for rows in (pairs, controls)]
    rows = np.sort(np.concatenate(kept))
    for shard in np.unique(rows // cube.shard_samples).tolist():
        yield shard, rows[rows // cube.shard_samples == shard]


def read_kinds(
    cube: PublishedCube,
    cutouts: PublishedCube | None,
    shard: int,
    rows: NDArray[np.int64],
    more_columns: Sequence[str] = (),
) -> Iterator[tuple[str, xr.Dataset, NDArray[np.float32] | None]]:
    """Stamps of some rows of a shard by kind, with their inverse variance; None without a cutouts cube.

    Raises:
        ContractError: the cutouts are not those that the training cube was made from.
    """
    local = rows - cube.shard_range(shard)[0]
    names = dict.fromkeys(("injected", "control", "role", *_COLUMNS, *_BAND_COLUMNS, *more_columns))
    pixels = cube.read_shard(shard, tuple(names)).isel(sample=local)
    pixels["row"] = ("sample", rows)
    invvar = None
    if cutouts is not None:
        hosts = cutouts.read_shard(shard, ["invvar", "task_id"]).isel(sample=local)
        if pixels["task_id"].to_numpy().tolist() != hosts["task_id"].to_numpy().tolist():
            raise ContractError(
                f"{cutouts.location.url} is not the cutouts cube of {cube.location.url}: task_id differ"
            )
        invvar = hosts["invvar"].to_numpy()
    for role, kinds in (("pair", ("injected", "control")), ("control", ("control_row",))):
        chosen = np.flatnonzero(pixels["role"].to_numpy() == ROLES.index(role))
        for kind in kinds:
            if chosen.size:
                yield kind, pixels.isel(sample=chosen), None if invvar is None else invvar[chosen]


def _cutouts_of(config: RunConfig, layout: RunLayout) -> PublishedCube | None:
    """The cutouts cube; None for imported stamps, which never had one."""
    return None if config.manifest.kind == "stamps" else open_cube(layout.cube("cutouts"))


def verify_probes(config: RunConfig, layout: RunLayout, checkpoint: Location, device: torch.device) -> None:
    """Read probes and checkpoint back and prove that every probe of 8 rows is reproduced within 1e-4.

    Raises:
        VerificationError: the probes cannot be read, or a score is another one.
    """
    identity = probe_identity(config, layout, checkpoint)
    folder = probe_folder(checkpoint, identity)
    stored = read_probes(folder, identity)
    if stored is None:
        raise VerificationError(f"{folder.url}: the probes have no marker")
    cube, cutouts = open_cube(layout.cube("training")), _cutouts_of(config, layout)
    prober = load_prober(config, cube, checkpoint, device)
    shard, rows = next(chosen_rows(cube, config.gates.network.max_pairs))
    for kind, pixels, invvar in read_kinds(cube, cutouts, shard, rows[:REPRODUCED_SCORES], prober.columns):
        again, _ = prober.probe(kind, pixels, invvar)
        same = (stored["kind"].to_numpy() == kind) & np.isin(stored["row"].to_numpy(), again["row"].to_numpy())
        for name in (str(column) for column in again.columns if str(column).startswith("logit")):
            if not np.allclose(again[name], stored[name].to_numpy()[same], rtol=LOGIT_TOLERANCE, atol=LOGIT_TOLERANCE):
                raise VerificationError(f"{checkpoint.url} does not reproduce {name} of {kind} stamps in {folder.url}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn a PipelineError into its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training.probes",
        description="Score a trained network on changed stamps of the test split.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, what in (
        ("config", "run configuration, a YAML file"),
        ("run", "folder of the run whose cubes are used"),
        ("checkpoint", "checkpoint.safetensors"),
    ):
        parser.add_argument(f"--{name}", required=True, help=what)
    options = parser.parse_args(arguments)
    configure_logging()

    def work() -> int:
        config = load_config(options.config)
        where = (config.run.region, config.run.endpoint_url)
        layout = RunLayout.at(Location(options.run, *where), config.run.cutouts_from)
        run_probes(config, layout, Location(options.checkpoint, *where))
        return 0

    return exit_code(work)


if __name__ == "__main__":
    # Modules live as long as the process: the collector need not walk through them, least of all at the end.
    gc.freeze()
    sys.exit(main())
