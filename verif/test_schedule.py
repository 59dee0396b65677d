"""Schedules against plainly written loops with memories that hold so many tiles, and plans on the RTL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.apsq import apsq_gemm
from sliceforge.sim.core_engine import run_core
from sliceforge.sim.gemm import folded_bias
from sliceforge.sim.layer_image import pack_layer
from sliceforge.sim.plans import plan, plans
from sliceforge.sim.schedule import Schedule

TINY = AcceleratorConfig.preset("tiny")  # tiles of 8 x 8 outputs and 16 positions
OUTPUT, WEIGHT, INPUT = Dataflow
Uses = list[tuple[int, int, int, int]]


@lru_cache(maxsize=64)
def uses(s: Schedule) -> Uses:
    """(row, column, K-chunk, block) of each tile in the order of the loops of docs/architecture.md."""
    rows, columns, chunks = range(-(-s.m // 8)), range(-(-s.n // 8)), range(-(-s.k // s.chunk))
    found = []
    if s.dataflow == OUTPUT:
        for i in rows:
            for j in columns:
                for c in chunks:
                    found.append((i, j, c, 0))
    elif s.dataflow == WEIGHT:
        for b in range(0, len(columns), s.block):
            for i in rows:
                for c in chunks:
                    for j in columns[b : b + s.block]:
                        found.append((i, j, c, b))
    else:
        for b in range(0, len(rows), s.block):
            for j in columns:
                for c in chunks:
                    for i in rows[b : b + s.block]:
                        found.append((i, j, c, b))
    return found


@lru_cache(maxsize=64)
def windows(s: Schedule, operand: str) -> list[tuple[tuple[Any, ...], int, int]]:
    """For each tile: the part of the layer over which its images of ``operand`` stay, if they do; the images'
    row or column of tiles; their K-chunk."""
    found = []
    for i, j, c, b in uses(s):
        mine = i if operand == "weights" else j
        if s.dataflow == OUTPUT:
            window: tuple[Any, ...] = (i,) if operand == "weights" else ()
        elif (s.dataflow == WEIGHT) == (operand == "weights"):  # the stationary one
            window = () if s.blocks_share else (b, mine, c)
        else:
            window = (b,)
        found.append((window, mine, c))
    return found


@lru_cache(maxsize=4096)
def chunk_images(s: Schedule, c: int) -> list[int]:
    """Numbers of the images of a K-chunk."""
    sizes = [min(s.chunk, s.k - start) for start in range(0, s.k, s.chunk)]
    counts = [-(-size // s.k_tile) for size in sizes]
    return [*range(sum(counts[:c]), sum(counts[: c + 1]))]


def loaded(s: Schedule, operand: str) -> list[tuple[int, int]]:
    """The images that are loaded, in order; what stays is loaded once a window, else each time."""
    resident = s.weights_resident if operand == "weights" else s.activations_resident
    order, here = [], set()
    for window, mine, c in windows(s, operand):
        if not (resident and (window, mine, c) in here):
            order += [(mine, image) for image in chunk_images(s, c)]
        here.add((window, mine, c))
    return order


def most_that_stay(s: Schedule, operand: str) -> int:
    """Images of the largest window."""
    kept: dict[Any, set[tuple[int, int]]] = {}
    for window, mine, c in windows(s, operand):
        kept.setdefault(window, set()).update((mine, image) for image in chunk_images(s, c))
    return max(len(images) for images in kept.values())


def most_that_wait(s: Schedule) -> int:
    """Tiles that have begun and not ended, at most."""
    last, waiting, most = -(-s.k // s.chunk) - 1, set(), 0
    for i, j, c, _ in uses(s):
        (waiting.discard if c == last else waiting.add)((i, j))
        most = max(most, len(waiting))
    return most


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    memories = {f"{name}mem_kib": draw(st.integers(1, 2)) for name in "wao"}
    config = AcceleratorConfig.preset("tiny", **memories)
    k = draw(st.integers(1, 150))
    return Schedule(
        config=config, m=draw(st.integers(1, 40)), k=k, n=draw(st.integers(1, 40)),
        chunk=draw(st.integers(min(k, 8), k)), k_tile=draw(st.sampled_from([16, 16, 12, 5])),
        dataflow=draw(st.sampled_from(Dataflow)), block=draw(st.integers(1, 6)),
        psum_group=draw(st.integers(0, 4)), weights_resident=draw(st.booleans()),
        activations_resident=draw(st.booleans()), blocks_share=draw(st.booleans()),
        psums_resident=draw(st.booleans()),
    )  # fmt: skip


def may_be(s: Schedule) -> bool:
    """The stationary operand is read again by passes or by blocks, not by both; shared if it stays."""
    if s.dataflow == OUTPUT:
        return not s.blocks_share
    stays = s.weights_resident if s.dataflow == WEIGHT else s.activations_resident
    return stays or (not s.blocks_share and len({block for *_, block in uses(s)}) == 1)


@settings(deadline=None, max_examples=60)
@given(s=schedules())
def test_order(s: Schedule) -> None:
    assert list(s.tiles()) == [(i, j, c) for i, j, c, _ in uses(s)]
    last = max(c for _, _, c, _ in uses(s))
    ends = [(i, j) for i, j, c, _ in uses(s) if c == last]
    assert list(s.output_tiles()) == [
        (slice(8 * i, min(8 * i + 8, s.m)), slice(8 * j, min(8 * j + 8, s.n))) for i, j in ends
    ]
    assert len(set(ends)) == len(ends)
    rows = [slice(8 * i, min(8 * i + 8, s.m)) for i, j in ends if s.dataflow == INPUT or j % _block(s) == 0]
    assert list(s.parameter_rows()) == rows
    slices = list(chain(*(range(piece.start, piece.stop) for piece in s.k_slices)))
    assert slices == [*range(s.k)] and max(p.stop - p.start for p in s.k_slices) <= s.k_tile
    assert [list(images) for images in s.k_tiles] == [chunk_images(s, c) for c in range(last + 1)]
    for images, start in zip(s.k_tiles, range(0, s.k, s.chunk), strict=True):
        assert s.k_slices[images[0]].start == start
    if may_be(s):
        assert list(_played(s.weight_regions(), s.weight_loads)) == loaded(s, "weights")
        assert list(_played(s.activation_regions(), s.activation_loads)) == loaded(s, "activations")


def _block(s: Schedule) -> int:
    """Columns of tiles over which a row's biases serve, at most."""
    return s.block if s.dataflow == WEIGHT else 10**9


