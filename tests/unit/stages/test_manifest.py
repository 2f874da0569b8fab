"""Rows: the EMR system's own manifests, parent catalogues, and every way in which they can be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.errors import ContractError
from pipeline.contracts.manifest import (
    EMR_COLUMNS,
    FROZEN_COLUMNS,
    PARENT_COLUMNS,
    PARENT_OPTIONAL_COLUMNS,
    ROWS,
)
from pipeline.contracts.schema import validate
from pipeline.stages.manifest import emr_rows, host_ids, parent_rows
from pipeline.storage.locations import Location
from pipeline.storage.tables import find_parts, pieces_of, read_pieces

BANDS = ("g", "r", "z")


def emr_frame(n_rows: int = 12) -> pd.DataFrame:
    """A valid manifest: every third row a control, one SIS row."""
    control = np.arange(n_rows) % 3 == 0
    columns: dict[str, object] = {name: np.full(n_rows, 0.25) for name in EMR_COLUMNS}
    columns |= {
        "task_id": [f"{row:064x}" for row in range(n_rows)],
        "brickname": ["0591m305"] * n_rows,
        "ra": 59.0 + np.arange(n_rows) / 1000,
        "dec": np.full(n_rows, -30.5),
        "region_split": ["train"] * n_rows,
        "config_id": ["x"] * n_rows,
        "theta_e_arcsec": np.where(control, 0.0, 1.2),
        "stamp_size": np.full(n_rows, 64),
        "bandset": ["grz"] * n_rows,
        "replicate": np.zeros(n_rows, int),
        "is_control": control.astype(int),
        "lens_model": ["CONTROL" if flag else "SIE" for flag in control],
        "ab_zp_nmgy": np.full(n_rows, 22.5),
        "rmag": np.full(n_rows, 19.5),
    }
    frame = pd.DataFrame(columns)
    frame.loc[1, "lens_model"] = "SIS"
    return frame


def parent_frame(n_rows: int = 6) -> pd.DataFrame:
    """A valid parent catalogue."""
    generator = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "brickname": ["0591m305"] * n_rows,
            "ra": generator.uniform(59, 60, n_rows),
            "dec": generator.uniform(-31, -30, n_rows),
            **{f"{band}mag": generator.uniform(18, 21, n_rows).astype(np.float32) for band in BANDS},
            "ebv": generator.uniform(0, 0.1, n_rows),
        }
    )


def message_of(action: Callable[[], object]) -> str:
    """The text of the ContractError that an action raises."""
    with pytest.raises(ContractError) as caught:
        action()
    return str(caught.value)


def test_golden_manifests_become_rows(golden_manifests: list[Path]) -> None:
    """Every EMR manifest satisfies ROWS; identities, frozen numbers and control flags are carried exactly."""
    counts = {}
    for path in golden_manifests:
        raw = pd.read_parquet(path)
        parts = find_parts(Location(str(path)))
        rows = emr_rows(read_pieces(pieces_of(parts, 0, parts[0].n_rows), EMR_COLUMNS, {}), BANDS, 64)
        validate(rows, ROWS, {"sample": len(raw), "band": 3})
        counts[path.parent.name + "/" + path.name.split("_")[0]] = len(raw)
        assert rows["task_id"].to_numpy().tolist() == raw["task_id"].tolist()
        assert rows["is_control"].to_numpy().tolist() == raw["is_control"].tolist()
        for name in set(FROZEN_COLUMNS) - {"lens_e"}:
            assert np.array_equal(rows[name].to_numpy(), raw[name].to_numpy()), name
        lens_e = np.where(raw["lens_model"] == "SIS", 0.0, raw["lens_e"])
        assert np.array_equal(rows["lens_e"].to_numpy(), lens_e)
        assert np.array_equal(rows["mag_z"].to_numpy(), raw["zmag"].to_numpy(np.float32), equal_nan=True)
        psfsize = raw[["psfsize_g", "psfsize_r", "psfsize_z"]].to_numpy(np.float32)
        assert np.array_equal(rows["psfsize_manifest_arcsec"].to_numpy(), psfsize)
    assert counts == {"golden_all/train": 88, "golden_unp1/debug": 1152, "golden_unp1/train": 54}


def test_repeated_hosts_of_golden_manifests_share_an_id(golden_manifests: list[Path]) -> None:
    """host_id is the same exactly where brick, ra and dec are."""
    for path in golden_manifests:
        raw = pd.read_parquet(path)
        ids = host_ids(raw["brickname"].tolist(), raw["ra"].tolist(), raw["dec"].tolist())
        hosts = raw.groupby(["brickname", raw["ra"].round(6), raw["dec"].round(6)]).ngroup()
        assert pd.Series(ids).groupby(hosts).nunique().eq(1).all()
        assert len(np.unique(ids)) == hosts.nunique()


VIOLATIONS: dict[str, tuple[str, object]] = {
    "NaN position": ("ra", np.nan),
    "ra outside 0..360 or dec outside -90..90": ("dec", -91.0),
    "brickname not of the form 0591m305": ("brickname", "591m305"),
    "bandset other than grz": ("bandset", "r"),
    "stamp_size other than 64": ("stamp_size", 96),
    "ab_zp_nmgy other than 22.5": ("ab_zp_nmgy", 22.4),
    "is_control other than 0 or 1": ("is_control", 2),
    "lens_model not in ('SIE', 'SIS') though is_control=0": ("lens_model", "NFW"),
    "theta_e_arcsec <= 0 though is_control=0": ("theta_e_arcsec", 0.0),
    "duplicate task_id": ("task_id", f"{5:064x}"),
}


@pytest.mark.parametrize("problem", VIOLATIONS)
def test_each_violation_is_counted_and_located(problem: str) -> None:
    """Two bad rows are reported as two, with their row numbers and the number of rows read."""
    column, value = VIOLATIONS[problem]
    frame = emr_frame()
    frame.loc[[7, 10], column] = value
    message = message_of(lambda: emr_rows(frame, BANDS, 64))
    assert f"2 rows with {problem} (rows 7, 10)" in message
    assert "12 read" in message


def test_all_violations_are_in_one_error() -> None:
    """A manifest with everything wrong lists everything, counting beyond the rows it names."""
    frame = emr_frame()
    for row, (column, value) in enumerate(VIOLATIONS.values()):
        frame.loc[row, column] = value
    frame.loc[[1, 2, 4, 7, 8], "bandset"] = "gr"
    message = message_of(lambda: emr_rows(frame, BANDS, 64))
    for problem in set(VIOLATIONS) - {"theta_e_arcsec <= 0 though is_control=0"}:
        assert f"rows with {problem}" in message
    assert "6 rows with bandset other than grz (rows 1, 2, 3 ...)" in message


def test_controls_must_say_control() -> None:
    """A control row with a lens model, and a lens row that says CONTROL, are errors."""
    frame = emr_frame()
    frame.loc[0, "lens_model"] = "SIE"
    frame.loc[4, "lens_model"] = "CONTROL"
    message = message_of(lambda: emr_rows(frame, BANDS, 64))
    assert "1 rows with lens_model not in ('CONTROL',) though is_control=1 (rows 0)" in message
    assert "1 rows with lens_model not in ('SIE', 'SIS') though is_control=0 (rows 4)" in message


@pytest.mark.parametrize("bands", [("r", "g", "z"), ("g", "r"), ("r",)])
def test_bands_in_another_order_are_another_bandset(bands: tuple[str, ...]) -> None:
    """The manifest's bandset must be the configured bands in their order."""
    assert "12 rows with bandset other than " + "".join(bands) in message_of(lambda: emr_rows(emr_frame(), bands, 64))


