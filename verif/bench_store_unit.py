"""Bench of hw/store_unit.py: what its jobs and beats write, for rows that begin and end anywhere."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.store_unit import StoreUnit
from sliceforge.verif.psum_layers import DATAFLOWS, Layer, output_rows, some_layer
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start, to_fields, to_int


def case(bus_bits: int, address_bits: int, tile_m: int, tile_n: int, sums: int) -> dict[str, int]:
    full = tile_m * tile_n
    return {
        "bus_bits": bus_bits, "address_bits": address_bits, "tile_m": tile_m, "tile_n": tile_n, "sums": sums,
        "k_bits": 6, "full_words": full, "narrow_words": full // sums * max(1, sums // 4),
    }  # fmt: skip


# Results wider than the bus, as wide, and narrower.
CASES = [
    case(64, 32, 4, 8, 4),
    case(256, 40, 8, 16, 8),
    case(512, 32, 4, 12, 4),
    case(32, 33, 4, 8, 8),
    case(128, 64, 2, 6, 2),
]


def component(p: dict[str, Any]) -> StoreUnit:
    return StoreUnit(**p)


def words() -> int:
    """32-bit words in a beat of the bus."""
    return int(parameters()["bus_bits"]) // 32


class Row:
    """A row of an output tile, or a tile of partial sums: ``values`` go to memory from word ``first`` on.

    size : words of a beat of results that count, but in a row's last one.
    """

    def __init__(self, row: dict[str, int], size: int, values: list[int]) -> None:
        self.tile, self.is_psum, self.first = row["tile"], row["is_psum"], row["address"] // 4
        self.size, self.values = size, values
        first = self.first
        self.beats = [*range(first // words(), (first + len(values) - 1) // words() + 1)]
        self.memory = {first + i: value for i, value in enumerate(values)}

    def results(self, sums: int, last: bool, rng: random.Random) -> list[dict[str, Any]]:
        """As beats of results; of Y, what does not count is noise, of partial sums 0."""
        parts = [self.values[i : i + self.size] for i in range(0, len(self.values), self.size)]
        return [
            {
                "sums": part + [0 if self.is_psum else rng.getrandbits(32) for _ in range(sums - len(part))],
                "count": len(part),
                "is_psum": self.is_psum,
                "last_of_row": int(part is parts[-1]),
                "last": int(last and part is parts[-1]),
            }
            for part in parts
        ]

    def pieces(self) -> int:
        """Cycles at the rate of the narrower of results and bus; one more if it ends with a spilt beat.

        It does if the last piece belongs to two beats.
        """
        size = min(self.size, words())
        cycles = -(-len(self.values) // size)
        last = self.first + (cycles - 1) * size
        return cycles + int(last // words() != (self.first + len(self.values) - 1) // words())


class Bench:
    """Y from word ``first`` of the memory on, its rows ``stride`` words apart; partial sums from ``psums`` on,
    at the start of a beat of the bus, or None."""

    def __init__(
        self,
        dut: Any,
        layer: Layer,
        first: int,
        stride: int,
        *,
        psums: int | None = None,
        stall: float = 0.0,
        jobs: float = 0.0,
        beats: float = 0.0,
    ) -> None:
        self.dut, self.p = dut, parameters()
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {layer} {first} {stride}")
        block = component(self.p)
        self.results = Source(dut, "results", block.results.payload.shape(), stall=stall)
        self.jobs = Sink(dut, "jobs", block.jobs.payload.shape(), stall=jobs)
        self.beats = Sink(dut, "beats", block.beats.payload.shape(), stall=beats)
        psum_address = None if psums is None else 4 * psums
        self.inputs = {
            "loops": to_int(block.loops.shape(), layer.loops()),
            "psum_group": layer.group,
            "psum_address": psum_address or 0,
            "psums_resident": int(psums is None),
            "results_stored": 1,
            "address": 4 * first,
            "stride": 4 * stride,
        }
        sums = self.p["sums"]
        self.rows = [
            Row(
                row,
                max(1, sums // 4) if row["is_psum"] and layer.group else sums,
                [rng.getrandbits(32) for _ in range(row["words"])],
            )
            for row in output_rows(layer, self.p, 4 * first, 4 * stride, psum_address)
        ]
        self.tiles: list[int] = []  # of each beat of results
        for row in self.rows:
            results = row.results(sums, row is self.rows[-1], rng)
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

    def cycles(self) -> int:
        """Until the last beat, where nothing stalls."""
        return sum(row.pieces() for row in self.rows) + self.rows[-1].tile + 1

    def written(self) -> list[dict[int, int]]:
        """What each job writes with its beats, by word of the memory."""
        memory: list[dict[int, int]] = []
        beats = iter(self.beats.received)
        for job in self.jobs.received:
            first = job["address"] // 4 // words() * words()
            memory.append({})
            for beat in range(job["beats"]):
                payload = next(beats, {"strobes": 0})
                for word in range(words()):
                    if payload["strobes"] >> word & 1:
                        place = first + beat * words() + word
                        memory[-1][place] = payload["data"] >> 32 * word & (1 << 32) - 1
        return memory

    async def finish(self, limit: int = 20_000) -> None:
        counts = len(self.rows), self.most_beats
        await quiet(self.dut, self.jobs, self.beats, expected=counts, limit=1 + limit, after=8)
        bus_bytes = 4 * words()
        jobs = [(job["address"] // bus_bytes, job["beats"], job["is_psum"]) for job in self.jobs.received]
        assert jobs == [(row.beats[0], len(row.beats), row.is_psum) for row in self.rows]
        assert self.written() == [row.memory for row in self.rows]
        assert self.results.idle and self.dut.done.value == 1
        self.stop()
        await reset(self.dut)


def plain(m: int, n: int) -> Layer:
    """Without partial sums."""
    p = parameters()
    return Layer(p["tile_m"], p["tile_n"], m, 1, n, 1, "OUTPUT_STATIONARY", 1, 0)


def some_places(layer: Layer, rng: random.Random) -> dict[str, Any]:
    """Any gap between rows, or none; partial sums anywhere, or resident."""
    p = parameters()
    stride = layer.n + rng.choice([0, 0, rng.randrange(2 * words()), rng.randrange(1 << 20)])
    size = (layer.m - 1) * stride + layer.n
    space = 1 << p["address_bits"] - 2
    psums = rng.choice([None, rng.randrange(0, space - (1 << 16), words()), 0])
    return {
        "first": rng.choice([rng.randrange(space - size), space - size]),
        "stride": stride,
        "psums": psums,
    }


@cocotb.test(timeout_time=500, timeout_unit="us")
async def places_rows_of_every_length_everywhere(dut: Any) -> None:
    """Each length of a row from each word of a beat on; the other rows of a layer lie as the stride wants."""
    await start(dut, component(parameters()))
    p = parameters()
    rng = random.Random(cocotb.RANDOM_SEED)
    for n in range(1, p["tile_n"] + 1):
        for offset in range(words()):
            first = rng.randrange(1 << 16) * words() + offset
            bench = Bench(dut, plain(2, n), first, n + rng.randrange(words()))
            await bench.begin()
            await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(dataflow=DATAFLOWS, stall=STALLS, beats=STALLS)
async def stores_layers(dut: Any, dataflow: str, stall: float, beats: float) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow} {stall} {beats}")
    layer = some_layer(rng, parameters(), dataflow, rng.randrange(5), steps=rng.randint(1, 4), most=2)
    bench = Bench(
        dut, layer, **some_places(layer, rng), stall=stall, jobs=rng.choice(STALLS), beats=beats
    )  # fmt: skip
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(group=[0, 1, 2, 3, 4])
async def stores_partial_sums(dut: Any, group: int) -> None:
    """In rows of one or several beats of results, at the rate of the narrower side."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {group}")
    layer = some_layer(rng, parameters(), rng.choice(DATAFLOWS), group, steps=group + 2, most=2)
    for stall in (0.0, 0.4):
        bench = Bench(dut, layer, 1, layer.n, psums=1024, stall=stall, jobs=stall, beats=stall)
        await bench.begin()
        await bench.finish(limit=20_000 if stall else bench.cycles())


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(columns=["short", "ragged", "full"])
async def stores_at_the_rate_of_the_narrower_side(dut: Any, columns: str) -> None:
    """A cycle more for each row that spills into a beat of its own, and for the first job of each tile."""
    await start(dut, component(parameters()))
    p = parameters()
    n = {"short": min(p["sums"], words()), "ragged": 2 * p["tile_n"] - 1, "full": 2 * p["tile_n"]}[columns]
    for first, stride in ((0, 4 * words() * p["tile_n"]), (words() - 1, 3 * p["tile_n"] + 1)):
        bench = Bench(dut, plain(2 * p["tile_m"], n), first, stride)
        await bench.begin()
        await bench.finish(limit=bench.cycles())


