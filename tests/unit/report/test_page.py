"""Facts about the page as a whole."""

from __future__ import annotations

import dataclasses
import html.parser
import re

import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.injection import CoreSuppression
from pipeline.report.inputs import RunInputs
from pipeline.report.page import _header, render_page, write_report

ANCHORS = (
    "census",
    "gallery",
    "snr",
    "conversions",
    "hosts",
    "gates",
    "training",
    "evaluation",
    "completeness",
    "throughput",
    "provenance",
)
VOID = {"meta", "img", "br"}


class Outline(html.parser.HTMLParser):
    """Open elements, ids and links of a page; raises on a closing tag that does not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.targets += [found[name] or "" for name in ("href", "src") if name in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline_of(page: str) -> Outline:
    """Parse a page."""
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    return outline


@pytest.fixture(scope="module")
def finished_page(inputs: RunInputs) -> str:
    """The page of a finished run."""
    return render_page(inputs)


def test_page_of_a_finished_run_is_complete_and_self_contained(finished_page: str) -> None:
    """All eleven sections, well-formed, every link inside the page, every picture embedded."""
    outline = outline_of(finished_page)
    assert outline.ids == list(ANCHORS)
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in outline.targets)
    assert {f"#{anchor}" for anchor in ANCHORS} <= set(outline.targets)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", finished_page)


def test_header_names_run_code_configuration_and_state(inputs: RunInputs, finished_page: str) -> None:
    """Run, state, git commit, seed, hashes and bands are in the header; the run is complete."""
    head = finished_page.split("<section", maxsplit=1)[0]
    for fact in ("Run small", "complete", "f00dfeed", "20260901", inputs.config.sha256(), "g, r, z", "no measurement"):
        assert fact in head
    assert "banner good" in head
    assert "banner bad" not in head


def test_header_says_that_arcs_were_suppressed(inputs: RunInputs) -> None:
    """An ablation stands in the header with its radii; a physical run has no such line."""
    assert "Ablation" not in _header(inputs)
    suppressed = CoreSuppression(radius_px=5.0)
    injection = inputs.config.injection.model_copy(update={"core_suppression": suppressed})
    config = inputs.config.model_copy(update={"injection": injection})
    head = _header(dataclasses.replace(inputs, config=config))
    assert "not physical: core suppression (radius_px 5, taper 0.5)" in head


def test_hostile_reason_is_text(run_copy) -> None:
    """An error message with markup is shown in red and never interpreted."""
    error = {"type": "GateError", "message": "<script>alert(1)</script>", "exit_code": 3, "time_utc": "now"}
    run_copy.update(state="failed", error=error, run='x"><img src=//evil>')
    page = render_page(run_copy.inputs())
    assert "banner bad" in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<img src=//evil" not in page


def test_page_is_written_where_the_run_lies(run_copy) -> None:
    """write_report returns report/index.html of the run, which holds the page; links appear with files."""
    run_copy.layout.report.join("dask-training.html").write_bytes(b"<html></html>")
    location = write_report(run_copy.layout)
    assert location == run_copy.layout.report.join("index.html")
    page = location.read_bytes().decode()
    assert "dask-training.html" in outline_of(page).targets
    figures = ("completeness-plane", "completeness-curves", "evaluation-strata", "emr-surfaces")
    for name in figures:
        assert run_copy.layout.report.join(f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"report/{name}.png" in page


def test_page_works_at_every_state_of_a_run(run_copy) -> None:
    """From the last result back to a bare plan, every state has a page with nine sections."""
    layout = run_copy.layout
    steps = (
        (layout.training, "train"),
        (layout.gates, "gates"),
        (layout.cube("training").join("_SUCCESS"), "training"),
        (layout.pilot, ""),
        (layout.cube("cutouts").join("_SUCCESS"), "cutouts"),
        (layout.receipts("cutouts"), ""),
        (layout.receipts("training"), "manifest"),
    )
    for location, stage in steps:
        run_copy.remove(location)
        run_copy.record["stages"].pop(stage, None)
        run_copy.update(state="running")
        page = render_page(run_copy.inputs())
        assert outline_of(page).ids == list(ANCHORS)
        assert "banner neutral" in page
    assert page.count('class="missing"') >= 8


def test_corrupt_input_fails_the_page(run_copy) -> None:
    """A gates.json that is cut short is an error, not a missing section; no page is written."""
    content = run_copy.layout.gates.read_bytes()
    run_copy.layout.gates.write_bytes(content[: len(content) // 2])
    with pytest.raises(VerificationError, match="gates"):
        write_report(run_copy.layout)
    assert not run_copy.layout.report.join("index.html").exists()
