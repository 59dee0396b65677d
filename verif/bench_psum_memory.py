"""Bench of hw/psum_memory.py: resident tiles in all their banks, and the ring that comes back from memory."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.hw.psum_memory import PsumMemory
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Source, reset, start
from sliceforge.verif.tiles import join

CASES = [
    {"sums": 2, "words": 3, "slots": 1},
    {"sums": 8, "words": 8, "slots": 3},
]


def component(p: dict[str, Any]) -> PsumMemory:
    return PsumMemory(**p)


class Bench:
    """Tiles of partial sums by number: ``model[tile, word, position]`` has what was stored last, by column.

    Position 0 stands for the word at full width.
    """

    def __init__(self, dut: Any, group: int, resident: bool) -> None:
        self.dut, self.group, self.p = dut, group, parameters()
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {group} {resident}")
        self.model: dict[tuple[int, int, int], list[int]] = {}
        self.bits = 8 if group else 32
        dut.psum_group.value, dut.resident.value = group, int(resident)

    def values(self) -> list[int]:
        return [self.rng.getrandbits(self.bits) for _ in range(self.p["sums"])]

    def room(self) -> int:
        """Tiles that may be resident."""
        return int(self.p["slots"]) * {1: 4, 2: 2}.get(self.group, 1)

    def check(self, tile: int, word: int, stored: int, first_bank: int, *, but: int = -1) -> None:
        """What was read: all positions that were stored."""
        for position in range(max(1, self.group)):
            values = self.model.get((tile, word, position))
            for column, value in enumerate(values or []):
                at = 32 * column + (8 * (first_bank + position) if self.group else 0)
                assert position == but or stored >> at & (1 << self.bits) - 1 == value

    async def use(self, tile: int, position: int, stall: float, *, writes: bool) -> None:
        """Reads every word, one after the other, and some cycles later writes it if ``writes``; then others.

        The write port is busy in some other cycles too, where it must not count.
        """
        dut, rng, words = self.dut, self.rng, self.p["words"]
        first_bank = int(dut.first_bank.value)
        if dut.resident.value == 1:
            assert first_bank == (tile * self.group % 4 if self.group in (1, 2) else 0)
        read = written = 0
        pending: list[int] = []  # the word that was asked for
        while written < words or read < words + 3 or pending:
            asked, pending = pending, []
            if asked:
                self.check(tile, asked[0], int(dut.stored.value.resolve("zeros")), first_bank)
            word = read if read < words else rng.randrange(words)
            dut.word.value = word
            if rng.random() >= stall and read < words + 3:
                read += 1
                pending = [word]
            dut.write.value = 0 if dut.resident.value == 1 else rng.getrandbits(1)
            dut.position.value, dut.write_word.value = position, rng.randrange(words)
            dut.full_sums.value = rng.getrandbits(32 * self.p["sums"])
            dut.narrow.value = rng.getrandbits(8 * self.p["sums"])
            if written < min(words, read) and rng.random() >= stall:
                if writes and pending != [written]:  # what is read in the cycle of its write is not defined
                    values = self.values()
                    dut.write.value, dut.write_word.value = 1, written
                    (dut.narrow if self.group else dut.full_sums).value = join(values, self.bits)
                    self.model[tile, written, position] = values
                    written += 1
                elif not writes:
                    written += 1
            await FallingEdge(dut.clk)
        dut.write.value = 0

    async def done(self, *, chunk_ends: bool = False, used: bool = False) -> None:
        dut, rng = self.dut, self.rng
        dut.tile_done.value, dut.chunk_ends.value, dut.used.value = 1, int(chunk_ends), int(used)
        await FallingEdge(dut.clk)
        # Without tile_done the others say nothing.
        dut.tile_done.value, dut.chunk_ends.value, dut.used.value = 0, rng.getrandbits(1), rng.getrandbits(1)

    def fills(self, tile: int) -> list[dict[str, Any]]:
        """A tile that comes back, all of its group: each word in some pieces."""
        rng, sums, group = self.rng, self.p["sums"], max(1, self.group)
        pieces = []
        for position in range(group):
            for word in range(self.p["words"]):
                values = self.values()
                self.model[tile, word, position] = values
                mask = rng.choice([(1 << sums) - 1, rng.getrandbits(sums)])
                for columns in filter(None, (mask, ~mask & (1 << sums) - 1)):
                    full, narrow = self.rng.getrandbits(32 * sums), self.rng.getrandbits(8 * sums)
                    piece: dict[str, Any] = {"full_sums": full, "narrow": narrow}
                    some = [x if columns >> i & 1 else rng.getrandbits(8) for i, x in enumerate(values)]
                    piece["narrow" if self.group else "full_sums"] = some
                    pieces.append({"word": word, "columns": columns, "position": position, **piece})
        for i, piece in enumerate(pieces):
            piece["last"] = int(i == len(pieces) - 1)
        return pieces


@cocotb.test()
@cocotb.parametrize(group=[0, 1, 2, 3, 4], stall=STALLS)
async def keeps_resident_tiles(dut: Any, group: int, stall: float) -> None:
    """As many as there is room for, or fewer; each chunk rewrites a position of each."""
    await start(dut, component(parameters()))
    bench = Bench(dut, group, resident=True)
    for tiles in {1, bench.room() - 1 or 1, bench.room()}:
        bench.model.clear()
        for chunk in range(2 * max(1, group)):
            for tile in range(tiles):
                await bench.use(tile, chunk % max(1, group), stall, writes=True)
                assert dut.overflow.value == 0 and dut.fills__ready.value == 0
                await bench.done(chunk_ends=tile == tiles - 1)


@cocotb.test()
@cocotb.parametrize(group=[0, 1, 2, 3, 4])
async def overflows_behind_the_last_tile(dut: Any, group: int) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, group, resident=True)
    for _ in range(2):
        for _ in range(bench.room()):
            assert dut.overflow.value == 0
            await bench.done()
        for _ in range(9):
            assert dut.overflow.value == 1
            await bench.done()
        await bench.done(chunk_ends=True)
    assert dut.overflow.value == 0


@cocotb.test()
@cocotb.parametrize(group=[0, 1, 2, 3, 4], stall=STALLS)
async def gives_back_what_fills_bring(dut: Any, group: int, stall: float) -> None:
    """Tiles in order; between them some that use none. A full ring takes no more."""
    await start(dut, component(parameters()))
    bench = Bench(dut, group, resident=False)
    count = 3 * bench.p["slots"] + 1
    fills = Source(dut, "fills", component(parameters()).fills.payload.shape(), stall=stall)
    pieces = [bench.fills(tile) for tile in range(count)]
    fills.send([piece for tile in pieces for piece in tile])
    for tile in range(count):
        if bench.rng.random() < 0.3:
            await bench.done(chunk_ends=True)
        while dut.filled.value == 0:
            await FallingEdge(dut.clk)
        assert fills.sent >= sum(map(len, pieces[: tile + 1])) - 1  # the source may not have counted the last
        if bench.rng.random() < 0.3:
            await ClockCycles(dut.clk, 200)
            await FallingEdge(dut.clk)
            assert fills.sent <= sum(map(len, pieces[: tile + bench.p["slots"]]))
        await bench.use(tile, 0, stall, writes=False)
        assert dut.overflow.value == 0
        await bench.done(used=True, chunk_ends=bool(bench.rng.getrandbits(1)))
    assert dut.filled.value == 0 and fills.idle


@cocotb.test()
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    for resident in (True, False, True, False):
        bench = Bench(dut, 1, resident)
        fills = Source(dut, "fills", component(parameters()).fills.payload.shape(), stall=0.1)
        fills.send(bench.fills(0) + bench.fills(1)[:-1])
        for _ in range(3 if resident else 0):
            await bench.done()
        await ClockCycles(dut.clk, 30)
        fills.stop()
        await reset(dut)
        assert dut.filled.value == 0 and dut.first_bank.value == 0 and dut.overflow.value == 0
        if resident:
            bench = Bench(dut, 2, resident)
            await bench.use(0, 1, 0.1, writes=True)
        else:
            bench = Bench(dut, 3, resident)
            fills = Source(dut, "fills", component(parameters()).fills.payload.shape(), stall=0.1)
            fills.send(bench.fills(0))
            while dut.filled.value == 0:
                await FallingEdge(dut.clk)
            await bench.use(0, 0, 0.1, writes=False)
            fills.stop()
        await reset(dut)
