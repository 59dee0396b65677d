"""Bench of hw/image_writer.py: what its jobs and beats write, against the images that the model packs."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.hw.image_writer import ImageWriter
from sliceforge.verif.output_layer import OutputLayer
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Sink, Source, quiet, reset, start

# Ways fewer than lanes, as many, more; load beats as wide as the bus and wider; tile_k below tile_m or above.
CASES = [
    {"lanes": 2, "vector": 4, "pea_count": 2, "tile_k": 16, "run_bits": 2, "bus_bits": 32},  # 2 parts
    {"lanes": 3, "vector": 2, "pea_count": 5, "tile_k": 8, "run_bits": 1, "bus_bits": 128},
    {"lanes": 6, "vector": 8, "pea_count": 2, "tile_k": 12, "run_bits": 8, "bus_bits": 256,
     "address_bits": 64},
]  # fmt: skip


def configuration(p: dict[str, Any]) -> AcceleratorConfig:
    return AcceleratorConfig(name="bench", max_k=256, **p)


def component(p: dict[str, Any]) -> ImageWriter:
    config = configuration(p)
    return ImageWriter(
        layout=config.activation_layout, banks=config.lanes, ways=config.load_ways,
        sums=config.vector * config.result_lanes, tile_m=config.tile_m,
        bus_bits=config.bus_bits, address_bits=config.address_bits,
    )  # fmt: skip


class Bench:
    """Runs a layer (`OutputLayer`); stalls: of tiles and values, of jobs, of beats."""

    def __init__(
        self,
        dut: Any,
        shapes: list[tuple[int, int]],
        *,
        k_tile: int = 0,
        lo_bits: int = 4,
        sparsity: float = 0.5,
        stalls: tuple[float, float, float] = (0.0, 0.0, 0.0),
        top: str = "",
    ) -> None:
        self.dut, self.config = dut, configuration(parameters())
        self.layer = OutputLayer(
            f"{cocotb.RANDOM_SEED} {shapes} {k_tile} {lo_bits} {sparsity} {stalls}", self.config, shapes,
            k_tile=k_tile or self.config.tile_k, lo_bits=lo_bits, sparsity=sparsity, top=top,
        )  # fmt: skip
        for name in ("k_tile", "lo_bits", "frequent"):
            getattr(dut, name).value = getattr(self.layer, name)
        block = component(parameters())
        self.tiles = Source(dut, "tiles", block.tiles.payload.shape(), stall=stalls[0])
        self.values = Source(dut, "values", block.values.payload.shape(), stall=stalls[0])
        self.jobs = Sink(dut, "jobs", block.jobs.payload.shape(), stall=stalls[1])
        self.beats = Sink(dut, "beats", block.beats.payload.shape(), stall=stalls[2])
        self.tiles.send(self.layer.tiles)
        self.values.send(self.layer.values)
        self.filled = 0  # cycle in which the first image's last value was taken
        self.starts: list[int] = []  # cycle in which each job was
        self.ends: list[int] = []  # and in which its last beat was
        self.task = cocotb.start_soon(self.watch())

    async def watch(self) -> None:
        """In every cycle: a job comes only when its image is complete; its beats follow without a pause."""
        dut, layer = self.dut, self.layer
        cycle = values = beats = promised = 0
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            cycle += 1
            assert dut.done.value == (beats == layer.beats)
            job = len(self.starts)
            if dut.jobs__valid.value == 1:
                assert layer.needs[job] <= values, f"job {job} is early"
            assert dut.beats__valid.value == (beats < promised), f"beat {beats} is early or late"
            if dut.beats__valid.value == 1 and dut.beats__ready.value == 1:
                beats += 1
                if beats == promised:
                    self.ends.append(cycle)
            if dut.jobs__valid.value == 1 and dut.jobs__ready.value == 1:
                assert beats == promised, f"job {job} is early"
                promised += layer.spans[job][1]
                self.starts.append(cycle)
            if dut.values__valid.value == 1 and dut.values__ready.value == 1:
                values += 1
                if values == layer.needs[0]:
                    self.filled = cycle

    def written(self) -> dict[int, int]:
        """The memory, by byte, after the jobs with their beats; no byte may be written twice."""
        memory: dict[int, int] = {}
        beats, bus_bytes = iter(self.beats.received), self.config.bus_bits // 8
        for job in self.jobs.received:
            first = job["address"] // bus_bytes * bus_bytes
            for beat in range(job["beats"]):
                payload = next(beats)
                for byte in range(bus_bytes):
                    if payload["strobes"] >> byte // 4 & 1:
                        place = first + beat * bus_bytes + byte
                        assert place not in memory
                        memory[place] = payload["data"] >> 8 * byte & 255
        return memory

    def stop(self) -> None:
        self.task.cancel()
        for driver in (self.tiles, self.values, self.jobs, self.beats):
            driver.stop()

    async def finish(self) -> None:
        expected = len(self.layer.spans), self.layer.beats
        await quiet(self.dut, self.jobs, self.beats, expected=expected, after=8)
        assert [(job["address"], job["beats"]) for job in self.jobs.received] == self.layer.spans
        assert self.written() == self.layer.memory
        assert self.tiles.idle and self.values.idle and self.dut.done.value == 1
        self.stop()
        await reset(self.dut)


def some_layer(rng: random.Random) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """Shapes of tiles, and k_tile: full, with one row or column, or nearly full."""
    config = configuration(parameters())
    rows, columns = config.tile_m, config.tile_n
    shapes = [
        (rng.choice([rows, rows, 1, rows - 1, rng.randint(1, rows)]),
         rng.choice([columns, columns, 1, columns - 1, rng.randint(1, columns)]))
        for _ in range(rng.randint(1, 3))
    ]  # fmt: skip
    k_tile = rng.choice([config.tile_k, config.tile_k, rng.randint(1, config.tile_k)])
    return shapes, {"k_tile": k_tile, "lo_bits": rng.choice([4, 5, 6])}


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(
    (
        ("stalls", "sparsity"),
        [((0, 0, 0), 0.0), ((0, 0, 0), 0.97), ((0.2, 0.2, 0.2), 0.6), ((0.8, 0.8, 0.8), 0.6),
         ((0.8, 0, 0), 1.0), ((0, 0.8, 0.2), 0.97), ((0, 0, 0.8), 0.0)],
    )
)  # fmt: skip
async def writes_layers(dut: Any, stalls: tuple[float, float, float], sparsity: float) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stalls} {sparsity}")
    for _ in range(2):
        shapes, settings = some_layer(rng)
        await Bench(dut, shapes, sparsity=sparsity, stalls=stalls, **settings).finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(lo_bits=[4, 5, 6])
async def cuts_tiles_anywhere(dut: Any, lo_bits: int) -> None:
    """Images of one row, of nearly as many as a tile has, and of as many as a memory's tile has."""
    await start(dut, component(parameters()))
    config = configuration(parameters())
    shapes = [(config.tile_m - 1, 1), (config.tile_m, config.tile_n), (1, config.tile_n)]
    for k_tile in {1, 3, min(config.tile_m, config.tile_k) - 1, config.tile_k - 1, config.tile_k}:
        await Bench(dut, shapes, k_tile=k_tile, lo_bits=lo_bits, sparsity=0.8).finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(sparsity=[0.0, 0.9, 1.0])
