"""Bench of hw/image_writer.py: what its jobs and beats write, against the images that the model packs."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.hw.image_writer import ImageWriter
from sliceforge.sim.images import activation_images
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start

# Ways fewer than lanes, as many, more; load beats as wide as the bus and wider; k-tiles within a tile and not.
CASES = [
    {"lanes": 2, "vector": 4, "pea_count": 2, "tile_k": 16, "run_bits": 2, "bus_bits": 64},
    {"lanes": 16, "vector": 4, "pea_count": 16, "tile_k": 32, "run_bits": 4, "bus_bits": 256},  # panacea
    {"lanes": 3, "vector": 2, "pea_count": 5, "tile_k": 8, "run_bits": 1, "bus_bits": 128},
    {"lanes": 6, "vector": 8, "pea_count": 2, "tile_k": 12, "run_bits": 3, "bus_bits": 256, "address_bits": 40},
    {"lanes": 5, "vector": 8, "pea_count": 2, "tile_k": 16, "run_bits": 8, "bus_bits": 32},  # 4 parts
    {"lanes": 1, "vector": 4, "pea_count": 5, "tile_k": 16, "run_bits": 4, "bus_bits": 256},
    {"lanes": 4, "vector": 2, "pea_count": 3, "tile_k": 8, "run_bits": 2, "bus_bits": 256},
    {"lanes": 6, "vector": 2, "pea_count": 7, "tile_k": 4, "run_bits": 1, "bus_bits": 128, "address_bits": 64},
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
    """A layer of output tiles ``shapes`` (rows, columns), each with its region and its length's word.

    Of the HO vectors a share ``sparsity`` is compressed. ``top``: the last region "ends" or "begins" where
    the space of addresses ends.
    """

    def __init__(
        self,
        dut: Any,
        shapes: list[tuple[int, int]],
        *,
        k_tile: int | None = None,
        lo_bits: int = 4,
        sparsity: float = 0.5,
        stalls: tuple[float, float, float] = (0.0, 0.0, 0.0),
        top: str = "",
    ) -> None:
        self.dut, self.config = dut, configuration(parameters())
        self.seed = f"{cocotb.RANDOM_SEED} {shapes} {k_tile} {lo_bits} {sparsity} {stalls}"
        self.rng, self.numbers = random.Random(self.seed), np.random.default_rng([*self.seed.encode()])
        block = component(parameters())
        self.sums = block.parameters["sums"]
        self.lo_bits, self.k_tile = lo_bits, k_tile or self.config.tile_k
        self.frequent = self.rng.randrange(1 << 8 - lo_bits)
        dut.lo_bits.value, dut.frequent.value, dut.k_tile.value = lo_bits, self.frequent, self.k_tile
        self.tiles = Source(dut, "tiles", block.tiles.payload.shape(), stall=stalls[0])
        self.values = Source(dut, "values", block.values.payload.shape(), stall=stalls[0])
        self.jobs = Sink(dut, "jobs", block.jobs.payload.shape(), stall=stalls[1])
        self.beats = Sink(dut, "beats", block.beats.payload.shape(), stall=stalls[2])
        self.memory: dict[int, int] = {}  # by byte
        self.spans: list[tuple[int, int]] = []  # address and bus beats of each job
        self.needs: list[int] = []  # beats of values before each job
        self.value_beats = 0
        address = self.rng.randrange(1 << 16) * self.config.load_beat_bytes
        for tile, (rows, columns) in enumerate(shapes):
            x = self.outputs(rows, columns, sparsity)
            images = self.images(x)
            size = self.config.load_beat_bytes + sum(image.nbytes for image in images)
            if top and tile == len(shapes) - 1:
                address = (1 << self.config.address_bits) - (size if top == "ends" else 0)
            self.send(x, tile == len(shapes) - 1)
            self.place(rows, columns, images, address, size)
            address += size + self.rng.randrange(3) * self.config.load_beat_bytes
        self.total_beats = sum(beats for _, beats in self.spans)
        self.cycle = self.first_job = self.last_beat = 0
        self.task = cocotb.start_soon(self.watch())

    def outputs(self, rows: int, columns: int, sparsity: float) -> Any:
        v, groups = self.config.vector, -(-columns // self.config.vector)
        low = self.numbers.integers(0, 1 << self.lo_bits, (rows, groups, v))
        x = np.where(
            self.numbers.random((rows, groups, 1)) < sparsity,
            (self.frequent << self.lo_bits) + low,
            self.numbers.integers(0, 256, (rows, groups, v)),
        )
        return x.reshape(rows, groups * v)[:, :columns]

    def images(self, x: Any) -> list[Any]:
        """Each k-tile's image, cut here: `activation_images` cuts at tile_k only."""
        zero_point = self.frequent << self.lo_bits
        cuts = [x[first : first + self.k_tile] for first in range(0, len(x), self.k_tile)]
        made = [
            activation_images(cut, zero_point=zero_point, lo_bits=self.lo_bits, config=self.config).images
            for cut in cuts
        ]
        assert all(len(rows) == 1 and len(rows[0]) == 1 for rows in made)
        return [rows[0][0] for rows in made]

    def send(self, x: Any, last: bool) -> None:
        """The tile's values; what does not count is noise."""
        for row, values in enumerate(x.tolist()):
            for first in range(0, len(values), self.sums):
                part = values[first : first + self.sums]
                row_ends = first + self.sums >= len(values)
                tile_ends = row_ends and row == len(x) - 1
                noise = [self.rng.randrange(256) for _ in range(self.sums - len(part))]
                self.values.send([{
                    "values": part + noise, "count": len(part), "last_of_row": int(row_ends),
                    "last_of_tile": int(tile_ends), "last": int(tile_ends and last),
                }])  # fmt: skip
                self.value_beats += 1
            if (row + 1) % self.k_tile == 0 or row == len(x) - 1:
                self.needs.append(self.value_beats)
        self.needs.append(self.value_beats)  # the length's job

    def place(self, rows: int, columns: int, images: list[Any], address: int, size: int) -> None:
        """The tile's region; its length goes to a word of the header, or somewhere else."""
        load_bytes = self.config.load_beat_bytes
        length_address = self.rng.choice([address, address ^ 1 << 31]) + 4 * self.rng.randrange(load_bytes // 4)
        addresses = {"address": address, "length_address": length_address}
        self.tiles.send([{"rows": rows, "columns": columns, **addresses}])
        at = address + load_bytes
        for image in images:
            self.spans.append((at, image.nbytes * 8 // self.config.bus_bits))
            self.memory |= {at + i: int(byte) for i, byte in enumerate(image.tobytes())}
            at += image.nbytes
        self.spans.append((length_address, 1))
        self.memory |= {length_address + i: (size // load_bytes) >> 8 * i & 255 for i in range(4)}

    async def watch(self) -> None:
        """In every cycle: a job is on offer only when its image is complete; a beat, only if its job was."""
        dut, values, jobs, beats, promised = self.dut, 0, 0, 0, 0
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            self.cycle += 1
            assert dut.done.value == (beats == self.total_beats)
            if dut.jobs__valid.value == 1:
                assert self.needs[jobs] <= values, f"job {jobs} is early"
                self.first_job = self.first_job or self.cycle
            if dut.beats__valid.value == 1:
                assert beats < promised, f"beat {beats} is early"
                beats += int(dut.beats__ready.value)
                self.last_beat = self.cycle
            if dut.jobs__valid.value == 1 and dut.jobs__ready.value == 1:
                promised += self.spans[jobs][1]
                jobs += 1
            values += int(dut.values__valid.value == 1 and dut.values__ready.value == 1)

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
        counts = len(self.spans), self.total_beats
        await quiet(self.dut, self.jobs, self.beats, expected=counts, limit=100_000, after=8)
        assert [(job["address"], job["beats"]) for job in self.jobs.received] == self.spans
        assert self.written() == self.memory
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
@cocotb.parametrize(stalls=[*((s, s, s) for s in STALLS), (0.8, 0, 0), (0, 0.8, 0.2), (0, 0, 0.8)])
@cocotb.parametrize(sparsity=[0.0, 0.6, 0.97, 1.0])
async def writes_layers(dut: Any, stalls: tuple[float, float, float], sparsity: float) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stalls} {sparsity}")
    for _ in range(2):
        shapes, settings = some_layer(rng)
        bench = Bench(dut, shapes, sparsity=sparsity, stalls=stalls, **settings)
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(lo_bits=[4, 5, 6])
async def cuts_tiles_anywhere(dut: Any, lo_bits: int) -> None:
    """Images of one row, of nearly as many as a tile has, and of as many as a memory's tile has."""
    await start(dut, component(parameters()))
    config = configuration(parameters())
    whole = config.tile_m, config.tile_n
    for k_tile in {1, 3, min(config.tile_m, config.tile_k) - 1, config.tile_k - 1, config.tile_k}:
        shapes = [(config.tile_m - 1, 1), whole, (1, config.tile_n)]
        bench = Bench(dut, shapes, k_tile=k_tile, lo_bits=lo_bits, sparsity=0.8)
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(sparsity=[0.0, 0.9])
async def writes_at_the_rate_of_the_slower_side(dut: Any, sparsity: float) -> None:
    """An image takes as long as its values, or as its beats and the cycles between images."""
    await start(dut, component(parameters()))
    config = configuration(parameters())
    rows = max(1, config.tile_m // config.tile_k) * min(config.tile_m, config.tile_k)  # whole images
    bench = Bench(dut, [(rows, config.tile_n)] * 3, sparsity=sparsity)
    depth = -(-config.lanes // config.load_ways)
    arrives = min(rows, config.tile_k) * config.lanes // config.result_lanes
    leaves = [beats + (1 if beats == 1 else 2 * depth + 4) for _, beats in bench.spans]
    limit = sum(max(arrives * (beats > 2), beats) for beats in leaves) + max(leaves)
    await bench.finish()
    dut._log.info(f"first job to last beat {bench.last_beat - bench.first_job + 1} cycles, limit {limit}")
    assert bench.last_beat - bench.first_job < limit
    assert bench.values.refused == 0 or max(leaves) + 3 > arrives


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(missing=["tile", "value"])
async def promises_nothing_that_may_not_come(dut: Any, missing: str) -> None:
    """No job while the tile is not here, or the last value of its first image."""
    await start(dut, component(parameters()))
    config = configuration(parameters())
    bench = Bench(dut, [(config.tile_m, config.tile_n)], k_tile=min(config.tile_k, config.tile_m - 1))
    if missing == "tile":
        bench.tiles.stall = 1.0
    else:
        while bench.values.sent < bench.needs[0] - 2:  # one more may be on offer by now
            await FallingEdge(dut.clk)
        bench.values.stall = 1.0
    await ClockCycles(dut.clk, 50 + bench.needs[0])
    assert not bench.jobs.received and not bench.beats.received
    bench.tiles.stall = bench.values.stall = 0.0
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reaches_the_end_of_the_space_and_marks_what_is_past_it(dut: Any) -> None:
    await start(dut, component(parameters()))
    config = configuration(parameters())
    await Bench(dut, [(1, 1), (config.tile_m, config.tile_n)], top="ends").finish()
    await Bench(dut, [(config.tile_m, config.tile_n)], top="begins").finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    config = configuration(parameters())
    shapes = [(config.tile_m, config.tile_n)] * 2
    for stall in (0.0, 0.1, 0.5, 0.8, 1.0):
        bench = Bench(dut, shapes, stalls=(0.1, stall, stall))
        await ClockCycles(dut.clk, rng.randrange(2, 40) if stall < 0.5 else 2 * bench.needs[0])
        bench.stop()
        await reset(dut)
        some, settings = some_layer(rng)
        await Bench(dut, some, stalls=(0.2, 0.0, 0.2), **settings).finish()
