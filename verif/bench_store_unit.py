"""Bench of hw/store_unit.py: what its jobs and beats write, for rows that begin and end anywhere."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.store_unit import StoreUnit
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start, to_fields

# Results wider than the bus, as wide, and narrower.
CASES = [
    {"bus_bits": 64, "address_bits": 32, "tile_m": 4, "tile_n": 8, "sums": 4},
    {"bus_bits": 256, "address_bits": 40, "tile_m": 8, "tile_n": 16, "sums": 8},
    {"bus_bits": 512, "address_bits": 32, "tile_m": 4, "tile_n": 12, "sums": 4},
    {"bus_bits": 32, "address_bits": 33, "tile_m": 4, "tile_n": 8, "sums": 8},
    {"bus_bits": 128, "address_bits": 64, "tile_m": 2, "tile_n": 6, "sums": 2},
    {"bus_bits": 128, "address_bits": 32, "tile_m": 6, "tile_n": 24, "sums": 8},
]


def component(p: dict[str, Any]) -> StoreUnit:
    return StoreUnit(**p)


def words() -> int:
    """32-bit words in a beat of the bus."""
    return int(parameters()["bus_bits"]) // 32


class Row:
    """A row of an output tile: ``values`` go to memory from word number ``first`` on."""

    def __init__(self, tile: int, first: int, values: list[int]) -> None:
        self.tile, self.first, self.values = tile, first, values
        self.beats = [*range(first // words(), (first + len(values) - 1) // words() + 1)]

    def results(self, sums: int, last: bool, rng: random.Random) -> list[dict[str, Any]]:
        """As beats of results; what does not count is noise."""
        parts = [self.values[i : i + sums] for i in range(0, len(self.values), sums)]
        return [
            {
                "sums": part + [rng.getrandbits(32) for _ in range(sums - len(part))],
                "count": len(part),
                "last_of_row": int(part is parts[-1]),
                "last": int(last and part is parts[-1]),
            }
            for part in parts
        ]

    def pieces(self, sums: int) -> int:
        """Cycles at the rate of the narrower of results and bus; one more if it ends with a spilt beat.

        It does if the last piece belongs to two beats.
        """
        size = min(sums, words())
        cycles = -(-len(self.values) // size)
        last = self.first + (cycles - 1) * size
        return cycles + int(last // words() != (self.first + len(self.values) - 1) // words())


class Bench:
    """Y of (m, n) from word ``first`` of the memory on, its rows ``stride`` words apart."""

    def __init__(
        self,
        dut: Any,
        m: int,
        n: int,
        first: int,
        stride: int,
        *,
        stall: float = 0.0,
        jobs: float = 0.0,
        beats: float = 0.0,
    ) -> None:
        self.dut, self.p = dut, parameters()
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {m} {n} {first} {stride}")
        block = component(self.p)
        self.results = Source(dut, "results", block.results.payload.shape(), stall=stall)
        self.jobs = Sink(dut, "jobs", block.jobs.payload.shape(), stall=jobs)
        self.beats = Sink(dut, "beats", block.beats.payload.shape(), stall=beats)
        self.inputs = {"m": m, "n": n, "address": 4 * first, "stride": 4 * stride}
        tile_m, tile_n = self.p["tile_m"], self.p["tile_n"]
        self.y = [[rng.getrandbits(32) for _ in range(n)] for _ in range(m)]
        self.memory = {first + i * stride + j: self.y[i][j] for i in range(m) for j in range(n)}
        corners = [(top, left) for top in range(0, m, tile_m) for left in range(0, n, tile_n)]
        self.rows = [
            Row(tile, first + i * stride + left, self.y[i][left : left + tile_n])
            for tile, (top, left) in enumerate(corners)
            for i in range(top, min(top + tile_m, m))
        ]
        self.tiles: list[int] = []  # of each beat of results
        for row in self.rows:
            results = row.results(self.p["sums"], row is self.rows[-1], rng)
            self.results.send(results)
            self.tiles += [row.tile] * len(results)
        self.most_beats = sum(len(row.beats) for row in self.rows)
        self.task = cocotb.start_soon(self.watch())

    async def begin(self) -> None:
        await FallingEdge(self.dut.clk)
        for name, value in self.inputs.items():
            getattr(self.dut, name).value = value
        self.dut.start.value = 1
        await FallingEdge(self.dut.clk)
        self.dut.start.value = 0

    async def watch(self) -> None:
        """In every cycle: a job is on offer only if its tile has begun; a beat, only if its job was taken."""
        dut, results, jobs, beats = self.dut, 0, 0, 0
        begun = -1  # the tile whose results are on offer, or were
        promised = 0  # beats of the jobs that were taken
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            if dut.results__valid.value == 1:
                begun = self.tiles[results]
                results += int(dut.results__ready.value)
            assert dut.done.value == (beats == self.most_beats)
            if dut.beats__valid.value == 1:
                assert beats < promised
                beats += int(dut.beats__ready.value)
            if dut.jobs__valid.value == 1:
                assert self.rows[jobs].tile <= begun, f"job {jobs} is early"
                if dut.jobs__ready.value == 1:
                    promised += len(self.rows[jobs].beats)
                    jobs += 1

    def stop(self) -> None:
        self.task.cancel()
        self.results.stop()
        self.jobs.stop()
        self.beats.stop()

    def written(self) -> dict[int, int]:
        """The memory, by word, after the jobs with their beats; no word may be written twice."""
        memory: dict[int, int] = {}
        beats = iter(self.beats.received)
        for job in self.jobs.received:
            first = job["address"] // 4 // words() * words()
            for beat in range(job["beats"]):
                payload = next(beats)
                for word in range(words()):
                    if payload["strobes"] >> word & 1:
                        place = first + beat * words() + word
                        assert place not in memory
                        memory[place] = payload["data"] >> 32 * word & (1 << 32) - 1
        return memory

    async def finish(self, limit: int = 20_000) -> None:
        counts = len(self.rows), self.most_beats
        await quiet(self.dut, self.jobs, self.beats, expected=counts, limit=1 + limit, after=8)
        bus_bytes = 4 * words()
        spans = [(job["address"] // bus_bytes, job["beats"]) for job in self.jobs.received]
        assert spans == [(row.beats[0], len(row.beats)) for row in self.rows]
        assert self.written() == self.memory
        assert self.results.idle and self.dut.done.value == 1
        self.stop()
        await reset(self.dut)


def some_layer(rng: random.Random) -> tuple[int, int, int, int]:
    """(m, n, first, stride): up to three tiles each way, with any gap between rows, or none."""
    p = parameters()
    m, n = rng.randint(1, 2 * p["tile_m"] + 1), rng.randint(1, 3 * p["tile_n"])
    stride = n + rng.choice([0, 0, rng.randrange(2 * words()), rng.randrange(1 << 20)])
    size = (m - 1) * stride + n
    space = 1 << p["address_bits"] - 2
    return m, n, rng.choice([rng.randrange(space - size), space - size]), stride


@cocotb.test(timeout_time=500, timeout_unit="us")
async def places_rows_of_every_length_everywhere(dut: Any) -> None:
    """Each length of a row from each word of a beat on; the other rows of a layer lie as the stride wants."""
    await start(dut, component(parameters()))
    p = parameters()
    rng = random.Random(cocotb.RANDOM_SEED)
    for n in range(1, p["tile_n"] + 1):
        for offset in range(words()):
            first = rng.randrange(1 << 16) * words() + offset
            bench = Bench(dut, p["tile_m"] + 1, n, first, n + rng.randrange(words()))
            await bench.begin()
            await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(stall=STALLS, jobs=STALLS, beats=STALLS)
async def stores_layers(dut: Any, stall: float, jobs: float, beats: float) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {jobs} {beats}")
    for _ in range(2):
        bench = Bench(dut, *some_layer(rng), stall=stall, jobs=jobs, beats=beats)
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(columns=["short", "ragged", "full"])
async def stores_at_the_rate_of_the_narrower_side(dut: Any, columns: str) -> None:
    """A cycle more for each row that spills into a beat of its own, and for the first job of each tile."""
    await start(dut, component(parameters()))
    p = parameters()
    n = {"short": min(p["sums"], words()), "ragged": 2 * p["tile_n"] - 1, "full": 2 * p["tile_n"]}[columns]
    for first, stride in ((0, 4 * words() * p["tile_n"]), (words() - 1, 3 * p["tile_n"] + 1)):
        bench = Bench(dut, 2 * p["tile_m"], n, first, stride)
        await bench.begin()
        cycles = sum(row.pieces(p["sums"]) for row in bench.rows) + bench.rows[-1].tile + 1
        await ClockCycles(dut.clk, cycles)
        await bench.finish(limit=1)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def needs_no_job_ahead_of_its_beats(dut: Any) -> None:
    """A taker that takes a job, then its beats, then the next job, gets everything."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for _ in range(3):
        bench = Bench(dut, *some_layer(rng), stall=0.2)
        bench.jobs.stop()
        bench.beats.stop()
        await bench.begin()
        for row in bench.rows:
            await take(dut, "jobs", bench.jobs.received)
            for _ in row.beats:
                await take(dut, "beats", bench.beats.received)
        await bench.finish(limit=1)


