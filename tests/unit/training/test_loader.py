"""Which stamps become examples, and which cubes are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.contracts.datasets import ROLES, SPLITS
from pipeline.contracts.errors import ConfigError, ContractError, StorageError, VerificationError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.cube import HIERARCHY, PublishedCube
from pipeline.training.epoch_order import epoch_permutation
from pipeline.training.loader import batches, load_examples
from pipeline.training.preprocess import normalise

CubeMaker = Callable[..., PublishedCube]
SPEC = PreprocessSection(annulus_px=(9.0, 16.0))
PAIR, CONTROL = ROLES.index("pair"), ROLES.index("control")


def test_roles_decide_the_examples(make_cube: CubeMaker) -> None:
    """A pair gives its injected (1) and control (0) stamp, a control one, unused none; pixels are those rows'."""
    cube = make_cube()
    columns = cube.columns(["role", "split", "task_id"])
    pixels = {
        kind: np.concatenate([cube.read_shard(k, [kind])[kind] for k in range(cube.n_shards)])
        for kind in ("injected", "control")
    }
    for name, examples in load_examples(cube, SPEC).items():
        role = columns["role"].to_numpy()
        used = columns["split"].to_numpy() == SPLITS.index(name)
        expected = sorted(
            (int(r), label)
            for r in np.flatnonzero(used)
            for label in ((1, 0) if role[r] == PAIR else (0,) if role[r] == CONTROL else ())
        )
        assert sorted(zip(examples.row.tolist(), examples.label.tolist(), strict=True)) == expected
        raw = np.stack(
            [
                pixels["injected" if label else "control"][row]
                for row, label in zip(examples.row, examples.label, strict=True)
            ]
        )
        np.testing.assert_array_equal(examples.stamps, normalise(torch.from_numpy(raw), SPEC).numpy())
        np.testing.assert_array_equal(examples.columns["task_id"], columns["task_id"].to_numpy()[examples.row])


def test_guard_rows_are_never_used(make_cube: CubeMaker) -> None:
    """No example comes from a guard row, and garbage in guard and unused rows harms nothing."""

    def spoil(rows: dict[str, np.ndarray]) -> None:
        idle = (rows["split"] == SPLITS.index("guard")) | (rows["role"] == ROLES.index("unused"))
        rows["injected"][idle] = np.nan
        rows["control"][idle] = np.nan

    cube = make_cube(spoil)
    split = cube.columns(["split"])["split"].to_numpy()
    for name, examples in load_examples(cube, SPEC).items():
        assert set(split[examples.row].tolist()) == {SPLITS.index(name)}
        assert np.isfinite(examples.stamps).all()


@pytest.mark.parametrize(("kind", "value"), [("injected", np.nan), ("control", np.inf)])
def test_pixels_that_are_not_finite_name_shard_and_count(make_cube: CubeMaker, kind: str, value: float) -> None:
    """Two bad stamps in used training rows of shard 1 are a ContractError that says so."""

    def spoil(rows: dict[str, np.ndarray]) -> None:
        used = np.flatnonzero((rows["split"] == 0) & (rows["role"] == PAIR) & (np.arange(120) // 40 == 1))
        rows[kind][used[:2], 0, 3, 3] = value

    with pytest.raises(ContractError, match=rf"shard 1, split train: 2 of \d+ used {kind} stamps"):
        load_examples(make_cube(spoil), SPEC)


def test_injected_stamp_of_a_control_row_is_not_read_as_lens(make_cube: CubeMaker) -> None:
    """The unused injected stamp of a control row may hold anything."""

    def spoil(rows: dict[str, np.ndarray]) -> None:
        rows["injected"][rows["role"] == CONTROL] = np.nan

    assert set(load_examples(make_cube(spoil), SPEC)) == {"train", "val", "test"}


def test_stamps_without_noise_name_the_shard(make_cube: CubeMaker) -> None:
    """A constant stamp in a used row is a ContractError with the shard."""

    def spoil(rows: dict[str, np.ndarray]) -> None:
        rows["control"][np.flatnonzero((rows["split"] == 1) & (rows["role"] == PAIR))[0]] = 0.0

    with pytest.raises(ContractError, match=r"shard 0, split val: 1 of .* MAD of 0"):
        load_examples(make_cube(spoil), SPEC)


@pytest.mark.parametrize(("split", "role"), [("val", "control"), ("test", "unused")])
def test_split_without_ten_of_each_class_is_refused(make_cube: CubeMaker, split: str, role: str) -> None:
    """A split with controls only, or nothing at all, never reaches training."""

    def thin(rows: dict[str, np.ndarray]) -> None:
        rows["role"][rows["split"] == SPLITS.index(split)] = ROLES.index(role)

    with pytest.raises(VerificationError, match=f"split {split} has 0 injected"):
        load_examples(make_cube(thin), SPEC)


def test_cube_larger_than_memory_is_refused_with_numbers(make_cube: CubeMaker) -> None:
    """The error is a ConfigError with the bytes needed and the limit."""
    with pytest.raises(ConfigError, match=r"need \d+ bytes of memory, the limit is 1000000"):
        load_examples(make_cube(), SPEC, memory_limit_bytes=1_000_000)


def test_corrupt_shard_is_refused(make_cube: CubeMaker) -> None:
    """A flipped byte in stored pixels is found by the checksum."""
    cube = make_cube()
    path = Path(cube.location.join(HIERARCHY, "control", "c", "1", "0", "0", "0").path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(StorageError):
        load_examples(cube, SPEC)


def test_another_schema_version_is_refused(make_cube: CubeMaker) -> None:
    """A cube of a future schema is a ContractError, not a guess."""
    cube = make_cube()
    cube.attrs["schema_version"] = 99
    with pytest.raises(ContractError, match="expected cube schema 'training' version 3"):
        load_examples(cube, SPEC)


def test_every_epoch_sees_every_example_once_in_its_own_order(make_cube: CubeMaker) -> None:
    """Batches of 16 cover all examples with labels and rows, shuffled, the last batch shorter; epochs differ."""
    examples = load_examples(make_cube(), SPEC)["train"]
    seen = []
    for epoch in (0, 1):
        loaded = list(batches(examples, 16, 7, epoch))
        assert {len(label) for _, label, _ in loaded[:-1]} == {16}
        order = epoch_permutation(len(examples), 7, epoch)
        np.testing.assert_array_equal(torch.cat([stamps for stamps, _, _ in loaded]), examples.stamps[order])
        np.testing.assert_array_equal(torch.cat([label for _, label, _ in loaded]), examples.label[order])
        np.testing.assert_array_equal(np.concatenate([row for _, _, row in loaded]), examples.row[order])
        seen.append(order.tolist())
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(len(examples)))
    assert seen[0] != seen[1]
    assert seen[0] != sorted(seen[0])
