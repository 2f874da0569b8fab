"""The sampler's own account in the report: target bins, the pilot, selection of hosts, cost; from sampling.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.inputs import RunInputs
from pipeline.report.markup import (
    Html,
    banner,
    count_text,
    heading,
    joined,
    missing,
    note,
    number_text,
    share_text,
    table,
)


def sampling_part(inputs: RunInputs) -> Html:
    """Tables of what sampling.json holds and the columns alone do not show."""
    title = heading("What the sampler did")
    if inputs.sampling is None:
        return joined(title, missing("There is no sampling.json: the training cube is not finished."))
    document = inputs.sampling
    return joined(
        title,
        _problems(document),
        _bins(document) if "acceptance" in document else note("Method none takes one prior draw per row."),
        _numbers(document),
        _selection(document),
        note(
            "Selection: a two-sample KS test of the hosts of the pairs; hosts: pooled selects hosts on purpose, "
            "hosts: conditional must not. The same numbers are in sampling.json."
        ),
    )


def _problems(document: Mapping[str, Any]) -> Html:
    left_out = document.get("pilot", {}).get("unreachable_bins", [])
    parts = []
    if left_out:
        edges = [document["acceptance"]["bins"][index] for index in left_out]
        ranges = ", ".join(f"{bin_['low']:g} \u2013 {bin_['high']:g}" for bin_ in edges)
        parts.append(
            banner(f"The priors never reach {document['metric']} in {ranges}; the target leaves it out.", "bad")
        )
    if document["required_mag_r"]["outside_prior"]:
        share = share_text(document["required_mag_r"]["outside_prior"], 1.0)
        parts.append(banner(f"{share} of the pairs need a magnitude outside its prior; their weight is 0.", "neutral"))
    return joined(*parts)


def _bins(document: Mapping[str, Any]) -> Html:
    pilot = document["pilot"]
    rows = []
    for index, found in enumerate(document["acceptance"]["bins"]):
        where = f"{found['low']:.4g} \u2013 {found['high']:.4g}" if found["value"] is None else f"{found['value']:.4g}"
        error = pilot["target_relative_error"][index]
        rows.append(
            (
                where,
                share_text(found["share"], 1.0),
                count_text(found["attempts"]),
                count_text(found["accepted"]),
                number_text(found["acceptance"]),
                count_text(found["exhausted"]),
                number_text(pilot["target_mass"][index]),
                "" if error is None else share_text(error, 1.0),
            )
        )
    return table(
        (
            document["metric"],
            "Target share",
            "Draws tried",
            "Accepted",
            "Acceptance",
            "Cap failures",
            "Prior mass (pilot)",
            "Its error",
        ),
        rows,
        caption="By assigned SNR for snr_first and direct, by the SNR of the draw for rejection, whose cap failures "
        "have no bin. At a value of a grid, prior mass is the density per unit ln SNR.",
    )


def _numbers(document: Mapping[str, Any]) -> Html:
    cost = document["cost"]
    rows: list[tuple[str, str]] = [
        ("Renders per accepted arc", number_text(cost["renders_per_accepted"])),
        ("Stamps read per accepted arc", number_text(cost["cutout_reads_per_accepted"])),
    ]
    if "acceptance" in document:
        found, pilot, fit = document["acceptance"], document["pilot"], document["achieved"]
        naive = found["naive_equivalent"]
        rows += [
            ("Accepted draws over draws", number_text(found["overall"])),
            ("Plain rejection over all hosts would accept, by density", number_text(naive["by_density"])),
            ("the same, by target bin only", number_text(naive["by_bin"])),
            ("Acceptance probabilities above 1", f"{found['above_one']} of {found['proposals']}"),
            ("M over all hosts", number_text(found["envelope_pooled"])),
            ("Safety factor of M", number_text(pilot["safety_factor"])),
            ("M of a host, mean", number_text(found["envelope_of_hosts_mean"])),
            ("Hosts that cannot reach the whole target", count_text(found["hosts_that_cannot_reach_the_target"])),
            ("Pilot draws, on hosts", f"{pilot['draws']} on {pilot['hosts']}"),
            ("SNR that the priors reach, 0.1 \u2013 99.9 %", " \u2013 ".join(map(number_text, pilot["snr_range"]))),
            ("Total variation from the target", number_text(fit["tv"])),
            ("of an ideal sample", f"{number_text(fit['tv_mean_ideal'])} \u00b1 {number_text(fit['tv_std_ideal'])}"),
            ("KL(target || achieved) [nat]", number_text(fit["kl_nats"])),
            ("\u03c7\u00b2 p, KS p", f"{number_text(fit['chi2_p'])}, {number_text(fit['ks_p'])}"),
        ]
    rows.append(("Priors, sha256", str(document["prior_sha256"])[:12]))
    quantiles = document["required_mag_r"]["quantiles"]
    if quantiles:
        shown = ", ".join(f"{100 * float(q):g} %: {value:.2f}" for q, value in quantiles.items() if value is not None)
        rows.append(("Source r magnitude [mag]", shown))
    return table(("Quantity", "Value"), rows)


def _selection(document: Mapping[str, Any]) -> Html:
    rows = []
    for name, found in document["correlations_ln_snr"].items():
        cells = [name, "\u2013" if found is None else f"{found['r']:+.3f} \u00b1 {found['error']:.3f}"]
        for other in ("controls", "hosts_without_arc"):
            test = document["selection"][other].get(name)
            cells.append("\u2013" if test is None else f"{test['d']:.3f}, p = {number_text(test['p'])}")
        rows.append(tuple(cells))
    return table(("Column", "r with ln SNR", "KS against controls", "KS against hosts without arc"), rows)
