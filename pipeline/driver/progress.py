"""Progress of a stage: a bar on a terminal, one JSON line per shard elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.stages.samplers import is_bin_counter
from pipeline.storage.receipts import Receipt

logger = logging.getLogger("pipeline.driver")


class StageProgress:
    """Shows done, rate, ETA, rejected rows and retries of one stage while its block runs."""

    def __init__(self, stage: str, total_shards: int, done_shards: int, dashboard: str) -> None:
        self._stage = stage
        self._rows = 0
        self._rejected = 0
        self._failures = 0
        self._started = time.monotonic()
        self._bar: Progress | None = None
        self._total, self._done, self._dashboard = total_shards, done_shards, dashboard
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(
                    "{task.fields[rate]:.0f} rows/s  rejected {task.fields[rejected]}  failures {task.fields[failures]}"
                ),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[dashboard]}"),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(
                self._stage,
                total=self._total,
                completed=self._done,
                rate=0.0,
                rejected=0,
                failures=0,
                dashboard=self._dashboard,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def shard_failed(self) -> None:
        """Count one try that failed and is made again."""
        self._failures += 1
        if self._bar is not None:
            self._bar.update(self._task, failures=self._failures)

    def shard_done(self, receipt: Receipt) -> None:
        """Count one finished shard."""
        self._done += 1
        self._rows += receipt.rows
        self._rejected += receipt.rows - receipt.counts.get("none", 0)
        rate = self._rows / max(time.monotonic() - self._started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=rate, rejected=self._rejected)
            return
        fields = {
            "stage": self._stage,
            "shard": receipt.shard,
            "done": self._done,
            "of": self._total,
            "kept": receipt.counts.get("none", 0),
            "rows": receipt.rows,
            "seconds": receipt.seconds,
            "rows_per_s": round(rate, 1),
            **{name: value for name, value in receipt.work.items() if value and not is_bin_counter(name)},
        }
        logger.info("shard", extra={"fields": fields})
