"""`python -m pipeline.training`: train on a published cube, score its test split, verify, mark as done.

Alone, under torchrun, or as the processes that `training.processes` asks for. The marker is written last and names what
made the results. With the marker of the same training there is nothing to do; with that of another one the program
refuses. Told to end (SIGTERM) it stores its state after the present step; started again it goes on from there.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ContractError, PlanChangedError
from pipeline.contracts.network_file import NETWORK_FILE
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.logs import configure_logging
from pipeline.stages.evaluation import evaluate_scores
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.locations import CHECKPOINT_FILE, Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.exit_code import exit_code
from pipeline.training.export import export_checkpoint
from pipeline.training.feed import SplitFeed, open_feed
from pipeline.training.history import history_json, history_table
from pipeline.training.outputs import confusion_bytes, embedding_table, score_table, write_table
from pipeline.training.processes import World, is_launched, joined_world, launch
from pipeline.training.scan import Scan, evenly_spread, scan_split
from pipeline.training.scorer import REPRODUCED_SCORES, require_reproduced
from pipeline.training.train import TrainingResult, train

SUCCESS_MARKER = "_SUCCESS"
STATE_FILE = "state.safetensors"
EPILOG = """
reads   --config  the run's YAML: sections `training` and `run` (seed, region, endpoint_url)
        --cube    folder of a published training cube (its _SUCCESS is demanded)
writes  --out     checkpoint.safetensors  best weights; network, preprocessing, provenance as JSON in the header
                  network.onnx            the same network with its preprocessing, for `dhs score`
                  state.safetensors       how far it got: weights, optimiser, epoch, batch
                  history.json            one record per epoch; the same as a table: history.parquet
                  scores.parquet          one row per test example: task_id, label, logit, score, arc_snr ...
                  scores_val.parquet      the same of the validation split
                  embeddings.parquet      what the head saw of some test examples
                  confusion.npz           test stamps that the network is most wrong about
                  metrics.json            test AUC with interval, TPR at FPR, AUC by arc_snr, ROC
                  _SUCCESS                last, after checkpoint and scores were read back and verified
exit    0 verified, 2 configuration or contract, 3 verification failed, 75 retriable, stopped by SIGTERM among it
"""

logger = logging.getLogger("pipeline.training")


class StopSignal:
    """Whether this process was told to end."""

    def __init__(self) -> None:
        self.received = False

    def catch(self) -> None:
        """Note SIGTERM from now on, in place of ending by it."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "received", True))

    def __call__(self) -> bool:
        """True once SIGTERM came."""
        return self.received


def run_training(config: RunConfig, cube_location: Location, out: Location, stop: StopSignal) -> None:
    """Train, score, verify; every output lies in `out`, the marker last.

    Raises:
        ContractError: no published training cube, or unusable pixels in it.
        PlanChangedError: `out` holds the verified results of another training.
        VerificationError: too few examples, a loss that is not finite, or outputs that do not read back.
        ConfigError: the configuration cannot be followed on this machine.
        StoppedError: told to end.
        StorageError: a read or write failed.
    """
    cube = open_cube(cube_location)
    identity = _identity(config, cube)
    marker = out.join(SUCCESS_MARKER)
    if marker.exists():
        _require_same_training(marker, identity)
        logger.info("already done", extra={"fields": {"out": out.url}})
        return
    with joined_world(config.training) as world:
        feeds = open_feed(cube, config.training.feed)
        counts = {name: {"positives": int(feed.label.sum()), "examples": len(feed)} for name, feed in feeds.items()}
        if world.rank == 0:
            fields = {"cube": cube_location.url, "device": str(world.device), "processes": world.size, **counts}
            logger.info("loaded", extra={"fields": fields})
        result = train(
            {name: feeds[name] for name in ("train", "val")},
            config.training,
            config.run.seed,
            world,
            out.join(STATE_FILE),
            identity,
            stop,
        )
        scans = {name: _scan(config, feeds[name], result, world) for name in ("test", "val")}
        if world.rank == 0:
            _write_outputs(config, cube, out, identity, feeds, result, scans)
            marker.write_bytes(_json_bytes(identity))
            logger.info("done", extra={"fields": {"out": out.url, "epoch": result.best.epoch}})


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn a PipelineError into its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training",
        description="Train a lens finder on a published training cube and score its test split.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="run configuration, a YAML file")
    parser.add_argument("--cube", required=True, metavar="URL", help="folder of the published training cube")
    parser.add_argument("--out", required=True, metavar="URL", help="folder that the results go to")
    options = parser.parse_args(arguments)
    configure_logging()
    stop = StopSignal()

    def work() -> int:
        config = load_config(options.config)
        if config.training.processes > 1 and not is_launched():
            given = ("--config", options.config, "--cube", options.cube, "--out", options.out)
            return launch((sys.executable, "-m", "pipeline.training", *given), config.training.processes)
        stop.catch()
        where = {"region": config.run.region, "endpoint_url": config.run.endpoint_url}
        run_training(config, Location(options.cube, **where), Location(options.out, **where), stop)
        return 0

    return exit_code(work)


