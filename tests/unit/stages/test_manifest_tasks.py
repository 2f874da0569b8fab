"""Rows of a manifest from sampled hosts."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from pipeline.contracts.emr_manifest import (
    BRICK_NUMBERS,
    MANIFEST_TYPES,
    PHOTOMETRY,
    BrickTable,
    CodedTexts,
    Hosts,
    HostSample,
    Selections,
)
from pipeline.contracts.errors import ContractError
from pipeline.contracts.manifest_config import Experiment, HostTier, TrainTier
from pipeline.kernels.spark_hash import TextColumn, hash_uniform, spark_xxhash64
from pipeline.stages.injection_grids import injection_grid
from pipeline.stages.manifest_tasks import ManifestInputTables, TaskTable, demand_distinct, rows_per_host

N_HOSTS = 40
TABLES = ManifestInputTables(
    BrickTable(("0001m100", "0002m100", "0003p100"), {name: np.array([1.1, 1.2, 1.35]) for name in BRICK_NUMBERS}),
    Selections(("a", "b"), ("topk", "stratified"), ("density", "n_lrg"), np.array([7]), np.array([1], np.int8),
               np.ones((2, 1), np.bool_)),
    (1.0, 1.15, 1.25, 1.3, 1.4),
    (1.0, 1.15, 1.25, 1.3, 1.4),
    13,
)  # fmt: skip
HOSTS = Hosts(
    np.random.default_rng(1).permutation(100)[:N_HOSTS],
    np.sort(np.random.default_rng(2).integers(0, 3, N_HOSTS)).astype(np.int32),
    np.random.default_rng(3).uniform(0, 360, N_HOSTS),
    np.random.default_rng(4).uniform(-60, 30, N_HOSTS),
    np.full(N_HOSTS, 7, np.int32),
    {name: np.ma.masked_array(np.full(N_HOSTS, 19.0, np.float32), mask=np.arange(N_HOSTS) == 3) for name in PHOTOMETRY},
)


def sample() -> HostSample:
    """Every host for set a, every second for set b, in an order of its own."""
    order = np.random.default_rng(5).permutation(N_HOSTS + N_HOSTS // 2)
    rows = np.r_[HOSTS.row, HOSTS.row[::2]][order]
    selection = np.r_[np.zeros(N_HOSTS), np.ones(N_HOSTS // 2)].astype(np.int16)[order]
    row_id = spark_xxhash64(rows)
    return HostSample(selection, np.full(rows.size, 1, np.int8), rows, row_id)


def table(tier: str = "train", control_frac: float = 0.5, *, unpaired: bool = True, replicates: int = 2) -> TaskTable:
    """The rows of one tier."""
    section = (
        TrainTier(grid="grid_sota", n_total_per_split=50, control_frac=control_frac)
        if tier == "train"
        else HostTier(grid="grid_small", n_per_config=50, control_frac=control_frac)
    )
    experiment = Experiment.model_validate({"tier": tier, "section": section, "stamp_size_px": 64, "bandset": "grz"})
    return TaskTable(experiment, TABLES, HOSTS, sample(), replicates, unpaired=unpaired)


def columns(made: TaskTable) -> dict[str, Any]:
    """All rows, texts as arrays."""
    found = made.columns(np.arange(made.n_rows))
    return {
        name: np.array(values.texts, object)[values.codes] if isinstance(values, CodedTexts) else values
        for name, values in found.items()
    }


def test_train_rows() -> None:
    """One grid entry per host, by its hash; controls are other hosts and lose the entry's name."""
    made = table()
    rows = columns(made)
    assert set(rows) == set(MANIFEST_TYPES)
    assert made.n_rows == 60 * 2 == made.rows_per_host * 60
    control = rows["is_control"] == 1
    assert 20 < control.sum() < 100
    assert set(rows["config_id"][control]) == {"CONTROL"}
    assert not rows["theta_e_arcsec"][control].any()
    grid = injection_grid("grid_sota")
    entry = [grid.config_ids.index(name) for name in rows["config_id"][~control]]
    np.testing.assert_array_equal(rows["src_dmag"][~control], grid.numbers["src_dmag"][entry])
    by_host: dict[tuple[float, float], set[int]] = {}
    for ra, dec, role in zip(rows["ra"], rows["dec"], rows["is_control"], strict=True):
        by_host.setdefault((ra, dec), set()).add(int(role))
    assert all(len(roles) == 1 for roles in by_host.values())


def test_copies_in_two_sets_differ_in_identity_alone() -> None:
    """Draws do not depend on the selection set, and replicates differ in them."""
    rows = columns(table(control_frac=0.0))
    key = np.array([f"{ra} {replicate}" for ra, replicate in zip(rows["ra"], rows["replicate"], strict=True)])
    first, second = rows["selection_set_id"] == "a", rows["selection_set_id"] == "b"
    for name in key[second]:
        one, other = first & (key == name), second & (key == name)
        assert rows["task_seed64"][one] == rows["task_seed64"][other]
        assert (rows["task_id"][one] != rows["task_id"][other]).any()
    assert len(set(rows["task_seed64"][first])) == 2 * N_HOSTS


