"""The configuration of `dhs score`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.config_file import load_config_as
from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.search import SEARCH_REJECT_REASONS, search_candidates, search_scores
from pipeline.contracts.search_config import SearchConfig

EXAMPLE = Path(__file__).parents[3] / "configs" / "search-demo.yaml"


def test_the_example_is_valid_and_bricks_on_s3_need_a_region() -> None:
    """Unknown keys and a missing region are named."""
    config = load_config_as(SearchConfig, EXAMPLE)
    assert config.survey is not None
    assert config.candidates.top == 100
    with pytest.raises(ConfigError, match="region must name the AWS region of s3://b/coadd"):
        load_config_as(SearchConfig, EXAMPLE, ["survey.bricks=s3://b/coadd"])
    with pytest.raises(ConfigError, match="did you mean 'candidates'"):
        load_config_as(SearchConfig, EXAMPLE, ["candidate.top=5"])


def test_a_cube_needs_no_configuration() -> None:
    """Every section has a default."""
    config = SearchConfig.model_validate({})
    assert config.survey is None
    assert config.cluster.kind == "local"


def test_candidates_carry_every_column_of_the_scores() -> None:
    """And seeing and depth come once per band."""
    scores = [variable.name for variable in search_scores(("g", "z")).variables]
    assert [variable.name for variable in search_candidates(("g", "z")).variables][3:] == scores
    assert [name for name in scores if "_g_" in name] == ["psfsize_g_arcsec", "depth_g_mag"]
    assert SEARCH_REJECT_REASONS[: len(REJECT_REASONS)] == REJECT_REASONS
