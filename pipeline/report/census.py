"""What went in and what was kept: headline numbers, rows by reason, and the sums that must agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.datasets import INJECTED_ROLES, REJECT_REASONS, SPLITS, TRAINED_SPLITS
from pipeline.report.inputs import RunInputs, has_role_code, in_split
from pipeline.report.markup import (
    DASH,
    Html,
    count_text,
    element,
    heading,
    joined,
    missing,
    note,
    number_text,
    paragraph,
    section,
    share_text,
    table,
)

_MEANING = {
    "none": "kept",
    "brick_missing": "a file of the brick does not exist",
    "brick_corrupt": "a file of the brick cannot be decoded",
    "out_of_bounds": "the stamp leaves the brick",
    "nonfinite_pixels": "pixels that are not finite",
    "invvar_zero": "pixels without data",
    "masked": "too many bad pixels",
    "psfsize_invalid": "seeing unknown or out of range",
    "host_mag_missing": "host magnitude unknown",
    "sampler_exhausted": "no draw accepted within the limit",
    "arc_masked": "no arc light on good pixels",
    "mask_unreadable": "the mask file cannot be used",
    "ebv_missing": "reddening unknown",
    "psf_unreadable": "no measured PSF for the brick",
    "row_incomplete": "a number of the row is missing",
    "duplicate_row": "an earlier row has the same task_id",
    "stamp_unreadable": "the stamp cannot be decoded",
    "band_missing": "a band is not in the stamp",
    "stamp_shape": "the stamp has another size",
    "implausible_pixels": "pixels that are no nanomaggies",
    "template_unusable": "the galaxy of the source bank cannot be lensed",
}


def headline_cards(inputs: RunInputs) -> Html:
    """The numbers of a run in one line: rows, usable, pairs, splits, test AUC."""
    cards = [_card(count_text(inputs.plan["n_rows"]), "rows planned")]
    if inputs.reject_reason is not None:
        usable = int((inputs.reject_reason == 0).sum())
        cards.append(_card(count_text(usable), f"usable stamps, {share_text(usable, len(inputs.reject_reason))}"))
    if inputs.columns is not None:
        is_pair, is_arc = has_role_code(inputs.columns, "pair"), has_role_code(inputs.columns, *INJECTED_ROLES)
        alone = int(is_arc.sum() - is_pair.sum())
        cards.append(_card(count_text(int(is_pair.sum())), "injected and control pairs"))
        cards.append(_card(count_text(int(has_role_code(inputs.columns, "control").sum())), "controls without pair"))
        if alone:
            cards.append(_card(count_text(alone), "imported arcs without control"))
        by_split = {split: int((is_arc & in_split(inputs.columns, split)).sum()) for split in TRAINED_SPLITS}
        cards += [_card(count_text(n), f"{split} {'arcs' if alone else 'pairs'}") for split, n in by_split.items()]
    if inputs.training is not None:
        auc = inputs.training.metrics["auc"]
        cards.append(_card(number_text(auc["value"], 4), Html(f"test AUC<br>{interval_text(auc)}")))
    return Html(f'<div class="cards">{"".join(cards)}</div>')


def census_section(inputs: RunInputs) -> Html:
    """Section 1: rows by reject reason, roles and splits, and the checks that nothing was lost."""
    parts = [paragraph(_manifest_sentence(inputs)), heading("Rows by outcome")]
    if any(_counts(inputs, cube, codes) for cube, _, codes in _steps(inputs)):
        parts.append(_reason_table(inputs))
    if inputs.reject_reason is None and not inputs.is_import:
        parts.append(missing(inputs.why_no_cube("cutouts")))
    if inputs.columns is None:
        parts.append(missing(inputs.why_no_cube("training")))
    else:
        parts += [heading("Rows by split and role"), _split_table(inputs)]
    parts += [heading("Check: every row is accounted for"), _check_table(inputs)]
    return section("census", "1. What went in and what was kept", *parts)


def interval_text(auc: Mapping[str, float | None]) -> str:
    """The interval of an AUC, or why it has none."""
    if auc["low"] is None or auc["high"] is None:
        return "no interval"
    return f"{number_text(auc['low'], 4)}{DASH}{number_text(auc['high'], 4)}"


def accounting_checks(inputs: RunInputs) -> list[tuple[str, int, int]]:
    """Statements about sums as (statement, one side, other side); both sides must be equal."""
    planned = int(inputs.plan["n_rows"])
    checks: list[tuple[str, int, int]] = []
    for cube in ("cutouts", "training"):
        stage = inputs.stages.get(cube)
        if stage is not None:
            checks.append((f"{cube}: rows by reason in the receipts = rows planned", _total(stage["counts"]), planned))
    codes, columns = inputs.reject_reason, inputs.columns
    if codes is not None:
        checks.append(("cutouts: rows in the cube = rows planned", len(codes), planned))
        if "cutouts" in inputs.stages:
            kept = int(inputs.stages["cutouts"]["counts"].get("none", 0))
            checks.append(("cutouts: usable rows in the cube = in the receipts", int((codes == 0).sum()), kept))
    if columns is not None:
        final = columns["reject_reason"].to_numpy()
        kept = int((final == 0).sum())
        is_pair, is_control = has_role_code(columns, "pair"), has_role_code(columns, "control")
        is_arc = has_role_code(columns, *INJECTED_ROLES)
        arcs = "pairs + arcs without control" if inputs.is_import else "pairs"
        checks.append((f"training: {arcs} + controls = rows without reason", int((is_arc | is_control).sum()), kept))
        by_split = sum(int((in_split(columns, split) & is_arc).sum()) for split in SPLITS)
        checks.append((f"training: {arcs} over all splits = {arcs}", by_split, int(is_arc.sum())))
        if codes is not None:
            same = int((final[codes > 0] == codes[codes > 0]).sum())
            checks.append(("rows rejected at the cutout keep that reason", same, int((codes > 0).sum())))
        if inputs.training is not None:
            in_test = in_split(columns, "test")
            n_negatives = int(((is_pair | is_control) & in_test).sum())
            metrics = inputs.training.metrics
            checks.append(
                (f"scored positives = test {arcs}", int(metrics["n_positives"]), int((is_arc & in_test).sum()))
            )
            checks.append(("scored negatives = test pairs + test controls", int(metrics["n_negatives"]), n_negatives))
    return checks


def _card(value: str, label: str) -> str:
    return element("div", Html(element("b", value) + element("span", label)), "card")


def _manifest_sentence(inputs: RunInputs) -> str:
    manifest = inputs.stages.get("manifest")
    start = f"The plan holds {count_text(inputs.plan['n_rows'])} rows in {count_text(inputs.plan['n_shards'])} shards"
    if inputs.is_import:
        return f"{start}, read from tables of finished stamps ({count_text(1 + len(inputs.config.manifest.also))})."
    if manifest is None:
        return f"{start}. The manifest has not been checked as a whole yet."
    return (
        f"{start}: {count_text(manifest['hosts'])} distinct hosts in {count_text(manifest['bricks'])} bricks; "
        f"{count_text(manifest['controls'])} rows ask for no injection."
    )


def _steps(inputs: RunInputs) -> list[tuple[str, str, NDArray[np.uint8] | None]]:
    """Cubes that judge rows, what each is called, and its reasons where it is published."""
    final = None if inputs.columns is None else inputs.columns["reject_reason"].to_numpy()
    if inputs.is_import:
        return [("training", "After import", final)]
    return [("cutouts", "After cutouts", inputs.reject_reason), ("training", "After injection", final)]


def _reason_table(inputs: RunInputs) -> Html:
    steps = _steps(inputs)
    counts = [_counts(inputs, cube, codes) for cube, _, codes in steps]
    rows = []
    for reason in REJECT_REASONS:
        if any(found and found.get(reason) for found in counts):
            cells = [reason if reason != "none" else DASH, _MEANING[reason]]
            for found in counts:
                number = found.get(reason, 0) if found else None
                cells += [count_text(number), share_text(number or 0, _total(found or {}))]
            rows.append(cells)
    totals = ["", "all rows"]
    for found in counts:
        totals += [count_text(_total(found) if found else None), share_text(1, 1) if found else DASH]
    return table(
        ("Reject reason", "Meaning", *(cell for _, title, _ in steps for cell in (title, "Share"))),
        [*rows, totals],
        caption="Each row has exactly one outcome: the first reason that applies.",
        text_columns=(0, 1),
        total_row=True,
    )


def _counts(inputs: RunInputs, cube: str, codes: NDArray[np.uint8] | None) -> dict[str, int] | None:
    """Rows by reason of a published cube, else of the shards done so far; None if there are none."""
    if codes is not None:
        return dict(zip(REJECT_REASONS, np.bincount(codes, minlength=len(REJECT_REASONS)).tolist(), strict=True))
    receipts = inputs.receipts[cube].values()
    if not receipts:
        return None
    return {reason: sum(int(receipt.counts.get(reason, 0)) for receipt in receipts) for reason in REJECT_REASONS}


def _split_table(inputs: RunInputs) -> Html:
    columns = inputs.columns
    if columns is None:
        raise ValueError("the split table needs the training cube")
    roles = {"Pairs": ("pair",), "Arcs without control": ("injected",), "Controls": ("control",)}
    counted = {title: has_role_code(columns, *names) for title, names in roles.items()}
    if not counted["Arcs without control"].any():
        del counted["Arcs without control"]
    is_arc, host = has_role_code(columns, *INJECTED_ROLES), columns["host_id"].to_numpy()
    outside = int((is_arc & ~in_split(columns, "guard")).sum())
    requested = inputs.config.splits.model_dump()
    rows = []
    for split in (*SPLITS, "all"):
        inside = in_split(columns, split) if split != "all" else np.ones(host.size, dtype=np.bool_)
        trained = split in TRAINED_SPLITS
        rows.append(
            (
                split,
                count_text(int(inside.sum())),
                *(count_text(int((chosen & inside).sum())) for chosen in counted.values()),
                count_text(int(np.unique(host[inside]).size)),
                share_text(int((is_arc & inside).sum()), outside) if trained else DASH if split == "guard" else "",
                share_text(requested[split], 1) if trained else DASH if split == "guard" else "",
            )
        )
    return joined(
        table(("Split", "Rows", *counted, "Hosts", "Share of arcs", "Requested"), rows, total_row=True),
        note(
            "Shares count arcs outside the guard. Guard rows lie closer than the guard radius "
            f"({inputs.config.splits.guard_arcsec:g}\u2033) to a sky cell of another split; they are never used."
        ),
    )


def _check_table(inputs: RunInputs) -> Html:
    rows = [
        (
            statement,
            count_text(left),
            count_text(right),
            element("span", "adds up", "good") if left == right else element("span", "DOES NOT ADD UP", "bad"),
        )
        for statement, left, right in accounting_checks(inputs)
    ]
    if not rows:
        return missing("No stage has finished yet, so there is nothing to add up.")
    return table(("Statement", "Left", "Right", "Verdict"), rows, text_columns=(0, 3))


def _total(counts: Mapping[str, int]) -> int:
    return sum(int(count) for count in counts.values())
