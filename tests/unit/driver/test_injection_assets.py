"""What a worker reads for injection, and that nothing is lost without a note."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS, REJECT_REASONS, ROLES, TRAINING
from pipeline.contracts.errors import ContractError
from pipeline.contracts.source_bank import SourceBank
from pipeline.driver.injection_assets import read_assets
from pipeline.driver.plan import make_plan, read_rows
from pipeline.driver.tasks import ShardTask, draw_pilot, make_training_shard
from pipeline.storage.cube import create_cube, cube_attributes, open_cube, publish_cube, write_shard
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.source_bank import write_bank

MakeConfig = Callable[..., RunConfig]
MakeBank = Callable[..., SourceBank]
MINI_BRICK = Path(__file__).parents[3] / "../shared/data/minibrick_0591m305"
BRICKS = ["0591m305", "0002m005", "0591m305"]


def write_psfs(folder: Path, size: int = 21, bands: str = "grz") -> None:
    """PSF stamps of a brick."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:size, :size] - size // 2
    for sigma_px, band in zip((2.4, 2.1, 1.9), "grz", strict=True):
        if band in bands:
            light = np.exp(-(x**2 + y**2) / (2 * sigma_px**2)).astype(np.float32)
            fits.PrimaryHDU(light / light.sum()).writeto(folder / f"{band}.fits", overwrite=True)


def measured(folder: Path) -> str:
    """Override for PSFs that differ by brick."""
    return f"injection.psf={{profile: measured, stamps: '{folder}/{{brickname}}/{{band}}.fits'}}"


def test_plain_configuration_reads_nothing(make_config: MakeConfig) -> None:
    """Profiles and an analytic PSF need no files."""
    assets, notes = read_assets(make_config(), BRICKS)
    assert assets.bank is None
    assert dict(assets.psf_stamps) == {}
    assert notes == []


def test_psfs_of_every_brick_are_read_once(make_config: MakeConfig, tmp_path: Path) -> None:
    """One entry per brick, bands in stamp order; a second task finds them without reading."""
    for brickname in set(BRICKS):
        write_psfs(tmp_path / brickname)
    config = make_config(measured(tmp_path))
    assets, notes = read_assets(config, BRICKS)
    assert sorted(assets.psf_stamps) == ["0002m005", "0591m305"]
    assert notes == []
    stamps = assets.psf_stamps["0591m305"]
    assert stamps.shape == (3, 21, 21)
    assert np.argsort(stamps.max(axis=(1, 2))).tolist() == [0, 1, 2]
    shutil.rmtree(tmp_path)
    again, _ = read_assets(config, BRICKS)
    assert np.array_equal(again.psf_stamps["0591m305"], stamps)


@pytest.mark.parametrize("damage", ["missing", "empty", "even"])
def test_unreadable_psf_of_a_brick_is_noted(make_config: MakeConfig, tmp_path: Path, damage: str) -> None:
    """A brick with one bad file has no PSF and a note that names the file; the others keep theirs."""
    write_psfs(tmp_path / "0591m305")
    write_psfs(tmp_path / "0002m005", size=20 if damage == "even" else 21)
    broken = tmp_path / "0002m005" / ("g.fits" if damage == "even" else "z.fits")
    if damage == "missing":
        broken.unlink()
    elif damage == "empty":
        broken.write_bytes(b"")
    assets, notes = read_assets(make_config(measured(tmp_path)), BRICKS)
    assert list(assets.psf_stamps) == ["0591m305"]
    assert len(notes) == 1
    assert str(broken) in notes[0]


@pytest.mark.skipif(not MINI_BRICK.is_dir(), reason=f"real imaging is not here: {MINI_BRICK}")
def test_url_without_brickname_serves_all_bricks(make_config: MakeConfig) -> None:
    """The survey's coadd PSFs under one URL are read once, for hosts of any brick."""
    stamps = f"injection.psf={{profile: measured, stamps: '{MINI_BRICK}/coaddpsf-{{band}}.fits'}}"
    assets, notes = read_assets(make_config(stamps), BRICKS)
    assert list(assets.psf_stamps) == [""]
    assert assets.psf_stamps[""].shape == (3, 63, 63)
    assert notes == []


def bank_override(path: Path, digest: str) -> str:
    """Override that asks for a bank."""
    return f"injection.source={{kind: bank, url: {path}, sha256: '{digest}'}}"


def test_bank_is_read_whole(make_config: MakeConfig, make_bank: MakeBank, tmp_path: Path) -> None:
    """The bank in memory has the templates and the digest of the file."""
    bank = make_bank()
    write_bank(Location(str(tmp_path / "bank.h5")), bank, "test")
    assets, notes = read_assets(make_config(bank_override(tmp_path / "bank.h5", bank.digest)), BRICKS)
    assert assets.bank is not None
    assert assets.bank.digest == bank.digest
    assert np.array_equal(assets.bank.images, bank.images)
    assert notes == []


def test_absent_bank_stops_the_task(make_config: MakeConfig, tmp_path: Path) -> None:
    """Without its bank no row could be made, so it is an error and not a note."""
    with pytest.raises(ContractError, match="bank.h5"):
        read_assets(make_config(bank_override(tmp_path / "bank.h5", "0" * 64)), BRICKS)


