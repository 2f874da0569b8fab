"""The training loop: restore, step, validate, keep the best, go on until it is done or told to stop.

The same seed, thread count and machine type give bitwise the same weights, interrupted or not. What a stamp gets
follows from (seed, epoch, row), the set of examples of a step from (seed, epoch, batch), so several processes make the
steps of one.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.contracts.errors import StoppedError, VerificationError
from pipeline.contracts.training_config import TrainingSection
from pipeline.stages.evaluation import auc, roc_curve, tpr_at_fpr
from pipeline.storage.locations import Location
from pipeline.training.augment import augment
from pipeline.training.degradation import degrade_centres
from pipeline.training.features import fit_features
from pipeline.training.feed import Batch, SplitFeed
from pipeline.training.history import EpochRecord
from pipeline.training.losses import example_losses, mean_loss
from pipeline.training.models.catalogue import build_network
from pipeline.training.models.staged import StagedNetwork, placed
from pipeline.training.optimise import build_optimiser, learning_rate, set_learning_rate, update_average
from pipeline.training.preprocess import normalised, unusable_text
from pipeline.training.processes import World, on_host
from pipeline.training.scan import scan_split
from pipeline.training.scorer import Scorer
from pipeline.training.state import Progress, pack_state, unpack_state

VALIDATION_FPRS = (0.01, 0.001)
# Steps that a GPU is ahead of what is known of it: it never idles while the next one is put together.
STEPS_AHEAD = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    Attributes:
        best: record of the kept epoch: best in `training.select_by`, ties by lower loss, then earlier.
        weights: of that epoch, on the CPU.
        last_weights: of the last epoch, on the CPU.
        history: all records.
        scorer: the network with the kept weights.
    """

    best: EpochRecord
    weights: dict[str, Tensor]
    last_weights: dict[str, Tensor]
    history: tuple[EpochRecord, ...]
    scorer: Scorer


@dataclass(frozen=True)
class Launched:
    """A step that was given to the device.

    Attributes:
        number: of the batch.
        found: (4) float64 over all processes: sum of the losses, examples, processes told to stop; and the gradient's
            norm. On the host once `ready` was reached.
        ready: None where the host computes.
        stamps: of this process, raw, as long as the step is not settled. [nmgy]
        row: of the cube.
    """

    number: int
    found: Tensor
    ready: torch.cuda.Event | None
    stamps: Tensor | None
    row: NDArray[np.int64]


