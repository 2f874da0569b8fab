from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.contracts.prices import MeasuredRates, Prices


def test_prices_are_dated_and_positive() -> None:
    """Every list of prices says when and from where; spot is below on demand."""
    prices = Prices()
    assert prices.as_of and prices.source
    assert prices.node_spot_usd_per_h < prices.node_on_demand_usd_per_h
    with pytest.raises(ValidationError):
        Prices(node_on_demand_usd_per_h=-1.0)


def test_rates_have_no_defaults() -> None:
    """A rate that was not measured is an error, and so is one without source."""
    assert all(field.is_required() for field in MeasuredRates.model_fields.values())
    with pytest.raises(ValidationError, match="source"):
        MeasuredRates(
            source="", mode="frozen", rows_per_brick=1, cutouts_core_s=1, injection_core_s=1, read_bytes_per_brick=1,
            requests_per_brick=1,
        )  # fmt: skip
