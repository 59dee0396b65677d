"""Bench of hw/post_processing.py: from results to bytes in memory, read back as the next layer loads them."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import nest_layout
from sliceforge.hw.post_processing import PostProcessing
from sliceforge.sim.layer_image import OutputImages
from sliceforge.sim.layer_memory import read_output
from sliceforge.sim.schedule import Schedule
from sliceforge.verif.requantize_layers import RequantizeLayer
from sliceforge.verif.schedules import DATAFLOWS, loops
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start, to_int

CASES = [
    {"lanes": 2, "vector": 4, "pea_count": 1, "tile_k": 16, "run_bits": 2, "bus_bits": 32},
    {"lanes": 4, "vector": 2, "pea_count": 3, "tile_k": 4, "run_bits": 3, "bus_bits": 128,
     "address_bits": 64},
]  # fmt: skip


def configuration(p: dict[str, Any]) -> AcceleratorConfig:
    return AcceleratorConfig(name="bench", max_k=256, **p)


def component(p: dict[str, Any]) -> PostProcessing:
    config = configuration(p)
    return PostProcessing(
        bus_bits=config.bus_bits, address_bits=config.address_bits, tile_m=config.tile_m,
        tile_n=config.tile_n, k_bits=8, layout=config.activation_layout, banks=config.lanes,
        ways=config.load_ways, sums=config.result_sums,
    )  # fmt: skip


class Bench:
    """A layer of ``shape`` for a next one with random settings. ``stall``: of all streams."""

    def __init__(
        self, dut: Any, shape: tuple[int, int], dataflow: Dataflow = DATAFLOWS[0], *, relu: int = 0,
        table: int = 0, stall: float = 0.0,
    ) -> None:  # fmt: skip
        self.dut, self.config = dut, (config := configuration(parameters()))
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {shape} {dataflow} {relu} {table} {stall}")
        lo_bits = rng.choice([4, 5, 6])
        # With a table, the table has rounded already.
        self.layer = layer = RequantizeLayer(
            rng, *shape, relu=relu, use_table=table, rounding=0 if table else lo_bits - 4
        )
        self.order = order = Schedule(
            config=config, m=layer.m, k=1, n=layer.n, chunk=1, k_tile=1, dataflow=dataflow,
            block=rng.randint(1, 3),
        )  # fmt: skip
        # Images of a row of tiles are cut so that none has rows of two.
        cuts = [size for size in range(1, config.tile_k + 1) if config.tile_m % size == 0]
        # An image has at most two granules a position in each bank, beside its header.
        depth = -(-config.lanes // config.load_ways)
        header = config.activation_layout.header_beats(config.lanes, config.load_ways)
        beats = 1 + config.tile_m * (header + 2 * depth)
        self.output = OutputImages(
            multiplier=np.array(layer.multipliers), shift=np.array(layer.shifts), zero_point=layer.zero_out,
            relu=bool(relu), table=None, lo_bits=lo_bits, frequent=rng.randrange(1 << 8 - lo_bits),
            k_tile=rng.choice(cuts), group=rng.randint(1, order.rows + 1),
            stride=(beats + rng.randrange(3)) * config.load_beat_bytes,
        )  # fmt: skip
        size = self.output.stride * order.rows * order.columns
        space = (1 << config.address_bits) // config.load_beat_bytes
        self.address = rng.randrange(space - size // config.load_beat_bytes) * config.load_beat_bytes
        self.length_address = self.address + size + 4 * rng.randrange(8)
        self.apply()
        block = component(parameters())
        self.scales = Source(dut, "scales", block.scales.payload.shape(), stall=stall)
        self.table = Source(dut, "table", block.table.payload.shape(), stall=stall)
        self.results = Source(dut, "results", block.results.payload.shape(), stall=stall)
        self.jobs = Sink(dut, "jobs", block.jobs.payload.shape(), stall=stall)
        self.beats = Sink(dut, "beats", block.beats.payload.shape(), stall=stall)
        self.scales.send(layer.scale_words(order))
        self.table.send(layer.table_words())
        self.results.send(beat for _, _, beat in layer.result_beats(order, config.result_sums))

    def apply(self) -> None:
        dut, layer, output, order = self.dut, self.layer, self.output, self.order
        dut.loops.value = to_int(nest_layout(), loops(order, self.rng))
        values = {
            "zero_point": layer.zero_out, "relu": layer.relu, "use_table": layer.use_table,
            "address": self.address, "length_address": self.length_address,
            "tile_rows": order.rows, "tile_columns": order.columns,
        }  # fmt: skip
        values |= {
            name: getattr(output, name) for name in ("lo_bits", "frequent", "k_tile", "stride", "group")
        }
        for name, value in values.items():
            getattr(dut, name).value = value

    async def start(self) -> None:
        self.dut.start.value = 1
        await FallingEdge(self.dut.clk)
        self.dut.start.value = 0

    def written(self) -> dict[int, int]:
        """The memory, by byte, after the jobs with their beats; no byte may be written twice."""
        memory: dict[int, int] = {}
        beats, bus_bytes = iter(self.beats.received), self.config.bus_bits // 8
        for job in self.jobs.received:
            assert job["is_psum"] == 0
            first = job["address"] // bus_bytes * bus_bytes
            for beat in range(job["beats"]):
                payload = next(beats)
                for byte in range(bus_bytes):
                    if payload["strobes"] >> byte // 4 & 1:
                        place = first + beat * bus_bytes + byte
                        assert place not in memory
                        memory[place] = payload["data"] >> 8 * byte & 255
        assert next(beats, None) is None
        return memory

    def read(self) -> np.ndarray:
        """The activations of the next layer, all of them from what was written, and nothing else was."""
        memory = self.written()
        regions = self.order.rows * self.order.columns
        first = bytes(memory.pop(self.length_address + i) for i in range(4))
        last = self.address + (regions - 1) * self.output.stride
        assert not any(last + i in memory for i in range(4))
        memory |= {last + i: 0 for i in range(4)}  # of the host: there is no next region
        seen = []

        def read(address: int, size: int) -> bytes:
            seen.append(size)
            header = self.config.load_beat_bytes
            rest = (memory.pop(place) for place in range(address + header, address + size))
            noise = [self.rng.randrange(256) for _ in range(header - 4)]
            return bytes([*(memory.pop(address + i) for i in range(4)), *noise, *rest])

        image: Any = SimpleNamespace(output=self.output, schedule=self.order)
        found = read_output(read, self.address, int.from_bytes(first, "little"), image)
        assert len(seen) == regions and not memory
        return found

    def stop(self) -> None:
        for driver in (self.scales, self.table, self.results, self.jobs, self.beats):
            driver.stop()

    async def done(self, limit: int = 40_000) -> None:
        """Waits until it is, and some cycles more, in which nothing comes."""
        dut = self.dut
        await ReadOnly()
        while dut.done.value == 0:
            assert limit, "not done"
            limit -= 1
            await FallingEdge(dut.clk)
            await ReadOnly()
        await FallingEdge(dut.clk)
        counts = [len(self.jobs.received), len(self.beats.received)]
        await quiet(dut, self.jobs, self.beats, expected=counts)
        assert self.scales.idle and self.table.idle and self.results.idle and dut.done.value == 1

    async def finish(self) -> None:
        await self.done()
        assert self.dut.bad_scale.value == 0
        drop = self.output.lo_bits - 4
        expected = self.layer.expected() >> drop << drop
        assert np.array_equal(self.read(), expected)
        self.stop()
        await reset(self.dut)


def some_shape(rng: random.Random) -> tuple[int, int]:
    """Up to 3 tiles each way; the last are full, nearly, or have one row or column."""
    config = configuration(parameters())
    m, n = ((rng.randint(1, 3) - 1) * tile + rng.choice([1, tile - 1, tile]) for tile in
            (config.tile_m, config.tile_n))  # fmt: skip
    return m, n


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize((("dataflow", "stall"), [*zip(DATAFLOWS, STALLS, strict=True), (DATAFLOWS[2], 0.0)]))
async def makes_the_next_input(dut: Any, dataflow: Dataflow, stall: float) -> None:
    """Without a table and with one, with ReLU and without, a reset between the layers."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow} {stall}")
    config = configuration(parameters())
    shapes = [(3 * config.tile_m - 1, 2 * config.tile_n + 1), some_shape(rng), some_shape(rng), (1, 1)]
    for number, shape in enumerate(shapes):
        bench = Bench(dut, shape, dataflow, relu=number & 1, table=number >> 1, stall=stall)
        await bench.start()
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reports_a_bad_scale(dut: Any) -> None:
    """Of any row, until reset; the layer comes to its end."""
    await start(dut, component(parameters()))
    config = configuration(parameters())
    for word, value in ((0, 1 << 31), (1, 0), (-1, 63)):
        bench = Bench(dut, (2 * config.tile_m, config.tile_n), stall=0.2)
        bench.scales.queue[word] = value
        await bench.start()
        await bench.done()
        assert dut.bad_scale.value == 1
        bench.stop()
        await reset(dut)
        assert dut.bad_scale.value == 0 and dut.done.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def starts_again_after_a_reset(dut: Any) -> None:
    """While the table loads, while results pass, and with an image on its way."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for cycles in (0, 20, 80, 300):
        bench = Bench(dut, some_shape(rng), rng.choice(DATAFLOWS), table=rng.getrandbits(1), stall=0.2)
        await bench.start()
        await ClockCycles(dut.clk, cycles + rng.randrange(10))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, some_shape(rng), rng.choice(DATAFLOWS), stall=0.1)
        await bench.start()
        await bench.finish()
