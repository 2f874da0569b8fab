from __future__ import annotations

import numpy as np

from pipeline.contracts.survey import MASKBITS
from pipeline.stages.synthetic_defects import make_defects, make_hosts, rasterise_defects
from pipeline.stages.synthetic_sources import SyntheticSky

SKY = SyntheticSky(seed=4, brick_size_px=400, hosts_per_brick=12)


def test_a_window_of_the_defects_is_the_window_of_the_brick() -> None:
    """Rasterising a corner gives the same flags as cutting that corner out of the whole brick."""
    defects = make_defects(SKY, 0)
    whole = rasterise_defects(defects, (0, 0), (400, 400), 400)
    y, x = (int(value) for value in np.argwhere(whole)[np.count_nonzero(whole) // 2])
    corner = (max(y - 20, 0), max(x - 30, 0))
    part = rasterise_defects(defects, corner, (50, 60), 400)
    assert part.any()
    height, width = min(50, 400 - corner[0]), min(60, 400 - corner[1])
    inside = whole[corner[0] : corner[0] + 50, corner[1] : corner[1] + 60]
    np.testing.assert_array_equal(part[:height, :width], inside)


def test_every_maskbit_is_drawn() -> None:
    """One brick holds each bit of the survey's MASKBITS."""
    flags = rasterise_defects(make_defects(SKY, 1), (0, 0), (400, 400), 400)
    found = int(np.bitwise_or.reduce(flags, axis=None))
    assert all(found & (1 << bit) for bit in MASKBITS.values())


def test_hosts_follow_from_seed_and_index() -> None:
    """Hosts of a brick are the same each time and differ between bricks."""
    first, again, other = make_hosts(SKY, 0), make_hosts(SKY, 0), make_hosts(SKY, 1)
    np.testing.assert_array_equal(first.x, again.x)
    assert len(first.x) == 12
    assert not np.array_equal(first.x, other.x)
