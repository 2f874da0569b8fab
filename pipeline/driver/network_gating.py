"""The stage of the gates on the trained network: after training, before anyone relies on it."""

from __future__ import annotations

import hashlib
import logging
import time

from pipeline.contracts.errors import VerificationError
from pipeline.driver.cubes import RunContext
from pipeline.driver.gating import demand_passed
from pipeline.driver.probing import network_scores
from pipeline.stages.gates.suite import NETWORK_GATE_NAMES, failed_gates, gates_document, run_network_gates
from pipeline.storage.probe_tables import probe_identity
from pipeline.storage.runs import read_json, write_json

logger = logging.getLogger("pipeline.driver")


def check_network_gates(context: RunContext) -> None:
    """Run every gate on the trained network and store the results; does nothing without training, or if done.

    Raises:
        GateError: a gate failed and is not waived; names every such gate.
        VerificationError: there is no network.
        PipelineError: the probes could not be made.
    """
    config, record = context.config, context.record
    if not config.training.enabled:
        return
    checkpoint = context.layout.checkpoint
    if not checkpoint.exists():
        raise VerificationError(f"{checkpoint.url}: no network was trained; run the stage train first")
    identity = _identity(context)
    if "network_gates" in record.stages and _passed(context, identity):
        return
    record.stages.pop("network_gates", None)
    record.update()
    started = time.monotonic()
    results = run_network_gates(network_scores(context.layout, config, checkpoint), config)
    plan = {"plan_sha256": context.plan.sha256, "identity": identity}
    write_json(context.layout.network_gates, {**gates_document(results, config), **plan})
    for result in results:
        verdict = "passed" if result.passed else "waived" if result.waived else "FAILED"
        fields = {"gate": result.name, "verdict": verdict, "value": result.value, "bound": result.bound}
        logger.info("gate", extra={"fields": fields})
    failed = failed_gates(results)
    if failed:
        record.stages["network_gates"] = {"state": "failed", "failed": [result.name for result in failed]}
        record.update()
    demand_passed(results)
    record.finish_stage(
        "network_gates",
        identity=identity,
        passed=[result.name for result in results if result.passed],
        waived={result.name: result.waived for result in results if not result.passed},
        seconds=round(time.monotonic() - started, 2),
    )


def _passed(context: RunContext, identity: str) -> bool:
    """True if the stored results are of this very network and these bounds, and none failed without waiver."""
    if not context.layout.network_gates.exists():
        return False
    stored = read_json(context.layout.network_gates)
    return stored.get("identity") == identity and stored.get("passed") is True


def _identity(context: RunContext) -> str:
    checkpoint = context.layout.checkpoint
    probes = probe_identity(context.config, context.layout, checkpoint)
    content = f"{sorted(probes.items())} {context.config.sha256('gates')} {','.join(NETWORK_GATE_NAMES)}"
    return hashlib.sha256(content.encode()).hexdigest()
