"""Rice kernels against a bit-by-bit encoder and the formulas of the FITS Standard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.kernels import rice

CODES = {1: (3, 6), 2: (4, 14), 4: (5, 25)}
PADDING = b"\xa5" * rice.BUFFER_PADDING_BYTES


def encode(values: list[int], block_size: int, byte_pix: int, codes: list[int]) -> bytes:
    """Rice stream of `values` with the given code per block: -1 all equal, 0.. low bits, the largest raw."""
    code_bits, raw_code = CODES[byte_pix]
    width = 8 * byte_pix
    modulus = 1 << width
    bits = format(values[0] % modulus, f"0{width}b")
    previous = values[0]
    for number, first in enumerate(range(0, len(values), block_size)):
        block = values[first : first + block_size]
        zigzags = []
        for value in block:
            difference = (value - previous + modulus // 2) % modulus - modulus // 2
            zigzags.append(2 * difference if difference >= 0 else -2 * difference - 1)
            previous = value
        code = codes[number % len(codes)]
        if code == -1 and any(zigzags):
            code = raw_code
        bits += format(code + 1, f"0{code_bits}b")
        for zigzag in zigzags:
            if code == raw_code:
                bits += format(zigzag, f"0{width}b")
            elif code >= 0:
                bits += "0" * (zigzag >> code) + "1"
                bits += format(zigzag & ((1 << code) - 1), f"0{code}b") if code else ""
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def decode(stream: bytes, pixels: int, block_size: int, byte_pix: int) -> tuple[int, NDArray[np.int32]]:
    """Status and pixels of one tile, from read-only memory."""
    buffer = np.frombuffer(stream + PADDING, np.uint8)
    assert not buffer.flags.writeable
    out = np.zeros((1, pixels), np.int32)
    ends = (np.array([0]), np.array([len(stream)]), np.array([pixels]))
    status = rice.decode_rice_integers(buffer, *ends, block_size, byte_pix, out)
    return int(status[0]), out[0]


def noise_stream(pixels: int = 1000) -> tuple[bytes, list[int]]:
    """A stream of white noise with blocks of 32 and 5 low bits, and its pixels."""
    values = np.rint(np.random.default_rng(3).normal(0, 40, pixels)).astype(int).tolist()
    return encode(values, 32, 4, [5]), values


@st.composite
def coded_values(draw: st.DrawFn) -> tuple[list[int], int, int, list[int]]:
    """Pixels, block size, pixel width and block codes that keep zero runs below some thousand bits."""
    byte_pix = draw(st.sampled_from([1, 2, 4]))
    low, high = {1: (0, 255), 2: (-(2**15), 2**15 - 1), 4: (-(2**31), 2**31 - 1)}[byte_pix]
    spread = draw(st.sampled_from([1, 300, 10**10]))
    values = draw(st.lists(st.integers(max(low, -spread), min(high, spread)), min_size=1, max_size=70))
    raw_code = CODES[byte_pix][1]
    lowest = 0 if min(spread, high) <= 300 else {1: 0, 2: 5, 4: 22}[byte_pix]
    codes = draw(st.lists(st.one_of(st.just(-1), st.integers(lowest, raw_code)), min_size=1, max_size=5))
    return values, draw(st.integers(1, 33)), byte_pix, codes


@settings(deadline=None, max_examples=150)
@given(coded_values())
def test_rice_inverts_the_encoder(case: tuple[list[int], int, int, list[int]]) -> None:
    """Every pixel width, block size and block code decodes to the encoded pixels."""
    values, block_size, byte_pix, codes = case
    status, decoded = decode(encode(values, block_size, byte_pix, codes), len(values), block_size, byte_pix)
    assert status == rice.STATUS_OK
    assert decoded.tolist() == values


@pytest.mark.parametrize("step", [29, 30, 31, 60, 61, 62, 1000])
def test_rice_long_zero_runs(step: int) -> None:
    """Runs of zero bits longer than the decoder's word are counted in full."""
    values = [0, step, 0, -step, step, 0, 1]
    for low_bits in (0, 3):
        assert decode(encode(values, 32, 4, [low_bits]), 7, 32, 4)[1].tolist() == values


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([1, 2, 4]), st.integers(1, 40), st.integers(1, 400))
def test_rice_random_bytes_give_a_status(stream: bytes, byte_pix: int, block_size: int, pixels: int) -> None:
    """Any bytes give a status, never an exception or a write behind the pixels, and never depend on the padding."""
    results = []
    for padding in (bytes(rice.BUFFER_PADDING_BYTES), b"\xff" * rice.BUFFER_PADDING_BYTES):
        out = np.full((2, pixels), 77, np.int32)
        buffer = np.frombuffer(stream + padding, np.uint8)
        ends = (np.array([0]), np.array([len(stream)]), np.array([pixels]))
        status = int(rice.decode_rice_integers(buffer, *ends, block_size, byte_pix, out)[0])
        assert status in (rice.STATUS_OK, rice.STATUS_TRUNCATED, rice.STATUS_BAD_BLOCK)
        assert (out[1] == 77).all()
        results.append(out[0].tolist() if status == rice.STATUS_OK else None)
    assert results[0] == results[1]


