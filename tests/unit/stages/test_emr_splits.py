"""The EMR splits and their relabelling, on the EMR system's own manifests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.stages.emr_splits import relabelled_splits

STAGE_4P5 = Path(__file__).parents[4] / "shared" / "data" / "emr_golden" / "stage4p5" / "file_listing.json"
# Remainder of the digest by 100, from `b2sum -l 64` of coreutils; task ids of the manifest golden_unp1, split val.
REMAINDERS = {
    "024d7fca77d05fe2216eb5348bdd428954f323e3b4d5c96c6917815f2dbec1b3": 5,
    "3ab6ada5ea06ded52ec52ae476df4c87a6609e48a2ac4380f890cd59eb104c88": 62,
    "78fe17f98e352ba57939824c4ed633f1df16b32c25e3eb19f85d79fbdfc996ae": 75,
    "644f0611f67cfc98ed44fa672140002dc721757761d4592ac0f574ada86311fb": 76,
    "129d2600120a81fad5062b5b65812349c65625a66ce0c9f470fe59f38babadbc": 94,
}


def test_val_becomes_train_below_75() -> None:
    """Known digests: a remainder of 75 stays val, smaller ones move."""
    labels = relabelled_splits(list(REMAINDERS), ["val"] * len(REMAINDERS))
    assert labels.tolist() == ["train" if remainder < 75 else "val" for remainder in REMAINDERS.values()]


def test_three_quarters_of_val_move_and_relabelling_again_changes_nothing() -> None:
    """The share that moves is 75 % within its sampling error of 0.3 %."""
    tasks = [f"task-{number}" for number in range(20_000)]
    labels = relabelled_splits(tasks, ["val"] * len(tasks))
    assert np.mean(labels == "train") == pytest.approx(0.75, abs=0.01)
    np.testing.assert_array_equal(relabelled_splits(tasks, labels.tolist()), labels)


def test_other_labels_stay() -> None:
    """Test is frozen, train is kept, and rows without an EMR split stay without."""
    labels = ["test", "train", "", "fold-7"] * 100
    assert relabelled_splits([str(number) for number in range(400)], labels).tolist() == labels


def test_labels_of_real_manifests(golden_manifests: list[Path]) -> None:
    """Only val rows of the EMR manifests change, to train; of the 16 val rows that compaction read, 7 do."""
    moved = {}
    for path in golden_manifests:
        frame = pd.read_parquet(path)
        labels = relabelled_splits(frame["task_id"].tolist(), frame["region_split"].tolist())
        changed = frame["region_split"].to_numpy() != labels
        assert set(frame["region_split"][changed]) == {"val"}
        assert set(labels[changed]) == {"train"}
        moved[path.parent.name, path.name] = int(changed.sum())
    assert moved["golden_unp1", "train_stamp64_bandsgrz_gridgrid_sota.parquet"] == 7


def test_labels_before_relabelling_are_those_that_compaction_kept(golden_manifests: list[Path]) -> None:
    """Phase 4p5 without relabelling wrote as many rows per split as the manifest's region_split has."""
    written = {entry["partition"].split("=")[1]: entry["rows"] for entry in json.loads(STAGE_4P5.read_text())["files"]}
    [path] = [path for path in golden_manifests if path.parent.name == "golden_unp1" and path.name.startswith("train")]
    assert pd.read_parquet(path)["region_split"].value_counts().to_dict() == written


def test_lengths_must_agree() -> None:
    """A label without its row is a contract error."""
    with pytest.raises(ContractError, match="got 1 for 2"):
        relabelled_splits(["a", "b"], ["val"])
