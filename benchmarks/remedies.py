"""Does a remedy make a network depend less on the core? Scores of test stamps with only parts of their arc.

    python benchmarks/remedies.py CUBE CHECKPOINT [CHECKPOINT ...]

CUBE is the training cube of a run without core suppression, whose arcs are whole; every checkpoint is scored on the
pairs of its test split. The AUC is that of the named stamps against the controls of the same pairs:
whole      the injected stamp
core       only the arc light within --radius-px of pixel size // 2
ring       only the arc light beyond
masked     the injected stamp and the control, both with the core set to the sky level
Each checkpoint normalises as it was trained. Intervals: DeLong clustered by host, 95 %.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.contracts.datasets import ROLES, SPLITS
from pipeline.stages.evaluation import auc_interval
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.locations import Location
from pipeline.training.preprocess import stamp_radius
from pipeline.training.scorer import Scorer, load_checkpoint

CPU = torch.device("cpu")


def main() -> None:
    """Print one line per checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cube")
    parser.add_argument("checkpoint", nargs="+")
    parser.add_argument("--radius-px", type=float, default=10.0)
    options = parser.parse_args()
    injected, control, host = read_test_pairs(open_cube(Location(options.cube)))
    core = (stamp_radius(injected.shape[-1]) < options.radius_px).numpy()
    print(f"{len(host)} pairs of the test split, core r < {options.radius_px:g} px")
    print(f"{'checkpoint':40s} " + " ".join(f"{name:>22s}" for name in ("whole", "core", "ring", "masked")))
    for name in options.checkpoint:
        _, scorer = load_checkpoint(Location(name), CPU)
        found = core_dependence(scorer, injected, control, host, core)
        print(f"{name[-40:]:40s} " + " ".join(f"{value:>22s}" for value in found))


def read_test_pairs(cube: PublishedCube) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Injected and control stamps (pair, band, y, x) in nmgy of the test split, and their hosts (pair,)."""
    columns = cube.columns(["role", "split", "host_id"])
    wanted = (columns["role"].to_numpy() == ROLES.index("pair")) & (columns["split"].to_numpy() == SPLITS.index("test"))
    stamps: dict[str, list[NDArray[np.float32]]] = {"injected": [], "control": []}
    for shard in range(-(-cube.n_samples // cube.shard_samples)):
        first, stop = cube.shard_range(shard)
        pixels = cube.read_shard(shard, tuple(stamps))
        for name, parts in stamps.items():
            parts.append(pixels[name].to_numpy()[wanted[first:stop]])
    return np.concatenate(stamps["injected"]), np.concatenate(stamps["control"]), columns["host_id"].to_numpy()[wanted]


def core_dependence(
    scorer: Scorer,
    injected: NDArray[np.float32],
    control: NDArray[np.float32],
    host: NDArray[np.int64],
    core: NDArray[np.bool_],
) -> list[str]:
    """AUC of whole, core, ring and masked, each with its interval."""
    arc = injected - control

    def logits(stamps: NDArray[np.float32], hidden: bool = False) -> NDArray[np.float32]:
        normalised = scorer.normalised(stamps)
        return scorer.logits_of_normalised(np.where(core, np.float32(0), normalised) if hidden else normalised)

    against = {False: logits(control), True: logits(control, hidden=True)}
    label, cluster = np.repeat([1, 0], len(host)), np.concatenate([host, host])
    texts = []
    for stamps, hidden in (
        (injected, False),
        (control + arc * core, False),
        (control + arc * ~core, False),
        (injected, True),
    ):
        found = auc_interval(label, np.concatenate([logits(stamps, hidden), against[hidden]]), cluster)
        ends = "" if found.low is None else f" ({found.low:.3f}-{found.high:.3f})"
        texts.append(f"{found.value:.3f}{ends}")
    return texts


if __name__ == "__main__":
    main()
