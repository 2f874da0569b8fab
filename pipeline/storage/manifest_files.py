"""Phase-4a manifests on disk: the folders, part files and markers that Spark left, written and read in pieces."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.contracts.emr_manifest import MANIFEST_TYPES, CodedTexts
from pipeline.contracts.errors import ContractError
from pipeline.storage.emr_layout import SUCCESS, EmrLayout
from pipeline.storage.locations import Location, storage_errors
from pipeline.storage.tables import find_parts, open_parquet_file

ROW_GROUP_ROWS = 2**15
FILE_ROWS = 2**21

# Of Spark's default; every reader of the old manifests has it.
_CODEC = "snappy"
_HEX_PER_DIGEST = 64
_CSV = pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")


class ManifestWriter:
    """Writes part files of a manifest piece by piece; the marker comes last, if no error did.

    Args:
        folder: emptied first.
        csv: folder of a copy as text, part by part, emptied first; None for none.
        file_rows: rows after which the next part file begins.
    """

    def __init__(self, folder: Location, csv: Location | None = None, file_rows: int = FILE_ROWS) -> None:
        self._folder, self._csv, self._file_rows = folder, csv, file_rows
        self._schema = pa.schema([pa.field(name, _storage_type(kind)) for name, kind in MANIFEST_TYPES.items()])
        self._stream: Any = None
        self._writer: pq.ParquetWriter | None = None
        self._text: tuple[Any, pyarrow.csv.CSVWriter] | None = None
        self._in_file = self._n_files = 0
        self.n_rows = 0

    def __enter__(self) -> Self:
        for folder in self._folders():
            clear_folder(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_file()
        if kind is None:
            for folder in self._folders():
                folder.join(SUCCESS).write_bytes(b"")

    def write(self, columns: Mapping[str, Any]) -> None:
        """Append rows, given as `stages.manifest_tasks.TaskTable.columns` gives them."""
        table = pa.Table.from_arrays([_array(name, columns[name]) for name in MANIFEST_TYPES], schema=self._schema)
        with storage_errors(f"write {self._folder.url}"):
            if self._writer is None:
                self._stream = _opened(self._folder, f"part-{self._n_files:05d}.{_CODEC}.parquet")
                # Without Arrow's own schema, dictionaries are read back as plain strings.
                self._writer = pq.ParquetWriter(self._stream, self._schema, compression=_CODEC, store_schema=False)
                if self._csv is not None:
                    stream = _opened(self._csv, f"part-{self._n_files:05d}.csv")
                    self._text = stream, pyarrow.csv.CSVWriter(stream, self._schema, write_options=_CSV)
                self._n_files += 1
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            if self._text is not None:
                self._text[1].write_table(table.cast(self._schema))
        self.n_rows += table.num_rows
        self._in_file += table.num_rows
        if self._in_file >= self._file_rows:
            self._close_file()

    def _close_file(self) -> None:
        if self._writer is not None:
            with storage_errors(f"write {self._folder.url}"):
                self._writer.close()
                self._stream.close()
                if self._text is not None:
                    self._text[1].close()
                    self._text[0].close()
            self._writer, self._text, self._in_file = None, None, 0

    def _folders(self) -> list[Location]:
        return [self._folder] if self._csv is None else [self._folder, self._csv]


def _opened(folder: Location, name: str) -> Any:
    target = folder.join(name)
    if target.scheme == "file":
        target.filesystem.makedirs(folder.path, exist_ok=True)
    return target.filesystem.open(target.path, "wb")


def is_marked_complete(folder: Location) -> bool:
    """True if the folder carries Spark's marker."""
    return folder.join(SUCCESS).exists()


def clear_folder(folder: Location) -> None:
    """Delete every file below the folder, the marker first."""
    for name in sorted(folder.sizes(), key=lambda name: not name.endswith(SUCCESS)):
        folder.join(name).remove()


def write_bricks_manifest(layout: EmrLayout, bricks: Mapping[str, Sequence[str]]) -> None:
    """Store the bricks of each experiment as parquet and as CSV, each with its marker."""
    pairs = [(experiment, brick) for experiment, names in bricks.items() for brick in names]
    table = pa.table(
        {
            "experiment_id": pa.array([pair[0] for pair in pairs], pa.string()),
            "brickname": pa.array([pair[1] for pair in pairs], pa.string()),
        }
    )
    parquet, text = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet, compression=_CODEC, store_schema=False)
    pyarrow.csv.write_csv(table, text, _CSV)
    for folder, name, content in (
        (layout.bricks_manifest(), f"part-00000.{_CODEC}.parquet", parquet),
        (layout.bricks_manifest(csv=True), "part-00000.csv", text),
    ):
        clear_folder(folder)
        folder.join(name).write_bytes(content.getvalue())
        folder.join(SUCCESS).write_bytes(b"")


def manifest_pieces(folder: Location, rows: int) -> Iterator[pa.Table]:
    """The rows of a manifest in order, `rows` at a time within each part file.

    Raises:
        ContractError: a part file has other columns, another order of columns, or other types than the contract.
    """
    expected = [(name, kind) for name, kind in MANIFEST_TYPES.items()]
    for part in find_parts(folder):
        with open_parquet_file(part.location) as file:
            schema = file.schema_arrow
            found = [(field.name, str(field.type).removeprefix("large_")) for field in schema]
            if found != expected:
                differences = sorted(set(found) ^ set(expected)) or "another order of columns"
                raise ContractError(
                    f"{part.location.url}: expected the columns of a manifest, differences: {differences}"
                )
            for batch in file.iter_batches(batch_size=rows, use_threads=False):
                yield pa.Table.from_batches([batch])


def _storage_type(kind: str) -> pa.DataType:
    known = {"int32": pa.int32(), "int64": pa.int64(), "float": pa.float32(), "double": pa.float64()}
    return known.get(kind) or pa.string()


def _array(name: str, values: Any) -> pa.Array:
    if isinstance(values, CodedTexts):
        used, codes = np.unique(values.codes, return_inverse=True)
        texts = pa.array([values.texts[code] for code in used.tolist()], pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), texts)
    if values.ndim == 2:
        return _hexadecimal(values)
    kind = _storage_type(MANIFEST_TYPES[name])
    return pa.array(np.ma.getdata(values), kind, mask=np.ma.getmaskarray(values))


def _hexadecimal(digests: NDArray[np.uint8]) -> pa.Array:
    text = digests.tobytes().hex().encode()
    offsets = np.arange(0, len(text) + 1, _HEX_PER_DIGEST, dtype=np.int32)
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), pa.py_buffer(text))
