"""Stamps per second of a trained network on one CPU core, raw stamps in, logits out: ONNX Runtime beside torch.

python benchmarks/scoring.py runs/demo/training/checkpoint.safetensors

Both normalise, both use one thread; CPU time of the best of several rounds, so that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline.stages.network import StampNetwork
from pipeline.storage.locations import Location
from pipeline.training.export import export_network, random_features, random_stamps
from pipeline.training.scorer import load_checkpoint

STAMPS = 512
ROUNDS = 5
CPU = torch.device("cpu")


def stamps_per_second(score: Callable[[], object]) -> float:
    """Rate of the best round, in CPU time."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        score()
        seconds.append(time.process_time() - start)
    return STAMPS / min(seconds)


def main() -> None:
    """Print one line per way of scoring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint.safetensors of a training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint, scorer = load_checkpoint(Location(options.checkpoint), CPU)
    network = StampNetwork(export_network(checkpoint, "0" * 64))
    usable = np.isfinite(network.logits(random_stamps(checkpoint), random_features(checkpoint)))
    repeats = -(-STAMPS // int(usable.sum()))
    stamps = np.tile(random_stamps(checkpoint)[usable], (repeats, 1, 1, 1))[:STAMPS]
    raw = np.tile(random_features(checkpoint)[usable], (repeats, 1))[:STAMPS]
    beside = None if checkpoint.features is None else checkpoint.features.standardised(raw)
    n_parameters = sum(values.numel() for values in checkpoint.weights.values())
    print(f"{checkpoint.network.name}, {n_parameters:,} numbers, {checkpoint.stamp_size_px} px")
    print(f"ONNX Runtime  {stamps_per_second(lambda: network.logits(stamps, raw)):8.0f} stamps/s and core")
    print(f"torch         {stamps_per_second(lambda: scorer.logits(stamps, beside)):8.0f} stamps/s and core")


if __name__ == "__main__":
    main()