def _played(regions: list[Any], loads: tuple[int, int]) -> Iterator[tuple[int, int]]:
    rounds, passes = loads
    for _ in range(rounds):
        for region in regions:
            for _ in range(passes):
                yield from region


@settings(deadline=None, max_examples=60)
@given(s=schedules(), span=st.integers(1, 100))
def test_spans_cut_regions(s: Schedule, span: int) -> None:
    """A region ends with the image that completes the span, and with K; all are there, in order."""
    whole, parts = s.activation_regions(), replace(s, span=span).activation_regions()
    assert list(chain(*parts)) == list(chain(*whole))
    ends = {tuple(region[-1]) for region in whole}
    for part in parts:
        sizes = [s.k_slices[image].stop - s.k_slices[image].start for _, image in part]
        assert sum(sizes[:-1]) < span and (
            sum(sizes) >= span or tuple(part[-1]) in ends or part[-1][1] == s.images - 1
        )
        assert all(image != s.images - 1 for _, image in part[:-1])


@settings(deadline=None, max_examples=60)
@given(s=schedules())
@example(Schedule(config=TINY, m=9, k=23 * 16, n=9, chunk=23 * 16, k_tile=16, activations_resident=False))
@example(Schedule(config=TINY, m=9, k=24 * 16, n=9, chunk=24 * 16, k_tile=16, activations_resident=False))
@example(Schedule(config=TINY, m=9, k=11 * 16, n=16, chunk=16, k_tile=16))  # 22 and 24 images for 23 slots
@example(Schedule(config=TINY, m=9, k=12 * 16, n=16, chunk=16, k_tile=16))
@example(Schedule(config=TINY, m=8, k=32, n=16, chunk=16, k_tile=16, dataflow=WEIGHT, block=2))  # 2 slots
@example(Schedule(config=TINY, m=8, k=32, n=24, chunk=16, k_tile=16, dataflow=WEIGHT, block=3))
def test_what_fits(s: Schedule) -> None:
    c = s.config
    room = (c.omem_kib * 1024 // 256 - 2) * {0: 1, 1: 4, 2: 2, 3: 1, 4: 1}[s.psum_group]
    fits = (
        may_be(s)
        and (not s.weights_resident or most_that_stay(s, "weights") <= c.weight_slots)
        and (not s.activations_resident or most_that_stay(s, "activations") <= c.activation_slots)
        and (not s.psums_resident or most_that_wait(s) <= room)
    )
    if s.dataflow != OUTPUT or not s.blocks_share:
        assert s.legal == fits


@settings(deadline=None, max_examples=60)
@given(s=schedules())
def test_traffic(s: Schedule) -> None:
    """With images of a byte each."""
    if not may_be(s):
        return
    images = len(s.k_slices)
    traffic = s.traffic(s.rows * images, s.columns * images)
    regions = {"weights": s.weight_regions(), "activations": s.activation_regions()}
    loads = {"weights": s.weight_loads, "activations": s.activation_loads}
    for name in regions:
        headers = len(regions[name]) * loads[name][0] * loads[name][1] * s.config.load_beat_bytes
        assert traffic[name].dram == len(loaded(s, name)) + headers
    assert traffic["parameters"].dram == 4 * sum(rows.stop - rows.start for rows in s.parameter_rows())
    used = sum(len(chunk_images(s, c)) for _, _, c, _ in uses(s))
    assert traffic["weights"].chip == len(loaded(s, "weights")) + used
    last = max(c for _, _, c, _ in uses(s))
    stored = sum(c < last for _, _, c, _ in uses(s)) * (64 if s.psum_group else 256)
    assert traffic["partial_sums"].chip == 2 * stored
    assert traffic["partial_sums"].dram == (0 if s.psums_resident else 2 * stored)
    assert traffic["outputs"].dram == 4 * s.m * s.n


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 40), k=st.integers(1, 200), n=st.integers(1, 40), chunk=st.integers(8, 100),
    group=st.integers(0, 4), sizes=st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
)  # fmt: skip
def test_plan_is_the_cheapest(m: int, k: int, n: int, chunk: int, group: int, sizes: tuple[int, int]) -> None:
    """Of all dataflows, but for 1/256; and there is one for each, as whatever does not fit can be loaded
    again.
    """
    arguments: dict[str, Any] = {"chunk": chunk, "psum_group": group}

    def cost(s: Schedule) -> int:
        return sum(tensor.dram for tensor in s.traffic(*sizes).values())

    best = []
    for dataflow in Dataflow:
        found = list(plans(TINY, m, k, n, dataflow=dataflow, **arguments))
        assert found and all(s.legal and s.dataflow == dataflow for s in found)
        assert all((s.chunk, s.psum_group) == (min(k, chunk), group) for s in found)
        chosen = plan(
            TINY, m, k, n, dataflow=dataflow, weight_bytes=sizes[0], activation_bytes=sizes[1], **arguments
        )  # fmt: skip
        assert chosen in found and 256 * cost(chosen) <= 257 * min(map(cost, found))
        best.append(chosen)
    any_flow = plan(
        TINY, m, k, n, dataflow=None, weight_bytes=sizes[0], activation_bytes=sizes[1], **arguments
    )
    assert any_flow == min(best, key=cost)
    again = plan(TINY, m, k, n, resident=False, **arguments)
    assert not again.weights_resident and not again.activations_resident


