from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.driver.synthetic_survey import write_survey
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage.locations import Location

SKY = SyntheticSky(seed=2, brick_size_px=300, hosts_per_brick=3)


def test_survey_is_written_once_and_recognised(tmp_path: Path) -> None:
    """The catalogue is sorted by brick; the same survey is kept, another one refused; processes make the same bytes."""
    root = Location(str(tmp_path))
    parent = write_survey(root, SKY, 2, "cache", processes=2)
    rows = pd.read_parquet(parent.path)
    assert len(rows) == 6
    assert rows["brickname"].is_monotonic_increasing
    assert len(list((tmp_path / "coadd").glob("*/legacysurvey-*-image-r.fits.fz"))) == 2
    written = Path(parent.path).stat().st_mtime_ns
    write_survey(root, SKY, 2, "cache", processes=1)
    assert Path(parent.path).stat().st_mtime_ns == written
    with pytest.raises(ContractError, match="holds another survey"):
        write_survey(root, SKY, 3, "cache", processes=1)
    write_survey(Location(str(tmp_path / "alone")), SKY, 2, "cache", processes=1)
    bricks = sorted(path.relative_to(tmp_path / "coadd") for path in (tmp_path / "coadd").glob("*/*"))
    assert bricks
    for path in (Path("parent.parquet"), *(Path("coadd") / brick for brick in bricks)):
        assert (tmp_path / "alone" / path).read_bytes() == (tmp_path / path).read_bytes()
