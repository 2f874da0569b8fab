"""Facts about the SNR sections."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.contracts.config import RunConfig
from pipeline.report.inputs import RunInputs
from pipeline.report.snr import conversion_section, pair_values, run_target, snr_section


def test_shares_count_every_pair_once(inputs: RunInputs) -> None:
    """The share table of a bins target has its bins, whose pairs sum to all pairs."""
    values = pair_values(inputs, ["arc_snr"])
    assert values is not None
    target = run_target(inputs)
    assert target is not None
    edges, shares = target.comparison_bins()
    counts = np.histogram(values[0], bins=edges)[0]
    assert counts.sum() == values[0].size
    page = snr_section(inputs)
    assert shares.sum() == pytest.approx(1.0)
    for count in counts:
        assert f"<td>{count}</td>" in page


def test_section_quotes_the_gate(inputs: RunInputs) -> None:
    """Total variation and its ideal value come from the gate's result."""
    assert inputs.gates is not None
    result = next(result for result in inputs.gates.results if result.name == "snr_target")
    page = snr_section(inputs)
    assert f"{result.value:.4f}" in page
    assert f"{result.detail['tv_mean_ideal']:.4f}" in page
    assert "have not been run" in snr_section(dataclasses.replace(inputs, gates=None))


def test_values_that_are_not_finite_are_counted_not_drawn(inputs: RunInputs) -> None:
    """Weights that the finite_pixels gate refuses still have a page, which says how many there are."""
    assert inputs.columns is not None
    weight = inputs.columns["weight_prior"].to_numpy().copy()
    pairs = np.flatnonzero(inputs.columns["role"].to_numpy() == 1)
    weight[pairs[:2]] = np.nan
    weight[pairs[2]] = np.inf
    columns = inputs.columns.assign(weight_prior=("sample", weight))
    assert "3 pairs have an SNR or weight that is not finite" in snr_section(
        dataclasses.replace(inputs, columns=columns)
    )
    columns = columns.assign(weight_prior=("sample", np.full(weight.size, np.nan)))
    assert "no pair with a finite" in snr_section(dataclasses.replace(inputs, columns=columns))


@pytest.mark.parametrize(
    "target",
    [
        {"kind": "grid", "snr": [1.0, 5.0, 30.0], "shares": [0.3, 0.3, 0.4]},
        {"kind": "table", "snr": [0.8, 5.0, 100.0], "density": [1.0, 2.0, 0.5]},
    ],
)
def test_section_shows_every_kind_of_target(inputs: RunInputs, target: dict[str, object]) -> None:
    """Grid and tabulated targets have their figure and share table."""
    content = inputs.config.model_dump()
    content["sampling"] |= {"target": target, "method": "direct"}
    page = snr_section(dataclasses.replace(inputs, config=RunConfig.model_validate(content), gates=None))
    assert "Method direct, hosts conditional" in page
    assert "at most 1 draws per row" in page
    assert page.count("data:image/png") == 2


def test_bins_left_out_are_not_expected(inputs: RunInputs) -> None:
    """A bin that the pilot left out has no share in the target that is shown."""
    assert inputs.pilot is not None
    target = run_target(dataclasses.replace(inputs, pilot=dataclasses.replace(inputs.pilot, unreachable=(3,))))
    assert target is not None
    assert target.shares == pytest.approx((0.4 / 0.95, 0.4 / 0.95, 0.15 / 0.95, 0.0))


def test_sections_work_without_target_and_without_pilot(inputs: RunInputs) -> None:
    """A run of method none has no target and no pilot, and still has both sections."""
    sampling = inputs.config.sampling.model_copy(update={"method": "none", "target": None})
    config = inputs.config.model_copy(update={"sampling": sampling})
    page = snr_section(dataclasses.replace(inputs, config=config, pilot=None, gates=None))
    assert "no SNR target was set" in page
    assert page.count("data:image/png") == 2


def test_conversions_hold_the_ratio_of_the_columns(inputs: RunInputs) -> None:
    """The ratio of arc_snr to arc_snr_matched is 1/7 in this cube, that of matched to itself 1."""
    page = conversion_section(inputs)
    assert page.count("<td>0.143</td>") == 3
    assert page.count("<td>1.00</td>") >= 3
    assert all(name in page for name in ("arc_snr_sum", "arc_snr_matched", "arc_snr_aperture"))


def test_sections_without_cube_say_why(inputs: RunInputs) -> None:
    """Both sections give the reason for a missing cube."""
    bare = dataclasses.replace(inputs, cube=None, columns=None, receipts={"training": {}})
    assert "not published" in snr_section(bare)
    assert "not published" in conversion_section(bare)
