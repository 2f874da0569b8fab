"""NPZ stamps: what is written, and every older variant that is read."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.storage.stamp_blobs import decode_stamp, encode_stamp

BANDS = ("g", "r", "z")
STAMP = np.random.default_rng(1).normal(size=(3, 9, 9)).astype(np.float32)


def npz(**arrays: np.ndarray) -> bytes:
    """An NPZ file in memory."""
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()


def test_a_stamp_survives_bit_for_bit() -> None:
    """Arrays have the EMR names; equal pixels give equal bytes, NaN included."""
    stamp = STAMP.copy()
    stamp[1, 2, 3] = np.nan
    blob = encode_stamp(stamp, BANDS)
    assert blob == encode_stamp(stamp.copy(), BANDS)
    with np.load(io.BytesIO(blob)) as file:
        assert file.files == ["image_g", "image_r", "image_z"]
        assert file["image_r"].dtype == np.float32
    assert decode_stamp(blob, BANDS).tobytes() == stamp.tobytes()
    assert decode_stamp(blob, ("z", "g")).tobytes() == stamp[[2, 0]].tobytes()


@pytest.mark.parametrize(
    "blob",
    [
        npz(image=STAMP),
        npz(cutout=np.moveaxis(STAMP, 0, -1), meta_ra=np.array(1.0)),
        gzip.compress(encode_stamp(STAMP, BANDS)),
        npz(**{f"image_{band}": STAMP[index].astype(np.float64) for index, band in enumerate(BANDS)}),
    ],
    ids=["band first", "band last", "gzip", "double"],
)
def test_older_variants_are_read(blob: bytes) -> None:
    """Whatever the wrapping, the stamp is (band, y, x) float32."""
    np.testing.assert_array_equal(decode_stamp(blob, BANDS), STAMP)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "unreadable"),
        (b"PK\x03\x04 no archive", "unreadable"),
        (b"\x1f\x8b broken", "unreadable"),
        (encode_stamp(STAMP, BANDS)[:300], "unreadable"),
        (npz(image_r=STAMP[1]), "bands g, z are not in the stamp, which has r"),
        (npz(other=STAMP), "bands not found"),
        (npz(image=STAMP[:2]), "bands .* asked for, the stamp has 2"),
        (npz(image_g=STAMP[0], image_r=STAMP[1], image_z=STAMP[2, :5]), "shape differs"),
        (npz(image=STAMP[:, :5]), "shape"),
    ],
)
def test_unusable_stamps_say_why(blob: bytes, message: str) -> None:
    """The first word of the message is the kind of fault."""
    with pytest.raises(ContractError, match=f"^{message}"):
        decode_stamp(blob, BANDS)
