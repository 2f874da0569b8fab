"""Spark's xxhash64 against vectors that Spark made, and against the published test vectors of XXH64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pipeline.kernels.spark_hash import TextColumn, hash_modulo, hash_uniform, spark_xxhash64

LONG_MIN = np.iinfo(np.int64).min
U64 = 2**64
PRIME_1, PRIME_2, PRIME_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
PRIME_4, PRIME_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


@pytest.fixture(scope="module")
def vectors(golden_hashes: Path) -> pa.Table:
    """120 rows of eight types with nulls, and Spark's hashes of them."""
    return pq.read_table(golden_hashes / "xxhash64_vectors.parquet")


def number(table: pa.Table, name: str, dtype: str) -> np.ma.MaskedArray[Any, Any]:
    """A numeric column, masked where null; a null float whose own hash is not 42 was a NaN."""
    column = table[name]
    mask = column.is_null().to_numpy()
    values = column.fill_null(False if dtype == "bool" else 0).to_numpy().astype(dtype)
    if dtype.startswith("float"):
        undefined = mask & (table[f"h_{name}"].to_numpy() != 42)
        values[undefined], mask = np.nan, mask & ~undefined
    return np.ma.masked_array(values, mask)


def unhashed_long(hashed: int) -> int:
    """The long whose XXH64 with seed 42 this is; every step of that hash can be undone."""

    def rotate_back(word: int, bits: int) -> int:
        return ((word >> bits) | (word << (64 - bits))) % U64

    word = hashed % U64
    word ^= word >> 32
    word = word * pow(PRIME_3, -1, U64) % U64
    word ^= (word >> 29) ^ (word >> 58)
    word = word * pow(PRIME_2, -1, U64) % U64
    word ^= word >> 33
    word = rotate_back((word - PRIME_4) * pow(PRIME_1, -1, U64) % U64, 27) ^ (42 + PRIME_5 + 8)
    word = rotate_back(word * pow(PRIME_1, -1, U64) % U64, 31) * pow(PRIME_2, -1, U64) % U64
    return word - U64 if word >= U64 // 2 else word


def longs(table: pa.Table) -> np.ma.MaskedArray[Any, Any]:
    """The column of longs, which the file holds rounded to double, from its hashes."""
    mask = table["l"].is_null().to_numpy()
    exact = np.array([0 if null else unhashed_long(h) for h, null in zip(table["h_l"].to_pylist(), mask, strict=True)])
    np.testing.assert_array_equal(exact[~mask].astype(np.float64), table["l"].to_numpy()[~mask])
    return np.ma.masked_array(exact, mask)


def hashes(table: pa.Table, name: str) -> NDArray[np.int64]:
    """A column of hashes."""
    return np.asarray(table[name].to_numpy())


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("d", "float64"), ("f", "float32"), ("n", "int32"), ("b", "bool"), ("sh", "int16"), ("by", "int8")],
)
def test_one_number_column(vectors: pa.Table, name: str, dtype: str) -> None:
    """Each numeric type, with nulls, infinities, NaN and both zeros, hashes as in Spark."""
    np.testing.assert_array_equal(spark_xxhash64(number(vectors, name, dtype)), hashes(vectors, f"h_{name}"))


@pytest.mark.parametrize("name", ["s", "bin"])
def test_one_text_column(vectors: pa.Table, name: str) -> None:
    """UTF-8 of one to four bytes a character, and bytes of up to a few stripes."""
    np.testing.assert_array_equal(
        spark_xxhash64(TextColumn.of(vectors[name].to_pylist())), hashes(vectors, f"h_{name}")
    )


