"""TrainingSection: the trainer, how stamps are normalised for it, and how their centres are degraded."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.contracts.feed_config import FeedSection
from pipeline.contracts.network_config import (
    AugmentSection,
    LossSection,
    NetworkSection,
    OptimiserSection,
    ScheduleSection,
    StoppingSection,
)
from pipeline.contracts.priors import Fraction, Positive, Section
from pipeline.contracts.survey import MAD_TO_SIGMA


class PreprocessSection(Section):
    """Normalisation of a stamp: (x - median) / unit over an annulus about pixel size // 2, clipped; NaN is an error."""

    annulus_px: tuple[Positive, Positive] = (20.0, 32.0)
    unit: Literal["mad", "sigma"] = Field(
        default="mad", description="mad: the plain median absolute deviation; sigma: 1.4826 times it"
    )
    clip: Positive = Field(default=10.0, description="largest absolute value, in units")

    @model_validator(mode="after")
    def _annulus_is_ordered(self) -> PreprocessSection:
        if self.annulus_px[0] >= self.annulus_px[1]:
            raise ValueError(f"annulus_px needs inner < outer, got {self.annulus_px}")
        return self

    @property
    def unit_mad(self) -> float:
        """The unit in plain median absolute deviations."""
        return MAD_TO_SIGMA if self.unit == "sigma" else 1.0

    def sha256(self) -> str:
        """Hash of the normalisation."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class EpochRamp(Section):
    """A value that moves linearly from `start` to `end` between two epochs and stays there; epochs count from 0."""

    start: Fraction
    end: Fraction
    first_epoch: Annotated[int, Field(ge=0)] = 0
    last_epoch: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _epochs_are_ordered(self) -> EpochRamp:
        constant = self.start == self.end
        if self.first_epoch > self.last_epoch or (self.first_epoch == self.last_epoch and not constant):
            raise ValueError(f"a ramp needs first_epoch < last_epoch, got {self.first_epoch}, {self.last_epoch}")
        return self

    def at(self, epoch: int) -> float:
        """The value in an epoch: `start` up to first_epoch, `end` from last_epoch on."""
        if epoch >= self.last_epoch:
            return self.end
        if epoch <= self.first_epoch:
            return self.start
        share = (epoch - self.first_epoch) / (self.last_epoch - self.first_epoch)
        return self.start + share * (self.end - self.start)


def _constant(value: object) -> object:
    return {"start": value, "end": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Schedule = Annotated[EpochRamp, BeforeValidator(_constant, json_schema_input_type=EpochRamp | Fraction)]


class CentreDegradation(Section):
    """Training stamps lose their centre at random, both classes alike; validation and scoring never do.

    A number for `probability` or `strength` means the same in every epoch; `start`, `end`, `first_epoch` and
    `last_epoch` make a ramp.
    """

    kinds: Annotated[tuple[Literal["mask", "noise", "blur"], ...], Field(min_length=1)] = Field(
        default=("mask",), description="each degraded stamp takes one of them, with equal chance"
    )
    radius_px: Positive = Field(description="pixels nearer than this to pixel size // 2 are degraded in full")
    edge_px: Annotated[float, Field(ge=0.0)] = Field(
        default=2.0, description="beyond the radius the effect fades over this"
    )
    blur_sigma_px: Positive = Field(default=4.0, description="width of the Gaussian of kind blur")
    probability: Schedule = Field(description="that a stamp is degraded")
    strength: Schedule = Field(default=EpochRamp(start=1.0, end=1.0), description="1 replaces the core, less mixes it")

    @model_validator(mode="after")
    def _kinds_are_distinct(self) -> CentreDegradation:
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"kinds must be distinct, got {self.kinds}")
        return self


class TrainingSection(Section):
    """The trainer."""

    enabled: bool = True
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = Field(
        default=64, description="examples of one step, over all processes together"
    )
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    feed: FeedSection = FeedSection()
    network: NetworkSection = NetworkSection()
    loss: LossSection = LossSection()
    optimiser: OptimiserSection = OptimiserSection()
    schedule: ScheduleSection = ScheduleSection()
    augment: AugmentSection = AugmentSection()
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=None, description="validate and keep an exponential moving average of the weights; null does not"
    )
    select_by: Literal["val_auc", "val_loss", "val_tpr_at_fpr_0.01", "val_tpr_at_fpr_0.001"] = Field(
        default="val_auc", description="the epoch that is best in this is kept"
    )
    early_stopping: StoppingSection | None = Field(default=None, description="null trains every epoch")
    amp: Literal["auto", "bf16", "off"] = Field(
        default="auto", description="bfloat16 in training: auto on GPUs that have it; scores are always float32"
    )
    compile: bool = Field(default=False, description="torch.compile the network; needs a C++ compiler on a CPU")
    deterministic: bool = Field(default=True, description="deterministic algorithms only, a little slower on a GPU")
    processes: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="on this machine, one per GPU or CPU share; torchrun decides if it started the program"
    )
    threads: Annotated[int, Field(ge=1, le=256)] = Field(default=1, description="of each process")
    embedded_examples: Annotated[int, Field(ge=0)] = Field(
        default=5_000, description="examples of the test split whose embeddings are stored"
    )
    gallery_examples: Annotated[int, Field(ge=1, le=200)] = Field(
        default=12, description="stamps of each class kept of those that the network is most wrong about"
    )
    centre_degradation: CentreDegradation | None = Field(default=None, description="null shows every stamp as it is")
    preprocess: PreprocessSection = PreprocessSection()
    timeout_s: Positive = 86_400.0

    @model_validator(mode="after")
    def _ramps_end_in_time(self) -> TrainingSection:
        degradation = self.centre_degradation
        for name in ("probability", "strength") if degradation is not None else ():
            last = getattr(degradation, name).last_epoch
            if last >= self.epochs:
                raise ValueError(
                    f"training.centre_degradation.{name}.last_epoch {last} is never reached: epochs are 0 to "
                    f"{self.epochs - 1}"
                )
        return self

    def identity_sha256(self) -> str:
        """Hash of what decides the trained weights."""
        apart = {"enabled", "timeout_s", "embedded_examples", "gallery_examples", "feed"}
        decisive = {**self.model_dump(mode="json", exclude=apart), "feed": self.feed.deciding()}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
