from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.emr_config import EMR_KEYS, RECORD_KEYS, STAGE_4C_KEYS
from pipeline.contracts.priors import Section

GUIDE = Path(__file__).parents[3] / "docs" / "emr-migration.md"
# Names that only files of the EMR stages have; the guide speaks of the files.
ONLY_IN_FILES = {*RECORD_KEYS, "manifest"}


@pytest.mark.parametrize("key", sorted(set(EMR_KEYS) - ONLY_IN_FILES))
def test_guide_says_what_became_of_every_key(key: str) -> None:
    """Each flag or key of the EMR script stands in docs/emr-migration.md."""
    text = GUIDE.read_text(encoding="utf-8")
    assert f"`--{key.replace('_', '-')}`" in text or f"`{key}`" in text


@pytest.mark.parametrize("key", sorted(STAGE_4C_KEYS))
def test_every_rule_has_a_reason_and_a_target_that_exists(key: str) -> None:
    """Reasons are given; a dotted target is a key of RunConfig; kept values have somewhere to go."""
    rule = STAGE_4C_KEYS[key]
    assert rule.why
    assert rule.target or rule.fate in ("dropped", "undecided")
    parts = rule.target.split(".")
    if len(parts) > 1 and parts[0] in RunConfig.model_fields and "source" not in parts:
        model: type[Section] = RunConfig
        for part in parts[:-1]:
            found = model.model_fields[part].annotation
            assert isinstance(found, type)
            model = found
        assert parts[-1] in model.model_fields


def test_what_a_stage_config_leaves_out_decided_the_arcs() -> None:
    """The unrecorded keys are those of PSF, source and core mask; each has the default of the EMR script."""
    unrecorded = {key: rule.default for key, rule in STAGE_4C_KEYS.items() if not rule.recorded}
    arcs = {"psf_model": "moffat", "moffat_beta": 3.5, "use_psfsize_maps": 0, "core_mask_radius": 0}
    assert unrecorded == {**arcs, "source_mode": "sersic"}