@pytest.mark.parametrize("column", ["is_control", "lens_model", "bandset", "brickname", "task_id"])
def test_nulls_are_violations(column: str) -> None:
    """Missing flags, models and identities are reported, not filled."""
    frame = emr_frame().astype({"is_control": float})
    frame.loc[4, column] = None
    assert "(rows 4)" in message_of(lambda: emr_rows(frame, BANDS, 64))


@pytest.mark.parametrize("column", sorted(set(FROZEN_COLUMNS) - {"theta_e_arcsec"}))
def test_arc_with_a_missing_number_is_a_violation(column: str) -> None:
    """A row that asks for an arc must have every number of it: NaN would become NaN pixels."""
    frame = emr_frame()
    frame.loc[4, column] = np.nan
    assert "(rows 4)" in message_of(lambda: emr_rows(frame, BANDS, 64))


def test_control_rows_need_no_arc() -> None:
    """NaN in the frozen numbers of a control is no violation."""
    frame = emr_frame()
    frame.loc[0, ["src_gr", "src_dmag", "lens_e"]] = np.nan
    assert emr_rows(frame, BANDS, 64).sizes["sample"] == 12


def test_sis_rows_are_round() -> None:
    """lens_e of a row that says SIS is 0 whatever the column holds."""
    rows = emr_rows(emr_frame(), BANDS, 64)
    assert rows["lens_e"].to_numpy()[[1, 2]].tolist() == [0.0, 0.25]


