"""`dhs anchors` from lists and a cutouts cube to tables, as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from pipeline.commands.anchors import app
from pipeline.contracts.anchors import MEASURED_ANCHORS
from pipeline.contracts.datasets import CUTOUTS, ROLES, TRAINING
from pipeline.contracts.errors import ConfigError, ContractError, VerificationError
from pipeline.contracts.schema import CubeSchema
from pipeline.storage.anchor_tables import read_anchor_table
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, publish_cube, write_shard
from pipeline.storage.locations import Location
from pipeline.storage.tables import find_parts

EMR_POSITIONS = Path(__file__).parents[2] / "data" / "emr_anchor_positions.csv"
DEC_DEG, BANDS = -10.0, ["g", "r", "z"]
N_ROWS, SIZE = 6, 64


def call(*arguments: str) -> str:
    """Output of a command that must succeed."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a published cube of the given dataset, by default a cutouts cube."""

    def write(dataset: xr.Dataset, name: str, schema: CubeSchema = CUTOUTS) -> Path:
        folder = tmp_path_factory.mktemp(name)
        location = Location(str(folder))
        shape = CubeShape({"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE}, shard_samples=4, inner_chunk=2)
        create_cube(location, schema, shape)
        for shard in range(shape.n_shards):
            write_shard(location, schema, shape, shard, dataset.isel(sample=shape.rows(shard)))
        publish_cube(location, cube_attributes(schema, shape, {"bands": BANDS}))
        return folder

    return write


@pytest.fixture(scope="module")
def scene(make_cutouts: Callable[..., xr.Dataset]) -> xr.Dataset:
    """Six positions: 0 plain galaxy, 1 galaxy with arc, 2 blank sky, 3 no data, 4 galaxy with arc, 5 plain galaxy."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    angle = np.arctan2(y, x)
    arc = 0.03 * np.exp(-0.5 * ((np.hypot(x, y) - 8.0) / 2.2) ** 2) * (np.abs(angle) < 1.0)
    host = 0.5 * np.exp(-np.hypot(x, y / 0.8) / 2.5)
    images = np.stack([host, host + arc, 0 * host, host, host + arc, host])[:, None].repeat(3, axis=1)
    noise = np.random.default_rng(3).normal(0.0, 0.003, images.shape)
    invvar = np.full(images.shape, 0.003**-2, np.float32)
    invvar[3] = 0.0
    places = {"ra_deg": 59.0 + 0.01 * np.arange(N_ROWS), "dec_deg": np.full(N_ROWS, DEC_DEG)}
    offsets = {name: np.zeros(N_ROWS, np.float32) for name in ("centre_dx_px", "centre_dy_px")}
    return make_cutouts(N_ROWS, SIZE, image=(images + noise).astype(np.float32), invvar=invvar, **places, **offsets)


@pytest.fixture
def known(tmp_path: Path) -> str:
    """A catalogue of seven lenses, the last without cutout."""
    rows = {"name": [f"L{row}" for row in range(7)], "ra": 59.0 + 0.01 * np.arange(7), "dec": [DEC_DEG] * 7}
    grades = ["confident", "probable"] * 3 + ["confident"]
    table = pd.DataFrame(rows).assign(grading=grades, type="galaxy", ref="Huang - arXiv:1906.00970")
    table.to_csv(tmp_path / "known.csv", index=False)
    return str(tmp_path / "known.csv")


def test_lists_used_on_emr_are_caught(tmp_path: Path) -> None:
    """Exit code 3; every position is listed with its nearest lens."""
    result = CliRunner().invoke(app, ["check", str(EMR_POSITIONS), "-o", str(tmp_path / "out.csv")])
    assert isinstance(result.exception, VerificationError)
    assert result.exception.exit_code == 3
    assert "159 of 159 positions have no known lens" in str(result.exception)
    compared = pd.read_csv(tmp_path / "out.csv")
    assert (compared["separation_arcsec"] > 8.4).all()
    assert compared["nearest_known"].notna().all()
    call("check", str(EMR_POSITIONS), "--allow-unmatched")


def test_a_true_list_passes(known: str) -> None:
    """Comparison on standard output, exit code 0."""
    lines = call("check", known, "--catalogue", known).splitlines()
    assert lines[0].startswith("name,ra_deg,dec_deg")
    assert len(lines) == 8


def test_build_writes_tables_and_refuses_unmatched_positions(tmp_path: Path, known: str) -> None:
    """The tables are there with the reasons; the command ends with exit code 3 unless told otherwise."""
    (tmp_path / "mine.csv").write_text(f"name,ra,dec\ngood,59.01,{DEC_DEG}\nbad,10.0,0.0\n", encoding="utf-8")
    arguments = ["build", "-o", str(tmp_path / "out"), "--list", str(tmp_path / "mine.csv"), "--catalogue", known]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, VerificationError)
    assert "1 of 2 positions" in str(result.exception)
    entries = pd.read_csv(tmp_path / "out" / "entries.csv").set_index("name")
    assert entries["reject_reason"]["bad"] == "unmatched"
    assert entries["reject_reason"]["good"] == "none"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["by_reason"] == {"none": 7, "unmatched": 1}
    assert summary["accepted_by_footprint"] == {"unknown": 7}
    before = (tmp_path / "out" / "anchors.csv").read_bytes()
    CliRunner().invoke(app, arguments)
    assert (tmp_path / "out" / "anchors.csv").read_bytes() == before
    call(*arguments, "--allow-unmatched")
    assert find_parts(Location(str(tmp_path / "out" / "manifest.parquet")))[0].n_rows == 8


def test_footprint_by_a_folder_of_bricks(tmp_path: Path, known: str) -> None:
    """Positions whose brick has no folder are outside."""
    (tmp_path / "coadd" / "0591m305").mkdir(parents=True)
    call("build", "-o", str(tmp_path / "out"), "--catalogue", known, "--bricks", str(tmp_path / "coadd"))
    anchors = pd.read_csv(tmp_path / "out" / "anchors.csv")
    assert set(anchors["reject_reason"]) == {"outside_footprint"}
    assert set(anchors["footprint"]) == {"outside"}


def test_tiers_are_measured_on_the_cutouts(
    tmp_path: Path, known: str, scene: xr.Dataset, cutouts: Callable[..., Path]
) -> None:
    """Arcs are tier A, plain galaxies tier B, the rest is rejected with its reason; grades cross the tiers."""
    cube = cutouts(scene, "scene")
    call("build", "-o", str(tmp_path), "--catalogue", known)
    anchors = str(tmp_path / "anchors.parquet")
    call("measure", anchors, "-o", str(tmp_path / "tiers"), "--cutouts", str(cube))
    folder = Location(str(tmp_path / "tiers"))
    measured = read_anchor_table(folder.join("measured.parquet"), MEASURED_ANCHORS).set_index("names")
    assert measured["visibility_tier"].to_dict() == {
        "L0": "B", "L1": "A", "L2": "", "L3": "", "L4": "A", "L5": "B", "L6": ""
    }  # fmt: skip
    reasons = measured["reject_reason"]
    assert (reasons["L2"], reasons["L3"], reasons["L6"]) == ("no_central_galaxy", "cutout_unusable", "no_cutout")
    assert measured["cutout_reject_reason"]["L3"] == "invvar_zero"
    assert measured["annulus_snr_with_lens"]["L0"] > 2.0
    tiers = json.loads((tmp_path / "tiers" / "tiers.json").read_text(encoding="utf-8"))
    assert tiers["tiers"]["tier_a"]["anchors"] == tiers["tiers"]["tier_b"]["anchors"] == 2
    assert tiers["tiers"]["tier_a"]["by_grade_tier"] == {"grade_confident": 1, "grade_probable": 1}
    assert len(pd.read_csv(tmp_path / "tiers" / "tier_a.csv")) == 2
    assert len(pd.read_csv(tmp_path / "tiers" / "rejected.csv")) == 3


def test_measure_wants_one_source_of_pixels(tmp_path: Path) -> None:
    """Neither or both is a configuration error."""
    result = CliRunner().invoke(app, ["measure", str(tmp_path / "a.parquet"), "-o", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)


def test_parity_of_two_cubes_and_of_a_folder(tmp_path: Path, scene: xr.Dataset, cutouts: Callable[..., Path]) -> None:
    """Equal cubes are identical; stamps with another zero point differ and end with exit code 3."""
    cube = str(cutouts(scene, "first"))
    assert json.loads(call("parity", cube, str(cutouts(scene, "second"))))["verdict"] == "identical"
    images = scene["image"].to_numpy()
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    np.savez(stamps / "s.npz", image=1.1 * images, ra_deg=scene["ra_deg"], dec_deg=scene["dec_deg"], bands=BANDS)
    result = CliRunner().invoke(app, ["parity", cube, str(stamps), "-o", str(tmp_path / "out"), "--bands", "r"])
    assert isinstance(result.exception, VerificationError)
    verdict = json.loads((tmp_path / "out" / "parity.json").read_text(encoding="utf-8"))
    assert verdict["verdict"] == "differ"
    assert verdict["bands"]["r"]["ratio"]["median"] == pytest.approx(1.1, abs=0.005)
    assert len(pd.read_csv(tmp_path / "out" / "pairs.csv")) == verdict["positions"] == N_ROWS


def test_parity_with_old_stamps(scene: xr.Dataset, cutouts: Callable[..., Path]) -> None:
    """The controls of an imported training cube are a source; rows without control are left out."""
    sizes = {"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE}
    old = xr.Dataset(
        {
            variable.name: (
                variable.dims,
                np.full([sizes[dim] for dim in variable.dims], "" if variable.dtype == "str" else 0).astype(
                    object if variable.dtype == "str" else variable.dtype
                ),
            )
            for variable in TRAINING.variables
        }
    )
    old["control"][:] = scene["image"].to_numpy()
    old["ra_deg"][:], old["dec_deg"][:] = scene["ra_deg"].to_numpy(), scene["dec_deg"].to_numpy()
    old["role"][:] = [ROLES.index(role) for role in ("pair", "control", "pair", "unused", "control", "pair")]
    found = json.loads(call("parity", str(cutouts(scene, "new")), str(cutouts(old, "old", TRAINING))))
    assert (found["verdict"], found["positions"]) == ("identical", N_ROWS - 1)


def test_sources_without_common_position_are_an_error(
    tmp_path: Path, scene: xr.Dataset, cutouts: Callable[..., Path]
) -> None:
    """No comparison is not agreement."""
    np.savez(tmp_path / "s.npz", image=scene["image"].to_numpy()[0], ra_deg=1.0, dec_deg=2.0)
    result = CliRunner().invoke(app, ["parity", str(cutouts(scene, "third")), str(tmp_path)])
    assert isinstance(result.exception, ContractError)
    assert "share no position" in str(result.exception)


@pytest.mark.parametrize("command", ["build", "check", "measure", "parity"])
def test_help_says_what_is_read_and_written(command: str) -> None:
    """Every command's help says what it reads and what it writes."""
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert "Reads" in shown.output
    assert "Writes" in shown.output
