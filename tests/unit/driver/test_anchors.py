"""Where anchors meet storage: contradictory inputs are refused, and what was read is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.contracts.anchors import AnchorLimits
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.driver.anchors import check_list, demand_matches, known_bricks, known_lenses, write_anchors
from pipeline.storage.locations import Location

LIMITS = AnchorLimits(dec_range_deg=(-90.0, 90.0))


def lens_list(folder: Path, name: str, *positions: tuple[float, float]) -> Location:
    """A CSV list of lenses."""
    rows = [
        {"name": f"{name}{i}", "ra": ra, "dec": dec, "grading": "probable"} for i, (ra, dec) in enumerate(positions)
    ]
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return Location(str(folder / f"{name}.csv"))


def test_a_table_and_a_folder_of_bricks_contradict(tmp_path: Path) -> None:
    """One of them decides; neither means unknown."""
    here = Location(str(tmp_path))
    with pytest.raises(ContractError, match="got both"):
        known_bricks(here, here, ("r",))
    assert known_bricks(None, None, ("r",)) is None


def test_a_csv_table_of_bricks_is_compared_with_the_grid(tmp_path: Path) -> None:
    """Names that do not belong to their centres are another survey's."""
    table = pd.DataFrame({"brickname": ["0591m305"], "ra": [59.180064308681672], "dec": [-30.5]})
    table.to_csv(tmp_path / "bricks.csv", index=False)
    assert known_bricks(Location(str(tmp_path / "bricks.csv")), None, ("r",)) == {"0591m305"}
    table.assign(brickname="0591m304").to_csv(tmp_path / "bricks.csv", index=False)
    with pytest.raises(ContractError, match="not on the DR10 grid"):
        known_bricks(Location(str(tmp_path / "bricks.csv")), None, ("r",))


def test_the_summary_names_every_source_with_its_digest(tmp_path: Path) -> None:
    """Two builds of other content cannot be mistaken for one another."""
    catalogue = lens_list(tmp_path, "known", (10.0, 5.0), (20.0, 5.0))
    mine = lens_list(tmp_path, "mine", (10.0, 5.0))
    summary = write_anchors(Location(str(tmp_path / "out")), [mine], catalogue, None, LIMITS)
    assert [source.split(" ")[0] for source in summary["sources"]] == ["known", "mine"]
    assert all("sha256:" in source for source in summary["sources"])
    assert (summary["rows"], summary["entries"], summary["anchors"]) == (2, 3, 2)
    assert json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["rows"] == 2
    assert known_lenses(catalogue)[1] == summary["sources"][0]
    with pytest.raises(ContractError, match="different names"):
        write_anchors(Location(str(tmp_path / "out")), [mine, mine], catalogue, None, LIMITS)


def test_misses_are_listed_by_distance(tmp_path: Path) -> None:
    """The error names the nearest separations; nothing is raised where all match or misses are allowed."""
    catalogue = lens_list(tmp_path, "known", (10.0, 5.0))
    far = lens_list(tmp_path, "far", (10.0, 5.0 + 100 / 3600), (10.0, 5.0 + 10 / 3600), (10.0, 5.0))
    compared = check_list(far, catalogue, LIMITS)
    with pytest.raises(VerificationError, match=r"2 of 3 positions .* nearest: far1 10.0, far0 100.0"):
        demand_matches(compared, LIMITS, "far")
    demand_matches(compared, AnchorLimits(allow_unmatched=True), "far")
    demand_matches(compared[compared["matched"]], LIMITS, "far")
