"""Bench of hw/result_unit.py: every beat of layers in K-chunks; banks and biases are modelled here."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.result_unit import ResultUnit
from sliceforge.verif.psum_layers import DATAFLOWS, Layer, some_layer
from sliceforge.verif.result_layers import ResultLayer
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start
from sliceforge.verif.tiles import join, latency

CASES = [
    {"pea_count": 2, "lanes": 2, "vector": 4, "slots": 2, "result_lanes": 1, "psum_slots": 1, "max_k": 31},
    {"pea_count": 3, "lanes": 4, "vector": 2, "slots": 3, "result_lanes": 4, "psum_slots": 2, "max_k": 31},
    {"pea_count": 2, "lanes": 6, "vector": 8, "slots": 2, "result_lanes": 2, "psum_slots": 2, "max_k": 31},
    {"pea_count": 1, "lanes": 1, "vector": 2, "slots": 2, "result_lanes": 1, "psum_slots": 3, "max_k": 31},
]


def component(p: dict[str, Any]) -> ResultUnit:
    return ResultUnit(**p)


def tile() -> dict[str, int]:
    p = parameters()
    return {"tile_m": p["pea_count"] * p["vector"], "tile_n": p["lanes"] * p["vector"], "k_bits": 5}


def room(group: int) -> int:
    """Tiles of partial sums that may be resident."""
    return int(parameters()["psum_slots"]) * {1: 4, 2: 2}.get(group, 1)


def plain(m: int, n: int, steps: int = 1, group: int = 0) -> Layer:
    size = tile()
    return Layer(size["tile_m"], size["tile_n"], m, steps, n, 1, "OUTPUT_STATIONARY", 1, group)


class Bench:
    """A layer: its tiles, one bank a PEA, which each gets its part of a tile some time, biases, and memory.

    What a bank does not hold, not yet or not any more, reads as noise, and so do biases.
    """

    def __init__(
        self, dut: Any, layer: Layer, *, resident: bool = True, stall: float = 0.0, late: float = 0.0
    ) -> None:
        self.dut, self.p, self.late = dut, parameters(), late
        p, block = self.p, component(parameters())
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {layer} {late} {resident}")
        self.width = p["vector"] * p["result_lanes"]  # sums in a beat
        self.layer = ResultLayer(layer, self.width, rng)
        self.tile_n = layer.tile_n
        self.sources = {
            name: Source(dut, name, getattr(block, name).payload.shape(), stall=stall)
            for name in ("tiles", "exponents", "fills")
        }
        self.results = Sink(dut, "results", block.results.payload.shape(), stall=stall)
        fields = ("rows", "columns", "first_chunk", "last_chunk", "chunk_ends", "frees_rows", "last")
        tiles = self.layer.tiles
        self.sources["tiles"].send({n: int(getattr(t, n)) for n in fields} for t in tiles)
        self.sources["exponents"].send(self.layer.exponent_words())
        self.sources["fills"].send([] if resident else self.layer.fills())
        self.expected = self.layer.results(stores=not resident)
        self.biases, self.sums = self.layer.biases, self.layer.sums
        self.complete = [0] * p["pea_count"]  # tiles that each bank has got
        self.freed = self.closed = self.rows_done = 0  # tiles; rows of tiles
        self.bias_here = 0
        dut.psum_group.value, dut.psums_resident.value = layer.group, int(resident)
        self.task = cocotb.start_soon(self.memories())

    def word(self, pea: int, address: int) -> int:
        """What bank ``pea`` holds at ``address``: a ring of tiles, row by row, ``width`` sums a word."""
        p = self.p
        slot, word = divmod(address, self.tile_n // self.width * p["vector"])
        row, beat = divmod(word, self.tile_n // self.width)
        tile = self.freed + (slot - self.freed) % p["slots"]
        if tile >= self.complete[pea]:
            return self.rng.getrandbits(32 * self.width)
        sums = self.sums[tile][pea * p["vector"] + row, beat * self.width : (beat + 1) * self.width]
        return join((int(x) & (1 << 32) - 1 for x in sums), 32)

    async def memories(self) -> None:
        dut, p, rng = self.dut, self.p, self.rng
        bits = 32 * self.width
        await FallingEdge(dut.clk)
        while True:
            for pea in range(p["pea_count"]):
                space = min(len(self.sums), self.freed + p["slots"])
                self.complete[pea] += self.complete[pea] < space and rng.random() >= self.late
            if self.rows_done < len(self.biases):
                self.bias_here |= int(rng.random() >= self.late)
            here = [int(complete > self.freed) for complete in self.complete]
            dut.available.value = join(here, 1)
            dut.bias_available.value = self.bias_here
            await ReadOnly()
            address, row = int(dut.address.value), int(dut.bias_row.value)
            words = [self.word(pea, address) for pea in range(p["pea_count"])]
            bias = self.biases[self.rows_done][row] if self.bias_here else rng.getrandbits(32)
            freed, released = dut.slot_freed.value == 1, dut.bias_release.value == 1
            assert not freed or all(here)
            closes = dut.tiles__valid.value == 1 and dut.tiles__ready.value == 1
            assert released == (closes and self.layer.tiles[self.closed].frees_rows)
            self.freed += freed
            self.closed += closes
            if released:
                self.rows_done += 1
                self.bias_here = 0
            await FallingEdge(dut.clk)
            dut.words.value = join(words, bits)
            dut.bias.value = bias

    def stop(self) -> None:
        self.task.cancel()
        for source in self.sources.values():
            source.stop()
        self.results.stop()

    async def finish(self, limit: int = 20_000) -> None:
        await quiet(self.dut, self.results, expected=[len(self.expected)], limit=limit)
        for got, expected in zip(self.results.received, self.expected, strict=True):
            if not expected["is_psum"]:
                got = {**got, "sums": got["sums"][: got["count"]]}
            assert got == expected
        assert all(source.idle for source in self.sources.values())
        assert self.freed == self.closed == len(self.sums) and self.rows_done == len(self.biases)
        assert self.dut.psum_overflow.value == 0 and self.dut.bad_steps.value == 0
        self.stop()
        await reset(self.dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(group=[0, 1, 2, 3, 4], resident=[True, False])
async def sends_layers(dut: Any, group: int, resident: bool) -> None:
    """One K-chunk, a group of them, one more or less, and a prime number."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {group} {resident}")
    for steps in sorted({1, max(1, group - 1), max(1, group), group + 1, 7}):
        layer = some_layer(rng, tile(), rng.choice(DATAFLOWS), group, steps=steps, most=2)
        layer = replace(layer, block=min(layer.block, room(group)) if resident else layer.block)
        bench = Bench(
            dut, layer, resident=resident, stall=rng.choice(STALLS), late=rng.choice([0.0, 0.5, 0.9])
        )  # fmt: skip
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(resident=[True, False])
async def sends_every_shape(dut: Any, resident: bool) -> None:
    """(m, n) of one to three tiles each way; the last of them is full or nearly, or has one row or column."""
    await start(dut, component(parameters()))
    tile_m, tile_n = tile()["tile_m"], tile()["tile_n"]
    for m, n in ((1, 1), (tile_m, tile_n), (tile_m - 1, tile_n + 1), (2 * tile_m + 1, 2 * tile_n - 1)):
        for steps in (1, 2):
            bench = Bench(dut, plain(m, n, steps), resident=resident, stall=0.2)
            await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def fills_all_banks(dut: Any) -> None:
    """As many resident tiles as there is room for; one more is refused, and nothing of it is sent."""
    await start(dut, component(parameters()))
    size = tile()
    for group in range(5):
        dataflow, side = (("WEIGHT_STATIONARY", "n"), ("INPUT_STATIONARY", "m"))[group % 2]
        for more in (0, 1):
            count = room(group) + more
            shape = {"m": 1, "n": 1, side: count * size[f"tile_{side}"]}
            layer = replace(plain(**shape, steps=3, group=group), dataflow=dataflow, block=count)
            if not more:
                await Bench(dut, layer).finish()
                continue
            # Where there are no partial sums there is no room to lack; else the tile is refused.
            await Bench(dut, replace(layer, k=1)).finish()
            bench = Bench(dut, layer)
            await ClockCycles(dut.clk, count * (40 + size["tile_m"] * size["tile_n"] // bench.width))
            assert dut.psum_overflow.value == 1 and bench.closed == room(group)
            assert not bench.results.received
            bench.stop()
            await reset(dut)
            assert dut.psum_overflow.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reports_bad_exponents(dut: Any) -> None:
    """Fewer than steps, or more than there is room for."""
    await start(dut, component(parameters()))
    layer = plain(1, 1, 7, 2)
    bench = Bench(dut, layer)
    bench.sources["exponents"].queue[:] = []
    bench.sources["exponents"].send(bench.layer.exponent_words()[:1])
    bench.sources["exponents"].queue[0] |= 1 << 32  # last
    await ClockCycles(dut.clk, 200 + 8 * tile()["tile_m"] * tile()["tile_n"] // bench.width)
    assert dut.bad_steps.value == 1 and bench.closed == 4
    bench.stop()
    await reset(dut)
    bench = Bench(dut, layer)
    bench.sources["exponents"].send([0] * 10)
    await ClockCycles(dut.clk, 30)
    assert dut.bad_steps.value == 1
    bench.stop()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def sends_a_beat_a_cycle(dut: Any) -> None:
    """But for some cycles between tiles; of resident ones too, which send nothing."""
    await start(dut, component(parameters()))
    for steps, group in ((1, 0), (3, 2), (3, 0)):
        bench = Bench(dut, plain(2 * tile()["tile_m"], tile()["tile_n"], steps, group))
        words = tile()["tile_m"] * tile()["tile_n"] // bench.width
        await bench.finish(limit=20 + len(bench.sums) * (words + ResultUnit.LATENCY + 4))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def has_the_latency_that_it_documents(dut: Any) -> None:
    """Two cycles to the address; from there to the output FIFO, and a cycle through that."""
    await start(dut, component(parameters()))
    bench = Bench(dut, plain(1, 1))
    assert await latency(dut, "tiles", "results") == 2 + ResultUnit.LATENCY + 1
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def waits_for_every_part_of_a_tile(dut: Any) -> None:
    """Rows leave as their PEAs finish; the slot is freed when all have, those that are padding too."""
    await start(dut, component(parameters()))
    p = parameters()
    bench = Bench(dut, plain(1, tile()["tile_n"]), late=1.0)
    bench.complete[0] = 1
    await ClockCycles(dut.clk, 100)
    assert not bench.results.received and not bench.freed  # the bias is missing
    bench.bias_here = 1
    await ClockCycles(dut.clk, 100)
    if p["pea_count"] > 1:
        assert len(bench.results.received) == len(bench.expected) - 1 and not bench.freed
    bench.complete = [1] * p["pea_count"]
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    for stall in (0.2, 0.3, 0.4, 0.5, 0.0):
        layer = plain(2 * tile()["tile_m"], 2 * tile()["tile_n"] - 1, 4, 3)
        bench = Bench(dut, layer, resident=stall in (0.2, 0.4), stall=stall, late=0.3)
        if stall:
            await ClockCycles(dut.clk, bench.rng.randrange(5, 90))
            bench.stop()
            await reset(dut)
        else:
            await bench.finish()
