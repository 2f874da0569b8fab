"""Facts about the gate table."""

from __future__ import annotations

import dataclasses

from pipeline.report.inputs import GateOutcome, RunInputs
from pipeline.report.verdicts import gate_section, null_p, verdict_interval, verdict_table
from pipeline.stages.gates.result import SHARE_AT_FAULT, GateResult
from pipeline.stages.gates.suite import DATA_GATE_NAMES

HOSTILE = "<script>alert('no')</script>, and 20 characters"


def outcome(inputs: RunInputs, *results: GateResult) -> RunInputs:
    """Inputs with these verdicts."""
    return dataclasses.replace(inputs, gates=GateOutcome(results, inputs.config.sha256()))


def verdict(passed: bool, waived: str | None = None) -> GateResult:
    """One verdict."""
    return GateResult("some_gate", passed, waived, 0.5, "x <= 0.1", 12, 34, {}, "see <b>here</b>")


def test_every_gate_is_listed_with_value_and_bound(inputs: RunInputs) -> None:
    """The real suite's results appear by name, value and bound."""
    assert inputs.gates is not None
    page = gate_section(inputs)
    assert len(inputs.gates.results) == len(DATA_GATE_NAMES)
    assert all(result.name in page for result in inputs.gates.results)


def test_failed_gate_is_red_and_blocks(inputs: RunInputs) -> None:
    """A failure without waiver is named in a red banner."""
    page = gate_section(outcome(inputs, verdict(passed=False)))
    assert "banner bad" in page
    assert "FAILED" in page
    assert "see &lt;b&gt;here" in page


def test_waiver_shows_its_reason_escaped(inputs: RunInputs) -> None:
    """A waived gate keeps its failure and shows the reason as text, never as markup."""
    page = gate_section(outcome(inputs, verdict(passed=False, waived=HOSTILE)))
    assert "failed, waived" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "banner bad" not in page


def test_passing_suite_is_green(inputs: RunInputs) -> None:
    """If all passed, the banner says so, also where a waiver was not needed."""
    page = gate_section(outcome(inputs, verdict(passed=True, waived=HOSTILE)))
    assert "banner good" in page
    assert "Waived" not in page


def test_other_configuration_and_absence_are_said(inputs: RunInputs) -> None:
    """Verdicts of another configuration carry a note; no verdicts give the reason."""
    stale = dataclasses.replace(inputs, gates=GateOutcome((verdict(passed=True),), "c" * 64))
    assert "cccccccccccc" in gate_section(stale)
    assert "no gates.json" in gate_section(dataclasses.replace(inputs, gates=None))


def test_gates_on_the_network_have_a_table_of_their_own(inputs: RunInputs) -> None:
    """They are absent with their reason, or listed below those on the data with their own banner."""
    assert "no network_gates.json" in gate_section(inputs)
    named = dataclasses.replace(verdict(passed=False), name="synthetic_ring", number="1.7")
    found = GateOutcome((named,), inputs.config.sha256())
    page = gate_section(dataclasses.replace(inputs, network_gates=found))
    data, network = page.split("On the network, after training")
    assert "synthetic_ring" not in data
    assert "Failed and not waived: synthetic_ring." in network


def test_attribution_is_shown_in_report_and_table(inputs: RunInputs) -> None:
    """Where a difference comes from stands below the finding, also for a gate that is waived."""
    result = dataclasses.replace(verdict(passed=False, waived=HOSTILE), attribution="AUC: host selection 0.51")
    assert "AUC: host selection 0.51" in gate_section(outcome(inputs, result))
    assert "AUC: host selection 0.51" in verdict_table([result])


def test_table_says_verdict_number_interval_and_counts() -> None:
    """One line per gate; failures carry message, bound and waiver."""
    good = dataclasses.replace(
        verdict(passed=True), number="1.6", interval_95=(0.45, 0.55), null="labels shuffled", null_draws=20, null_p=0.25
    )
    lines = verdict_table([good, verdict(passed=False), verdict(passed=False, waived=HOSTILE)]).splitlines()
    assert lines[1].split() == [
        "some_gate",
        "1.6",
        "passed",
        "0.5000",
        "0.450",
        "to",
        "0.550",
        "12",
        "34",
        "0.250",
        "labels",
        "shuffled",
    ]
    assert "FAILED" in lines[2]
    assert lines[3:5] == ["    see <b>here</b>", "    bound: x <= 0.1"]
    assert "waived" in lines[5]
    assert lines[-1] == f"    waived: {HOSTILE}"
    assert verdict_interval(verdict(passed=True)) == null_p(verdict(passed=True)) == "\u2013"


def test_audits_show_a_share_and_the_reason_for_no_null(inputs: RunInputs) -> None:
    """The interval of an audit is that of the rows at fault; why nothing is permuted stands in the null's column."""
    audit = dataclasses.replace(
        verdict(passed=True), interval_95=(0.0, 0.01), interval_of=SHARE_AT_FAULT, null="none: no chance in it"
    )
    assert verdict_interval(audit) == "0 to 0.0100 of rows"
    assert verdict_table([audit]).endswith("none: no chance in it")
    assert "none: no chance in it" in gate_section(outcome(inputs, audit))
