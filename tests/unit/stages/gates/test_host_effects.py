"""Effects over hosts: the bound of exchangeable hosts, and repeats that are no new evidence."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.stages.gates import host_effects
from pipeline.stages.gates.host_effects import HostColumns, effect_chance


def hosts_of(values: np.ndarray, chosen: np.ndarray, repeats: int = 1) -> HostColumns:
    """Every host so many times, in two columns of which one holds no value for some hosts."""
    rows = np.repeat(np.arange(values.size), repeats)
    holes = np.where(np.arange(values.size) % 5 == 0, np.nan, -values)
    usable = np.ones(rows.size, dtype=bool)
    return HostColumns.of(
        {"a": values[rows], "b": holes[rows]}, rows + 7, chosen[rows], usable, np.random.default_rng(1)
    )


def test_effect_is_that_of_the_samples() -> None:
    """Of a shifted half the effect is Cohen's d or that of its Kolmogorov-Smirnov distance, binned."""
    values = np.random.default_rng(2).normal(0.0, 1.0, 4000)
    hosts = hosts_of(values, values > 0.0)
    effect = hosts.effects(hosts.chosen, hosts.population)[0]
    assert effect == pytest.approx(2 * 0.6745, rel=0.03)
    assert hosts.effects(hosts.population, hosts.population).tolist() == [0.0, 0.0]


def test_null_finds_a_choice_by_value_and_not_one_by_chance() -> None:
    """The interval holds the value; a choice at random lies within the null."""
    rng = np.random.default_rng(3)
    values = rng.normal(0.0, 1.0, 400)
    for chosen, found_it in ((values > 0.3, True), (rng.random(400) < 0.5, False)):
        hosts = hosts_of(values, chosen)
        value = float(hosts.effects(hosts.chosen, hosts.population).max())
        (low, high), null = effect_chance(hosts, value, 0, np.random.default_rng(1))
        assert low <= value <= high
        assert null.draws == host_effects.PERMUTATIONS
        assert (null.p == 1 / (1 + null.draws)) if found_it else (null.p > 0.02)


def test_repeats_of_hosts_are_no_evidence() -> None:
    """Rows repeated twelve times give the p of the hosts alone, to the permutation."""
    rng = np.random.default_rng(5)
    values, chosen = rng.normal(0.0, 1.0, 120), rng.random(120) < 0.5
    once, often = hosts_of(values, chosen), hosts_of(values, chosen, 12)
    found = [effect_chance(hosts, 0.5, 0, np.random.default_rng(1))[1].p for hosts in (once, often)]
    assert found[0] == pytest.approx(found[1], abs=0.02)


def test_more_hosts_than_are_needed_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many hosts a random choice is kept."""
    monkeypatch.setattr(host_effects, "MAX_HOSTS", 50)
    values = np.arange(200.0)
    hosts = hosts_of(values, values > 100.0)
    assert (hosts.chosen.size, hosts.bins.shape) == (50, (50, 2))
    assert 10 < hosts.chosen.sum() < 40
