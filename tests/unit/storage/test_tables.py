"""Tables: the right rows of the right files, and no byte more than needed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contracts.errors import ContractError, PipelineError
from pipeline.storage.locations import Location
from pipeline.storage.tables import TablePart, find_parts, pieces_of, read_pieces, table_bytes

COLUMNS = {"row": "integer", "name": "string", "ra": "number"}
GROUP_ROWS = 50
BYTES_READ: list[int] = []


class CountingFile(io.FileIO):
    """A local file that counts what is read from it."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size) or b""
        BYTES_READ.append(len(data))
        return data


class CountingFileSystem(LocalFileSystem):
    """The local file system with counted reads."""

    cachable = False

    def open(self, path: str, mode: str = "rb", **_: Any) -> CountingFile:
        return CountingFile(path, mode)


class CountingLocation(Location):
    """A local location whose reads are counted."""

    @property
    def filesystem(self) -> CountingFileSystem:
        return CountingFileSystem()


def rows_frame(start: int, stop: int) -> pd.DataFrame:
    """Rows numbered as in the whole table, with a column that must not be read."""
    row = np.arange(start, stop)
    ballast = np.random.default_rng(start).bytes(200 * len(row))
    return pd.DataFrame(
        {
            "row": row,
            "name": [f"n{number}" for number in row],
            "ra": row / 7,
            "ballast": [ballast[200 * i : 200 * i + 200] for i in range(len(row))],
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """A folder of parts with 330, 0, 1, 275 and 94 rows, one of them a CSV, in row groups of 50."""
    folder = tmp_path_factory.mktemp("table")
    edges = [(0, 330), (330, 330), (330, 331), (331, 606)]
    for number, (start, stop) in enumerate(edges):
        rows_frame(start, stop).to_parquet(folder / f"part-{number}.parquet", row_group_size=GROUP_ROWS, index=False)
    rows_frame(606, 700).drop(columns="ballast").to_csv(folder / "part-9.csv", index=False)
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "_metadata.parquet").write_bytes(b"junk")
    (folder / ".part-0.parquet.crc").write_bytes(b"junk")
    (folder / "notes.txt").write_bytes(b"junk")
    return Location(str(folder))


def test_parts_are_the_data_files_in_name_order(table: Location) -> None:
    """Markers, hidden and other files are not parts; rows come from the footers."""
    parts = find_parts(table)
    assert [part.location.url.rsplit("/", 1)[1] for part in parts] == [
        *(f"part-{number}.parquet" for number in range(4)),
        "part-9.csv",
    ]
    assert [part.n_rows for part in parts] == [330, 0, 1, 275, 94]
    assert all(part.size_bytes == Path(part.location.path).stat().st_size for part in parts)


@settings(max_examples=60, deadline=None)
@given(bounds=st.tuples(st.integers(0, 720), st.integers(0, 720)).map(sorted))
def test_any_range_equals_the_slice_of_the_whole(table: Location, bounds: list[int]) -> None:
    """Rows [start, stop) are those of a full read, across row groups and files."""
    start, stop = bounds
    pieces = pieces_of(find_parts(table), start, stop)
    assert sum(piece.stop - piece.start for piece in pieces) == max(0, min(stop, 700) - min(start, 700))
    frame = read_pieces(pieces, COLUMNS, {})
    expected = np.arange(start, min(stop, 700))
    if expected.size:
        assert frame["row"].tolist() == expected.tolist()
        assert frame["name"].tolist() == [f"n{number}" for number in expected]
        assert np.array_equal(frame["ra"].to_numpy(), expected / 7)
        assert list(frame.columns) == list(COLUMNS)
        assert frame.index.tolist() == list(range(len(expected)))
    else:
        assert frame.empty


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    shard=st.integers(1, 7),
)
def test_pieces_of_all_shards_tile_the_table(lengths: list[int], shard: int) -> None:
    """Pieces of consecutive ranges cover every row of every file once, in order."""
    parts = [TablePart(Location(f"/t/{index}"), 1, length, "d") for index, length in enumerate(lengths)]
    seen = []
    for start in range(0, sum(lengths), shard):
        for piece in pieces_of(parts, start, start + shard):
            assert piece.start < piece.stop
            seen += [(piece.location.url, row) for row in range(piece.start, piece.stop)]
    assert seen == [(part.location.url, row) for part in parts for row in range(part.n_rows)]


