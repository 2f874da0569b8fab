"""The gates as a table: verdict, statistic, bound, and the sentence a person can act on."""

from __future__ import annotations

from pipeline.report.inputs import RunInputs
from pipeline.report.markup import Html, banner, count_text, element, joined, missing, note, number_text, section, table
from pipeline.stages.gates.result import GateResult
from pipeline.stages.gates.suite import failed_gates


def gate_section(inputs: RunInputs) -> Html:
    """Section 6: what the gates found, with the reason of every waiver."""
    title = "6. Gates"
    outcome = inputs.gates
    if outcome is None:
        return section("gates", title, missing(inputs.why_no_gates()))
    failed = failed_gates(outcome.results)
    waived = [result for result in outcome.results if not result.passed and result.waived is not None]
    if failed:
        verdict = banner(f"Failed and not waived: {', '.join(result.name for result in failed)}.", "bad")
    elif waived:
        verdict = banner(
            f"No gate blocks this run. Failed but waived by name: {', '.join(result.name for result in waived)}.",
            "neutral",
        )
    else:
        verdict = banner(f"All {len(outcome.results)} gates passed.", "good")
    rows = [
        (
            result.name,
            _verdict(result),
            number_text(result.value, 4),
            result.bound,
            count_text(result.n_positive),
            count_text(result.n_control),
            _message(result),
        )
        for result in outcome.results
    ]
    parts = [verdict]
    if outcome.config_sha256 != inputs.record["config_sha256"]:
        parts.append(
            note(
                f"The gates were checked under configuration {outcome.config_sha256[:12]}, the run record now holds "
                f"{str(inputs.record['config_sha256'])[:12]}."
            )
        )
    head = ("Gate", "Verdict", "Value", "Bound", "Positives", "Controls", "Finding")
    parts.append(element("div", table(head, rows, text_columns=(0, 1, 3, 6)), "gates"))
    return section("gates", title, *parts)


def _verdict(result: GateResult) -> Html:
    if result.passed:
        return element("span", "passed", "good")
    if result.waived is not None:
        return element("span", "failed, waived", "waived")
    return element("span", "FAILED", "bad")


def _message(result: GateResult) -> Html:
    if result.passed or result.waived is None:
        return joined(result.message)
    return joined(result.message, element("div", f"Waived: {result.waived}", "note"))
