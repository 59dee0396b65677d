"""Bench of hw/output_regions.py: the regions of the next layer, in the order in which its input is made."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.output_regions import OutputRegions
from sliceforge.hw.payloads import image_tile_layout, nest_layout
from sliceforge.sim.schedule import Schedule
from sliceforge.verif.schedules import DATAFLOWS, finished_tiles, loops, schedule, some_shape
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, quiet, reset, start, to_int

CASES = [
    {"address_bits": 32, "tile_m": 8, "tile_n": 6, "k_bits": 8},
    {"address_bits": 64, "tile_m": 3, "tile_n": 16, "k_bits": 1},
]
MOST_STRIDE = (1 << 32) - 1


def component(p: dict[str, Any]) -> OutputRegions:
    return OutputRegions(**p)


def next_regions(order: Schedule, group: int) -> dict[tuple[int, int], int]:
    """The number of the region with tile (row, column): as a layer loads them whose K is this layer's M.

    An image is as long as a row of tiles, so the image's number is the row's.
    """
    tile_m = parameters()["tile_m"]
    config: Any = SimpleNamespace(tile_m=tile_m, tile_n=parameters()["tile_n"])
    reader = Schedule(
        config=config, m=1, k=order.m, n=order.n, chunk=group * tile_m, k_tile=tile_m, span=tile_m,
        dataflow=Dataflow.WEIGHT_STATIONARY, block=order.columns,
    )  # fmt: skip
    regions = reader.activation_regions()
    assert all(len(images) == 1 for images in regions)
    return {(row, column): number for number, [(column, row)] in enumerate(regions)}


class Bench:
    """A layer of ``shape``. ``top``: so many bytes below the end of the space lies the last region."""

    def __init__(
        self, dut: Any, shape: tuple[int, int], dataflow: Dataflow, group: int, *, stride: int = 0,
        top: int | None = None, stall: float = 0.0,
    ) -> None:  # fmt: skip
        self.dut, p = dut, parameters()
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {shape} {dataflow} {group} {top} {stall}")
        tile_m, tile_n, space = p["tile_m"], p["tile_n"], 1 << p["address_bits"]
        order = schedule(
            *shape, tile_m=tile_m, tile_n=tile_n, dataflow=dataflow, block=rng.randint(1, 4)
        )  # fmt: skip
        stride = stride or 4 * rng.randrange(1, 1 << 12)
        last = (order.rows * order.columns - 1) * stride
        address = rng.randrange(space - last) if top is None else max(0, space - top - last)
        length_address = rng.randrange(space)
        dut.loops.value = to_int(nest_layout(), loops(order, rng))
        settings = {
            "address": address, "length_address": length_address, "stride": stride,
            "group": group, "tile_rows": order.rows, "tile_columns": order.columns,
        }  # fmt: skip
        for name, value in settings.items():
            getattr(dut, name).value = value
        numbers = next_regions(order, group)
        self.expected = []
        for i, j, _ in finished_tiles(order):
            place = address + numbers[i, j] * stride
            before = place - stride if numbers[i, j] else length_address
            self.expected.append({
                "rows": min(tile_m, order.m - i * tile_m), "columns": min(tile_n, order.n - j * tile_n),
                "address": min(place, space), "length_address": min(before, space),
            })  # fmt: skip
        layout = image_tile_layout(p["address_bits"], tile_m, tile_n)
        self.tiles = Sink(dut, "tiles", layout, stall=stall)

    async def start(self) -> None:
        await FallingEdge(self.dut.clk)
        self.dut.start.value = 1
        await FallingEdge(self.dut.clk)
        self.dut.start.value = 0

    async def finish(self) -> None:
        await quiet(self.dut, self.tiles, expected=[len(self.expected)])
        assert self.tiles.received == self.expected
        self.tiles.stop()
        await reset(self.dut)


def some_layer(rng: random.Random, most: int = 5) -> tuple[tuple[int, int], int]:
    """A shape of up to ``most`` tiles each way, and a group: of one row of tiles to more than there are."""
    m, n = some_shape(rng, parameters()["tile_m"], parameters()["tile_n"], most)
    rows = -(-m // parameters()["tile_m"])
    return (m, n), rng.choice([1, rows, max(1, rows - 1), rng.randint(1, rows), (1 << 24) - 1])


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(dataflow=DATAFLOWS, stall=STALLS)
async def places_regions(dut: Any, dataflow: Dataflow, stall: float) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow} {stall}")
    tile_m, tile_n = parameters()["tile_m"], parameters()["tile_n"]
    # Two groups of two rows of tiles and one of a single row.
    layers = [((5 * tile_m - 1, 3 * tile_n), 2), ((1, 1), 1), *(some_layer(rng) for _ in range(4))]
    for shape, group in layers:
        bench = Bench(dut, shape, dataflow, group, stall=stall)
        await ClockCycles(dut.clk, 5)
        assert not bench.tiles.received
        await bench.start()
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(dataflow=DATAFLOWS)
async def ends_with_the_space(dut: Any, dataflow: Dataflow) -> None:
    """The last region ends there, begins there, or is past it; with the largest stride, as far as can be."""
    await start(dut, component(parameters()))
    tile_m, tile_n = parameters()["tile_m"], parameters()["tile_n"]
    for stride, top in ((256, 256), (256, 0), (256, -1), (256, -512), (MOST_STRIDE, -7 * MOST_STRIDE),
                        (1 << 31, -(1 << 33))):  # fmt: skip
        bench = Bench(dut, (3 * tile_m, 4 * tile_n - 1), dataflow, 2, stride=stride, top=top)
        await bench.start()
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def takes_nine_cycles_a_tile(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, (2 * parameters()["tile_m"], 3 * parameters()["tile_n"]), DATAFLOWS[0], 1)
    await bench.start()
    offers = []
    for _ in range(9 * len(bench.expected) + 10):
        await ReadOnly()
        offers.append(int(dut.tiles__valid.value))
        await FallingEdge(dut.clk)
    # From the cycle after the start on.
    assert offers == [0, 0, 0, 0, 0, 0, 0, 0, 1] * len(bench.expected) + [0] * 10
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for number in range(13):
        bench = Bench(dut, *some_layer(rng)[:1], rng.choice(DATAFLOWS), rng.randint(1, 4), stall=0.3)
        await bench.start()
        if number % 3:
            await ClockCycles(dut.clk, rng.randrange(60))
            bench.tiles.stop()
            await reset(dut)
        else:
            await bench.finish()
