from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.contracts.datasets import TRAINING
from pipeline.contracts.feed_config import FEATURE_COLUMNS, FeedSection

NAMES = {variable.name for variable in TRAINING.variables}


@pytest.mark.parametrize("name", sorted(NAMES - set(FEATURE_COLUMNS)))
def test_no_other_column_can_be_asked_for_as_a_feature(name: str) -> None:
    """Whatever describes arc, class, split or selection is refused by the configuration."""
    with pytest.raises(ValidationError, match="features"):
        FeedSection.model_validate({"features": [name]})


def test_features_are_columns_of_the_cube_and_distinct() -> None:
    """Every allowed feature exists in the training cube; none twice."""
    assert set(FEATURE_COLUMNS) <= NAMES
    assert FeedSection.model_validate({"features": list(FEATURE_COLUMNS)}).features == FEATURE_COLUMNS
    with pytest.raises(ValidationError, match="features must be distinct"):
        FeedSection.model_validate({"features": ["ebv_mag", "ebv_mag"]})


def test_only_what_fills_batches_decides() -> None:
    """Order, weights and features are part of a training's identity; caches and threads are not."""
    base = FeedSection()
    same = FeedSection(threads=7, cache="never", cache_limit_gb=1.0, pinned=True, prefetch_batches=9, fetches=1)
    assert base.deciding() == same.deciding()
    for changed in ({"order": "global"}, {"shuffle_shards": 3}, {"pairs": "kept"}, {"weights": "prior"}):
        assert FeedSection.model_validate(changed).deciding() != base.deciding()
