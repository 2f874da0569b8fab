"""Where anchors meet storage: contradictory inputs are refused, and what was read is recorded."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from pipeline.contracts.anchors import AnchorLimits
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.driver.anchors import check_list, demand_matches, known_bricks, known_lenses, write_anchors
from pipeline.storage.locations import Location

CANDIDATES = Path(__file__).parents[4] / "shared" / "data" / "catalogs" / "desi_candidates.csv"
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


@pytest.mark.skipif(not CANDIDATES.is_file(), reason="../shared/data/catalogs is not here")
@pytest.mark.skipif(find_spec("lenscat") is None, reason="the package lenscat is not installed")
def test_the_real_lists_give_the_anchors_that_the_documentation_counts(tmp_path: Path) -> None:
    """The package's catalogue and the DESI candidates: what is accepted, how it was found, and why rows are none."""
    out = Location(str(tmp_path / "out"))
    summary = write_anchors(out, [Location(str(CANDIDATES))], None, None, AnchorLimits())
    assert summary["sources"][0].startswith("lenscat 1.1.3 ")
    assert (summary["entries"], summary["rows"], summary["anchors"]) == (32838 + 5104, 32731, 10964)
    assert summary["by_reason"] == {"none": 10964, "cluster_survey_only": 13747, "outside_dec_range": 8020}
    assert summary["accepted_by_grade_tier"] == {"grade_confident": 1301, "grade_probable": 9663, "grade_unknown": 0}
    anchors = pd.read_parquet(tmp_path / "out" / "anchors.parquet")
    methods = anchors.loc[anchors["reject_reason"] == "none", "discovery_methods"].str.split(" | ", regex=False)
    verified = methods.map(lambda found: any(method not in ("unknown", "compilation") for method in found))
    assert int(verified.sum()) == 9045
    counts = methods.map(" | ".join).value_counts()
    assert (counts["imaging"], counts["spectroscopy"], counts["unknown"], counts["compilation"]) == (
        7068, 1776, 1807, 112,
    )  # fmt: skip
    listed = anchors[anchors["sources"].str.contains("desi_candidates", regex=False)]
    assert (listed["known_separation_arcsec"] <= 3.0).all()
    assert len(listed) > 5000
