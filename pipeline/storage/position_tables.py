"""Tables of sky positions under the names that manifests, catalogues, anchors and users' lists give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.search import POSITION_COLUMNS
from pipeline.storage.tables import TablePart, pieces_of, read_pieces

_TEXTS = ("position_id", "brickname")
_REQUIRED = ("ra_deg", "dec_deg")


def read_positions(parts: Sequence[TablePart]) -> pd.DataFrame:
    """The positions of a table: of an EMR manifest, a parent catalogue, a table of anchors, or a list.

    Args:
        parts: its files.

    Returns:
        The columns of POSITION_COLUMNS: position_id and brickname (text, "" where there is none), ra_deg, dec_deg
        [deg], ebv_mag and psfdepth_r_mag [mag] (float64, NaN where null or not given).

    Raises:
        ContractError: no right ascension or declination, or a column of another type.
    """
    where = parts[0].location.url
    families = {"position_id": "identifier", "brickname": "string"}
    wanted = {name: families.get(key, "number") for key, names in POSITION_COLUMNS.items() for name in names}
    frame = read_pieces(pieces_of(parts, 0, sum(part.n_rows for part in parts)), {}, wanted)
    found = {key: next((name for name in names if name in frame), None) for key, names in POSITION_COLUMNS.items()}
    missing = [" or ".join(POSITION_COLUMNS[key]) for key in _REQUIRED if found[key] is None]
    if missing:
        raise ContractError(f"{where}: a table of positions needs the columns {', '.join(missing)}")
    columns: dict[str, NDArray[Any]] = {}
    for key, name in found.items():
        if name is None:
            columns[key] = np.full(len(frame), "", dtype=object) if key in _TEXTS else np.full(len(frame), np.nan)
        elif key in _TEXTS:
            columns[key] = _texts(frame[name], where)
        else:
            columns[key] = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return pd.DataFrame(columns)


def _texts(column: pd.Series, where: str) -> NDArray[np.object_]:
    if column.dtype.kind == "f":
        raise ContractError(f"{where}: column {column.name!r}: expected an integer in every row, or text")
    texts = np.full(len(column), "", dtype=object)
    known = column.notna().to_numpy()
    texts[known] = column[known].astype(str)
    return texts