@cocotb.test(timeout_time=500, timeout_unit="us")
async def needs_no_job_ahead_of_its_beats(dut: Any) -> None:
    """A taker that takes a job, then its beats, then the next job, gets everything."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for group in (0, 3):
        layer = some_layer(rng, parameters(), "INPUT_STATIONARY", group, steps=3, most=2)
        bench = Bench(dut, layer, 5, layer.n + 2, psums=64, stall=0.2)
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
    bench = Bench(dut, plain(rows, 2 * p["tile_n"]), 5, 2 * p["tile_n"], stall=1.0)
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
    bench = Bench(dut, plain(2, n), space - n, n)
    await bench.begin()
    await ClockCycles(dut.clk, 100)
    assert [job["address"] for job in bench.jobs.received] == [4 * (space - n), 4 * space]
    assert bench.written()[0] == bench.rows[0].memory
    bench.stop()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    p = parameters()
    for stall in (0.0, 0.1, 0.2, 0.5, 0.8, 1.0):
        layer = some_layer(rng, p, rng.choice(DATAFLOWS), 2, steps=3, most=2)
        bench = Bench(dut, layer, 3, layer.n + 2, psums=0, stall=0.1, jobs=stall, beats=stall)
        await bench.begin()
        await ClockCycles(dut.clk, rng.randrange(2, 60))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, layer, **some_places(layer, rng), stall=0.2, beats=0.2)
        await bench.begin()
        await bench.finish()
