"""A pass over a split: order, extremes, embeddings, whoever reads what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.processes import World
from pipeline.training.scan import evenly_spread, scan_split
from pipeline.training.scorer import Scorer

CPU = torch.device("cpu")


@pytest.fixture
def scorer(make_checkpoint: Callable[..., Checkpoint]) -> Scorer:
    """An untrained network for stamps of 16 px."""
    made = make_checkpoint(size=16, annulus_px=(5.0, 8.0))
    return Scorer(made.build(CPU), made.preprocess, None, CPU)


@pytest.fixture
def feed(make_feed: Callable[..., Any]) -> Any:
    """60 stamps of noise of 30 rows, each with both classes."""
    stamps = np.random.default_rng(2).normal(size=(60, 3, 16, 16))
    return make_feed(stamps, np.arange(60) % 2 == 0, np.repeat(np.arange(30), 2))


def test_everything_is_in_the_order_of_the_split(scorer: Scorer, feed: Any) -> None:
    """Logits, kept stamps and embeddings are those of the examples asked for, though batches come mixed up."""
    plain = scorer.logits(feed.stamps)
    batches = list(feed.in_order(7))
    feed.in_order = lambda *_: iter(batches[::-1])
    found = scan_split(scorer, feed, World(CPU), np.array([3, 50]), np.array([0, 59, 8]))
    np.testing.assert_allclose(found.logit, plain, rtol=1e-4, atol=1e-5)
    assert found.stamps.place.tolist() == [3, 50]
    np.testing.assert_array_equal(found.stamps.values, feed.stamps[[3, 50]])
    assert found.embeddings.place.tolist() == [0, 8, 59]
    expected = scorer.embeddings(scorer.normalised(feed.stamps[[0, 8, 59]]))[-1]
    np.testing.assert_allclose(found.embeddings.values, expected, rtol=1e-4, atol=1e-5)
    assert found.worst.place.size == 0


def test_worst_are_the_extremes_of_each_class(scorer: Scorer, feed: Any) -> None:
    """Four negatives of highest and four positives of lowest logit, as sorting all of them gives."""
    found = scan_split(scorer, feed, World(CPU), n_worst=4)
    negative, positive = np.flatnonzero(feed.label == 0), np.flatnonzero(feed.label == 1)
    high = negative[np.argsort(-found.logit[negative])[:4]]
    low = positive[np.argsort(found.logit[positive])[:4]]
    assert found.worst.place.tolist() == sorted([*high, *low])
    np.testing.assert_array_equal(found.worst.values, feed.stamps[found.worst.place])


def test_examples_read_twice_or_not_at_all_are_noticed(scorer: Scorer, feed: Any) -> None:
    """A feed that loses a batch or gives one twice is refused; so is a stamp that is not finite."""
    batches = list(feed.in_order(20))
    for wrong in (batches[:2], [*batches, batches[0]]):
        feed.in_order = lambda *_, wrong=wrong: iter(wrong)
        with pytest.raises(VerificationError, match="expected each of 60 once"):
            scan_split(scorer, feed, World(CPU))
    batches[1].stamps[0, 0, 0, 0] = np.nan
    feed.in_order = lambda *_: iter(batches)
    with pytest.raises(ContractError, match="not finite"):
        scan_split(scorer, feed, World(CPU))


def test_spread_covers_the_split() -> None:
    """First and last are in; fewer examples than asked for are all of them; none asked is none."""
    assert evenly_spread(100, 3).tolist() == [0, 49, 99]
    assert evenly_spread(2, 8).tolist() == [0, 1]
    assert evenly_spread(5, 0).tolist() == []
