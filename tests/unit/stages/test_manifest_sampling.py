"""Stratified samples: the rule against a plain reading of it, independence of order, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.emr_manifest import SPLIT_NAMES, BrickTable, HostBatch, HostSample, Selections
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.kernels.spark_hash import TextColumn, spark_xxhash64
from pipeline.stages import manifest_sampling
from pipeline.stages.manifest_sampling import HostSampler, bin_of, quartile_edges

PSF_EDGES, DEPTH_EDGES = (1.0, 1.1, 1.2, 1.3, 1.4), (23.0, 24.0, 24.5, 25.0, 26.0)
SEED = 13
BRICKS = BrickTable(
    tuple(f"{i:04d}m100" for i in range(12)),
    {
        "psfsize_r": np.r_[np.linspace(0.9, 1.5, 10), np.nan, 1.2],
        "psfdepth_r": np.r_[np.tile([23.5, 24.2, 24.7], 4)[:11], np.nan],
    },
)
SELECTIONS = Selections(
    ("first", "second"),
    ("topk", "stratified"),
    ("density", "n_lrg"),
    np.array([2, 5, 7, 11]),
    np.array([0, 1, 2, 1], np.int8),
    np.array([[True, True, True, False], [True, True, False, False]]),
)


def hosts(n_hosts: int = 400, seed: int = 3) -> pd.DataFrame:
    """Random hosts; region 11 is in no selection, 999 in no table."""
    rng = np.random.default_rng(seed)
    region = rng.choice([2, 5, 7, 11, 999], n_hosts)
    split = pd.Series(region).map({2: 0, 5: 1, 7: 2, 11: 1, 999: -1}).to_numpy()
    return pd.DataFrame(
        {
            "flag": rng.random(n_hosts) < 0.9,
            "brick": rng.integers(-1, 12, n_hosts),
            "ra": rng.uniform(0, 360, n_hosts),
            "dec": rng.uniform(-90, 90, n_hosts),
            "region": region,
            "split": split,
            "mag": rng.normal(19.0, 1.0, n_hosts).astype(np.float32),
            "no_mag": rng.random(n_hosts) < 0.1,
        }
    )


def batch(frame: pd.DataFrame, first_row: int = 0) -> HostBatch:
    """The rows as read from a catalogue."""
    magnitudes = np.ma.masked_array(frame["mag"].to_numpy(np.float32), mask=frame["no_mag"].to_numpy())
    return HostBatch(
        first_row,
        frame["flag"].to_numpy(bool),
        frame["brick"].to_numpy(np.int32),
        frame["ra"].to_numpy(),
        frame["dec"].to_numpy(),
        frame["region"].to_numpy(np.int64),
        frame["split"].to_numpy(np.int8),
        {"zmag": magnitudes, "rmag": magnitudes + np.float32(0.5)},
    )


def sampler(per_cell: int = 5, max_entries: int | None = None) -> HostSampler:
    """A sampler of the tables above."""
    return HostSampler(BRICKS, SELECTIONS, PSF_EDGES, DEPTH_EDGES, SEED, per_cell, max_entries)


def sampled(frame: pd.DataFrame, batch_rows: int, n_hosts: int, per_cell: int = 5) -> HostSample:
    """The sample of a catalogue that comes in batches."""
    collector = sampler(per_cell)
    for start in range(0, len(frame), batch_rows):
        collector.add(batch(frame.iloc[start : start + batch_rows], start))
    collector.finish()
    return collector.sample(n_hosts)


def plain_sample(frame: pd.DataFrame, n_hosts: int) -> set[tuple[int, int, int]]:
    """(selection, split, row) by the rule as it is written down, with data frames."""
    read = batch(frame)
    row_id = spark_xxhash64(
        TextColumn.of([BRICKS.names[brick] for brick in read.brick]),
        read.ra_deg, read.dec_deg, read.photometry["zmag"], read.photometry["rmag"],
    )  # fmt: skip
    table = frame.assign(
        row=range(len(frame)), first=spark_xxhash64(row_id, SEED), next=spark_xxhash64(row_id, SEED + 1)
    )
    table["psf_bin"] = bin_of(BRICKS.numbers["psfsize_r"], PSF_EDGES)[frame["brick"]]
    table["depth_bin"] = bin_of(BRICKS.numbers["psfdepth_r"], DEPTH_EDGES)[frame["brick"]]
    table = table[table["flag"] & table["brick"].between(0, 9)]
    taken = set()
    for selection, regions in enumerate(([2, 5, 7], [2, 5])):
        inside = table[table["region"].isin(regions)].sort_values("first")
        per_cell = -(-n_hosts // 16)
        cut = inside.groupby(["split", "psf_bin", "depth_bin"]).head(per_cell).sort_values("next")
        for split, rows in cut.groupby("split")["row"]:
            taken |= {(selection, int(split), int(row)) for row in rows.head(n_hosts)}
    return taken


@pytest.mark.parametrize("n_hosts", [1, 16, 20, 80, 10_000])
def test_sample_follows_the_rule(n_hosts: int) -> None:
    """Cells first, then the cap; as many per cell as any tier needs are kept."""
    frame = hosts()
    found = sampled(frame, 400, n_hosts, per_cell=1000)
    entries = set(zip(found.selection.tolist(), found.split.tolist(), found.row.tolist(), strict=True))
    assert entries == plain_sample(frame, n_hosts)
    assert len(entries) == len(found.row)


def test_sample_depends_on_neither_order_nor_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffled rows in small batches, pruned at once, give the same hosts in the same order."""
    frame = hosts()
    monkeypatch.setattr(manifest_sampling, "_MIN_BUFFER", 8)
    shuffled = frame.sample(frac=1.0, random_state=1)
    one, other = sampled(frame, 400, 70), sampled(shuffled, 37, 70)
    for name in ("selection", "split", "row_id"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.row, shuffled.index.to_numpy()[other.row])


