"""The order of tile images against a plainly written triple loop with memories that hold so many tiles."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.sim.schedule import Schedule

TINY = AcceleratorConfig.preset("tiny")  # tiles of 8 x 8 outputs and 16 positions


def loads(needed: list[tuple[int, int]], windows: list[int], resident: bool) -> list[tuple[int, int]]:
    """What is loaded of the tiles ``needed``, in order; a resident tile once a window, else each time."""
    loaded: list[tuple[int, int]] = []
    here: set[tuple[int, int, int]] = set()
    for tile, window in zip(needed, windows, strict=True):
        if not (resident and (window, *tile) in here):
            loaded.append(tile)
        here.add((window, *tile))
    return loaded


@given(
    m=st.integers(1, 40), k=st.integers(1, 500), n=st.integers(1, 60),
    wmem_kib=st.integers(1, 6), amem_kib=st.integers(1, 6),
)  # fmt: skip
@example(m=17, k=5 * 16, n=9, wmem_kib=1, amem_kib=1)  # 5 slots: the weights fit exactly
@example(m=17, k=5 * 16 + 1, n=9, wmem_kib=1, amem_kib=1)
@example(m=9, k=11 * 16, n=16, wmem_kib=6, amem_kib=4)  # 23 slots for 22 tiles of activations
@example(m=9, k=11 * 16 + 1, n=16, wmem_kib=6, amem_kib=4)
def test_order(m: int, k: int, n: int, wmem_kib: int, amem_kib: int) -> None:
    config = AcceleratorConfig.preset("tiny", wmem_kib=wmem_kib, amem_kib=amem_kib)
    schedule = Schedule(config, m, k, n)
    weights, activations, rows_of, outputs = [], [], [], []
    for i in range(0, m, 8):
        for j in range(0, n, 8):
            for kt in range(0, k, 16):
                weights.append((i // 8, kt // 16))
                activations.append((j // 8, kt // 16))
                rows_of.append(i)
            outputs.append((slice(i, min(i + 8, m)), slice(j, min(j + 8, n))))

    # A row of tiles of W is one window; all of X is one. It stays if it fits.
    weights_fit = len({tile for tile in weights if tile[0] == 0}) <= config.weight_slots
    activations_fit = len(set(activations)) <= config.activation_slots
    assert schedule.weights_resident == weights_fit
    assert schedule.activations_resident == activations_fit
    weight_passes, activation_passes = list(schedule.weight_passes()), list(schedule.activation_passes())
    assert list(chain(*weight_passes)) == loads(weights, rows_of, weights_fit)
    assert list(chain(*activation_passes)) == loads(activations, [0] * len(activations), activations_fit)
    assert {len(tiles) for tiles in weight_passes} == {-(-k // 16)}
    assert {len(tiles) for tiles in activation_passes} == {len(set(activations))}
    assert list(schedule.output_tiles()) == outputs
    assert (schedule.rows, schedule.columns, schedule.k_tiles) == (
        len({i for i, _ in weights}), len({j for j, _ in activations}), len({kt for _, kt in weights})
    )  # fmt: skip


@pytest.mark.parametrize(("m", "n"), [(1, 1), (8, 8), (9, 7), (31, 33)])
def test_output_tiles_cover_every_output_once(m: int, n: int) -> None:
    covered = np.zeros((m, n), int)
    for rows, columns in Schedule(TINY, m, 20, n).output_tiles():
        covered[rows, columns] += 1
    assert (covered == 1).all()


def test_slots_of_the_examples() -> None:
    """The examples above are the edges that they say they are."""
    small = AcceleratorConfig.preset("tiny", wmem_kib=1)
    assert small.weight_slots == 5 and TINY.activation_slots == 23
