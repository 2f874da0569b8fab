"""Small matrix products: right, within their bounds, and the same bits whatever the vectors of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.products import (
    COLUMN_STEP,
    MIN_HALF,
    MIN_MIRRORED_ROWS,
    MIN_ROWS,
    _block,
    _mirrored_block,
    mirrored_product,
    product,
)

Floats = NDArray[np.float32]
_UNTOUCHED = np.float32(7.0)


def _random(*shape: int) -> Floats:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("rows", "columns", "inner"), [(MIN_ROWS, 1, 1), (81, 41, 34), (20, 48, 7), (40, 70, 33)])
def test_product_is_that_of_the_matrices(rows: int, columns: int, inner: int) -> None:
    """Any size, from a place inside a larger matrix to a place inside another, around which nothing is written."""
    width = -(-columns // COLUMN_STEP) * COLUMN_STEP
    left, right = _random(inner, rows + 3), _random(inner, width)
    out = np.full((rows, columns + 5), _UNTOUCHED)
    product(left.ravel(), 2, rows + 3, inner, right.ravel(), width, rows, columns, out.ravel(), 4, columns + 5)
    exact = left[:, 2 : rows + 2].T.astype(np.float64) @ right[:, :columns]
    assert out[:, 4:-1] == pytest.approx(exact, abs=1e-5 * inner)
    assert (out[:, :4] == _UNTOUCHED).all() and (out[:, -1] == _UNTOUCHED).all()


@pytest.mark.parametrize(
    ("rows", "half", "inner"), [(MIN_MIRRORED_ROWS, MIN_HALF, 2), (81, 32, 41), (31, 13, 5), (70, 50, 30)]
)
def test_mirrored_product_is_even_plus_and_minus_odd(rows: int, half: int, inner: int) -> None:
    """Columns on both sides of the middle, narrow and wide, and nothing beyond them."""
    left, even, odd = _random(2 * inner - 1, rows), _random(inner, half), _random(inner - 1, half + 1)[:, :half].copy()
    out = np.full((rows + 2, 2 * half), _UNTOUCHED)
    mirrored_product(
        left.ravel(),
        0,
        rows,
        inner * rows,
        inner,
        even.ravel(),
        odd.ravel(),
        half,
        rows,
        out.ravel(),
        2 * half,
        2 * half,
    )
    e, o = left[:inner].T.astype(np.float64) @ even, left[inner:].T.astype(np.float64) @ odd
    assert out[1:-1] == pytest.approx(np.concatenate([(e - o)[:, ::-1], e + o], axis=1), abs=1e-5 * inner)
    assert (out[0] == _UNTOUCHED).all() and (out[-1] == _UNTOUCHED).all()


def test_bits_do_not_depend_on_the_blocks() -> None:
    """Vectors of 4, 8 and 16 floats and blocks of any shape give the same bits."""
    left, right, odd = _random(34, 48), _random(34, 48), _random(33, 48)

    def of_block(block: Callable[..., Any]) -> bytes:
        out = np.zeros((4, 48), np.float32)
        arguments = left.ravel(), right.ravel(), out.ravel()
        njit(lambda a, b, c: block(a, 0, 48, 34, b, 0, 48, c, 0, 48, 20))(*arguments)
        assert out[:, :20].all() and not out[:, 20:].any()
        return out.tobytes()

    def of_mirrored_block(block: Callable[..., Any]) -> bytes:
        out = np.zeros((2, 96), np.float32)
        twice = np.concatenate([left, left[1:]])
        njit(lambda a, b, c, d: block(a, 0, 48, 34 * 48, 34, b, c, 48, 0, d, 48, 96))(
            twice.ravel(), right.ravel(), odd.ravel(), out.ravel()
        )
        return out[:, 48 - 16 : 48 + 16].tobytes()

    assert len({of_block(_block(4, vectors, lanes)) for vectors, lanes in ((3, 16), (5, 4), (3, 8))}) == 1
    assert (
        len({of_mirrored_block(_mirrored_block(2, vectors, lanes)) for vectors, lanes in ((1, 16), (4, 4), (2, 8))})
        == 1
    )
