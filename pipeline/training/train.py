"""The training loop: AdamW, one warm-up epoch and a cosine, best epoch by validation AUC.

The same seed, thread count and machine type give bitwise the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.training_config import TrainingSection
from pipeline.stages.evaluation import auc, roc_curve, tpr_at_fpr
from pipeline.training.augment import augment, augmentation_generator
from pipeline.training.degradation import degrade_centres
from pipeline.training.loader import Examples, batches
from pipeline.training.model import LensResNet, predict_logits

GRADIENT_NORM_MAX = 1.0
VALIDATION_FPRS = (0.01, 0.001)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did; one entry of history.json.

    Attributes:
        epoch: 0-based.
        train_loss: mean over the examples as they were trained on, augmented. [nat]
        val_loss: mean over the validation split, not augmented. [nat]
        val_tpr_at_fpr: "0.01" and "0.001" to TPR; None with fewer than 10 / FPR negatives.
        learning_rate: of the epoch's last step.
        seconds: training and validation.
        samples_per_s: training examples over the training time.
        centre_probability: that a training stamp's centre was degraded.
        centre_strength: of that degradation.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_auc: float
    val_tpr_at_fpr: dict[str, float | None]
    learning_rate: float
    seconds: float
    samples_per_s: float
    centre_probability: float = 0.0
    centre_strength: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """Weights on the CPU after an epoch, with the record of that epoch."""

    record: EpochRecord
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class TrainingResult:
    """The best epoch (highest validation AUC, ties by lower loss), the last one, and all records."""

    best: Snapshot
    last: Snapshot
    history: tuple[EpochRecord, ...]


def configure_torch(threads: int) -> torch.device:
    """Set threads and deterministic algorithms for this process; return the GPU if there is one, else the CPU."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    examples: Mapping[str, Examples], training: TrainingSection, seed: int, device: torch.device
) -> TrainingResult:
    """Train on split `train`, validate on all of split `val` after every epoch.

    Args:
        examples: splits `train` and `val`; nothing else is read.
        training: epochs, batch size, learning rate, network width, centre degradation.
        seed: decides initial weights, order, degradation and augmentation.
        device: where the network runs.

    Raises:
        VerificationError: a loss or gradient that is not finite; the message names epoch and batch.
    """
    train_examples, val_examples = examples["train"], examples["val"]
    torch.manual_seed(seed)
    model = LensResNet(train_examples.stamps.shape[1], training.base_channels).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    steps_per_epoch = math.ceil(len(train_examples) / training.batch_size)
    n_steps = training.epochs * steps_per_epoch
    degradation = training.centre_degradation

    history: list[EpochRecord] = []
    best: Snapshot | None = None
    last: Snapshot | None = None
    for epoch in range(training.epochs):
        started = time.perf_counter()
        model.train()
        generator = augmentation_generator(seed, epoch)
        loss_sum, rate = 0.0, 0.0
        for batch, (stamps, label, row) in enumerate(batches(train_examples, training.batch_size, seed, epoch)):
            rate = learning_rate(epoch * steps_per_epoch + batch, steps_per_epoch, n_steps, training.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            augmented = augment(degrade_centres(stamps, row, training, seed, epoch), generator)
            loss = binary_cross_entropy_with_logits(model(augmented.to(device)), label.to(device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            norm = nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM_MAX)
            if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
                raise VerificationError(
                    f"epoch {epoch}, batch {batch}: loss {loss.item()}, gradient norm {norm.item()}; expected finite"
                )
            optimizer.step()
            loss_sum += loss.item() * len(label)
        trained_s = time.perf_counter() - started

        logit = predict_logits(model, val_examples.stamps, device)
        curve = roc_curve(val_examples.label, logit)
        record = EpochRecord(
            epoch=epoch,
            train_loss=loss_sum / len(train_examples),
            val_loss=mean_loss(val_examples.label, logit),
            val_auc=auc(val_examples.label, logit),
            val_tpr_at_fpr={str(fpr): tpr_at_fpr(curve, fpr) for fpr in VALIDATION_FPRS},
            learning_rate=rate,
            seconds=time.perf_counter() - started,
            samples_per_s=len(train_examples) / trained_s,
            centre_probability=0.0 if degradation is None else degradation.probability.at(epoch),
            centre_strength=0.0 if degradation is None else degradation.strength.at(epoch),
        )
        history.append(record)
        logger.info("epoch", extra={"fields": asdict(record)})
        last = Snapshot(record, {name: value.detach().cpu().clone() for name, value in model.state_dict().items()})
        if best is None or _is_better(record, best.record):
            best = last
    if best is None or last is None:
        raise VerificationError(f"expected at least one epoch, got {training.epochs}")
    return TrainingResult(best=best, last=last, history=tuple(history))


def learning_rate(step: int, warmup_steps: int, n_steps: int, peak: float) -> float:
    """Rate of one step: linear from peak / warmup_steps to peak over the warm-up, then half a cosine towards 0.

    Args:
        step: 0-based, less than `n_steps`.
        warmup_steps: steps of the first epoch.
        n_steps: steps of all epochs.
        peak: the configured learning rate.
    """
    if step < warmup_steps:
        return peak * ((step + 1) / warmup_steps)
    progress = (step - warmup_steps) / (n_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def mean_loss(label: NDArray[np.uint8], logit: NDArray[np.float32]) -> float:
    """Mean binary cross-entropy in float64. [nat]

    Args:
        label: (example) 0 or 1.
        logit: (example) float32.
    """
    wide = logit.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, wide) - label * wide))


def _is_better(record: EpochRecord, best: EpochRecord) -> bool:
    return (record.val_auc, -record.val_loss) > (best.val_auc, -best.val_loss)
