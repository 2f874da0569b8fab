"""Epochs as event files of TensorBoard, read back record by record."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.storage.locations import Location
from pipeline.training.history import EpochRecord, history_json
from pipeline.training.tensorboard import main, read_history, write_events

HISTORY = [
    EpochRecord(0, 0.7, 0.6, 0.55, {"0.01": 0.1, "0.001": None}, 1e-3, 2.0, 500.0),
    EpochRecord(1, 0.6, 0.5, 0.65, {"0.01": 0.2, "0.001": None}, 5e-4, 3.0, 500.0, 0.01),
]


def events_of(folder: Path) -> Iterator[Event]:
    """Records of the one event file: length, its checksum, bytes, their checksum."""
    (file,) = folder.glob("events.out.tfevents.*")
    data, place = file.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield Event.FromString(data[place + 12 : place + 12 + length])
        place += 16 + length


def scalars_of(folder: Path) -> dict[tuple[str, int], tuple[float, float]]:
    """(name, epoch) to value and wall time."""
    return {
        (value.tag, event.step): (value.simple_value, event.wall_time)
        for event in events_of(folder)
        for value in event.summary.value
    }


def test_every_number_of_every_epoch_is_there(tmp_path: Path) -> None:
    """Names as in history.parquet, epochs as steps, wall time since the start; an unknown rate is left out."""
    assert write_events(HISTORY, tmp_path) == 20
    scalars = scalars_of(tmp_path)
    assert len(scalars) == 20
    assert scalars["val_auc", 1] == pytest.approx((0.65, 5.0))
    assert scalars["val_tpr_at_fpr_0.01", 0] == pytest.approx((0.1, 2.0))
    assert not any(name == "val_tpr_at_fpr_0.001" for name, _ in scalars)


def test_events_are_not_mixed(tmp_path: Path) -> None:
    """TensorBoard draws all files of a folder as one line."""
    write_events(HISTORY, tmp_path)
    with pytest.raises(ConfigError, match="without events"):
        write_events(HISTORY, tmp_path)


def test_the_program_writes_a_folder_per_training(tmp_path: Path) -> None:
    """Two trainings, two folders; a folder that is no training is refused with exit code 2."""
    trainings = [tmp_path / run / "training" for run in ("first", "second")]
    for training in trainings:
        training.mkdir(parents=True)
        (training / "history.json").write_bytes(history_json(HISTORY))
    assert main([*map(str, trainings), "--out", str(tmp_path / "events")]) == 0
    folders = sorted((tmp_path / "events").iterdir())
    assert [folder.name.rpartition("_")[0].rpartition("_")[2] for folder in folders] == ["first", "second"]
    assert all(len(scalars_of(folder)) == 20 for folder in folders)
    assert main([str(tmp_path), "--out", str(tmp_path / "others")]) == 2


def test_other_files_are_refused(tmp_path: Path) -> None:
    """No history, or JSON of something else, is named."""
    location = Location(str(tmp_path))
    with pytest.raises(ContractError, match="no history is there"):
        read_history(location)
    (tmp_path / "history.json").write_text('[{"epoch": 1}]', encoding="utf-8")
    with pytest.raises(ContractError, match="one record per epoch"):
        read_history(location)
