"""What the run cost, stage by stage, and with which configuration and code it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.report.inputs import RunInputs
from pipeline.report.markup import (
    DASH,
    Html,
    bullets,
    bytes_text,
    count_text,
    details,
    heading,
    joined,
    link,
    missing,
    note,
    number_text,
    preformatted,
    section,
    table,
)

_STAGE_ORDER = ("manifest", "cutouts", "training", "gates", "train")
_DASK_PAGES = ("dask-cutouts.html", "dask-training.html")


def throughput_section(inputs: RunInputs) -> Html:
    """Section 8: time, work and bytes of every stage."""
    title = "10. Throughput"
    stages = [(name, inputs.stages[name]) for name in _STAGE_ORDER if name in inputs.stages]
    if not stages:
        return section("throughput", title, missing("No stage has finished yet."), _dask_links(inputs))
    rows = [
        (
            name,
            str(stage.get("state", DASH)),
            count_text(stage.get("rows")),
            number_text(stage.get("seconds"), 4),
            number_text(stage.get("rows_per_s"), 4),
            number_text(stage.get("task_seconds"), 4),
            _shards(stage),
            bytes_text(stage.get("bytes_stored")),
        )
        for name, stage in stages
    ]
    head = ("Stage", "State", "Rows", "Seconds", "Rows / s", "Task seconds", "Shards (resumed)", "Stored")
    return section(
        "throughput",
        title,
        table(head, rows, text_columns=(0, 1)),
        note(
            "Seconds are wall-clock time of the last call that worked on the stage, rows per second count only rows "
            "made in that call; task seconds are summed over all shards and workers. The stage training makes the "
            "training cube, the stage train trains the network."
        ),
        heading("Work"),
        _work_table(inputs),
        _dask_links(inputs),
    )


def provenance_section(inputs: RunInputs) -> Html:
    """Section 9: notes of the workers, versions, and the whole configuration."""
    notes = [f"{name}: {text}" for name in _STAGE_ORDER for text in inputs.stages.get(name, {}).get("notes", ())]
    parts: list[str] = [heading("Notes of the workers")]
    if notes:
        parts += [bullets(notes), note("At most 20 distinct notes per stage are kept in the run record.")]
    elif "cutouts" in inputs.stages:
        parts.append(note("None: no file of a brick was missing or corrupt."))
    else:
        parts.append(missing("The cutouts stage, which notes missing and corrupt files, has not finished."))
    versions = [(str(name), str(value)) for name, value in inputs.record["code"].items()]
    parts += [
        heading("Code and environment"),
        details("Versions", table(("Name", "Version"), versions, text_columns=(0, 1))),
        heading("Configuration"),
        details("config.yaml", preformatted(yaml.safe_dump(inputs.record["config"], sort_keys=False))),
    ]
    return section("provenance", "11. Configuration, environment, notes", *parts)


def _shards(stage: Mapping[str, Any]) -> str:
    return f"{stage['shards']} ({stage['shards_resumed']})" if "shards" in stage else DASH


def _work_table(inputs: RunInputs) -> Html:
    rows = []
    for name in _STAGE_ORDER:
        stage = inputs.stages.get(name, {})
        n_rows = stage.get("rows") or 0
        for counter, value in stage.get("work", {}).items():
            shown = bytes_text(value) if counter.startswith("bytes") else count_text(value)
            per_row = value / n_rows if n_rows else None
            shown_per_row = (
                bytes_text(per_row) if counter.startswith("bytes") and per_row is not None else number_text(per_row)
            )
            rows.append((name, counter.replace("_", " "), shown, shown_per_row))
        if stage.get("bytes_stored") and n_rows:
            stored = stage["bytes_stored"]
            rows.append((name, "bytes stored", bytes_text(stored), bytes_text(stored / n_rows)))
    if not rows:
        return missing("No cube is finished yet.")
    return table(
        ("Stage", "Counter", "Total", "Per row"),
        rows,
        caption="Sums over all shards, also those of earlier calls. Renders include those of the weights.",
        text_columns=(0, 1),
    )


def _dask_links(inputs: RunInputs) -> Html:
    found = [
        link(name, f"Dask report of the {name[5:-5]} stage") for name in _DASK_PAGES if name in inputs.report_files
    ]
    return bullets(found) if found else joined(note("There is no Dask report beside this page."))
