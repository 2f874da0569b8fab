"""Facts about reading a run for its report."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.report.inputs import RunInputs, has_role_code, in_split, read_inputs, usable_hosts
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import read_json, write_json


def test_finished_run_is_read_whole(inputs: RunInputs) -> None:
    """Columns, pilot, gates and training of a finished run are there; receipts are not needed."""
    assert inputs.columns is not None
    assert inputs.columns.sizes["sample"] == 480
    assert inputs.reject_reason is not None
    assert None not in (inputs.pilot, inputs.gates, inputs.training)
    assert inputs.receipts == {}


def test_roles_splits_and_usable_hosts_agree(inputs: RunInputs) -> None:
    """Usable hosts are pairs, controls and the rows whose sampler gave up."""
    assert inputs.columns is not None
    used = has_role_code(inputs.columns, "pair", "control")
    assert usable_hosts(inputs.columns).sum() == used.sum() + 3 == 472
    assert sum(int(in_split(inputs.columns, split).sum()) for split in ("train", "val", "test", "guard")) == 480


def test_absent_parts_are_none_with_a_reason(run_copy) -> None:
    """What was not made is None, and the reason says what is missing."""
    run_copy.remove(run_copy.layout.gates, run_copy.layout.pilot, run_copy.layout.training.join("_SUCCESS"))
    inputs = run_copy.inputs()
    assert (inputs.gates, inputs.pilot, inputs.training) == (None, None, None)
    assert "gates.json" in inputs.why_no_gates()
    assert "_SUCCESS" in inputs.why_no_training()


def test_unpublished_cube_is_described_by_its_receipts(run_copy) -> None:
    """Without its marker a cube is not read; the reason counts finished shards."""
    run_copy.layout.cube("training").join("_SUCCESS").remove()
    inputs = run_copy.inputs()
    assert inputs.columns is None
    assert len(inputs.receipts["training"]) == 8
    assert "8 of 8 shards" in inputs.why_no_cube("training")


def test_failed_gates_are_the_reason_for_no_training(run_copy) -> None:
    """The names of failed gates explain a missing training section; so does training.enabled."""
    run_copy.remove(run_copy.layout.training.join("_SUCCESS"))
    run_copy.record["stages"]["gates"] = {"state": "failed", "failed": ["core_only_auc"]}
    run_copy.update()
    assert "gates failed: core_only_auc" in run_copy.inputs().why_no_training()
    config = dict(run_copy.record["config"])
    config["training"] = {**config["training"], "enabled": False}
    run_copy.update(config=config)
    assert "training.enabled is false" in run_copy.inputs().why_no_training()


@pytest.mark.parametrize("name", ["gates.json", "pilot.json", "plan.json", "training/metrics.json"])
def test_corrupt_document_is_an_error(run_copy, name: str) -> None:
    """A document that is not JSON, or lacks its keys, is never passed over."""
    location = run_copy.layout.root.join(name)
    location.write_bytes(b'{"passed": ')
    with pytest.raises(VerificationError, match=name):
        run_copy.inputs()
    location.write_bytes(b'{"plan_sha256": "' + b"a" * 64 + b'"}')
    with pytest.raises(VerificationError, match=name):
        run_copy.inputs()


def test_corrupt_history_and_gate_entries_are_errors(run_copy) -> None:
    """History must be a list of epochs, and a gate entry a gate result."""
    history = run_copy.layout.training.join("history.json")
    good = history.read_bytes()
    for content in (b"{}", b"[1]", b"nan", b'[{"epoch": 0}]'):
        history.write_bytes(content)
        with pytest.raises(VerificationError, match="history"):
            run_copy.inputs()
    history.write_bytes(good)
    write_json(run_copy.layout.gates, {"gates": [{"name": "x"}], "config_sha256": "0"})
    with pytest.raises(VerificationError, match="not a gate result"):
        run_copy.inputs()


def test_truncated_score_table_is_an_error(run_copy) -> None:
    """A score table that is no parquet, or has other rows than the metrics count, is refused."""
    scores = run_copy.layout.training.join("scores.parquet")
    metrics = run_copy.layout.training.join("metrics.json")
    content = read_json(metrics)
    write_json(metrics, {**content, "n_positives": content["n_positives"] + 1})
    with pytest.raises(VerificationError, match=r"expected \d+ \+ \d+ rows"):
        run_copy.inputs()
    scores.write_bytes(scores.read_bytes()[:100])
    with pytest.raises(ContractError, match="not a parquet file"):
        run_copy.inputs()


def test_results_of_another_plan_are_refused(run_copy) -> None:
    """Cubes, pilot and metrics must belong to the plan of the record."""
    run_copy.update(plan_sha256="b" * 64)
    with pytest.raises(VerificationError, match="belongs to plan aaaaaaaaaaaa"):
        run_copy.inputs()


def test_folder_without_run_is_refused(tmp_path) -> None:
    """A folder without run.json is no run."""
    with pytest.raises(ContractError, match="holds no run"):
        read_inputs(RunLayout(Location(str(tmp_path))))


def test_columns_are_not_pixels(inputs: RunInputs) -> None:
    """Reading the inputs reads no stamps."""
    assert inputs.columns is not None
    assert "injected" not in inputs.columns
    assert max(np.ndim(inputs.columns[name]) for name in inputs.columns) == 2
