"""Bench of hw/psum_loader.py: what comes back for every tile, and when; memory and its user are modelled."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.psum_loader import PsumLoader
from sliceforge.verif.psum_layers import DATAFLOWS, Layer, LeavingTile, some_layer, stored_case
from sliceforge.verif.read_memory import ReadMemory, some_contents
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, reset, start, to_int


def case(*sizes: int) -> dict[str, int]:
    p = stored_case(*sizes)
    return {**p, "words": p["full_words"] // p["sums"], "buffer": 16}


# Words of the partial sum memory wider than the bus at both widths, at one, at none; tiles of part of a beat.
CASES = [
    case(64, 32, 4, 8, 4),
    case(32, 40, 2, 16, 8),
    case(512, 32, 4, 12, 4),
    case(128, 64, 3, 6, 2),
]


def component(p: dict[str, Any]) -> PsumLoader:
    return PsumLoader(**p)


class Bench:
    """``layer`` with its partial sums from ``address`` on. ``errors``: beats, counted from there."""

    def __init__(
        self,
        dut: Any,
        layer: Layer,
        address: int,
        *,
        stall: float = 0.0,
        taker: float = 0.0,
        latency: int = 3,
        lag: float = 0.0,
        errors: Collection[int] = (),
    ) -> None:
        self.dut, self.layer, self.p, self.lag = dut, layer, parameters(), lag
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {layer} {stall} {taker} {lag}")
        block = component(self.p)
        self.bytes = self.p["bus_bits"] // 8
        self.contents, first = some_contents(self.p["bus_bits"]), address // self.bytes
        self.memory = ReadMemory(
            dut, block, self.contents, latency=latency, stall=stall, errors=[first + e for e in errors]
        )  # fmt: skip
        self.fills = Sink(dut, "fills", block.fills.payload.shape(), stall=taker)
        self.loops = to_int(block.loops.shape(), layer.loops())
        self.address = address
        words = self.p["narrow_words"] if layer.group else self.p["full_words"]
        self.stride = layer.stride(words, self.p["bus_bits"])
        self.tiles = list(layer.tiles())
        self.loaded = [tile for tile in self.tiles if tile.adds]
        self.beats = [self.tile_beats(tile) for tile in self.loaded]
        self.written = self.used = 0  # pulses given; tiles that the result unit has used
        self.tasks = [cocotb.start_soon(self.use()), cocotb.start_soon(self.watch())]

    def tile_beats(self, tile: LeavingTile) -> list[int]:
        """What a tile needs: one span."""
        first = self.layer.group_address(tile, self.address, self.stride) // self.bytes
        return [*range(first, first + tile.adds * self.stride // self.bytes)]

    def expected(self, tile: LeavingTile) -> dict[tuple[int, int, int], int]:
        """Partial sums by position, word and column."""
        beats = self.tile_beats(tile)
        data = b"".join(self.contents(beat).to_bytes(self.bytes, "little") for beat in beats)
        sums, full = self.p["sums"], self.layer.group == 0
        size, word_bytes = (4, 4 * sums) if full else (1, max(4, sums))
        return {
            (position, word, column): int.from_bytes(data[at : at + size], "little")
            for position in range(tile.adds)
            for word in range(self.p["words"])
            for column in range(sums)
            for at in [position * self.stride + word * word_bytes + column * size]
        }

    async def begin(self, *, resident: bool = False) -> None:
        dut = self.dut
        await FallingEdge(dut.clk)
        dut.loops.value, dut.psum_group.value = self.loops, self.layer.group
        dut.psum_address.value, dut.psums_resident.value = self.address, int(resident)
        dut.start.value = 1
        await FallingEdge(dut.clk)
        dut.start.value = 0

    async def use(self) -> None:
        """The result unit and the store unit: a tile's partial sums are written some time after its fills."""
        dut, ends = self.dut, 0
        while self.dut.start.value != 1:
            await FallingEdge(dut.clk)
        for tile in self.tiles:
            if tile.adds:
                while sum(fill["last"] for fill in self.fills.received) <= ends:
                    await FallingEdge(dut.clk)
                ends += 1
            self.used += 1
            if not tile.last_chunk:
                while self.rng.random() < self.lag:
                    await FallingEdge(dut.clk)
                dut.psum_written.value = 1
                self.written += 1
                await FallingEdge(dut.clk)
                dut.psum_written.value = 0

    async def watch(self) -> None:
        """Nothing is asked for before memory has it."""
        indices = {
            (t.row, t.column, t.chunk): i for i, t in enumerate(t for t in self.tiles if not t.last_chunk)
        }
        needs = [
            indices[tile.row, tile.column, tile.chunk - 1]
            for tile, beats in zip(self.loaded, self.beats, strict=True)
            for _ in beats
        ]
        asked = 0
        while True:
            await ReadOnly()
            if self.dut.requests__valid.value == 1 and self.dut.requests__ready.value == 1:
                assert needs[asked] < self.written, "asked for what is not written"
                bits = int(self.dut.requests__payload.value)
                asked += 1 + (bits >> self.p["address_bits"])
            await FallingEdge(self.dut.clk)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.dut.psum_written.value = 0
        self.memory.stop()
        self.fills.stop()

    async def finish(self, limit: int = 20_000) -> None:
        for _ in range(limit):
            if self.used == len(self.tiles):
                break
            await FallingEdge(self.dut.clk)
        else:
            raise AssertionError(f"{self.used} of {len(self.tiles)} tiles in {limit} cycles")
        await ClockCycles(self.dut.clk, 30)
        fills = iter(self.fills.received)
        for tile in self.loaded:
            seen: dict[tuple[int, int, int], int] = {}
            fill: dict[str, Any] = {"last": 0}
            while not fill["last"]:
                fill = next(fills)
                values = fill["narrow" if self.layer.group else "full_sums"]
                for column in range(self.p["sums"]):
                    if fill["columns"] >> column & 1:
                        place = fill["position"], fill["word"], column
                        assert place not in seen
                        seen[place] = values[column]
            assert seen == self.expected(tile)
        assert next(fills, None) is None
        assert self.memory.beats() == [beat for beats in self.beats for beat in beats] and self.memory.idle
        assert self.dut.failed.value == 0
        self.stop()
        await reset(self.dut)


