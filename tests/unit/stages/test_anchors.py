"""Anchors: what matches, what is merged, what is refused and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.anchors import ANCHOR_REASONS, ANCHORS, ENTRIES, AnchorLimits
from pipeline.contracts.errors import ContractError
from pipeline.stages.anchors import anchor_counts, build_anchors, compare_positions, reference_methods, source_entries
from pipeline.stages.footprint import brick_names
from pipeline.storage.anchor_tables import packaged_lens_catalogue

EMR_POSITIONS = Path(__file__).parents[2] / "data" / "emr_anchor_positions.csv"
LIMITS = AnchorLimits()
ARCSEC = 1 / 3600
HUANG, BOLTON = "Huang et al. (2020) - arXiv:1906.00970", "Bolton et al. (2008) - arXiv:0805.1931"
CLUSTERS = "Lopes et al. (2004) - doi:10.1086/423038"


def catalogue(*rows: tuple[str, float, float, str, str]) -> pd.DataFrame:
    """Entries of known lenses from (name, ra, dec, grade, reference)."""
    names = ["name", "RA [deg]", "DEC [deg]", "grading", "ref"]
    table = pd.DataFrame(rows, columns=names).astype(str).assign(type="galaxy", zlens="0.5")
    return source_entries(table, "known")


def listed(*rows: tuple[str, float, float], name: str = "mine", **more: str) -> pd.DataFrame:
    """Entries of a list from (name, ra, dec)."""
    return source_entries(pd.DataFrame(rows, columns=["name", "ra", "dec"]).astype(str).assign(**more), name)


KNOWN = catalogue(
    ("SDSSJ0029-0055 | -", 7.28243, -0.9307, "confident", BOLTON),
    ("DESI-010", 10.0, 5.0, "probable", HUANG),
    ("NSCS J1", 20.0, 5.0, "probable", CLUSTERS),
)


def test_none_of_the_positions_used_on_emr_is_a_lens() -> None:
    """All 159 hard-coded positions are caught; the nearest is further than half a stamp (8.4 arcsec) from a lens."""
    known = source_entries(packaged_lens_catalogue()[0], "lenscat")
    positions = source_entries(pd.read_csv(EMR_POSITIONS, dtype=str), "emr")
    compared = compare_positions(positions, known, LIMITS)
    assert len(compared) == 159
    assert (compared["reject_reason"] == "unmatched").all()
    assert compared["separation_arcsec"].min() > 8.4
    everything = compare_positions(positions, known, AnchorLimits(keep_cluster_surveys=True))
    assert everything["separation_arcsec"].min() > 8.4
    # The catalogue knows these names, somewhere else.
    named = compared["same_name_separation_arcsec"]
    assert named.notna().sum() > 130
    assert named.median() > 100


def test_true_positions_of_the_same_lenses_match() -> None:
    """The control: designations of SDSS lenses that hold a position to 0.1 s of time match within 3 arcsec."""
    known = source_entries(packaged_lens_catalogue()[0], "lenscat")
    table = listed(("SDSSJ002907.77-005550.5", 7.282375, -0.930694), ("SDSSJ095944.07+041017.0", 149.933625, 4.171389))
    compared = compare_positions(table, known, LIMITS)
    assert compared["matched"].all()
    assert compared["nearest_known"].str.contains("J0029-0055|J0959+0410", regex=True).iloc[0]


def test_separation_and_name_are_those_of_the_sphere() -> None:
    """A position 2 arcsec away in right ascension at 60 deg is 1 arcsec away."""
    known = catalogue(("A", 100.0, 60.0, "confident", HUANG))
    compared = compare_positions(listed(("J0000+0000", 100.0 + 2 * ARCSEC, 60.0)), known, LIMITS)
    assert compared["separation_arcsec"].iloc[0] == pytest.approx(1.0, abs=1e-4)
    assert compared["nearest_known"].tolist() == ["A"]
    assert compared["same_name_separation_arcsec"].isna().all()


def test_a_name_is_found_under_any_prefix() -> None:
    """The list says where it thinks the lens is, the catalogue where it is: 426 arcsec off."""
    compared = compare_positions(listed(("J0029-0055", 7.4008, -0.9269)), KNOWN, LIMITS)
    assert compared["same_name_separation_arcsec"].iloc[0] == pytest.approx(426.3, abs=0.1)


def test_cluster_surveys_are_no_lenses_unless_asked() -> None:
    """An entry whose only reference lists clusters neither makes an anchor nor confirms a position."""
    here = listed(("mine", 20.0, 5.0))
    assert not compare_positions(here, KNOWN, LIMITS)["matched"].any()
    assert compare_positions(here, KNOWN, AnchorLimits(keep_cluster_surveys=True))["matched"].all()
    anchors, _ = build_anchors(KNOWN, [], None, LIMITS)
    assert anchors.set_index("names")["reject_reason"]["NSCS J1"] == "cluster_survey_only"
    anchors, _ = build_anchors(KNOWN, [], None, AnchorLimits(keep_cluster_surveys=True))
    assert (anchors["reject_reason"] == "none").all()


def test_matching_entries_keep_all_grades_methods_and_references() -> None:
    """One lens in three tables is one row that says what each of them says."""
    first = listed(("X", 10.0, 5.0 + ARCSEC), name="first", grading="Confident", ref=BOLTON, type="group")
    second = listed(("DESI-010", 10.0 - ARCSEC, 5.0), name="second", grading="C", ref=HUANG, discovery="citizen")
    anchors, entries = build_anchors(KNOWN, [first, second], None, LIMITS)
    row = anchors[anchors["n_entries"] == 3].iloc[0]
    assert row["grades"] == "known:probable | first:confident | second:c"
    assert row["grade_tier"] == "grade_confident"
    assert row["discovery_methods"] == "citizen | imaging | spectroscopy"
    assert row["references"] == f"{HUANG} | {BOLTON}"
    assert row["names"] == "DESI-010 | X"
    assert row["lens_types"] == "galaxy | group"
    assert (row["ra_deg"], row["dec_deg"]) == (10.0, 5.0)
    assert row["extent_arcsec"] == pytest.approx(1.0, abs=0.01)
    assert row["lens_redshift"] == 0.5
    assert (entries["anchor_id"] == row["anchor_id"]).sum() == 3


def test_nothing_is_dropped_and_every_rejected_row_says_why() -> None:
    """Unreadable, unmatched, excluded and far rows are all there, each with its reason."""
    table = listed(("bad", 400.0, 0.0), ("nan", float("nan"), 0.0), ("blank", 200.0, 10.0), ("ok", 10.0, 5.0))
    south = catalogue(("south", 50.0, -60.0, "probable", HUANG), ("cl", 60.0, 1.0, "probable", HUANG))
    south.loc[1, "lens_type"] = "cluster"
    known = pd.concat([KNOWN, south.assign(source="more")], ignore_index=True)
    anchors, entries = build_anchors(known, [table], None, AnchorLimits(lens_types=("galaxy",)))
    assert len(entries) == len(known) + 4
    by_name = entries.set_index("name")["reject_reason"]
    assert by_name[["bad", "nan"]].tolist() == ["invalid_position"] * 2
    assert by_name["blank"] == "unmatched"
    assert by_name["south"] == "outside_dec_range"
    assert by_name["cl"] == "type_excluded"
    assert by_name["ok"] == "none"
    assert set(entries["reject_reason"]) <= set(ANCHOR_REASONS)
    assert sum(anchor_counts(anchors)["by_reason"].values()) == len(anchors)


def test_unmatched_positions_are_kept_only_when_allowed() -> None:
    """Allowed ones keep the distance to the nearest lens, which is not the match radius."""
    table = [listed(("blank", 200.0, 10.0))]
    anchors, _ = build_anchors(KNOWN, table, None, AnchorLimits(allow_unmatched=True))
    row = anchors[anchors["names"] == "blank"].iloc[0]
    assert row["reject_reason"] == "none"
    assert row["grade_tier"] == "grade_unknown"
    assert row["known_separation_arcsec"] > 1e5


def test_footprint_comes_from_the_bricks() -> None:
    """Listed bricks are inside, others outside; without a list nothing is inside."""
    anchors, _ = build_anchors(KNOWN, [], {brick_names([10.0], [5.0])[0]}, LIMITS)
    state = anchors.set_index("names")["footprint"]
    assert state["DESI-010"] == "inside"
    assert state["SDSSJ0029-0055"] == "outside"
    unknown, _ = build_anchors(KNOWN, [], None, LIMITS)
    assert set(unknown["footprint"]) == {"unknown"}


def test_order_of_rows_and_columns_does_not_depend_on_the_input_order() -> None:
    """Anchors come by position, whatever the order of the catalogue."""
    forward, entries = build_anchors(KNOWN, [], None, LIMITS)
    backward, _ = build_anchors(KNOWN.iloc[::-1].reset_index(drop=True), [], None, LIMITS)
    pd.testing.assert_frame_equal(forward, backward)
    assert forward["ra_deg"].is_monotonic_increasing
    assert list(forward) == [variable.name for variable in ANCHORS.variables]
    assert list(entries) == [variable.name for variable in ENTRIES.variables]


def test_inputs_stay_as_they_were() -> None:
    """Building changes neither catalogue nor list."""
    known, table = KNOWN.copy(), listed(("ok", 10.0, 5.0))
    before = table.copy()
    build_anchors(known, [table], None, LIMITS)
    pd.testing.assert_frame_equal(known, KNOWN)
    pd.testing.assert_frame_equal(table, before)


def test_groups_go_through_a_third_entry() -> None:
    """Two entries 5 arcsec apart with one between them are one lens; without it they are two."""
    ends = [("a", 10.0, 5.0, "probable", HUANG), ("b", 10.0, 5.0 + 5 * ARCSEC, "probable", HUANG)]
    between = ("m", 10.0, 5.0 + 2.5 * ARCSEC, "probable", HUANG)
    assert len(build_anchors(catalogue(*ends), [], None, LIMITS)[0]) == 2
    assert len(build_anchors(catalogue(*ends, between), [], None, LIMITS)[0]) == 1


@pytest.mark.parametrize(
    ("reference", "methods"),
    [
        (HUANG, ["imaging"]),
        (f"{BOLTON} | {HUANG}", ["imaging", "spectroscopy"]),
        (CLUSTERS, ["cluster_survey"]),
        ("https://example.org/lenses", ["unknown"]),
        ("", ["unknown"]),
    ],
)
def test_methods_of_references(reference: str, methods: list[str]) -> None:
    """Every quoted publication counts; an unknown one is unknown."""
    assert reference_methods(reference) == methods


def test_a_table_without_positions_is_refused() -> None:
    """The error names the columns that would do."""
    with pytest.raises(ContractError, match="missing column 'dec_deg' or 'dec'"):
        source_entries(pd.DataFrame({"name": ["a"], "ra": ["1"]}), "mine")


def test_redshifts_are_the_first_plain_number() -> None:
    """Notes and question marks are no redshifts, and stay in the entries as they were."""
    known = catalogue(("a", 10.0, 5.0, "probable", HUANG)).assign(redshift_text="0.4? | nan | 0.31")
    anchors, entries = build_anchors(known, [], None, LIMITS)
    assert anchors["lens_redshift"].tolist() == [0.31]
    assert entries["redshift_text"].tolist() == ["0.4? | nan | 0.31"]
    none, _ = build_anchors(known.assign(redshift_text="not measured"), [], None, LIMITS)
    assert np.isnan(none["lens_redshift"].iloc[0])