async def take(dut: Any, name: str, received: list[Any]) -> None:
    """One payload from stream ``name``; ready comes after valid."""
    layout = getattr(component(parameters()), name).payload.shape()
    await ReadOnly()
    while not getattr(dut, f"{name}__valid").value:
        await FallingEdge(dut.clk)
        await ReadOnly()
    received.append(to_fields(layout, int(getattr(dut, f"{name}__payload").value)))
    await FallingEdge(dut.clk)
    getattr(dut, f"{name}__ready").value = 1
    await FallingEdge(dut.clk)
    getattr(dut, f"{name}__ready").value = 0


@cocotb.test(timeout_time=500, timeout_unit="us")
async def promises_nothing_without_results(dut: Any) -> None:
    """No job before the first result; then those of its tile, and none of the next tile."""
    await start(dut, component(parameters()))
    p = parameters()
    rows = min(3, p["tile_m"])
    bench = Bench(dut, rows, 2 * p["tile_n"], 5, 2 * p["tile_n"], stall=1.0)
    await bench.begin()
    await ClockCycles(dut.clk, 50)
    assert not bench.jobs.received and not bench.beats.received
    bench.results.stall = 0.0
    while bench.results.sent < bench.tiles.index(1):
        await FallingEdge(dut.clk)
        bench.results.stall = float(bench.results.sent >= bench.tiles.index(1) - 1)
    await ClockCycles(dut.clk, 50)
    assert len(bench.jobs.received) == rows
    assert len(bench.beats.received) == sum(len(row.beats) for row in bench.rows[:rows])
    bench.results.stall = 0.5
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def marks_rows_past_the_space(dut: Any) -> None:
    """The job of a row behind the end of the space has an address behind it; its rows before are stored."""
    await start(dut, component(parameters()))
    p = parameters()
    n, space = p["tile_n"], 1 << p["address_bits"] - 2
    bench = Bench(dut, 2, n, space - n, n)
    await bench.begin()
    await ClockCycles(dut.clk, 100)
    assert [job["address"] for job in bench.jobs.received] == [4 * (space - n), 4 * space]
    assert bench.written() == bench.memory
    bench.stop()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    p = parameters()
    for stall in (0.0, 0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 1.0):
        m, n = 2 * p["tile_m"], 2 * p["tile_n"] - 1
        bench = Bench(dut, m, n, 3, n + 2, stall=0.1, jobs=stall, beats=stall)
        await bench.begin()
        await ClockCycles(dut.clk, rng.randrange(2, 60))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, *some_layer(rng), stall=0.2, beats=0.2)
        await bench.begin()
        await bench.finish()