def test_rows_kept_out_are_counted_by_their_first_reason() -> None:
    """Counts add up to what was read, and strata say where there are too few."""
    frame = hosts()
    collector = sampler()
    collector.add(batch(frame))
    collector.finish()
    flagged = frame["flag"]
    selected = flagged & frame["region"].isin([2, 5, 7])
    assert collector.dropped == {
        "lrg_flag_unset": int((~flagged).sum()),
        "region_not_selected": int((flagged & ~frame["region"].isin([2, 5, 7])).sum()),
        "brick_unknown": int((selected & (frame["brick"] < 0)).sum()),
        "psfsize_or_depth_missing": int((selected & (frame["brick"] > 9)).sum()),
    }
    strata = collector.strata(80)
    eligible = {(row["selection_set_id"], row["region_split"]): row["hosts_eligible"] for row in strata}
    usable = selected & frame["brick"].between(0, 9)
    assert eligible["first", "val"] == int((usable & (frame["region"] == 7)).sum())
    assert eligible["second", "val"] == 0
    assert next(row for row in strata if row["hosts_eligible"] == 0)["cells_empty"] == 16
    assert all(row["cells_empty"] + row["cells_short"] <= 16 for row in strata)
    assert collector.n_read == 400


def test_regions_without_hosts_are_named() -> None:
    """A selected region in which nothing usable lies."""
    collector = sampler()
    collector.add(batch(hosts().query("region != 7")))
    collector.finish()
    assert collector.regions_without_hosts() == [7]


def change(**values: Any) -> pd.DataFrame:
    """Hosts of which the first ten are usable, with values of rows 4 and 6 replaced."""
    frame = hosts()
    frame.loc[:9, ["flag", "brick", "region", "split"]] = [True, 3, 5, 1]
    for name, value in values.items():
        frame.loc[[4, 6], name] = value
    return frame


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ra": np.nan}, r"2 rows with ra or dec null, NaN or out of range \(rows 4, 6\)"),
        ({"ra": 360.0}, "ra or dec"),
        ({"dec": -91.0}, "ra or dec"),
        ({"split": -1}, "region_split not one of test, train, val"),
        ({"split": 2}, "region_split unlike that of the region selections"),
    ],
)
def test_unusable_rows_are_refused(values: dict[str, Any], message: str) -> None:
    """With their numbers; rows that would not be taken anyway are not judged."""
    with pytest.raises(ContractError, match=message):
        sampler().add(batch(change(**values)))
    sampler().add(batch(change(**values, flag=False)))


def test_a_host_that_occurs_twice_is_refused() -> None:
    """In whatever batches its copies come."""
    frame = change()
    frame.loc[6] = frame.loc[4]
    collector = sampler(per_cell=1000)
    collector.add(batch(frame.iloc[:5]))
    collector.add(batch(frame.iloc[5:], 5))
    with pytest.raises(ContractError, match=r"1 hosts occur again .*\(rows 4, 6"):
        collector.finish()


def test_guardrail_stops_the_scan() -> None:
    """More hosts than rows are allowed."""
    collector = sampler(max_entries=10)
    collector.add(batch(hosts()))
    with pytest.raises(ConfigError, match="guardrail"):
        collector.finish()


def test_edges_and_bins() -> None:
    """Edges are values that occur; lower edges belong to a bin; all that is outside is in the last one."""
    values = np.arange(1.0, 25.0)
    np.random.default_rng(0).shuffle(values)
    assert quartile_edges(np.r_[values, np.nan]) == (1.0, 6.0, 12.0, 18.0, 24.0)
    assert bin_of(np.array([1.0, 6.0, 17.9, 18.0, 24.0, 0.5, 25.0, np.nan]), (1.0, 6.0, 12.0, 18.0, 24.0)).tolist() == [
        0, 1, 2, 3, 3, 3, 3, 3,
    ]  # fmt: skip
    for useless in ([], [np.nan], [2.0, 2.0]):
        with pytest.raises(ContractError, match="quartiles"):
            quartile_edges(np.array(useless))


def test_splits_are_sorted() -> None:
    """Their indices order rows of the sample."""
    assert list(SPLIT_NAMES) == sorted(SPLIT_NAMES)