def test_rows_of_one_shard_read_only_their_row_groups(tmp_path: Path) -> None:
    """60 of 20,000 rows cost the footer and their row group, without the columns that were not asked for."""
    path = tmp_path / "big.parquet"
    rows_frame(0, 20_000).to_parquet(path, row_group_size=100, index=False, compression=None)
    location = CountingLocation(str(path))
    parts = find_parts(location)
    BYTES_READ.clear()
    frame = read_pieces(pieces_of(parts, 9_930, 9_990), COLUMNS, {})
    assert frame["row"].tolist() == list(range(9_930, 9_990))
    footer = int.from_bytes(path.read_bytes()[-8:-4], "little")
    groups = pq.ParquetFile(path).metadata
    one_group = sum(
        groups.row_group(99).column(index).total_compressed_size
        for index in range(groups.num_columns)
        if groups.row_group(99).column(index).path_in_schema in COLUMNS
    )
    # The reader guesses the footer's length: it asks for 64 KiB and, if that was too little, for the whole.
    assert one_group < sum(BYTES_READ) <= footer + one_group + 65_536 + 1024
    assert sum(BYTES_READ) < 0.05 * path.stat().st_size


def test_planning_reads_footers_only(tmp_path: Path) -> None:
    """Counting the rows of a large file reads little more than its footer."""
    path = tmp_path / "big.parquet"
    rows_frame(0, 20_000).to_parquet(path, row_group_size=5_000, index=False, compression=None)
    BYTES_READ.clear()
    assert find_parts(CountingLocation(str(path)))[0].n_rows == 20_000
    assert sum(BYTES_READ) < 0.03 * path.stat().st_size


def test_a_limit_opens_only_the_files_it_needs(table: Location, tmp_path: Path) -> None:
    """With rows_needed the later files are not even opened."""
    assert [part.n_rows for part in find_parts(table, rows_needed=331)] == [330, 0, 1]
    assert [part.n_rows for part in find_parts(table, rows_needed=330)] == [330]
    rows_frame(0, 5).to_parquet(tmp_path / "a.parquet", index=False)
    (tmp_path / "b.parquet").write_bytes(b"not parquet")
    assert len(find_parts(Location(str(tmp_path)), rows_needed=5)) == 1
    with pytest.raises(ContractError, match=r"b\.parquet is not a parquet file"):
        find_parts(Location(str(tmp_path)))


def test_all_column_problems_are_in_one_error(tmp_path: Path) -> None:
    """Missing columns and wrong types are listed together with their families."""
    path = tmp_path / "x.parquet"
    pd.DataFrame({"row": [1.5], "ra": ["north"], "opt": [1]}).to_parquet(path)
    with pytest.raises(ContractError) as caught:
        read_pieces(pieces_of(find_parts(Location(str(path))), 0, 1), COLUMNS, {"opt": "string"})
    message = str(caught.value)
    assert f"{path}: 4 problems" in message
    for problem in (
        "missing column 'name' (string)",
        "column 'row': expected integer, got double",
        "column 'ra': expected number, got",
        "column 'opt': expected string, got int64",
    ):
        assert problem in message


