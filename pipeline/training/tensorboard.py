"""`python -m pipeline.training.tensorboard`: the epochs of finished trainings as event files that TensorBoard reads."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.logs import configure_logging
from pipeline.storage.locations import Location
from pipeline.training.exit_code import exit_code
from pipeline.training.history import EpochRecord, history_table

HISTORY_FILE = "history.json"
EPILOG = """
reads   TRAINING      folders of trainings; their history.json
writes  --out         one folder of events per training, for `tensorboard --logdir`
exit    0 written, 2 configuration or contract
"""

logger = logging.getLogger("pipeline.training")


def write_events(history: Sequence[EpochRecord], folder: Path) -> int:
    """Write every number of every epoch as a scalar; what an epoch does not have is left out.

    Wall times count from the start of the training, not from 1970.

    Args:
        history: records in the order of their epochs.
        folder: where the event file goes; made if it is not there.

    Returns:
        Number of scalars.

    Raises:
        ConfigError: the folder holds events already, which TensorBoard would draw over these.
    """
    known = sorted(path.name for path in folder.glob("events.out.tfevents.*"))
    if known:
        raise ConfigError(f"{folder}: expected a folder without events, got {known[0]}; give another --out")
    rows = history_table(history).to_pylist()
    written, ended = 0, 0.0
    with SummaryWriter(str(folder)) as writer:
        for row in rows:
            epoch, ended = row.pop("epoch"), ended + row["seconds"]
            for name, value in row.items():
                if value is not None:
                    writer.add_scalar(name, value, epoch, walltime=ended)
                    written += 1
    return written


def read_history(training: Location) -> list[EpochRecord]:
    """The epochs of a training's folder; ContractError if there are none or they are of another kind."""
    file = training.join(HISTORY_FILE)
    if not file.exists():
        raise ContractError(f"{file.url}: no history is there; expected the folder of a finished training")
    try:
        return [EpochRecord(**entry) for entry in json.loads(file.read_bytes())]
    except (TypeError, ValueError) as error:
        raise ContractError(f"{file.url}: expected one record per epoch: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, write, and turn a PipelineError into its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training.tensorboard",
        description="Write the epochs of trainings as event files that TensorBoard reads.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trainings", nargs="+", metavar="TRAINING", help="URL such as runs/demo/training")
    parser.add_argument("--out", required=True, type=Path, help="local folder")
    parser.add_argument("--region", help="AWS region of s3:// URLs")
    parser.add_argument("--endpoint-url", help="S3 endpoint other than AWS")
    options = parser.parse_args(arguments)
    configure_logging()

    def work() -> int:
        for url in options.trainings:
            history = read_history(Location(url, options.region, options.endpoint_url))
            folder = options.out / _folder_name(url)
            scalars = write_events(history, folder)
            logger.info("wrote events", extra={"fields": {"training": url, "out": str(folder), "scalars": scalars}})
        return 0

    return exit_code(work)


def _folder_name(training: str) -> str:
    """The URL as the name of one folder, so that trainings of equally named runs stay apart."""
    return "_".join(part for part in training.rsplit("://", maxsplit=1)[-1].split("/") if part not in {"", ".", ".."})


if __name__ == "__main__":
    sys.exit(main())
