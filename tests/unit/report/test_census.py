"""Facts about the census."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.contracts.datasets import REJECT_REASONS, ROLES
from pipeline.report.census import accounting_checks, census_section, headline_cards, interval_text
from pipeline.report.inputs import RunInputs


def test_every_sum_of_a_finished_run_adds_up(inputs: RunInputs) -> None:
    """All statements hold, and none is missing."""
    checks = accounting_checks(inputs)
    assert len(checks) == 9
    assert [statement for statement, left, right in checks if left != right] == []
    assert "DOES NOT ADD UP" not in census_section(inputs)


def test_a_lost_row_is_shown(inputs: RunInputs) -> None:
    """One row fewer than planned is a red verdict."""
    short = dataclasses.replace(inputs, plan={**inputs.plan, "n_rows": 481})
    assert "DOES NOT ADD UP" in census_section(short)


def test_a_changed_reason_is_shown(inputs: RunInputs) -> None:
    """A row that lost its cutout reason on the way is found."""
    assert inputs.reject_reason is not None
    codes = inputs.reject_reason.copy()
    codes[20] = 3
    broken = {text: (a, b) for text, a, b in accounting_checks(dataclasses.replace(inputs, reject_reason=codes))}
    assert broken["rows rejected at the cutout keep that reason"] == (8, 9)


def test_reasons_and_splits_carry_the_numbers(inputs: RunInputs) -> None:
    """Rejected rows are counted after each step, pairs per split."""
    page = census_section(inputs)
    assert "too many bad pixels</td><td>8</td>" in page
    assert ">472</td>" in page
    assert ">3</td>" in page[page.index("no draw accepted") :].split("</tr>")[0]
    assert inputs.columns is not None
    n_train = int(((inputs.columns["role"] == 1) & (inputs.columns["split"] == 0)).sum())
    assert f">{n_train}</td>" in page


def test_headline_holds_rows_pairs_and_auc(inputs: RunInputs) -> None:
    """The cards show rows planned, usable rows, pairs and the test AUC."""
    assert inputs.columns is not None
    assert inputs.training is not None
    cards = headline_cards(inputs)
    n_pairs = int((inputs.columns["role"] == 1).sum())
    for number in ("480", "472", f"{n_pairs}", f"{inputs.training.metrics['auc']['value']:.4f}"):
        assert f"<b>{number}</b>" in cards


def test_interval_without_variance_says_so() -> None:
    """An AUC without an interval is not shown with one."""
    assert interval_text({"low": None, "high": None}) == "no interval"
    assert interval_text({"low": 0.912345, "high": 0.95}) == "0.9123\u20130.9500"


def test_counts_of_unfinished_cubes_come_from_receipts(run_copy) -> None:
    """Without published cubes, the table holds the rows of the finished shards."""
    for name in ("cutouts", "training"):
        run_copy.layout.cube(name).join("_SUCCESS").remove()
        run_copy.record["stages"].pop(name)
    run_copy.update()
    page = census_section(run_copy.inputs())
    assert ">8</td>" in page
    assert "not published: 8 of 8 shards" in page
    assert "nothing to add up" in page


def test_every_reason_has_a_meaning(inputs: RunInputs) -> None:
    """A reason of any stage can be shown."""
    assert inputs.columns is not None
    codes = np.arange(inputs.columns.sizes["sample"], dtype=np.uint8) % len(REJECT_REASONS)
    page = census_section(dataclasses.replace(inputs, reject_reason=codes))
    assert all(f">{reason}</td>" in page for reason in REJECT_REASONS[1:])


def test_imported_arcs_are_counted_beside_pairs(inputs: RunInputs) -> None:
    """Arcs without control have a column, belong to the sums, and need no cutouts cube."""
    assert inputs.columns is not None
    role = inputs.columns["role"].to_numpy().copy()
    alone = np.flatnonzero(role == ROLES.index("pair"))[:7]
    role[alone] = ROLES.index("injected")
    manifest = inputs.config.manifest.model_copy(update={"kind": "stamps"})
    stages = {name: stage for name, stage in inputs.stages.items() if name != "cutouts"}
    imported = dataclasses.replace(
        inputs,
        columns=inputs.columns.assign(role=("sample", role)),
        config=inputs.config.model_copy(update={"manifest": manifest}),
        record={**inputs.record, "stages": stages},
        reject_reason=None,
        training=None,
    )
    assert [text for text, left, right in accounting_checks(imported) if left != right] == []
    page = census_section(imported)
    assert "<th>Arcs without control</th>" in page
    assert "After import" in page
    assert "not published" not in page
    assert "<b>7</b><span>imported arcs without control" in headline_cards(imported)
    assert "Of 7 imported arcs" in imported.without_pairs("None.")
