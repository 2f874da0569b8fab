"""One self-contained HTML page per run, at any state of the run."""

from __future__ import annotations

from pipeline.report.census import census_section, headline_cards
from pipeline.report.completeness import completeness_section, evaluation_figures
from pipeline.report.evaluation import evaluation_section
from pipeline.report.gallery import gallery_section
from pipeline.report.hosts import host_section
from pipeline.report.inputs import RunInputs, read_inputs
from pipeline.report.learning import learning_section
from pipeline.report.markup import Html, banner, details, element, escaped, joined, link, note, paragraph
from pipeline.report.snr import conversion_section, snr_section
from pipeline.report.style import STYLE_SHEET
from pipeline.report.throughput import provenance_section, throughput_section
from pipeline.report.verdicts import gate_section
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import utc_now

_BANNER_CHARACTERS = 400
_SECTIONS = (
    census_section,
    gallery_section,
    snr_section,
    conversion_section,
    host_section,
    gate_section,
    learning_section,
    evaluation_section,
    completeness_section,
    throughput_section,
    provenance_section,
)
_CONTENTS = (
    ("census", "Census"),
    ("gallery", "Gallery"),
    ("snr", "SNR"),
    ("conversions", "SNR definitions"),
    ("hosts", "Hosts"),
    ("gates", "Gates"),
    ("training", "Training"),
    ("evaluation", "Evaluation"),
    ("completeness", "Completeness"),
    ("throughput", "Throughput"),
    ("provenance", "Configuration"),
)


def write_report(layout: RunLayout) -> Location:
    """Write `report/index.html` of a run: CSS and pictures inside, links only to files beside it.

    The figures of an evaluation are also written beside it, as PNG.

    What does not exist yet is named in its section together with the reason. Reads all columns of the
    training cube and the pixels of at most 20,000 rows, or of one shard if shards are larger.

    Returns:
        The page.

    Raises:
        ContractError: no run lives there.
        VerificationError: a document exists and is not what it should be, or belongs to another plan.
        StorageError: a read or the write failed.
    """
    page, inputs = layout.report.join("index.html"), read_inputs(layout)
    if inputs.evaluation is not None:
        for name, picture in evaluation_figures(inputs.evaluation).items():
            layout.report.join(name).write_bytes(picture)
    page.write_bytes(render_page(inputs).encode())
    return page


def render_page(inputs: RunInputs) -> str:
    """The page as one HTML document."""
    title = f"{inputs.record['run']} \u2013 lens injection run"
    body = joined(
        _header(inputs),
        _state_banner(inputs),
        headline_cards(inputs),
        note(
            "Numbers of this page describe this run's bricks and priors; "
            "they are no measurement of survey completeness."
        ),
        element("nav", Html(" ".join(link(f"#{anchor}", name) for anchor, name in _CONTENTS))),
        *(make(inputs) for make in _SECTIONS),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE_SHEET}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _header(inputs: RunInputs) -> Html:
    record, code = inputs.record, inputs.record["code"]
    facts = {
        "State": f"{record['state']}, updated {record['updated_utc']}",
        "Started": str(record.get("created_utc", "unknown")),
        "Page written": utc_now(),
        "Code": f"{code.get('code_version', 'unknown')}, git {code.get('git_sha', 'unknown')}",
        "Configuration": f"sha256 {record['config_sha256']}",
        "Plan": f"sha256 {record['plan_sha256']}",
        "Seed": str(inputs.config.run.seed),
        "Bands": f"{', '.join(inputs.bands)}, stamps of {inputs.config.survey.stamp_size_px} px at 0.262\u2033",
        "Location": inputs.layout.root.url,
    }
    suppression = inputs.config.injection.core_suppression
    if suppression is not None:
        radii = ", ".join(f"{key} {value:g}" for key, value in suppression.model_dump(exclude_none=True).items())
        facts["Ablation"] = f"arcs are not physical: core suppression ({radii})"
    pairs = "".join(element("dt", name) + element("dd", value) for name, value in facts.items())
    return joined(element("h1", f"Run {record['run']}"), element("dl", Html(pairs), "identity"))


def _state_banner(inputs: RunInputs) -> Html:
    state, error = str(inputs.record["state"]), inputs.record["error"]
    if error:
        text = f"The run failed at {error.get('time_utc', 'an unknown time')} with {error['type']}: {error['message']}"
        if len(text) <= _BANNER_CHARACTERS:
            return banner(text, "bad")
        start = text[:_BANNER_CHARACTERS].rsplit(" ", 1)[0]
        return joined(banner(f"{start} \u2026", "bad"), details("The whole message", paragraph(text)))
    if state == "complete":
        return banner("The run is complete.", "good")
    return banner(
        f"The run is {state}: what is missing below has not been made yet.", "bad" if state == "failed" else "neutral"
    )
