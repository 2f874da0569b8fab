"""Facts about costs and provenance."""

from __future__ import annotations

import dataclasses

from pipeline.report.inputs import RunInputs
from pipeline.report.throughput import provenance_section, throughput_section


def test_costs_are_shown_in_total_and_per_row(inputs: RunInputs) -> None:
    """Rate, stored bytes, renders and fetched bytes per row come from the record."""
    page = throughput_section(inputs)
    assert "<td>38.40</td>" in page
    assert "<td>1.23 MB</td>" in page
    assert "<td>9.00</td>" in page
    assert "<td>20 kB</td>" in page
    assert "<td>8 (1)</td>" in page


def test_dask_pages_are_linked_if_they_exist(inputs: RunInputs) -> None:
    """Only pages that lie beside the report are linked."""
    assert "href" not in throughput_section(inputs)
    page = throughput_section(dataclasses.replace(inputs, report_files=("dask-cutouts.html", "other.html")))
    assert page.count("href=") == 1
    assert 'href="dask-cutouts.html"' in page


def test_unfinished_run_has_no_costs(inputs: RunInputs) -> None:
    """Without a finished stage the section says so."""
    record = {**inputs.record, "stages": {}}
    page = throughput_section(dataclasses.replace(inputs, record=record))
    assert "No stage has finished yet" in page


def test_provenance_holds_notes_versions_and_configuration(inputs: RunInputs) -> None:
    """Notes are listed with their stage; the configuration is there as YAML."""
    page = provenance_section(inputs)
    assert "cutouts: brick 0001p000 is missing" in page
    assert "f00dfeed" in page
    assert "seed: 20260901" in page


def test_absence_of_notes_is_claimed_only_after_the_cutouts(inputs: RunInputs) -> None:
    """A run without finished cutouts does not claim that all bricks were there."""
    quiet = {"state": "complete", "notes": []}
    finished = provenance_section(dataclasses.replace(inputs, record={**inputs.record, "stages": {"cutouts": quiet}}))
    started = provenance_section(dataclasses.replace(inputs, record={**inputs.record, "stages": {}}))
    assert "no file of a brick was missing" in finished
    assert "has not finished" in started
