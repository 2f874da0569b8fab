"""Rows: from the columns of an EMR manifest or a parent catalogue to what the next stages need."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.manifest import FROZEN_COLUMNS, ROWS
from pipeline.contracts.schema import validate

_NAMED_PROBLEMS = 3


def emr_rows(frame: pd.DataFrame, bands: Sequence[str], stamp_size_px: int) -> xr.Dataset:
    """Rows of an EMR phase-4a manifest.

    Args:
        frame: the columns of `EMR_COLUMNS`.
        bands: configured bands; every row's bandset must be these.
        stamp_size_px: configured stamp size; every row must ask for it.

    Raises:
        ContractError: one error that counts every kind of violation.
    """
    problems = _common_problems(frame)
    problems += _count("bandset other than " + "".join(bands), frame["bandset"] != "".join(bands))
    problems += _count(f"stamp_size other than {stamp_size_px}", frame["stamp_size"] != stamp_size_px)
    problems += _count("ab_zp_nmgy other than 22.5", frame["ab_zp_nmgy"] != 22.5)
    problems += _count("is_control other than 0 or 1", ~frame["is_control"].isin([0, 1]))
    known_models = {0: ("SIE", "SIS"), 1: ("CONTROL",)}
    for control, models in known_models.items():
        wrong = (frame["is_control"] == control) & ~frame["lens_model"].isin(models)
        problems += _count(f"lens_model not in {models} though is_control={control}", wrong)
    without_lens = (frame["is_control"] == 0) & ~(frame["theta_e_arcsec"] > 0)
    problems += _count("theta_e_arcsec <= 0 though is_control=0", without_lens)
    for name in FROZEN_COLUMNS:
        missing = (frame["is_control"] == 0) & ~np.isfinite(frame[name].astype(float))
        problems += _count(f"{name} not finite though is_control=0", missing)
    problems += _count("no task_id", frame["task_id"].isna() | (frame["task_id"] == ""))
    problems += _count("duplicate task_id", frame["task_id"].duplicated())
    _raise(problems, len(frame))
    # Only the elliptical model uses lens_e; a row that says SIS is round.
    lens_e = np.where(frame["lens_model"] == "SIS", 0.0, frame["lens_e"])
    return _rows(frame.assign(lens_e=lens_e), frame["task_id"], frame["is_control"], bands)


def parent_rows(frame: pd.DataFrame, bands: Sequence[str]) -> xr.Dataset:
    """Rows of a parent catalogue; the task_id is the SHA-256 of brick and position to 1e-6 deg.

    Raises:
        ContractError: one error that counts every kind of violation.
    """
    problems = _common_problems(frame)
    task_ids = pd.Series(
        [
            hashlib.sha256(_position(brick, ra, dec)).hexdigest()
            for brick, ra, dec in zip(frame["brickname"], frame["ra"], frame["dec"], strict=True)
        ],
        dtype=object,
    )
    problems += _count("duplicate host (brickname, ra, dec)", task_ids.duplicated())
    _raise(problems, len(frame))
    return _rows(frame, task_ids, pd.Series(np.zeros(len(frame), np.uint8)), bands)


def host_ids(brickname: Sequence[str], ra_deg: Sequence[float], dec_deg: Sequence[float]) -> NDArray[np.int64]:
    """Stable 64-bit identity of hosts: blake2b of brick and position to 1e-6 deg. Shape (sample,)."""
    digests = (
        hashlib.blake2b(_position(brick, ra, dec), digest_size=8).digest()
        for brick, ra, dec in zip(brickname, ra_deg, dec_deg, strict=True)
    )
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def host_position(ra_deg: float, dec_deg: float) -> tuple[float, float]:
    """Position to 1e-6 deg, by which copies of one host are known; right ascension in [0, 360). [deg]"""
    # Modulo and sum turn the -0.0 that rounding may leave into 0.0.
    return round(ra_deg, 6) % 360.0, round(dec_deg, 6) + 0.0


def _position(brick: str, ra_deg: float, dec_deg: float) -> bytes:
    ra, dec = host_position(ra_deg, dec_deg)
    return f"{brick}|{ra:.6f}|{dec:.6f}".encode()


def _common_problems(frame: pd.DataFrame) -> list[str]:
    ra, dec = frame["ra"].astype(float), frame["dec"].astype(float)
    problems = _count("NaN position", ra.isna() | dec.isna())
    problems += _count("ra outside 0..360 or dec outside -90..90", (ra < 0) | (ra >= 360) | (dec.abs() > 90))
    named = frame["brickname"].astype(str).str.match(r"^\d{4}[mp]\d{3}$")
    problems += _count("brickname not of the form 0591m305", ~named)
    return problems


def _count(what: str, violation: pd.Series) -> list[str]:
    rows = np.flatnonzero(violation.to_numpy())
    if not rows.size:
        return []
    named = ", ".join(map(str, rows[:_NAMED_PROBLEMS]))
    return [f"{rows.size} rows with {what} (rows {named}{' ...' if rows.size > _NAMED_PROBLEMS else ''})"]


def _raise(problems: list[str], n_rows: int) -> None:
    if problems:
        raise ContractError(f"manifest rows are unusable ({n_rows} read): " + "; ".join(problems))


def _rows(frame: pd.DataFrame, task_id: pd.Series, is_control: pd.Series, bands: Sequence[str]) -> xr.Dataset:
    n_rows = len(frame)

    def number(name: str, dtype: str) -> NDArray[np.float64]:
        values = frame[name] if name in frame else np.full(n_rows, np.nan)
        return np.asarray(values, dtype=dtype)

    def text(values: pd.Series) -> NDArray[np.object_]:
        return values.fillna("").to_numpy(dtype=object)

    psfsize = np.stack([number(f"psfsize_{band}", "float32") for band in bands], axis=1)
    columns: dict[str, NDArray[np.generic]] = {
        "task_id": text(task_id),
        "host_id": host_ids(frame["brickname"].tolist(), frame["ra"].tolist(), frame["dec"].tolist()),
        "brickname": text(frame["brickname"]),
        "ra_deg": number("ra", "float64"),
        "dec_deg": number("dec", "float64"),
        "region_split": text(frame["region_split"] if "region_split" in frame else pd.Series([""] * n_rows)),
        "is_control": is_control.to_numpy(dtype=np.uint8),
        "mag_g": number("gmag", "float32"),
        "mag_r": number("rmag", "float32"),
        "mag_z": number("zmag", "float32"),
        "ebv_mag": number("ebv", "float32"),
        "psfdepth_r_mag": number("psfdepth_r", "float32"),
        **{name: number(name, "float64") for name in FROZEN_COLUMNS},
    }
    rows = xr.Dataset({name: (("sample",), values) for name, values in columns.items()})
    rows["psfsize_manifest_arcsec"] = (("sample", "band"), psfsize)
    validate(rows, ROWS, {"sample": n_rows, "band": len(bands)})
    return rows