@pytest.mark.parametrize("kept", [0, 3, 4, 5, 40, -1])
def test_rice_truncated_stream(kept: int) -> None:
    """A stream that lacks its last byte or nearly all of it is reported as truncated."""
    stream, values = noise_stream()
    assert decode(stream[:kept], len(values), 32, 4)[0] == rice.STATUS_TRUNCATED


def test_rice_impossible_block_code() -> None:
    """A block code above the one for raw differences is reported as bad."""
    stream = bytes(4) + bytes([0b11111_000]) + bytes(60)
    assert decode(stream, 40, 32, 4)[0] == rice.STATUS_BAD_BLOCK


def test_rice_first_pixels_alone() -> None:
    """Asking for fewer pixels gives the first of them."""
    stream, values = noise_stream()
    for pixels in (1, 31, 32, 33, 999):
        status, decoded = decode(stream, pixels, 32, 4)
        assert status == rice.STATUS_OK
        assert decoded.tolist() == values[:pixels]


def test_rice_floats_are_dequantised_integers() -> None:
    """The fused kernel gives what the two steps give, tile by tile, and leaves a bad tile as it was."""
    stream, values = noise_stream(500)
    buffer = np.frombuffer(stream + stream[:20] + stream + PADDING, np.uint8)
    size = len(stream)
    start = np.array([0, size, size + 20])
    end = np.array([size, size + 20, 2 * size + 20])
    scale, zero = np.array([1e-4, 1.0, 2e-3]), np.array([0.0, 1.0, -3.5])
    blank, row = np.full(3, values[7]), np.array([0, 1, 9999])
    for array in (start, end, scale, zero, blank, row):
        array.flags.writeable = False
    out = np.full((3, 500), 9.0, np.float32)
    status = rice.decode_rice_floats(buffer, start, end, np.full(3, 500), 32, 4, scale, zero, blank, 1, row, out)
    assert status.tolist() == [rice.STATUS_OK, rice.STATUS_TRUNCATED, rice.STATUS_OK]
    assert (out[1] == 9.0).all()
    for t in (0, 2):
        expected = np.empty(500, np.float32)
        rice.dequantise(np.array(values, np.int32), scale[t], zero[t], blank[t], 1, row[t], expected)
        assert np.array_equal(out[t], expected, equal_nan=True)
        assert np.isnan(out[t, 7])


def test_fits_random_values_are_the_standards() -> None:
    """The sequence starts with 16807 and ends with 1043618065, the check value of the FITS Standard."""
    values = rice.fits_random_values()
    assert values.shape == (10000,)
    assert values.dtype == np.float32
    assert values[0] == np.float32(16807 / (2**31 - 1))
    assert values[-1] == np.float32(1043618065 / (2**31 - 1))


@pytest.mark.parametrize("dither", [rice.NO_DITHER, rice.SUBTRACTIVE_DITHER_1, rice.SUBTRACTIVE_DITHER_2])
@pytest.mark.parametrize("row", [0, 17, 9999])
def test_dequantise_follows_the_formula(dither: int, row: int) -> None:
    """Values are (q - r + 0.5) scale + zero over several wraps of the sequence; blanks are NaN, the zero code is 0."""
    q = np.random.default_rng(1).integers(-1000, 1000, 25_000).astype(np.int32)
    q[:3] = [-2147483647, -2147483646, 5]
    random = rice.fits_random_values().astype(np.float64)
    draws: list[float] = []
    position = row
    while len(draws) < q.size:
        draws += random[int(np.float32(random[position]) * np.float32(500)) :].tolist()
        position = (position + 1) % 10_000
    offset = 0.0 if dither == rice.NO_DITHER else 0.5 - np.array(draws[: q.size])
    expected = ((q + offset) * 1e-4 + 0.25).astype(np.float32)
    if dither != rice.NO_DITHER:
        expected = ((q - np.array(draws[: q.size]) + 0.5) * 1e-4 + 0.25).astype(np.float32)
    expected[0] = np.nan
    if dither == rice.SUBTRACTIVE_DITHER_2:
        expected[1] = 0.0
    out = np.empty(q.size, np.float32)
    q.flags.writeable = False
    rice.dequantise(q, 1e-4, 0.25, -2147483647, dither, row, out)
    assert np.array_equal(out, expected, equal_nan=True)


def test_dequantise_without_blank() -> None:
    """With NO_BLANK no integer becomes NaN."""
    out = np.empty(3, np.float32)
    rice.dequantise(np.array([-2147483648, -2147483647, 0], np.int32), 1.0, 0.0, rice.NO_BLANK, 0, 0, out)
    assert np.isfinite(out).all()
