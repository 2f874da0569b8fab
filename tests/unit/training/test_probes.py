"""The prober as the driver starts it: tables beside the checkpoint, verified, done once, reproducible alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS, ROLES
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.stages.gates.suite import run_network_gates
from pipeline.storage.cube import CubeShape, PublishedCube, create_cube, cube_attributes, open_cube, publish_cube
from pipeline.storage.cube import write_shard as write_cube_shard
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.probe_tables import probe_folder, probe_identity, read_probes
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.preprocess import normalise
from pipeline.training.probes import chosen_rows, load_prober, main, verify_probes

CubeMaker = Callable[..., PublishedCube]
CPU = torch.device("cpu")
SPEC = PreprocessSection(annulus_px=(9.0, 16.0))


def store_cutouts(cube: PublishedCube, layout: RunLayout, name_of: str = "task-{:04d}") -> None:
    """Publish a cutouts cube of the rows of a training cube, with an even inverse variance."""
    stamps = cube.read_shard(0, ["control"])["control"]
    sizes = {"sample": cube.n_samples, "band": stamps.shape[1], "y": stamps.shape[2], "x": stamps.shape[3]}
    shape, location = CubeShape(sizes, cube.shard_samples, 8), layout.cube("cutouts")
    create_cube(location, CUTOUTS, shape)
    for shard in range(shape.n_shards):
        rows = shape.rows(shard)
        part = {}
        for variable in CUTOUTS.variables:
            lengths = tuple({**sizes, "sample": rows.stop - rows.start}[dim] for dim in variable.dims)
            values = np.full(lengths, "", object) if variable.dtype == "str" else np.zeros(lengths, variable.dtype)
            part[variable.name] = (variable.dims, values)
        part["invvar"][1][:] = 400.0
        part["task_id"][1][:] = [name_of.format(row) for row in range(rows.start, rows.stop)]
        write_cube_shard(location, CUTOUTS, shape, shard, xr.Dataset(part))
    publish_cube(location, cube_attributes(CUTOUTS, shape, {"bands": ["g", "r", "z"], "plan_sha256": "p" * 64}))


CheckpointMaker = Callable[..., Checkpoint]


def store(checkpoint: Checkpoint, folder: Path) -> Location:
    """A checkpoint as a file."""
    location = Location(str(folder)).join("checkpoint.safetensors")
    location.write_bytes(checkpoint.to_bytes())
    return location


@pytest.fixture
def arguments(make_cube: CubeMaker, make_checkpoint: CheckpointMaker, config_file: Path, tmp_path: Path) -> list[str]:
    """Cubes, configuration and a checkpoint, as command line arguments."""
    cube = make_cube(n_rows=160, name="run/cubes/training")
    store_cutouts(cube, RunLayout(Location(str(tmp_path / "run"))))
    config_file.write_text(
        config_file.read_text() + "gates: {min_per_class: 10, network: {mask_radii_px: [5, 10], mask_core_px: 5}}\n"
    )
    urls = {
        "config": str(config_file),
        "run": str(tmp_path / "run"),
        "checkpoint": store(make_checkpoint(), tmp_path / "network").url,
    }
    return [argument for name, url in urls.items() for argument in (f"--{name}", url)]


def parsed(arguments: list[str]) -> tuple[RunConfig, RunLayout, Location]:
    """Configuration, run and checkpoint."""
    value = dict(zip(arguments[::2], arguments[1::2], strict=True))
    return load_config(value["--config"]), RunLayout(Location(value["--run"])), Location(value["--checkpoint"])


def probes_of(config: RunConfig, layout: RunLayout, checkpoint: Location) -> tuple[xr.Dataset, Location]:
    """What the program wrote, and where."""
    identity = probe_identity(config, layout, checkpoint)
    folder = probe_folder(checkpoint, identity)
    stored = read_probes(folder, identity)
    assert stored is not None
    return stored, folder


def test_program_writes_every_probe_once_and_the_gates_read_them(arguments: list[str]) -> None:
    """Every stamp of the test split has its scores and embeddings, a second run writes nothing, all gates measure."""
    assert main(arguments) == 0
    config, layout, checkpoint = parsed(arguments)
    stored, folder = probes_of(config, layout, checkpoint)
    cube = open_cube(layout.cube("training"))
    columns = cube.columns(["role", "split"])
    test = columns["split"].to_numpy() == 2
    role = columns["role"].to_numpy()
    n_pairs, n_controls = (int((test & (role == ROLES.index(r))).sum()) for r in ("pair", "control"))
    kind = stored["kind"].to_numpy()
    assert [(kind == name).sum() for name in ("injected", "control", "control_row")] == [n_pairs, n_pairs, n_controls]
    assert np.isfinite(stored["logit_mask_10px"]).all()
    assert np.isfinite(stored["logit_arc_suppressed"].to_numpy()[kind == "injected"]).all()
    assert np.isnan(stored["logit_ring"].to_numpy()[kind != "control"]).all()
    assert stored["layer_2"].shape == (2 * n_pairs, 16)

    model = Checkpoint.from_bytes(checkpoint.read_bytes()).build(CPU)
    row = int(stored["row"].to_numpy()[kind == "control_row"][0])
    first, _ = cube.shard_range(row // cube.shard_samples)
    stamp = cube.read_shard(row // cube.shard_samples, ["control"])["control"].to_numpy()[row - first]
    with torch.inference_mode():
        alone = float(model(normalise(torch.from_numpy(stamp[None]), SPEC))[0])
    assert alone == pytest.approx(float(stored["logit"].to_numpy()[kind == "control_row"][0]), abs=1e-5)

    before = {path: path.stat().st_mtime_ns for path in Path(folder.path).iterdir()}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in Path(folder.path).iterdir()} == before
    results = {result.name: result for result in run_network_gates(stored, config)}
    assert all("could not be measured" not in result.message for name, result in results.items() if "mask" not in name)


def test_imported_stamps_are_probed_without_inverse_variance(arguments: list[str], config_file: Path) -> None:
    """A run of imported stamps has no cutouts cube: all but that in units of the noise are made, as its gate says."""
    _, layout, _ = parsed(arguments)
    shutil.rmtree(layout.cube("cutouts").path)
    assert main(arguments) == 2
    config = yaml.safe_load(config_file.read_text())
    config["manifest"]["kind"], config["injection"]["mode"] = "stamps", "frozen"
    config["sampling"] = {"method": "none", "metric": "arc_snr"}
    config_file.write_text(yaml.safe_dump(config))
    assert main(arguments) == 0
    stored, _ = probes_of(*parsed(arguments))
    assert "logit_snr_image" not in stored and "logit_arc_suppressed" in stored
    results = {result.name: result for result in run_network_gates(stored, parsed(arguments)[0])}
    assert results["snr_ablation"].passed
    assert "imported stamps carry no inverse variance" in results["snr_ablation"].message


def test_anchors_are_embedded_and_another_network_has_its_own_probes(
    arguments: list[str], config_file: Path, store_anchors: Callable[..., None]
) -> None:
    """Usable real lenses of the run join the embeddings; probes are kept per checkpoint, settings and anchors."""
    assert main(arguments) == 0
    config_file.write_text(config_file.read_text() + "anchors: {url: anchors.parquet}\n")
    assert main(arguments) == 2
    config, layout, checkpoint = parsed(arguments)
    image = np.random.default_rng(1).normal(0.0, 0.05, (9, 3, 32, 32)).astype(np.float32)
    image[7, 2, 3, 4] = np.nan
    store_anchors(layout, image, ["none"] * 7 + ["no_central_galaxy"], [0, 1, 2, 3, 4, 5, 7, 8])
    assert main(arguments) == 0
    stored, _ = probes_of(config, layout, checkpoint)
    assert stored.attrs["anchors"] == {"used": 6, "left out: pixels that are not finite": 1}
    anchor = stored["embedded_kind"].to_numpy() == "anchor"
    assert anchor.sum() == 6
    assert np.unique(stored["embedded_host_id"].to_numpy()[anchor]).size == 6
    np.testing.assert_allclose(stored["embedded_psfsize_arcsec"].to_numpy()[anchor], 1.3, rtol=1e-6)
    normalised = normalise(torch.from_numpy(image[:6]), SPEC)
    network = Checkpoint.from_bytes(checkpoint.read_bytes()).build(CPU)
    with torch.inference_mode():
        alone = network.embed(normalised)[-1].numpy()
    np.testing.assert_allclose(stored["layer_2"].to_numpy()[anchor], alone, atol=1e-5)
    assert len(list(Path(checkpoint.path).parent.joinpath("probes").iterdir())) == 2
    result = run_network_gates(stored, config)[-1]
    assert "6 controls, at least 30" in result.message


def test_rows_are_bounded_and_spread(make_cube: CubeMaker) -> None:
    """A bound on pairs takes whole shards from the whole cube and cuts the rest; roles and split are the asked ones."""
    cube = make_cube(n_rows=160)
    every = dict(chosen_rows(cube, 1000))
    assert sorted(every) == [0, 1, 2, 3]
    few = dict(chosen_rows(cube, 4))
    assert 1 <= len(few) < 4
    assert all(np.isin(rows, every[shard]).all() for shard, rows in few.items())
    role = cube.columns(["role"])["role"].to_numpy()
    assert sum(int((role[rows] == ROLES.index("pair")).sum()) for rows in few.values()) <= 4


@pytest.mark.parametrize("fault", ["checkpoint", "bands", "cutouts", "broken"])
def test_what_does_not_belong_together_is_refused(
    arguments: list[str], make_checkpoint: CheckpointMaker, tmp_path: Path, fault: str
) -> None:
    """No checkpoint, one of other bands, cutouts of other rows: exit 2 without marker; broken weights: exit 3."""
    _, layout, checkpoint = parsed(arguments)
    if fault == "checkpoint":
        arguments[-1] = str(tmp_path / "nowhere.pt")
    if fault == "bands":
        store(make_checkpoint(bands=("g", "r")), tmp_path / "network")
    if fault == "cutouts":
        shutil.rmtree(layout.cube("cutouts").path)
        store_cutouts(open_cube(layout.cube("training")), layout, "other-{}")
    if fault == "broken":
        loaded = Checkpoint.from_bytes(checkpoint.read_bytes())
        loaded.weights["head.bias"].fill_(float("nan"))
        checkpoint.write_bytes(loaded.to_bytes())
    assert main(arguments) == (3 if fault == "broken" else 2)
    assert not list((tmp_path / "network").rglob("_SUCCESS"))


def test_scores_of_another_network_are_found(arguments: list[str], make_checkpoint: CheckpointMaker) -> None:
    """Weights that do not reproduce the stored scores, and a changed file, raise VerificationError."""
    assert main(arguments) == 0
    config, layout, checkpoint = parsed(arguments)
    verify_probes(config, layout, checkpoint, CPU)
    _, before = probes_of(config, layout, checkpoint)
    marker = json.loads(before.join("_SUCCESS").read_bytes())
    store(make_checkpoint(seed=1), Path(checkpoint.path).parent)
    marker["identity"] = probe_identity(config, layout, checkpoint)
    folder = probe_folder(checkpoint, marker["identity"])
    Path(before.path).rename(folder.path)
    folder.join("_SUCCESS").write_bytes(json.dumps(marker).encode())
    with pytest.raises(VerificationError, match="does not reproduce logit of injected"):
        verify_probes(config, layout, checkpoint, CPU)
    cube = open_cube(layout.cube("training"))
    with pytest.raises(ContractError, match="expects stamps of 32 px"):
        load_prober(config.model_copy(update={"survey": config.survey.model_copy(update={"stamp_size_px": 64})}),
                    cube, checkpoint, CPU)  # fmt: skip
    folder.join("examples.parquet").write_bytes(b"other")
    with pytest.raises(VerificationError, match="differ from what was verified"):
        read_probes(folder, marker["identity"])


def test_help_names_what_is_read_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    """--help exits with 0 and names arguments and outputs."""
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("--run", "--checkpoint", "embeddings", "anchors.json"))
