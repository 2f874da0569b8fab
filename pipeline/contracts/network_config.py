"""Which network is trained, with which loss, optimiser and schedule, on stamps augmented how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.contracts.priors import Positive, Section

NETWORKS = ("lens_resnet", "bottleneck_resnet", "resnet18", "efficientnet_v2_s")
SELECTION_METRICS = ("val_auc", "val_loss", "val_tpr_at_fpr_0.01", "val_tpr_at_fpr_0.001")

NonNegative = Annotated[float, Field(ge=0.0)]


class NetworkSection(Section):
    """The network; `dhs models` lists them."""

    name: (
        Literal["lens_resnet", "bottleneck_resnet", "resnet18", "efficientnet_v2_s"]
        | Annotated[str, Field(pattern=r"^timm:[a-z0-9_]+$")]
    ) = Field(default="lens_resnet", description="timm:NAME is a convolutional network of timm, where it is installed")
    base_channels: Annotated[int, Field(ge=4, le=256)] | None = Field(
        default=None, description="channels of the first stage, which all others follow; null is the published width"
    )

    @model_validator(mode="after")
    def _width_is_ours(self) -> NetworkSection:
        if self.name not in NETWORKS and self.base_channels is not None:
            raise ValueError(f"base_channels is of {', '.join(NETWORKS)}; {self.name} has the width of its name")
        return self


class LossSection(Section):
    """Binary cross-entropy, or the focal loss of Lin et al. (2017), arXiv:1708.02002, times the sample weights."""

    kind: Literal["bce", "focal"] = "bce"
    focal_gamma: NonNegative = Field(default=2.0, description="exponent of 1 - p of the right class; focal only")
    focal_alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.25, description="weight of the positives, 1 - alpha that of the negatives; focal only"
    )


class OptimiserSection(Section):
    """AdamW or SGD with Nesterov momentum."""

    kind: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(default=0.9, description="of sgd")
    gradient_norm_max: Positive = Field(default=1.0, description="longer gradients are shortened to this norm")


class ScheduleSection(Section):
    """Linear warm-up to the learning rate, then half a cosine down to a fraction of it, or steps."""

    kind: Literal["cosine", "step"] = "cosine"
    warmup_epochs: NonNegative = 1.0
    final_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.0, description="of the learning rate: where the cosine ends"
    )
    step_epochs: Annotated[int, Field(ge=1)] = Field(default=80, description="of kind step: epochs between two steps")
    step_factor: Annotated[float, Field(gt=0.0, le=1.0)] = Field(default=0.5, description="of kind step")


class AugmentSection(Section):
    """Changes of training stamps, the same for both stamps of a row; validation and scoring never see them."""

    symmetries: bool = Field(default=True, description="the eight flips and rotations of the square")
    shift_px: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0, description="largest shift along each axis; whole pixels, so that the noise stays as it is"
    )
    brightness: NonNegative = Field(default=0.0, description="sigma of the log of a factor on all bands of a stamp")
    colour: NonNegative = Field(default=0.0, description="sigma of the log of a factor on each band of a stamp")


class StoppingSection(Section):
    """When training ends before its last epoch."""

    patience: Annotated[int, Field(ge=1)] = Field(description="epochs without a better value of training.select_by")