def test_index_of_the_frame_does_not_matter() -> None:
    """A slice or a shuffled frame gives its rows in its order."""
    frame = emr_frame().iloc[::-1]
    rows = emr_rows(frame, BANDS, 64)
    assert rows["task_id"].to_numpy().tolist() == frame["task_id"].tolist()
    piece = emr_rows(emr_frame().iloc[5:9], BANDS, 64)
    assert np.array_equal(piece["ra_deg"].to_numpy(), emr_frame()["ra"].to_numpy()[5:9])
    assert piece["lens_e"].to_numpy().tolist() == [0.25] * 4


def test_parent_identity_is_brick_and_position() -> None:
    """task_id is the SHA-256 of brick|ra|dec to 1e-6 deg; unknown columns are NaN; nothing is a control."""
    frame = parent_frame()
    rows = parent_rows(frame, BANDS)
    validate(rows, ROWS, {"sample": 6, "band": 3})
    first = f"{frame['brickname'][0]}|{frame['ra'][0]:.6f}|{frame['dec'][0]:.6f}"
    assert rows["task_id"].to_numpy()[0] == hashlib.sha256(first.encode()).hexdigest()
    assert not rows["is_control"].to_numpy().any()
    assert np.isnan(rows["psfsize_manifest_arcsec"].to_numpy()).all()
    assert np.isnan(rows["theta_e_arcsec"].to_numpy()).all()
    assert np.array_equal(rows["ebv_mag"].to_numpy(), frame["ebv"].to_numpy(np.float32))


@pytest.mark.parametrize("digits", [8, 7])
def test_parent_host_that_occurs_twice_is_refused(digits: int) -> None:
    """Positions that agree to 1e-6 deg in one brick are one host, which may occur once."""
    frame = parent_frame()
    frame.loc[5, ["ra", "dec"]] = [round(frame["ra"][2], digits), round(frame["dec"][2], digits)]
    assert "1 rows with duplicate host (brickname, ra, dec) (rows 5)" in message_of(lambda: parent_rows(frame, BANDS))


def test_parent_from_csv_and_parquet_agree(tmp_path: Path) -> None:
    """The same catalogue as CSV and as parquet gives equal rows, missing magnitudes included."""
    frame = parent_frame()
    frame.loc[3, "gmag"] = np.nan
    frame["region_split"] = ["train", "", "val", "test", "", ""]
    frame["psfsize_r"] = np.arange(6)
    frame.to_csv(tmp_path / "p.csv", index=False)
    frame.to_parquet(tmp_path / "p.parquet")
    rows = []
    for name in ("p.csv", "p.parquet"):
        pieces = pieces_of(find_parts(Location(str(tmp_path / name))), 1, 6)
        rows.append(parent_rows(read_pieces(pieces, PARENT_COLUMNS, PARENT_OPTIONAL_COLUMNS), BANDS))
    xr.testing.assert_identical(*rows)
    assert rows[0].sizes["sample"] == 5
    assert np.isnan(rows[0]["mag_g"].to_numpy()[2])


def test_host_id_ignores_the_sign_of_zero() -> None:
    """Declinations -0.0, 0.0 and -1e-9 are one position to 1e-6 deg."""
    ids = host_ids(["0001p000"] * 3, [0.1] * 3, [-0.0, 0.0, -1e-9])
    assert len(set(ids.tolist())) == 1


def test_host_id_tells_bricks_and_neighbours_apart() -> None:
    """Another brick, or 1e-6 deg, is another host; the id is stable over time."""
    ids = host_ids(["0591m305", "0591m306", "0591m305"], [59.1, 59.1, 59.100001], [-30.5] * 3)
    assert len(set(ids.tolist())) == 3
    expected = hashlib.blake2b(b"0591m305|59.100000|-30.500000", digest_size=8).digest()
    assert ids[0] == int.from_bytes(expected, "little", signed=True)
