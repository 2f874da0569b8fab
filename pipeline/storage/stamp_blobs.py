"""Stamps as NPZ bytes inside table rows: those of the EMR system, and the variants found in older data."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError

_GZIP_MAGIC = b"\x1f\x8b"
_PREFIX = "image_"
# What numpy, zipfile and zlib raise for bytes that are no NPZ file.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def encode_stamp(image: NDArray[np.float32], bands: Sequence[str]) -> bytes:
    """The NPZ file of one stamp: `image_<band>` for every band, float32 (y, x). Equal pixels give equal bytes.

    Args:
        image: (band, y, x). [nmgy]
    """
    sink = io.BytesIO()
    arrays = {f"{_PREFIX}{band}": np.ascontiguousarray(image[index]) for index, band in enumerate(bands)}
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def decode_stamp(blob: bytes, bands: Sequence[str]) -> NDArray[np.float32]:
    """The stamp in an NPZ file, (band, y, x) float32. [nmgy]

    Taken are `image_<band>` per band, `image` (band, y, x), and `cutout` (y, x, band) of the successor project, whose
    bands are g, r, z; each also wrapped in gzip.

    Raises:
        ContractError: not an NPZ file, or none of these arrays with the bands asked for. The message begins with
            "unreadable", "bands" or "shape".
    """
    try:
        data = gzip.decompress(blob) if blob[:2] == _GZIP_MAGIC else blob
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise ContractError(f"unreadable: {type(error).__name__}: {error}") from error
    return _picked(arrays, bands)


def _picked(arrays: dict[str, NDArray[np.generic]], bands: Sequence[str]) -> NDArray[np.float32]:
    single = {name.removeprefix(_PREFIX): image for name, image in arrays.items() if name.startswith(_PREFIX)}
    if single:
        missing = [band for band in bands if band not in single]
        if missing:
            raise ContractError(f"bands {', '.join(missing)} are not in the stamp, which has {', '.join(single)}")
        shapes = {single[band].shape for band in bands}
        if len(shapes) > 1:
            raise ContractError(f"shape differs between bands: {sorted(shapes)}")
        image = np.stack([single[band] for band in bands])
    elif "image" in arrays or "cutout" in arrays:
        image = arrays["image"] if "image" in arrays else np.moveaxis(np.atleast_3d(arrays["cutout"]), -1, 0)
        held = ("g", "r", "z")
        if image.shape[0] != len(held) or not set(bands) <= set(held):
            raise ContractError(f"bands {', '.join(bands)} asked for, the stamp has {image.shape[0]} of them")
        image = image[[held.index(band) for band in bands]]
    else:
        raise ContractError(f"bands not found: the stamp has the arrays {', '.join(sorted(arrays)) or 'none'}")
    if image.ndim != 3 or image.shape[1] != image.shape[2] or image.dtype.kind not in "fiu":
        raise ContractError(f"shape {image.shape} of {image.dtype}, expected numbers (band, y, x) with x = y")
    return np.ascontiguousarray(image, dtype=np.float32)
