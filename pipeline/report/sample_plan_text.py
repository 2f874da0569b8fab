"""The forecast of `dhs sample plan` as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plan_lines(document: Mapping[str, Any]) -> str:
    """The forecast as text for a terminal."""
    pilot, naive = document["pilot"], document["naive_equivalent"]
    low, high = pilot["snr_range"]
    naive_text = f"{_share(naive['by_density'])} by density, {_share(naive['by_bin'])} by bin"
    reach = f"{document['metric']} reaches {low:.3g}-{high:.3g} (0.1-99.9 %)"
    lines = [
        f"{document['rows']:,} rows, about {document['rows_that_ask_for_an_arc']:,} usable rows that ask for an arc",
        f"pilot  {pilot['draws']:,} draws on {pilot['hosts']:,} hosts; {reach}",
        f"plain rejection over all hosts would accept {naive_text}",
        "",
        "target          share  prior mass  error",
    ]
    for entry in document["target"]:
        mark = "" if entry["reachable"] else "  unreachable, left out"
        lines.append(
            f"{_where(entry):<14} {entry['share']:>6.1%} {entry['prior_mass']:>11.4f} "
            f"{_share(entry['relative_error']):>6}{mark}"
        )
    lines += [
        "",
        "method                 acceptance  rows with arc  renders/arc    core-s    hours  outside prior",
    ]
    for entry in document["methods"]:
        name = f"{'*' if entry['configured'] else ' '} {entry['method']}, {entry['hosts']}"
        if entry["note"]:
            lines.append(f"{name:<23} {entry['note']}")
            continue
        renders = entry["renders_per_accepted"]
        lines.append(
            f"{name:<23}{entry['acceptance']:>10.3f} {entry['accepted_share']:>13.1%} "
            f"{'-' if renders is None else f'{renders:.1f}':>12} {entry['core_seconds']:>9,.0f} "
            f"{entry['hours_at_workers']:>8.3g} {entry['outside_prior']:>13.1%}"
        )
    lines += ["", f"* configured; hours at {document['workers']} workers, injection alone, single-threaded"]
    for entry in document["methods"]:
        if entry["configured"] and not entry["note"]:
            lines += ["", "target          attempts  cap failures"]
            lines += [
                f"{_where(found):<14} {_number(found['attempts']):>9}  {_share(found['cap_failures']):>12}"
                for found in entry["bins"]
            ]
    return "\n".join(lines)


def _where(entry: Mapping[str, Any]) -> str:
    return f"{entry['value']:g}" if "value" in entry else f"{entry['low']:g}-{entry['high']:g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
