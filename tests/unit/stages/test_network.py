"""Scoring with an exported network: batches, refused input, and what the file must be."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.stages.network import StampNetwork, probability


def test_logits_come_in_order_and_do_not_depend_on_the_batch(make_network: Callable[..., bytes]) -> None:
    """Eleven stamps in batches of four give what each gives alone; NaN stays NaN."""
    network = StampNetwork(make_network())
    stamps = np.random.default_rng(1).normal(size=(11, 3, 32, 32)).astype(np.float32)
    stamps[5, 1, 3, 3] = np.nan
    logit = network.logits(stamps)
    np.testing.assert_allclose(logit, stamps.mean(axis=(1, 2, 3), dtype=np.float64), atol=1e-6)
    assert np.flatnonzero(np.isnan(logit)).tolist() == [5]
    alone = np.concatenate([network.logits(stamp[None]) for stamp in stamps])
    np.testing.assert_array_equal(alone, logit)
    assert network.logits(stamps[:0]).shape == (0,)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 2, 32, 32)])
def test_stamps_of_another_shape_are_refused(make_network: Callable[..., bytes], shape: tuple[int, ...]) -> None:
    """Both shapes are in the message."""
    with pytest.raises(ContractError, match=r"expected float32 stamps of \(3, 32, 32\)"):
        StampNetwork(make_network()).logits(np.zeros(shape, np.float32))
    with pytest.raises(ContractError, match="got float64"):
        StampNetwork(make_network()).logits(np.zeros((2, 3, 32, 32)))


def test_files_that_are_no_exported_network_are_refused(make_network: Callable[..., bytes]) -> None:
    """Nothing, text, half a file, and metadata that do not fit the graph."""
    data = make_network()
    for wrong in (b"", b"not ONNX", data[: len(data) // 2]):
        with pytest.raises(ContractError, match="not an ONNX file"):
            StampNetwork(wrong)
    with pytest.raises(ContractError, match="expected the input"):
        StampNetwork(make_network(stamp_size_px=64))


def test_without_the_runtime_the_extra_is_named(
    make_network: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation without onnxruntime says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="extra score"):
        StampNetwork(make_network())


def test_probability_is_the_logistic() -> None:
    """It saturates at both ends without a warning."""
    logit = np.array([-1e4, 0.0, 2.0, 100.0, np.nan], np.float32)
    np.testing.assert_allclose(probability(logit), [0.0, 0.5, 1 / (1 + np.exp(-2.0)), 1.0, np.nan], rtol=1e-6)
    assert probability(logit).dtype == np.float32
