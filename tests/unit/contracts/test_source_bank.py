"""The bank's contract: limits that mean something, and a digest that follows the content."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.contracts.errors import ConfigError
from pipeline.contracts.source_bank import BANK_COLUMNS, TEMPLATE_REJECT_REASONS, BankLimits, SourceBank, bank_digest


def columns(n_templates: int) -> dict[str, np.ndarray]:
    """Every column of a bank of usable templates."""
    return {column.name: np.ones(n_templates, dtype=column.dtype) for column in BANK_COLUMNS}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"stamp_size_px": 97}, "stamp_size_px 97"),
        ({"stamp_size_px": 14}, "stamp_size_px 14"),
        ({"min_snr": 0.0}, "min_snr"),
        ({"hlr_range_arcsec": (0.5, 0.2)}, "hlr_range_arcsec 0.5 to 0.2"),
        ({"max_pedestal_fraction": 1.5}, "max_pedestal_fraction"),
        ({"blend_flux_fraction": 0.7}, "blend_flux_fraction"),
        ({"common_psf_fwhm_arcsec": 0.0}, "common_psf_fwhm_arcsec"),
    ],
)
def test_a_limit_outside_its_range_is_named(changed: dict[str, Any], named: str) -> None:
    """The message says which limit and its value."""
    with pytest.raises(ConfigError, match=named):
        BankLimits(**changed)


def test_every_wrong_limit_is_listed_at_once() -> None:
    """One error for two faults."""
    with pytest.raises(ConfigError, match=r"stamp_size_px.*min_snr"):
        BankLimits(stamp_size_px=15, min_snr=-1.0)


def test_code_zero_means_no_reason() -> None:
    """The code of a usable template is 0, and a column without a value means just that."""
    by_name = {column.name: column for column in BANK_COLUMNS}
    assert TEMPLATE_REJECT_REASONS[0] == "none"
    assert by_name["reject_reason"].missing == 0 and by_name["usable"].missing == 1
    assert [column.path for column in BANK_COLUMNS if column.missing is None] == [
        "meta/index",
        "meta/hlr_arcsec",
        "meta/clumpiness",
    ]


def test_digest_follows_pixels_columns_and_scale_and_nothing_else() -> None:
    """Each change of content changes the digest; the byte order and layout of the arrays do not."""
    images = np.full((2, 16, 16), 1 / 256, dtype=np.float32)
    first = bank_digest(images, columns(2), 0.03)
    assert first == bank_digest(np.asfortranarray(images), columns(2), 0.03)
    assert first == bank_digest(images.astype(">f4"), columns(2), 0.03)
    brighter = images.copy()
    brighter[1, 3, 4] += 1e-6
    assert bank_digest(brighter, columns(2), 0.03) != first
    assert bank_digest(images, columns(2), 0.05) != first
    assert bank_digest(images, {**columns(2), "mag": np.array([1.0, 2.0], dtype=np.float32)}, 0.03) != first


def test_bank_offers_typed_columns() -> None:
    """The properties a renderer uses have the types it wants."""
    values = columns(3)
    values["usable"] = np.array([1, 0, 1], dtype=np.uint8)
    bank = SourceBank(np.zeros((3, 16, 16), np.float32), values, 0.03, 0.1, "observed", "here", "now", "digest")
    assert bank.stamp_size_px == 16
    assert bank.usable.dtype == np.bool_ and bank.usable.tolist() == [True, False, True]
    assert {bank.hlr_arcsec.dtype, bank.clumpiness.dtype, bank.mag.dtype, bank.redshift.dtype} == {np.dtype("f4")}
