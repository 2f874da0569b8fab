"""The gates as a table: verdict, statistic, bound, and the sentence a person can act on."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.inputs import GateOutcome, RunInputs
from pipeline.report.markup import (
    DASH,
    Html,
    banner,
    count_text,
    element,
    heading,
    joined,
    missing,
    note,
    number_text,
    section,
    table,
)
from pipeline.stages.gates.result import SHARE_AT_FAULT, GateResult
from pipeline.stages.gates.suite import failed_gates

_TEXT_COLUMNS = (0, 1, 2, 8)


def gate_section(inputs: RunInputs) -> Html:
    """Section 6: what the gates found on the data and on the network, with the reason of every waiver."""
    parts: list[Html] = []
    for title, outcome, reason in (
        ("On the data, before training", inputs.gates, inputs.why_no_gates),
        ("On the network, after training", inputs.network_gates, inputs.why_no_network_gates),
    ):
        parts.append(heading(title))
        parts += [missing(reason())] if outcome is None else _outcome(outcome, str(inputs.record["config_sha256"]))
    return section("gates", "6. Gates", *parts)


def _outcome(outcome: GateOutcome, config_sha256: str) -> list[Html]:
    """Banner and table of one set of gates."""
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
            result.number or DASH,
            _verdict(result),
            number_text(result.value, 4),
            verdict_interval(result),
            null_p(result),
            result.null or DASH,
            result.bound,
            count_text(result.n_positive),
            count_text(result.n_control),
            _message(result),
        )
        for result in outcome.results
    ]
    parts = [verdict]
    if outcome.config_sha256 != config_sha256:
        parts.append(
            note(
                f"The gates were checked under configuration {outcome.config_sha256[:12]}, the run record now holds "
                f"{config_sha256[:12]}."
            )
        )
    head = ("Gate", "Lesson", "Verdict", "Value", "95 %", "p", "Null", "Bound", "Positives", "Controls", "Finding")
    return [*parts, element("div", table(head, rows, text_columns=(0, 1, 2, 6, 7, 10)), "gates")]


def verdict_table(results: Sequence[GateResult]) -> str:
    """The verdicts as text: one line per gate, and what a person can act on below each that failed.

    Columns: gate, its number in the lessons, verdict, value, 95 % interval, positives and controls, p of the null and
    how the null was drawn, or why there is none.
    """
    head = ("gate", "no.", "verdict", "value", "95 %", "n pos", "n ctl", "p", "null")
    rows = [
        (
            result.name,
            result.number,
            _passed(result) if result.passed else "FAILED" if result.waived is None else "waived",
            number_text(result.value, 4),
            verdict_interval(result),
            count_text(result.n_positive),
            count_text(result.n_control),
            null_p(result),
            result.null or DASH,
        )
        for result in results
    ]
    width = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [_aligned(head, width)]
    for result, row in zip(results, rows, strict=True):
        lines.append(_aligned(row, width))
        if not result.passed:
            lines.append(f"    {result.message}")
            lines += [f"    bound: {result.bound}"] if result.bound else []
            lines += [f"    waived: {result.waived}"] if result.waived is not None else []
        lines += [f"    {result.attribution}"] if result.attribution else []
    return "\n".join(lines)


def verdict_interval(result: GateResult) -> str:
    """The 95 % interval of a verdict's value, or of the share of rows at fault; a dash without."""
    if result.interval_95 is None:
        return DASH
    low, high = result.interval_95
    share = " of rows" if result.interval_of == SHARE_AT_FAULT else ""
    return f"{number_text(low, 3)} to {number_text(high, 3)}{share}"


def null_p(result: GateResult) -> str:
    """Chance of the finding under the null; a dash where there is no null."""
    return DASH if result.null_p is None else number_text(result.null_p, 3)


def _aligned(cells: Sequence[str], width: Sequence[int]) -> str:
    """Cells of one line: text to the left, numbers to the right."""
    padded = [
        cell.ljust(size) if column in _TEXT_COLUMNS else cell.rjust(size)
        for column, (cell, size) in enumerate(zip(cells, width, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _passed(result: GateResult) -> str:
    return "passed" if result.applicable else "n/a"


def _verdict(result: GateResult) -> Html:
    if result.passed:
        return element("span", _passed(result), "good")
    if result.waived is not None:
        return element("span", "failed, waived", "waived")
    return element("span", "FAILED", "bad")


def _message(result: GateResult) -> Html:
    parts = [joined(result.message)]
    if result.attribution:
        parts.append(element("div", result.attribution, "note"))
    if not result.passed and result.waived is not None:
        parts.append(element("div", f"Waived: {result.waived}", "note"))
    return joined(*parts)