def _identity(config: RunConfig, cube: PublishedCube) -> dict[str, Any]:
    missing = [name for name in ("bands", "plan_sha256", "config_sha256", "code_version") if name not in cube.attrs]
    if missing:
        raise ContractError(f"{cube.location.url} lacks the root attributes {missing}")
    expected, got = ([str(band) for band in bands] for bands in (config.survey.bands, cube.attrs["bands"]))
    if expected != got:
        raise ContractError(f"{cube.location.url}: expected the bands {expected} of survey.bands, got {got}")
    return {
        "plan_sha256": cube.attrs["plan_sha256"],
        "training_sha256": config.training.identity_sha256(),
        "seed": config.run.seed,
        "code_version": _code_version(),
    }


def _require_same_training(marker: Location, identity: dict[str, Any]) -> None:
    try:
        found = json.loads(marker.read_bytes())
    except ValueError as error:
        raise ContractError(f"{marker.url} is not the marker of a training: {error}") from error
    differing = [name for name in ("plan_sha256", "training_sha256", "seed") if found.get(name) != identity[name]]
    if differing:
        raise PlanChangedError(
            f"{marker.url} marks another training: "
            + ", ".join(f"{name} is {found.get(name)}, expected {identity[name]}" for name in differing)
        )


def _scan(config: RunConfig, feed: SplitFeed, result: TrainingResult, world: World) -> Scan:
    is_test = feed.split == "test"
    return scan_split(
        result.scorer,
        feed,
        world,
        evenly_spread(len(feed), REPRODUCED_SCORES),
        evenly_spread(len(feed), config.training.embedded_examples if is_test else 0),
        config.training.gallery_examples if is_test else 0,
    )


def _write_outputs(
    config: RunConfig,
    cube: PublishedCube,
    out: Location,
    identity: dict[str, Any],
    feeds: dict[str, SplitFeed],
    result: TrainingResult,
    scans: dict[str, Scan],
) -> None:
    bands = tuple(str(band) for band in cube.attrs["bands"])
    test, found = feeds["test"], scans["test"]
    checkpoint_file = out.join(CHECKPOINT_FILE)
    checkpoint_file.write_bytes(_checkpoint(config, cube, bands, test, result).to_bytes())
    export_checkpoint(checkpoint_file, out.join(NETWORK_FILE))
    out.join("history.json").write_bytes(history_json(result.history))
    write_table(out.join("history.parquet"), history_table(result.history))
    for name, file in (("test", "scores.parquet"), ("val", "scores_val.parquet")):
        write_table(out.join(file), score_table(cube, feeds[name], scans[name].logit, bands))
        kept = scans[name].stamps
        features = result.scorer.features
        beside = None if features is None else features.standardised(feeds[name].features[kept.place])
        device = result.scorer.device
        require_reproduced(checkpoint_file, kept.values, beside, scans[name].logit[kept.place], device)
    if found.embeddings.place.size:
        write_table(out.join("embeddings.parquet"), embedding_table(test, found.embeddings))
    out.join("confusion.npz").write_bytes(confusion_bytes(test, found.logit, found.worst))
    columns = test.columns
    metrics = evaluate_scores(test.label, found.logit, columns["host_id"].to_numpy())
    kept_epoch = {"kept_epoch": result.best.epoch, "selected_by": config.training.select_by}
    out.join("metrics.json").write_bytes(_json_bytes({"split": "test", **identity, **kept_epoch, **metrics}))


def _checkpoint(
    config: RunConfig, cube: PublishedCube, bands: tuple[str, ...], feed: SplitFeed, result: TrainingResult
) -> Checkpoint:
    return Checkpoint(
        weights=result.weights,
        network=config.training.network,
        features=result.scorer.features,
        preprocess=config.training.preprocess,
        bands=bands,
        stamp_size_px=feed.stamp_shape[-1],
        pixel_scale_arcsec=PIXEL_SCALE_ARCSEC,
        epoch=result.best.epoch,
        selected_by=config.training.select_by,
        metrics=asdict(result.best),
        seed=config.run.seed,
        config_sha256=config.sha256(),
        plan_sha256=str(cube.attrs["plan_sha256"]),
        cube_config_sha256=str(cube.attrs["config_sha256"]),
        cube_code_version=str(cube.attrs["code_version"]),
        code_version=_code_version(),
    )


def _code_version() -> str:
    return f"darkhaloscope {importlib.metadata.version('darkhaloscope')}, torch {torch.__version__}"


def _json_bytes(content: object) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()


if __name__ == "__main__":
    # Modules live as long as the process: the collector need not walk through them, least of all at the end.
    gc.freeze()
    sys.exit(main())