def some_address(rng: random.Random) -> int:
    """Of a beat of the bus."""
    p = parameters()
    space = 1 << p["address_bits"]
    return rng.choice([0, rng.randrange(0, space - (1 << 16), p["bus_bits"] // 8)])


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(dataflow=DATAFLOWS, group=[0, 1, 2, 3, 4])
async def brings_back_what_is_added(dut: Any, dataflow: str, group: int) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow} {group}")
    for steps in {group + 1, rng.choice([2, 2 * group + 1, 5])}:
        layer = some_layer(rng, parameters(), dataflow, group, steps=steps, most=2)
        bench = Bench(
            dut, layer, some_address(rng), stall=rng.choice(STALLS), taker=rng.choice(STALLS),
            latency=rng.choice([1, 3, 40]), lag=rng.choice([0.0, 0.5, 0.98]),
        )  # fmt: skip
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def loads_nothing_that_is_resident(dut: Any) -> None:
    """Nor of a layer of one K-chunk, nor before the start."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for steps, resident in ((3, True), (1, False), (3, None)):
        bench = Bench(dut, some_layer(rng, parameters(), "WEIGHT_STATIONARY", 1, steps=steps), 64)
        if resident is not None:
            await bench.begin(resident=resident)
        await ClockCycles(dut.clk, 60)
        assert not bench.memory.bursts and not bench.fills.received
        bench.stop()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(group=[0, 4])
async def brings_a_piece_a_cycle(dut: Any, group: int) -> None:
    """And memory's latency once a tile, as a tile is asked for when the one before has been used."""
    await start(dut, component(parameters()))
    p = parameters()
    layer = Layer(p["tile_m"], p["tile_n"], p["tile_m"], 5, p["tile_n"], 1, "OUTPUT_STATIONARY", 1, group)
    bench = Bench(dut, layer, 0, latency=1)
    await bench.begin()
    word_bits = max(32, 8 * p["sums"]) if group else 32 * p["sums"]
    pieces = p["words"] * max(1, word_bits // p["bus_bits"])  # of a stored tile
    await bench.finish(limit=20 + sum(20 + tile.adds * pieces for tile in bench.tiles))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def fails_at_errors(dut: Any) -> None:
    """At an answer with an error, and past the end of the space."""
    await start(dut, component(parameters()))
    p = parameters()
    layer = Layer(p["tile_m"], p["tile_n"], p["tile_m"], 5, p["tile_n"], 1, "OUTPUT_STATIONARY", 1, 2)
    for address, errors in ((4096, [1]), (4096, [0]), ((1 << p["address_bits"]) - p["bus_bits"] // 8, [])):
        bench = Bench(dut, layer, address, errors=errors)
        await bench.begin()
        await ClockCycles(dut.clk, 300)
        assert dut.failed.value == 1
        bench.stop()
        await reset(dut)
        assert dut.failed.value == 0
    bench = Bench(dut, layer, 64)
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for taker in (0.0, 0.2, 0.5, 0.9):
        layer = some_layer(rng, parameters(), rng.choice(DATAFLOWS), rng.randrange(5), steps=6, most=2)
        bench = Bench(dut, layer, some_address(rng), stall=0.2, taker=taker, lag=0.3)
        await bench.begin()
        await ClockCycles(dut.clk, rng.randrange(1, 120))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, layer, 0, stall=0.2)
        await bench.begin()
        await bench.finish()
