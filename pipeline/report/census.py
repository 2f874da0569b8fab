"""What went in and what was kept: headline numbers, rows by reason, and the sums that must agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.datasets import REJECT_REASONS, SPLITS, TRAINED_SPLITS
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
}


def headline_cards(inputs: RunInputs) -> Html:
    """The numbers of a run in one line: rows, usable, pairs, splits, test AUC."""
    cards = [_card(count_text(inputs.plan["n_rows"]), "rows planned")]
    if inputs.reject_reason is not None:
        usable = int((inputs.reject_reason == 0).sum())
        cards.append(_card(count_text(usable), f"usable stamps, {share_text(usable, len(inputs.reject_reason))}"))
    if inputs.columns is not None:
        is_pair = has_role_code(inputs.columns, "pair")
        cards.append(_card(count_text(int(is_pair.sum())), "injected and control pairs"))
        cards.append(_card(count_text(int(has_role_code(inputs.columns, "control").sum())), "controls without pair"))
        by_split = {split: int((is_pair & in_split(inputs.columns, split)).sum()) for split in TRAINED_SPLITS}
        cards += [_card(count_text(number), f"{split} pairs") for split, number in by_split.items()]
    if inputs.training is not None:
        auc = inputs.training.metrics["auc"]
        cards.append(_card(number_text(auc["value"], 4), Html(f"test AUC<br>{interval_text(auc)}")))
    return Html(f'<div class="cards">{"".join(cards)}</div>')


def census_section(inputs: RunInputs) -> Html:
    """Section 1: rows by reject reason, roles and splits, and the checks that nothing was lost."""
    parts = [paragraph(_manifest_sentence(inputs)), heading("Rows by outcome")]
    if inputs.reject_reason is not None or inputs.receipts["cutouts"]:
        parts.append(_reason_table(inputs))
    if inputs.reject_reason is None:
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
        checks.append(("training: pairs + controls = rows without reason", int(is_pair.sum() + is_control.sum()), kept))
        by_split = sum(int((in_split(columns, split) & is_pair).sum()) for split in SPLITS)
        checks.append(("training: pairs over all splits = pairs", by_split, int(is_pair.sum())))
        if codes is not None:
            same = int((final[codes > 0] == codes[codes > 0]).sum())
            checks.append(("rows rejected at the cutout keep that reason", same, int((codes > 0).sum())))
        if inputs.training is not None:
            in_test = in_split(columns, "test")
            n_pairs, n_controls = int((is_pair & in_test).sum()), int((is_control & in_test).sum())
            metrics = inputs.training.metrics
            checks.append(("scored positives = test pairs", int(metrics["n_positives"]), n_pairs))
            checks.append(
                ("scored negatives = test pairs + test controls", int(metrics["n_negatives"]), n_pairs + n_controls)
            )
    return checks


def _card(value: str, label: str) -> str:
    return element("div", Html(element("b", value) + element("span", label)), "card")


def _manifest_sentence(inputs: RunInputs) -> str:
    manifest = inputs.stages.get("manifest")
    start = f"The plan holds {count_text(inputs.plan['n_rows'])} rows in {count_text(inputs.plan['n_shards'])} shards"
    if manifest is None:
        return f"{start}. The manifest has not been checked as a whole yet."
    return (
        f"{start}: {count_text(manifest['hosts'])} distinct hosts in {count_text(manifest['bricks'])} bricks; "
        f"{count_text(manifest['controls'])} rows ask for no injection."
    )


def _reason_table(inputs: RunInputs) -> Html:
    counts = [_counts(inputs, "cutouts", inputs.reject_reason), _counts(inputs, "training", _final(inputs))]
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
        ("Reject reason", "Meaning", "After cutouts", "Share", "After injection", "Share"),
        [*rows, totals],
        caption="Each row has exactly one outcome: the first reason that applies.",
        text_columns=(0, 1),
        total_row=True,
    )


def _final(inputs: RunInputs) -> NDArray[np.uint8] | None:
    return None if inputs.columns is None else inputs.columns["reject_reason"].to_numpy()


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
    is_pair, is_control = has_role_code(columns, "pair"), has_role_code(columns, "control")
    outside = int((is_pair & ~in_split(columns, "guard")).sum())
    requested = inputs.config.splits.model_dump()
    rows = []
    for split in SPLITS:
        inside = in_split(columns, split)
        n_pairs = int((is_pair & inside).sum())
        guard = split == "guard"
        rows.append(
            (
                split,
                count_text(int(inside.sum())),
                count_text(n_pairs),
                count_text(int((is_control & inside).sum())),
                count_text(int(np.unique(columns["host_id"].to_numpy()[inside]).size)),
                DASH if guard else share_text(n_pairs, outside),
                DASH if guard else share_text(requested[split], 1),
            )
        )
    total = (
        "all",
        count_text(columns.sizes["sample"]),
        count_text(int(is_pair.sum())),
        count_text(int(is_control.sum())),
        count_text(int(np.unique(columns["host_id"].to_numpy()).size)),
        "",
        "",
    )
    return joined(
        table(
            ("Split", "Rows", "Pairs", "Controls", "Hosts", "Share of pairs", "Requested"),
            [*rows, total],
            total_row=True,
        ),
        note(
            "Shares count pairs outside the guard. Guard rows lie closer than the guard radius "
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
