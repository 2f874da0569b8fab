"""`python -m pipeline.training.models_table`: what each network weighs and how fast it trains and scores here."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pipeline.contracts.network_config import NETWORKS, LossSection, NetworkSection
from pipeline.training.losses import example_losses
from pipeline.training.models.catalogue import build_network, count_parameters
from pipeline.training.models.staged import placed
from pipeline.training.processes import configure_torch


@dataclass(frozen=True)
class NetworkRates:
    """A network of its published width.

    Attributes:
        name: as training.network.name.
        parameters: weights that are trained.
        training_per_s: stamps per second of forward, backward and optimiser.
        scoring_per_s: stamps per second of forward in float32.
    """

    name: str
    parameters: int
    training_per_s: float
    scoring_per_s: float


def measure_network(
    name: str, shape: tuple[int, int, int, int], device: torch.device, seconds: float, bf16: bool
) -> NetworkRates:
    """Rates of a network on random stamps that lie on the device already.

    Args:
        name: one of NETWORKS.
        shape: (example, band, y, x) of a batch.
        device: where it runs.
        seconds: how long each rate is measured, at least one batch.
        bf16: bfloat16 in training.
    """
    network = placed(build_network(NetworkSection.model_validate({"name": name}), shape[1]), device)
    optimiser = torch.optim.AdamW(network.parameters())
    stamps, label = torch.randn(shape, device=device), torch.ones(shape[0], device=device)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logit: Tensor = network(stamps)
        torch.autograd.backward(example_losses(logit.float(), label, LossSection()).mean())
        optimiser.step()

    def score() -> None:
        with torch.inference_mode():
            network(stamps)

    network.train()
    training = shape[0] * _calls_per_s(step, device, seconds)
    network.eval()
    return NetworkRates(name, count_parameters(network), training, shape[0] * _calls_per_s(score, device, seconds))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure every network, print one JSON line each or a table."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.models_table", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--bands", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each rate is measured")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    device = configure_torch(options.threads, deterministic=False)
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    shape = (options.batch_size, options.bands, options.size_px, options.size_px)
    if not options.json:
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} threads"
        _print(
            f"{where}; batches of {shape[0]}, {shape[1]} bands, {shape[2]} px; training in {'bf16' if bf16 else 'f32'}"
        )
        _print(f"{'network':20s} {'parameters':>12s} {'training /s':>12s} {'scoring /s':>12s}")
    for name in NETWORKS:
        found = measure_network(name, shape, device, options.seconds, bf16)
        line = f"{name:20s} {found.parameters:12,d} {found.training_per_s:12.0f} {found.scoring_per_s:12.0f}"
        _print(json.dumps(asdict(found)) if options.json else line)
    return 0


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _calls_per_s(call: Callable[[], None], device: torch.device, seconds: float) -> float:
    """Rate of a call after one to warm up; what a GPU was given is waited for."""
    call()
    _wait(device)
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < seconds:
        call()
        _wait(device)
        calls += 1
    return calls / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