@pytest.mark.parametrize("dataflow", Dataflow)
@pytest.mark.parametrize("group", range(5))
def test_plans_run_on_the_core(dataflow: Dataflow, group: int) -> None:
    """All whose partial sums stay on chip, up to as many as there is room for."""
    rng = np.random.default_rng(group)
    m, k, n = 33, 40, 35
    w, x, bias = rng.integers(-64, 64, (m, k)), rng.integers(0, 256, (k, n)), rng.integers(-99, 99, m)
    exponents = [4, 3, 6]
    golden = w @ (x - 77) + bias[:, None]
    if group:
        golden = apsq_gemm(
            w, x, zero_point=77, psum_exponents=exponents, psum_group=group, psum_chunk=16, bias=bias
        ).output
    found = [
        s for s in plans(TINY, m, k, n, dataflow=dataflow, chunk=16, psum_group=group) if s.psums_resident
    ]
    room = 2 * {1: 4, 2: 2}.get(group, 1)
    assert max(s.waiting_psums for s in found) == (1 if dataflow == OUTPUT else min(5, room))
    for schedule in found:
        image = pack_layer(
            w, x, folded_bias(w, bias, 77, 4), zero_point=77, weight_bits=7, lo_bits=4, config=TINY,
            schedule=schedule, psum_exponents=exponents,
        )  # fmt: skip
        np.testing.assert_array_equal(run_core(image).output, golden, err_msg=str(schedule))


def test_slots_of_the_examples() -> None:
    """The examples above are the edges that they say they are."""
    assert TINY.weight_slots == TINY.activation_slots == 23 and TINY.psum_slots == 2


def test_headers_of_regions_do_not_decide_the_block() -> None:
    """A larger block has a few headers less; a small one's results leave evenly (docs/architecture.md)."""
    panacea = AcceleratorConfig.preset("panacea")
    chosen = plan(
        panacea, 1536, 384, 128, dataflow=Dataflow.INPUT_STATIONARY, chunk=128, psum_group=1,
        weight_bytes=680_000, activation_bytes=40_000,
    )  # fmt: skip
    assert (chosen.block, chosen.psums_resident, chosen.blocks_share) == (2, True, True)