@cocotb.parametrize(waits=[False, True])
async def keeps_the_rate(dut: Any, sparsity: float, waits: bool) -> None:
    """Values are taken at once while a half is free; an image takes its beats and a few cycles."""
    await start(dut, component(parameters()))
    config = configuration(parameters())
    rows = max(1, config.tile_m // config.tile_k) * min(config.tile_m, config.tile_k)  # whole images
    bench = Bench(dut, [(rows, config.tile_n)] * 3, sparsity=sparsity)
    depth = -(-config.lanes // config.load_ways)
    arrives = min(rows, config.tile_k) * config.lanes // config.result_lanes
    if waits:  # both halves are full, or all is there, when the first job is taken
        bench.jobs.stall = 1.0
        await ClockCycles(dut.clk, 3 * arrives + 20)
        bench.jobs.stall = 0.0
    # The slower side of each image, the lengths, and once the image that the other side is ahead.
    leaves = [beats + 4 + depth for _, beats in bench.layer.spans if beats > 1]
    limit = sum(max(arrives, cycles) for cycles in leaves) + 3 * 2 + max(leaves)
    await bench.finish()
    images = [end - begin for begin, end in zip(bench.starts, bench.ends, strict=True) if end - begin > 1]
    assert images == [beats for _, beats in bench.layer.spans if beats > 1]
    total = bench.ends[-1] - bench.starts[0] + 1
    dut._log.info(
        f"images from job to last beat {images}, of {bench.layer.beats} beats; "
        f"{total} cycles from first job to last beat, which leaves in cycle {bench.ends[-1]}"
    )
    assert total <= limit and (waits or bench.starts[0] - bench.filled == 4 + depth)
    assert waits or bench.values.refused == 0 or max(leaves) + 3 > arrives


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(missing=["tile", "value", "all but an image"])
async def promises_nothing_that_may_not_come(dut: Any, missing: str) -> None:
    """No job without the tile, or the last value of its first image; that image's beats need no others."""
    await start(dut, component(parameters()))
    config = configuration(parameters())
    shapes = [(config.tile_m, config.tile_n)] * 2
    bench = Bench(dut, shapes, k_tile=min(config.tile_k, config.tile_m - 1))
    needed = bench.layer.needs[0]
    if missing == "tile":
        bench.tiles.stall = 1.0
    else:
        enough = needed - (2 if missing == "value" else 1)  # one more may be on offer by now
        while bench.values.sent < enough or not bench.tiles.sent:
            await FallingEdge(dut.clk)
        bench.tiles.stall = bench.values.stall = 1.0
    await ClockCycles(dut.clk, 50 + needed + bench.layer.spans[0][1])
    expected = bench.layer.spans[:1] if missing == "all but an image" else []
    assert [(job["address"], job["beats"]) for job in bench.jobs.received] == expected
    assert len(bench.beats.received) == sum(beats for _, beats in expected)
    bench.tiles.stall = bench.values.stall = 0.0
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reaches_the_end_of_the_space_and_marks_what_is_past_it(dut: Any) -> None:
    await start(dut, component(parameters()))
    config = configuration(parameters())
    await Bench(dut, [(1, 1), (config.tile_m, config.tile_n)], top="ends").finish()
    await Bench(dut, [(config.tile_m, config.tile_n)], top="begins").finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(
    (("share", "stall"), [(0.0, 0.0), (0.2, 0.5), (0.5, 0.0), (0.5, 1.0), (0.9, 0.5), (1.0, 1.0)])
)
async def starts_again_after_a_reset(dut: Any, share: float, stall: float) -> None:
    """After a share of the values, with beats going out; with both halves full."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {share} {stall}")
    config = configuration(parameters())
    bench = Bench(dut, [(config.tile_m, config.tile_n)] * 2, stalls=(0.1, stall, stall))
    while bench.values.sent < share * len(bench.layer.values) and bench.values.refused < 20:
        await FallingEdge(dut.clk)
    await ClockCycles(dut.clk, rng.randrange(1, 20))
    bench.stop()
    await reset(dut)
    shapes, settings = some_layer(rng)
    await Bench(dut, shapes, stalls=(0.2, 0.0, 0.2), **settings).finish()