def train(
    feeds: Mapping[str, SplitFeed],
    training: TrainingSection,
    seed: int,
    world: World,
    state_file: Location | None = None,
    identity: Mapping[str, Any] | None = None,
    must_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train on split `train`, validate on all of split `val` after every epoch.

    Args:
        feeds: splits `train` and `val`; nothing else is read.
        training: everything that the configuration says.
        seed: decides initial weights, order, degradation and augmentation.
        world: device and processes.
        state_file: where the state is kept after every epoch and when told to stop, and found again; None for nowhere.
        identity: what the training is of; a state of something else is not used.
        must_stop: asked in every step of any process; on a GPU one step more is done.

    Raises:
        StoppedError: told to stop; the state is stored.
        VerificationError: a loss, gradient or validation metric that is not finite; the message names epoch and batch.
        ContractError: unusable stamps or features.
    """
    return Trainer(feeds, training, seed, world, state_file, identity or {}, must_stop).run()


class Trainer:
    """The parts of a training that belong together; see `train` for the arguments."""

    def __init__(
        self,
        feeds: Mapping[str, SplitFeed],
        training: TrainingSection,
        seed: int,
        world: World,
        state_file: Location | None,
        identity: Mapping[str, Any],
        must_stop: Callable[[], bool],
    ) -> None:
        self.feed, self.val = feeds["train"], feeds["val"]
        self.training, self.seed, self.world = training, seed, world
        self.state_file, self.identity, self.must_stop = state_file, identity, must_stop
        self.features = fit_features(self.feed.features, training.feed.features)
        torch.manual_seed(seed)
        n_features = 0 if self.features is None else len(self.features.mean)
        self.network = placed(build_network(training.network, self.feed.stamp_shape[0], n_features), world.device)
        self.average = None if training.ema_decay is None else copy.deepcopy(self.network)
        self.optimiser = build_optimiser(self.network, training)
        self.best: dict[str, Tensor] = {}
        self.progress = self._restored()
        # Both wrap the same weights; the loop calls the outermost.
        self.stepped: nn.Module = self.network
        if world.size > 1:
            self.stepped = DistributedDataParallel(self.network)
        if training.compile:
            self.stepped = torch.compile(self.stepped)  # type: ignore[assignment]
        self.steps_per_epoch = math.ceil(len(self.feed) / training.batch_size)
        self.steps_ahead = STEPS_AHEAD if world.device.type == "cuda" else 0
        self.is_bf16 = training.amp == "bf16" or (
            training.amp == "auto" and world.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )

    def run(self) -> TrainingResult:
        """Every epoch that is left, and the result."""
        progress, patience = self.progress, self.training.early_stopping
        while progress.epoch < self.training.epochs and not (
            patience is not None and progress.epochs_without_gain() >= patience.patience
        ):
            self._train_epoch()
            self._finish_epoch()
            self._store()
        if progress.best_epoch is None:
            raise VerificationError(f"expected at least one epoch, got {self.training.epochs}")
        last = _on_cpu(self._validated_network())
        network = self._validated_network()
        network.load_state_dict(self.best)
        scorer = Scorer(network, self.training.preprocess, self.features, self.world.device)
        return TrainingResult(progress.history[progress.best_epoch], self.best, last, tuple(progress.history), scorer)

    def _train_epoch(self) -> None:
        """Every step of the epoch that is left."""
        progress, training, world = self.progress, self.training, self.world
        n_steps = training.epochs * self.steps_per_epoch
        self.network.train()
        batches = self.feed.shuffled(
            training.batch_size, self.seed, progress.epoch, world.rank, world.size, progress.batch
        )
        launched: deque[Launched] = deque()
        stops = False
        for number in range(progress.batch, self.steps_per_epoch):
            started = time.perf_counter()
            batch = next(batches, None)
            progress.wait_s += time.perf_counter() - started
            step = progress.epoch * self.steps_per_epoch + number
            rate = learning_rate(step, self.steps_per_epoch, n_steps, training.learning_rate, training.schedule)
            set_learning_rate(self.optimiser, rate)
            launched.append(self._step(batch, number))
            while launched and (stops or number + 1 == self.steps_per_epoch or len(launched) > self.steps_ahead):
                stops = self._settle(launched.popleft()) or stops
            progress.trained_s += time.perf_counter() - started
            if stops:
                self._store()
                raise StoppedError(f"told to stop in epoch {progress.epoch} after batch {number}; the state is stored")
        if progress.n_seen != len(self.feed):
            raise VerificationError(
                f"epoch {progress.epoch}: {progress.n_seen} examples were seen, expected {len(self.feed)}"
            )

    def _step(self, batch: Batch | None, number: int) -> Launched:
        """One step of all processes, given to the device."""
        training, world, progress = self.training, self.world, self.progress
        n_examples = min(training.batch_size, len(self.feed) - number * training.batch_size)
        stamps = None if batch is None or not len(batch) else batch.stamps.to(world.device, non_blocking=True)
        self.optimiser.zero_grad()
        loss = self._no_loss() if batch is None or stamps is None else self._loss(stamps, batch)
        # DDP averages the gradients of the processes; the step is that of the mean over all examples.
        torch.autograd.backward(loss * (world.size / n_examples))
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), training.optimiser.gradient_norm_max)
        counts = (0 if batch is None else len(batch), float(self.must_stop()))
        sums = world.summed(torch.cat([loss.detach().double().reshape(1), self._on_device(torch.tensor(counts))]))
        found, ready = on_host(torch.cat([sums, norm.double().reshape(1)]))
        self.optimiser.step()
        if self.average is not None and training.ema_decay is not None:
            done = progress.epoch * self.steps_per_epoch + number
            update_average(self.average, self.network, training.ema_decay, done)
        return Launched(number, found, ready, stamps, np.empty(0, np.int64) if batch is None else batch.row)

    def _settle(self, step: Launched) -> bool:
        """Wait for a step, judge and count it; True if a process was told to stop."""
        progress = self.progress
        if step.ready is not None:
            step.ready.synchronize()
        loss_sum, n_seen, n_stops, norm = step.found.tolist()
        if not math.isfinite(loss_sum) or not math.isfinite(norm):
            n_examples = min(self.training.batch_size, len(self.feed) - step.number * self.training.batch_size)
            raise VerificationError(
                f"epoch {progress.epoch}, batch {step.number}: loss {loss_sum / n_examples}, gradient norm {norm}; "
                f"expected finite{self._reason(step)}"
            )
        progress.batch = step.number + 1
        progress.loss_sum += loss_sum
        progress.n_seen += int(n_seen)
        return bool(n_stops > 0)

    def _loss(self, raw: Tensor, batch: Batch) -> Tensor:
        """Sum over the batch of weight times loss; NaN with an unusable stamp."""
        training, epoch = self.training, self.progress.epoch
        label, weight, row = map(self._on_device, (batch.label, batch.weight, torch.from_numpy(batch.row)))
        stamps, usable = normalised(raw, training.preprocess)
        stamps = degrade_centres(stamps, row, training, self.seed, epoch)
        stamps = augment(stamps, row, training.augment, training.preprocess.clip, self.seed, epoch)
        with torch.autocast(raw.device.type, torch.bfloat16, enabled=self.is_bf16):
            logit = self.stepped(stamps, self._beside(batch.features))
        losses = example_losses(logit.float(), label, training.loss) * weight
        return torch.where(usable, losses, torch.nan).sum()

    def _no_loss(self) -> Tensor:
        """Zero, through the network: a process without a share of the last batch takes part in the step."""
        stamps = torch.zeros(1, *self.feed.stamp_shape, device=self.world.device)
        beside = self._beside(torch.zeros(1, self.feed.features.shape[1]))
        logit: Tensor = self.stepped(stamps, beside)
        return (0.0 * logit).sum()

    def _beside(self, features: Tensor) -> Tensor | None:
        if self.features is None:
            return None
        return self._on_device(torch.from_numpy(self.features.standardised(features.numpy())))

    def _on_device(self, values: Tensor) -> Tensor:
        """A few numbers on the device, which is not waited for."""
        return values.to(self.world.device, non_blocking=True)

    def _reason(self, step: Launched) -> str:
        if step.stamps is None:
            return ""
        _, usable = normalised(step.stamps, self.training.preprocess)
        if bool(usable.all()):
            return ""
        rows = step.row[~usable.cpu().numpy()][:5].tolist()
        return f"; {unusable_text(step.stamps, usable, self.training.preprocess)}, rows {rows} of the cube"

    def _finish_epoch(self) -> None:
        """Validate, record, keep the weights if they are the best."""
        progress, training = self.progress, self.training
        started = time.perf_counter()
        network = self._validated_network()
        scorer = Scorer(network, training.preprocess, self.features, self.world.device)
        logit = scan_split(scorer, self.val, self.world).logit
        curve = roc_curve(self.val.label, logit)
        degradation = training.centre_degradation
        record = EpochRecord(
            epoch=progress.epoch,
            train_loss=progress.loss_sum / len(self.feed),
            val_loss=mean_loss(self.val.label, logit),
            val_auc=auc(self.val.label, logit),
            val_tpr_at_fpr={str(fpr): tpr_at_fpr(curve, fpr) for fpr in VALIDATION_FPRS},
            learning_rate=float(self.optimiser.param_groups[0]["lr"]),
            seconds=progress.trained_s + time.perf_counter() - started,
            samples_per_s=len(self.feed) / progress.trained_s,
            data_wait_fraction=progress.wait_s / progress.trained_s,
            centre_probability=0.0 if degradation is None else degradation.probability.at(progress.epoch),
            centre_strength=0.0 if degradation is None else degradation.strength.at(progress.epoch),
        )
        best = None if progress.best_epoch is None else progress.history[progress.best_epoch]
        progress.history.append(record)
        if is_better(record, best, training.select_by):
            progress.best_epoch = record.epoch
            self.best = _on_cpu(network)
        progress.next_epoch()
        if self.world.rank == 0:
            logger.info("epoch", extra={"fields": asdict(record)})

    def _validated_network(self) -> StagedNetwork:
        """The network whose weights count: the moving average if one is kept."""
        return self.network if self.average is None else self.average

    def _restored(self) -> Progress:
        """Where a training of the same identity got, with weights and optimiser put there; else the beginning."""
        if self.state_file is None:
            return Progress()
        data = self.state_file.read_bytes() if self.world.rank == 0 and self.state_file.exists() else None
        data = self.world.from_first(data)
        found = None if data is None else unpack_state(data, self.identity, self.optimiser)
        if found is None:
            return Progress()
        progress, weights = found
        self.network.load_state_dict(weights["network"])
        if self.average is not None:
            self.average.load_state_dict(weights["average"])
        self.best = weights.get("best", {})
        logger.info("resumed", extra={"fields": {"epoch": progress.epoch, "batch": progress.batch}})
        return progress

    def _store(self) -> None:
        """Write the state, so that `_restored` finds it."""
        if self.state_file is None or self.world.rank != 0:
            return
        weights = {"network": self.network.state_dict(), "best": self.best}
        if self.average is not None:
            weights["average"] = self.average.state_dict()
        self.state_file.write_bytes(pack_state(self.identity, self.progress, weights, self.optimiser))


def is_better(record: EpochRecord, best: EpochRecord | None, metric: str) -> bool:
    """True if an epoch beats another one, or there is none, in a metric; ties go to the lower loss.

    Raises:
        VerificationError: the validation split has too few negatives for the metric.
    """
    value = record.value(metric)
    if value is None:
        raise VerificationError(f"training.select_by {metric}: the validation split has too few negatives for it")
    return best is None or (value, -record.val_loss) > (best.value(metric), -best.val_loss)


def _on_cpu(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