def test_columns_are_chained_in_order(vectors: pa.Table) -> None:
    """The hash of a column seeds the next; literals and seeds given by the caller are columns too."""
    text, double = TextColumn.of(vectors["s"].to_pylist()), number(vectors, "d", "float64")
    single, small, large = number(vectors, "f", "float32"), number(vectors, "n", "int32"), longs(vectors)
    forward = spark_xxhash64(text, double, single, small, large)
    np.testing.assert_array_equal(forward, hashes(vectors, "h_sdfnl"))
    np.testing.assert_array_equal(spark_xxhash64(large, small, single, double, text), hashes(vectors, "h_lnfds"))
    np.testing.assert_array_equal(spark_xxhash64(text, text), hashes(vectors, "h_ss"))
    for literal, name in ((13, "h_l_lit13int"), (14, "h_l_lit14int"), (101, "h_l_lit101")):
        np.testing.assert_array_equal(spark_xxhash64(large, literal), hashes(vectors, name))
    np.testing.assert_array_equal(spark_xxhash64(text, small, "train", 7016), hashes(vectors, "h_s_n_train_7016"))
    np.testing.assert_array_equal(spark_xxhash64(large, small, seeds=spark_xxhash64(text, double, single)),
                                  spark_xxhash64(text, double, single, large, small))  # fmt: skip


def test_modulo_of_hashes(vectors: pa.Table) -> None:
    """pmod(abs(x), 1e6); the absolute value of the smallest long is negative, its pmod is not."""
    large = longs(vectors)
    known = ~np.ma.getmaskarray(large)
    np.testing.assert_array_equal(
        hash_modulo(np.ma.getdata(large), 1_000_000)[known], vectors["pmod_abs_l_1e6"].to_numpy()[known]
    )
    assert hash_modulo(np.array([LONG_MIN]), 1_000_000).tolist() == [224192]
    assert hash_uniform(np.array([LONG_MIN, -1, 1_999_999])).tolist() == [0.224192, 1e-6, 0.999999]


def test_split_of_regions(golden_hashes: Path) -> None:
    """The split that the EMR system gave to region ids 0 to 1499 follows from their hash with 13."""
    regions = pd.read_parquet(golden_hashes / "region_split_xxhash64.parquet")
    found = spark_xxhash64(regions["region_id"].to_numpy(), 13)
    np.testing.assert_array_equal(found, regions["h"].to_numpy())
    np.testing.assert_array_equal(hash_uniform(found), regions["split_u"].to_numpy())


@pytest.mark.parametrize(
    ("text", "seed", "expected"),
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
        (b"xxhash", 20141025, 0xB559B98D844E0635),
    ],
)
def test_published_vectors(text: bytes, seed: int, expected: int) -> None:
    """Known XXH64 values, so that the kernel is tested where Spark's vectors are not at hand."""
    found = spark_xxhash64(TextColumn.of([text]), seeds=np.array([seed]))
    assert int(found[0]) % U64 == expected


def test_numbers_are_their_little_endian_bytes() -> None:
    """Four- and eight-byte values hash as the bytes they are made of, whatever their order in the array."""
    small, large = np.array([-3, 0, 7, 2**31 - 1], np.int32), np.array([-3, 0, 7, LONG_MIN])
    for values in (small, large, large.astype(np.float64) + 0.5, np.float32([1.5, -2.0, 0.0, np.inf])):
        as_bytes = TextColumn.of([value.tobytes() for value in values])
        np.testing.assert_array_equal(spark_xxhash64(values), spark_xxhash64(as_bytes))
        np.testing.assert_array_equal(spark_xxhash64(values[::-1]), spark_xxhash64(values)[::-1])


def test_nulls_and_zeros() -> None:
    """All null is 42; -0.0 is 0.0; rows taken from a column share its bytes."""
    nothing = np.ma.masked_array(np.zeros(2), mask=True)
    assert spark_xxhash64(nothing, TextColumn.of([None, None])).tolist() == [42, 42]
    assert np.ptp(spark_xxhash64(np.array([0.0, -0.0]))) == 0
    texts = TextColumn.of(["one", None, "three"])
    np.testing.assert_array_equal(
        spark_xxhash64(texts.take(np.array([2, 0, 2, 1]))),
        spark_xxhash64(TextColumn.of(["three", "one", "three", None])),
    )


def test_unusable_columns_are_refused() -> None:
    """Lengths that differ, literals alone, types without a rule."""
    with pytest.raises(ValueError, match="one length"):
        spark_xxhash64(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="one length"):
        spark_xxhash64(1, "a")
    with pytest.raises(ValueError, match="uint16"):
        spark_xxhash64(np.zeros(2, np.uint16))
