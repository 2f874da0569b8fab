"""The trainer's settings: ramps over epochs, degraded centres, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.contracts.training_config import CentreDegradation, EpochRamp, TrainingSection


def test_ramp_is_linear_between_its_epochs_and_flat_outside() -> None:
    """start up to first_epoch, end from last_epoch on, linear between."""
    ramp = EpochRamp(start=0.2, end=0.8, first_epoch=2, last_epoch=5)
    assert [ramp.at(epoch) for epoch in range(8)] == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    falling = EpochRamp(start=1.0, end=0.0, last_epoch=4)
    assert [falling.at(epoch) for epoch in range(6)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0])


def test_a_number_is_a_constant_schedule_and_survives_its_own_dump() -> None:
    """probability: 0.5 means 0.5 in every epoch; what a run stores parses to the same section."""
    section = CentreDegradation.model_validate({"radius_px": 5, "probability": 0.5})
    assert [section.probability.at(epoch) for epoch in (0, 7)] == [0.5, 0.5]
    assert [section.strength.at(epoch) for epoch in (0, 7)] == [1.0, 1.0]
    assert section.kinds == ("mask",)
    assert CentreDegradation.model_validate(section.model_dump(mode="json")) == section


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"radius_px": 5}, "probability"),
        ({"probability": 0.5}, "radius_px"),
        ({"radius_px": 0, "probability": 0.5}, "radius_px"),
        ({"radius_px": 5, "probability": 1.5}, "probability"),
        ({"radius_px": 5, "probability": True}, "probability"),
        ({"radius_px": 5, "probability": 0.5, "kinds": []}, "kinds"),
        ({"radius_px": 5, "probability": 0.5, "kinds": ["blur", "blur"]}, "distinct"),
        ({"radius_px": 5, "probability": 0.5, "kinds": ["hide"]}, "'mask', 'noise' or 'blur'"),
        ({"radius_px": 5, "probability": {"start": 0, "end": 1}}, "first_epoch < last_epoch"),
        ({"radius_px": 5, "probability": {"start": 0, "end": 1, "first_epoch": 3, "last_epoch": 2}}, "last_epoch"),
        ({"radius_px": 5, "probability": {"start": 0, "end": 1, "last_epoch": 4}}, "probability.last_epoch 4 is never"),
        ({"radius_px": 5, "probability": 1, "strength": {"start": 0, "end": 1, "last_epoch": 9}}, "strength.last"),
    ],
)
def test_bad_degradations_are_refused(section: dict[str, object], reason: str) -> None:
    """Each error says which key."""
    with pytest.raises(ValidationError, match=reason):
        TrainingSection.model_validate({"epochs": 4, "centre_degradation": section})


def test_identity_follows_the_degradation_and_not_the_time_limit() -> None:
    """Another schedule is another training; another time limit is not."""
    plain = TrainingSection(epochs=4)
    degraded = TrainingSection.model_validate({"epochs": 4, "centre_degradation": {"radius_px": 5, "probability": 0.5}})
    assert plain.identity_sha256() != degraded.identity_sha256()
    assert plain.identity_sha256() == TrainingSection(epochs=4, timeout_s=5.0, enabled=False).identity_sha256()