def test_paired_controls_keep_the_name_of_their_entry() -> None:
    """The same rows are controls, without parameters, under the name of a grid entry."""
    paired, unpaired = columns(table(unpaired=False)), columns(table())
    np.testing.assert_array_equal(paired["is_control"], unpaired["is_control"])
    control = paired["is_control"] == 1
    assert "CONTROL" not in set(paired["config_id"])
    assert set(paired["lens_model"][control]) == {"CONTROL"}
    for name in ("theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear", "src_x_arcsec", "lens_e"):
        assert not np.any(paired[name][control]), name


def test_host_tiers_cross_every_host_with_the_grid() -> None:
    """Each host has every entry as positive or every entry as control, by set, split and tier."""
    made = table("debug")
    rows = columns(made)
    assert made.n_rows == 60 * 48 * 2
    assert rows["config_id"][: 48 * 2 : 2].tolist() == list(injection_grid("grid_small").config_ids)
    roles = rows["is_control"].reshape(60, 96)
    assert (np.ptp(roles, axis=1) == 0).all()
    assert 10 < roles[:, 0].sum() < 50
    assert not rows["theta_e_arcsec"][rows["is_control"] == 1].any()
    assert columns(table("debug", 0.0))["is_control"].max() == 0
    grid_tier = columns(table("grid"))["is_control"]
    assert (grid_tier != rows["is_control"]).any()
    assert rows_per_host(made.experiment, 3) == 144


def test_control_of_the_train_tier_by_the_rule() -> None:
    """hash(row_id, brick, split, "train", seed + 7003) below the fraction."""
    taken = sample()
    made = columns(table(replicates=1))
    where = {row: index for index, row in enumerate(HOSTS.row.tolist())}
    names = TextColumn.of([TABLES.bricks.names[HOSTS.brick[where[row]]] for row in taken.row.tolist()])
    expected = hash_uniform(spark_xxhash64(taken.row_id, names, "train", "train", 13 + 7003)) < 0.5
    ra = HOSTS.ra_deg[[where[row] for row in taken.row.tolist()]]
    found = {(set_id, value): bool(role) for set_id, value, role in
             zip(made["selection_set_id"], made["ra"], made["is_control"], strict=True)}  # fmt: skip
    assert found == {
        ("ab"[set_id], value): bool(role) for set_id, value, role in zip(taken.selection, ra, expected, strict=True)
    }


def test_task_id_is_the_digest_of_the_names() -> None:
    """experiment, set, split, brick, position to six decimals, entry, replicate."""
    rows = columns(table())
    for row in (0, 17, 119):
        text = (
            f"train_stamp64_bandsgrz_gridgrid_sota|{rows['selection_set_id'][row]}|train|{rows['brickname'][row]}|"
            f"{rows['ra'][row]:.6f}|{rows['dec'][row]:.6f}|{rows['config_id'][row]}|{rows['replicate'][row]}"
        )
        assert bytes(rows["task_id"][row]) == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize("tier", ["train", "debug"])
def test_copies_are_counted(tier: str) -> None:
    """Rows less distinct stamps: a positive's draws and parameters, or just the host of a control."""
    made = table(tier)
    rows = columns(made)
    stamps = {
        (ra, None if role else seed)
        for ra, role, seed in zip(rows["ra"], rows["is_control"], rows["task_seed64"], strict=True)
    }
    assert made.n_copies == made.n_rows - len(stamps)
    assert made.n_copies > 0


def test_pieces_join_to_the_whole() -> None:
    """Whole bricks at a time, every row once; any rows in any order give the same values."""
    made = table()
    pieces = list(made.pieces_by_brick(30))
    np.testing.assert_array_equal(np.concatenate(pieces), np.arange(made.n_rows))
    bricks = [set(made.columns(piece)["brickname"].codes.tolist()) for piece in pieces]
    assert sum(map(len, bricks)) == 3
    whole = made.columns(np.arange(made.n_rows))
    some = np.array([100, 3, 57])
    for name, values in made.columns(some).items():
        expected = whole[name]
        if isinstance(values, CodedTexts):
            assert [values.texts[i] for i in values.codes] == [expected.texts[i] for i in expected.codes[some]]
        else:
            np.testing.assert_array_equal(values, expected[some], err_msg=name)
    assert made.brick_names == ["0001m100", "0002m100", "0003p100"]


def test_nulls_stay_nulls() -> None:
    """A magnitude that the parent lacks is masked."""
    rows = table().columns(np.arange(120))
    assert np.ma.count_masked(rows["zmag"]) in (2, 4)


def test_a_task_id_that_occurs_twice_is_refused() -> None:
    """Named by its digits."""
    digests = table().task_digests(np.arange(6))
    demand_distinct(digests, "here")
    with pytest.raises(ContractError, match=f"here: 1 rows .*{bytes(digests[2]).hex()}"):
        demand_distinct(np.vstack([digests, digests[2]]), "here")


def test_sampled_row_must_be_among_the_hosts() -> None:
    """A row number that was not gathered."""
    made = table()
    wrong = HostSample(np.zeros(1, np.int16), np.zeros(1, np.int8), np.array([10**9]), np.zeros(1, np.int64))
    with pytest.raises(ContractError, match="not among the hosts"):
        TaskTable(made.experiment, TABLES, HOSTS, wrong, 1, unpaired=True)