@pytest.fixture
def make_task(
    make_config: MakeConfig, make_cutouts: Callable[..., xr.Dataset], tmp_path: Path
) -> Callable[..., ShardTask]:
    """A shard of eight hosts in two bricks whose cutouts cube is published."""

    def make(*overrides: str) -> ShardTask:
        frame = pd.DataFrame(
            {
                "brickname": ["0591m305"] * 5 + ["0002m005"] * 3,
                "ra": 59.0 + 0.001 * np.arange(8),
                "dec": np.full(8, -30.5),
                **{name: np.full(8, mag) for name, mag in (("gmag", 21.0), ("rmag", 19.5), ("zmag", 18.8))},
                "ebv": np.full(8, 0.03),
                "psfdepth_r": np.full(8, 24.0),
            }
        )
        frame.to_parquet(tmp_path / "parent.parquet")
        config = make_config(
            f"manifest.url={tmp_path / 'parent.parquet'}",
            f"run.root={tmp_path / 'runs'}",
            "survey.stamp_size_px=32",
            "shards.samples=8",
            "shards.inner_chunk=8",
            "sampling.weight_draws=1",
            "training.preprocess={annulus_px: [8, 12]}",
            *overrides,
        )
        layout, plan = RunLayout.of(config.run), make_plan(config)
        task = ShardTask(config, layout, plan.shape, 0, tuple(plan.pieces(0)), plan.sha256, "code")
        rows = read_rows(config, plan.pieces(0))
        copied = {str(name): rows[name].to_numpy() for name in rows if name in CUTOUTS_NAMES and name != "host_id"}
        cutouts = make_cutouts(8, size=32, **copied)
        for cube, schema in (("cutouts", CUTOUTS), ("training", TRAINING)):
            create_cube(layout.cube(cube), schema, plan.shape)
        write_shard(layout.cube("cutouts"), CUTOUTS, plan.shape, 0, cutouts)
        publish_cube(layout.cube("cutouts"), cube_attributes(CUTOUTS, plan.shape, {"bands": ["g", "r", "z"]}))
        return task

    return make


CUTOUTS_NAMES = {variable.name for variable in CUTOUTS.variables}


def training_columns(task: ShardTask) -> xr.Dataset:
    """What the task stored in the training cube."""
    location = task.layout.cube("training")
    publish_cube(location, cube_attributes(TRAINING, task.shape, {"bands": ["g", "r", "z"]}))
    return open_cube(location).columns(["brickname", "role", "reject_reason", "src_template", "arc_snr", "snr_target"])


def test_shard_counts_hosts_without_psf(make_task: Callable[..., ShardTask], tmp_path: Path) -> None:
    """Rows of a brick whose PSF is missing are stored with their reason, counted, and noted in the receipt."""
    write_psfs(tmp_path / "psf" / "0591m305")
    write_psfs(tmp_path / "psf" / "0002m005", bands="gr")
    task = make_task(measured(tmp_path / "psf"))
    receipt = make_training_shard(task, None)
    assert receipt.rows == 8
    assert receipt.counts["psf_unreadable"] == 3
    assert sum(receipt.counts.values()) == 8
    assert [str(tmp_path / "psf" / "0002m005" / "z.fits") in note for note in receipt.notes] == [True]
    made = training_columns(task)
    lost = made["brickname"].to_numpy() == "0002m005"
    assert (made["reject_reason"].to_numpy() == REJECT_REASONS.index("psf_unreadable")).tolist() == lost.tolist()
    assert (made["role"].to_numpy()[~lost] == ROLES.index("pair")).any()


def test_pilot_leaves_hosts_without_psf_out(make_task: Callable[..., ShardTask], tmp_path: Path) -> None:
    """The pilot's draws are those of the hosts that can be rendered; none of them is NaN."""
    write_psfs(tmp_path / "psf" / "0591m305")
    draws = draw_pilot(make_task(measured(tmp_path / "psf")), 16)
    assert draws.host.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert draws.snr().min() > 0


def test_shard_of_templates_is_made_again_equal(
    make_task: Callable[..., ShardTask], make_bank: MakeBank, tmp_path: Path
) -> None:
    """A task with a bank stores templates, and a second run of it the same bytes."""
    bank = make_bank()
    write_bank(Location(str(tmp_path / "bank.h5")), bank, "test")
    task = make_task(bank_override(tmp_path / "bank.h5", bank.digest))
    first, second = (make_training_shard(task, None) for _ in range(2))
    assert first.objects == second.objects
    made = training_columns(task)
    pair = made["role"].to_numpy() == ROLES.index("pair")
    assert pair.any()
    assert np.isin(made["src_template"].to_numpy()[pair], np.flatnonzero(bank.usable)).all()
    assert made["arc_snr"].to_numpy()[pair] == pytest.approx(made["snr_target"].to_numpy()[pair], rel=1e-5)


def test_shard_with_another_bank_is_refused(
    make_task: Callable[..., ShardTask], make_bank: MakeBank, tmp_path: Path
) -> None:
    """A bank that is not the configured one stops the task before any row."""
    write_bank(Location(str(tmp_path / "bank.h5")), make_bank(), "test")
    task = make_task(bank_override(tmp_path / "bank.h5", "0" * 64))
    with pytest.raises(ContractError, match=r"injection\.source\.sha256: expected 0000"):
        make_training_shard(task, None)
