"""Tables of lenses and bricks: what is read is what was written, and what says nothing is refused."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from pipeline.contracts.anchors import ALL_SKY_BRICKS, ENTRIES
from pipeline.contracts.errors import ContractError
from pipeline.storage.anchor_tables import (
    list_brick_folders,
    packaged_lens_catalogue,
    read_anchor_table,
    read_brick_table,
    read_position_list,
    write_anchor_table,
)
from pipeline.storage.locations import Location


def test_the_packaged_catalogue_is_read_without_importing_its_package() -> None:
    """Importing lenscat would need sky-map software; the file is text."""
    table, source = packaged_lens_catalogue()
    assert len(table) > 30_000
    assert list(table)[:3] == ["name", "RA [deg]", "DEC [deg]"]
    assert source.startswith("lenscat ")
    assert "sha256:" in source
    code = (
        "import sys; from pipeline.storage.anchor_tables import packaged_lens_catalogue as read; read(); "
        "assert 'lenscat' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lists_are_read_as_they_are_written(tmp_path: Path) -> None:
    """Text stays text: no number is guessed, no NA."""
    (tmp_path / "list.csv").write_text("name,ra,dec\nNA,007.5,-1\n", encoding="utf-8")
    table, digest = read_position_list(Location(str(tmp_path / "list.csv")))
    assert table.to_dict("list") == {"name": ["NA"], "ra": ["007.5"], "dec": ["-1"]}
    assert len(digest) == 64


@pytest.mark.parametrize("content", [None, b"", b"name,ra,dec\n", b'a\n"b\n'])
def test_an_absent_empty_or_broken_list_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    """A list without rows would pass every check."""
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(ContractError, match="list.csv"):
        read_position_list(Location(str(tmp_path / "list.csv")))


def brick_file(
    path: Path, n_rows: int = 3, names: tuple[str, ...] = ("BRICKNAME", "RA", "DEC"), **more: object
) -> Location:
    """A FITS table of bricks, gzipped as the survey's is."""
    columns = {
        names[0]: ["0591m305"] * n_rows,
        names[1]: np.full(n_rows, 59.18),
        names[2]: np.full(n_rows, -30.5),
        **more,
    }
    formats = {"U": "8A", "f": "D", "i": "J"}
    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, formats[np.asarray(values).dtype.kind], array=np.asarray(values))
            for name, values in columns.items()
        ]
    )
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    path.write_bytes(gzip.compress(buffer.getvalue()))
    return Location(str(path))


def test_bricks_of_a_fits_table_that_were_observed(tmp_path: Path) -> None:
    """A brick counts if every band has an exposure; tables without such columns count every brick."""
    plain = read_brick_table(brick_file(tmp_path / "plain.fits.gz"), ("g", "r"))
    assert plain["brickname"].tolist() == ["0591m305"] * 3
    assert plain["dec_deg"].tolist() == [-30.5] * 3
    counted = brick_file(tmp_path / "counted.fits.gz", nexp_g=np.array([1, 0, 2]), nexp_r=np.array([1, 5, 0]))
    assert len(read_brick_table(counted, ("g", "r"))) == 1
    assert len(read_brick_table(counted, ("g",))) == 2


def test_the_grid_of_the_whole_sky_is_no_footprint(tmp_path: Path) -> None:
    """survey-bricks.fits.gz lists bricks that nobody observed."""
    with pytest.raises(ContractError, match="grid of the whole sky"):
        read_brick_table(brick_file(tmp_path / "all.fits.gz", ALL_SKY_BRICKS), ("r",))


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    """Columns are named; junk is not FITS."""
    with pytest.raises(ContractError, match="missing columns brickname"):
        read_brick_table(brick_file(tmp_path / "t.fits.gz", names=("NAME", "RA", "DEC")), ("r",))
    (tmp_path / "junk.fits").write_bytes(b"junk")
    with pytest.raises(ContractError, match="expected a FITS table"):
        read_brick_table(Location(str(tmp_path / "junk.fits")), ("r",))


def test_brick_folders_of_both_layouts(tmp_path: Path) -> None:
    """<brick>/ and <AAA>/<brick>/; other folders are no bricks."""
    for name in ("cache/0591m305", "cache/logs", "public/059/0591m305", "public/112/1126p222", "none/x"):
        (tmp_path / name).mkdir(parents=True)
    assert list_brick_folders(Location(str(tmp_path / "cache"))) == {"0591m305"}
    assert list_brick_folders(Location(str(tmp_path / "public"))) == {"0591m305", "1126p222"}
    with pytest.raises(ContractError, match="found none"):
        list_brick_folders(Location(str(tmp_path / "none")))


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_table_survives_writing_and_reading(tmp_path: Path, ending: str) -> None:
    """Both files hold the same rows, with the types of the schema."""
    row = {"str": "a, b", "int64": 7, "float64": 0.1 + 0.2}
    table = pd.DataFrame([{variable.name: row[variable.dtype] for variable in ENTRIES.variables}])
    table["known_separation_arcsec"] = np.nan
    write_anchor_table(Location(str(tmp_path)), "t", table)
    read = read_anchor_table(Location(str(tmp_path / f"t.{ending}")), ENTRIES)
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert read["source_row"].dtype == np.int64
    with pytest.raises(ContractError, match="missing column"):
        write_anchor_table(Location(str(tmp_path)), "u", table.drop(columns="grade"))
        read_anchor_table(Location(str(tmp_path / f"u.{ending}")), ENTRIES)