@pytest.mark.parametrize(
    ("dtype", "family", "fits"),
    [
        (pa.int32(), "integer", True),
        (pa.int64(), "number", True),
        (pa.float32(), "number", True),
        (pa.float64(), "integer", False),
        (pa.bool_(), "integer", False),
        (pa.large_string(), "string", True),
        (pa.binary(), "string", False),
        (pa.int64(), "string", False),
        (pa.timestamp("us"), "number", False),
    ],
)
def test_families_of_types(tmp_path: Path, dtype: pa.DataType, family: str, fits: bool) -> None:
    """A family accepts its types and no others."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"c": pa.nulls(2, dtype)}), path)
    pieces = pieces_of(find_parts(Location(str(path))), 0, 2)
    if fits:
        assert len(read_pieces(pieces, {"c": family}, {})) == 2
    else:
        with pytest.raises(ContractError, match=f"expected {family}"):
            read_pieces(pieces, {"c": family}, {})


def test_optional_columns_are_read_where_they_exist(tmp_path: Path) -> None:
    """A part without an optional column gives missing values in its rows."""
    rows_frame(0, 2).assign(extra=[1.0, 2.0]).to_parquet(tmp_path / "a.parquet")
    rows_frame(2, 4).to_parquet(tmp_path / "b.parquet")
    frame = read_pieces(pieces_of(find_parts(Location(str(tmp_path))), 0, 4), {"row": "integer"}, {"extra": "number"})
    assert frame["row"].tolist() == [0, 1, 2, 3]
    assert frame["extra"].isna().tolist() == [False, False, True, True]


def test_column_that_pandas_stored_as_index_is_a_column(tmp_path: Path) -> None:
    """A file written from a frame indexed by a needed column reads like any other."""
    rows_frame(0, 3).set_index("name").to_parquet(tmp_path / "x.parquet")
    frame = read_pieces(pieces_of(find_parts(Location(str(tmp_path))), 1, 3), COLUMNS, {})
    assert frame["name"].tolist() == ["n1", "n2"]


def test_files_below_hidden_and_temporary_folders_are_no_parts(tmp_path: Path) -> None:
    """What Spark left in _temporary, or an editor in a hidden folder, is not data."""
    for folder in ("", "_temporary/0", ".ipynb_checkpoints", "region=1"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        rows_frame(0, 3).to_parquet(tmp_path / folder / "a.parquet")
    urls = [part.location.url for part in find_parts(Location(str(tmp_path)))]
    assert [url.removeprefix(f"file://{tmp_path}/") for url in urls] == ["a.parquet", "region=1/a.parquet"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello world", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_file_that_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    """A broken parquet file is named."""
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(PipelineError, match=r"x\.parquet"):
        find_parts(Location(str(tmp_path / "x.parquet")))


@pytest.mark.parametrize("content", [b"", b"a,b\n1\n2,3,4\n", b"a\n\xff\xfe\n"])
def test_file_that_is_no_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    """A broken CSV file is a ContractError that names it."""
    (tmp_path / "x.csv").write_bytes(content)
    location = Location(str(tmp_path / "x.csv"))
    with pytest.raises(ContractError, match=r"x\.csv"):
        read_pieces(pieces_of(find_parts(location), 0, 9), {"a": "string"}, {})


def test_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    """Two columns of one name are a ContractError, not a KeyError."""
    (tmp_path / "x.csv").write_bytes(b"a,a\n1,2\n")
    with pytest.raises(ContractError, match="'a'"):
        read_pieces(pieces_of(find_parts(Location(str(tmp_path / "x.csv"))), 0, 1), {"a": "number"}, {})


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    """A folder without parts and a table without rows are ContractErrors."""
    with pytest.raises(ContractError, match="found 0 files"):
        find_parts(Location(str(tmp_path)))
    rows_frame(0, 0).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ContractError, match="found 1 files"):
        find_parts(Location(str(tmp_path)))


def test_absent_manifest_is_not_retried(tmp_path: Path) -> None:
    """A path that does not exist is a ContractError, as find_parts says of nothing found."""
    with pytest.raises(ContractError):
        find_parts(Location(str(tmp_path / "absent")))


def test_csv_values_mean_what_parquet_values_mean(tmp_path: Path) -> None:
    """Digits-only brick names stay text, empty and nan numbers are NaN, integers are numbers."""
    (tmp_path / "x.csv").write_bytes(b"brickname,ra,gmag\n00010002,1,nan\n0591m305,2,\n0591m305,3,19.5\n")
    columns = {"brickname": "string", "ra": "number", "gmag": "number"}
    frame = read_pieces(pieces_of(find_parts(Location(str(tmp_path / "x.csv"))), 0, 3), columns, {})
    assert frame["brickname"].tolist() == ["00010002", "0591m305", "0591m305"]
    assert frame["gmag"].isna().tolist() == [True, True, False]


def test_frame_survives_as_bytes(tmp_path: Path) -> None:
    """table_bytes makes one parquet file without index."""
    frame = rows_frame(3, 9).iloc[::-1]
    (tmp_path / "x.parquet").write_bytes(table_bytes(frame))
    again = pd.read_parquet(tmp_path / "x.parquet")
    assert list(again.columns) == list(frame.columns)
    assert again["row"].tolist() == frame["row"].tolist()


@pytest.fixture(autouse=True)
def _no_counts_left() -> Iterator[None]:
    yield
    BYTES_READ.clear()
