"""Bench of hw/tile_memory.py: layers of each dataflow, tiles read once or again; who waits for whom."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.config import TileLayout
from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import beat_layout, record_layout, tile_layout
from sliceforge.hw.tile_memory import TileMemory
from sliceforge.verif.loop_nest import Nest, Operand, random_nest, random_operand, shared_operand
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start, to_int
from sliceforge.verif.tiles import Tile, as_seen, image, random_tile

CASES = [
    {
        "name": "weight", "layout": {"vector": 4, "dense": 1, "run_bits": 4, "tile_k": 16},
        "banks": 2, "ways": 1, "slots": 3, "tile_m": 8, "tile_n": 8, "k_bits": 10, "reuse": "columns",
    },
    {
        "name": "weight", "layout": {"vector": 2, "dense": 2, "run_bits": 1, "tile_k": 4},
        "banks": 5, "ways": 2, "slots": 7, "tile_m": 10, "tile_n": 2, "k_bits": 13, "reuse": "columns",
    },
    {
        "name": "activation", "layout": {"vector": 8, "dense": 1, "run_bits": 6, "tile_k": 64},
        "banks": 1, "ways": 4, "slots": 2, "tile_m": 16, "tile_n": 24, "k_bits": 10, "reuse": "rows",
    },
    {
        "name": "activation", "layout": {"vector": 4, "dense": 1, "run_bits": 4, "tile_k": 32},
        "banks": 16, "ways": 4, "slots": 18, "tile_m": 64, "tile_n": 64, "k_bits": 13, "reuse": "rows",
    },
]  # fmt: skip


def component(p: dict[str, Any]) -> TileMemory:
    return TileMemory(**p | {"layout": TileLayout(**p["layout"])})


class Bench:
    """One operand of a layer: its images, and the tiles that are asked for, in order."""

    def __init__(self, dut: Any, operand: Operand, stall: float = 0.0, sparsity: float = 0.5) -> None:
        self.dut, self.p, self.stall = dut, parameters(), stall
        self.layout = layout = TileLayout(**self.p["layout"])
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {operand} {stall} {sparsity}")
        self.dense = rng.randint(1, layout.dense)
        beats = beat_layout(layout.granule_bits, self.p["ways"])
        records = record_layout(layout.vector, layout.dense)
        self.beats = Source(dut, "beats", beats, stall=stall)
        self.records = [Sink(dut, f"records_{b}", records, stall=stall) for b in range(self.p["banks"])]
        for name, value in {**operand.inputs, "dense": self.dense, "compressed": 1}.items():
            getattr(dut, name).value = value

        self.images: list[list[Tile]] = []
        self.ends: list[int] = []  # beats up to the end of each image
        self.requests: list[dict[str, int]] = []
        self.expected: list[list[Any]] = [[] for _ in self.records]
        for length, ends in operand.loads:
            tiles = [
                random_tile(rng, layout, length=length, dense=self.dense, sparsity=sparsity)
                for _ in self.records
            ]
            self.images.append(tiles)
            self.beats.send(image(tiles, self.p["ways"], last=ends))
            self.ends.append(len(self.beats.queue))
        for number, fresh, release in zip(operand.images, operand.fresh, operand.released, strict=True):
            self.ask(number, fresh, release)
        self.allowed = 0  # requests that may be made
        self.asked = 0
        self.task = cocotb.start_soon(self.make_requests())

    def ask(self, number: int, fresh: bool, release: bool) -> None:
        base = number % self.p["slots"] * self.layout.slot_granules
        last, tiles = self.rng.getrandbits(1), self.images[number]
        request = {"base": base, "length": len(tiles[0]), "release": int(release), "last": last}
        self.requests.append(request | {"fresh": int(fresh)})
        for b, tile in enumerate(tiles):
            self.expected[b] += tile.records(last)

    async def make_requests(self) -> None:
        """A tile is on offer until it is taken; a fresh one must not be taken before it has arrived."""
        dut = self.dut
        layout = tile_layout(
            self.layout.tile_k, (self.p["slots"] * self.layout.slot_granules - 1).bit_length()
        )
        fresh = 0  # asked for so far
        await FallingEdge(dut.clk)
        while True:
            if self.asked < min(self.allowed, len(self.requests)) and self.rng.random() >= self.stall:
                request = dict(self.requests[self.asked])
                is_fresh = request.pop("fresh")
                dut.fresh.value = is_fresh
                dut.tiles__payload.value = to_int(layout, request)
                dut.tiles__valid.value = 1
                await ReadOnly()
                while dut.tiles__ready.value == 0:
                    await FallingEdge(dut.clk)
                    await ReadOnly()
                assert not is_fresh or self.beats.sent >= self.ends[fresh]
                fresh += is_fresh
                self.asked += 1
                await FallingEdge(dut.clk)
                dut.tiles__valid.value = 0
                dut.fresh.value = self.rng.getrandbits(1)  # means nothing without a tile
            else:
                await FallingEdge(dut.clk)

    def loaded(self) -> int:
        """Images that are complete; all beats so far must belong to complete images."""
        assert self.beats.sent in [0, *self.ends]
        return sum(end <= self.beats.sent for end in self.ends)

    def stop(self) -> None:
        self.task.cancel()
        self.dut.tiles__valid.value = 0
        self.beats.stop()
        for sink in self.records:
            sink.stop()

    async def finish(self) -> None:
        self.allowed = len(self.requests)
        await quiet(self.dut, *self.records, expected=map(len, self.expected), limit=40_000)
        for sink, expected in zip(self.records, self.expected, strict=True):
            assert [as_seen(record, self.dense) for record in sink.received] == expected
        assert self.beats.idle and self.asked == len(self.requests)
        assert self.dut.complete.value == 1 and self.dut.arrived.value == 0
        assert not any(getattr(self.dut, f"bad_{what}").value for what in ("count", "length", "position"))


def operand(rows: int, columns: int, k: int, dataflow: Dataflow, **options: Any) -> Operand:
    """Of one chunk and one block."""
    p = parameters()
    nest = Nest(
        m=rows * p["tile_m"], n=columns * p["tile_n"], k=k, tile_m=p["tile_m"], tile_n=p["tile_n"],
        chunk=k, k_tile=p["layout"]["tile_k"], dataflow=dataflow, block=max(rows, columns),
    )  # fmt: skip
    return Operand(nest, p["reuse"][:-1], **options)


def stationary(others: int, passes: int, k: int) -> Operand:
    """The stationary operand, resident: a window of k-tiles for each of ``others``, read ``passes`` times."""
    if parameters()["reuse"] == "columns":
        return operand(others, passes, k, Dataflow.WEIGHT_STATIONARY, resident=True)
    return operand(passes, others, k, Dataflow.INPUT_STATIONARY, resident=True)


@cocotb.test()
@cocotb.parametrize(dataflow=list(Dataflow))
async def serves_layers(dut: Any, dataflow: Dataflow) -> None:
    """Up to 3 x 3 tiles, 2 chunks of 2 k-tiles; what stays fits, sometimes exactly."""
    await start(dut, component(parameters()))
    p, rng = parameters(), random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    tile = (p["tile_m"], p["tile_n"], p["layout"]["tile_k"])
    for i in range(6):
        while i < 5:
            nest = random_nest(rng, dataflow, tile, most=(3, 3, 2, 2))
            chosen = random_operand(rng, nest, p["reuse"][:-1])
            if max(chosen.stays) <= p["slots"] and (i % 2 == 0 or chosen.resident):
                break
        else:
            chosen = shared_operand(rng, tile, p["reuse"][:-1], p["slots"])
        bench = Bench(dut, chosen, stall=STALLS[i % 3], sparsity=0.7 * (i // 3))
        await bench.finish()
        bench.stop()
        await reset(dut)


@cocotb.test()
async def loads_ahead_as_far_as_slots_are_free(dut: Any) -> None:
    """A slot is free when all banks have read its tile for the last time, and not before: a bank reads two
    records ahead of those that are taken."""
    await start(dut, component(parameters()))
    slots = parameters()["slots"]
    bench = Bench(dut, operand(slots + 3, 1, 3, Dataflow.OUTPUT_STATIONARY), sparsity=1.0)
    settle = 20 * (bench.ends[1] + 5)
    await ClockCycles(dut.clk, bench.ends[slots] + settle)
    assert bench.loaded() == slots

    bench.records[0].stall = 1.0  # the first bank does not get on: of three records it has two ready
    bench.allowed = 1
    await ClockCycles(dut.clk, settle)
    assert bench.asked == 1 and bench.loaded() == slots
    assert all(len(sink.received) == 3 for sink in bench.records[1:])
    bench.records[0].stall = 0.0
    await ClockCycles(dut.clk, settle)
    assert bench.loaded() == slots + 1
    await bench.finish()


@cocotb.test()
async def keeps_what_is_not_released(dut: Any) -> None:
    await start(dut, component(parameters()))
    slots, tile_k = parameters()["slots"], parameters()["layout"]["tile_k"]
    window = min(slots, 4)
    bench = Bench(dut, stationary(slots // window + 1, 2, window * tile_k))
    pass_cycles = window * (3 * tile_k + 20)
    bench.allowed = window  # the first of two passes
    await ClockCycles(dut.clk, bench.ends[slots] + pass_cycles)
    assert bench.asked == window and bench.loaded() == slots
    bench.allowed += 1
    await ClockCycles(dut.clk, bench.ends[0] + pass_cycles)
    assert bench.loaded() == slots + 1
    await bench.finish()


@cocotb.test()
@cocotb.parametrize(error=["count", "length", "position"])
async def flags_a_malformed_image(dut: Any, error: str) -> None:
    """The right error is flagged; after a reset all is well."""
    await start(dut, component(parameters()))
    tile_k = parameters()["layout"]["tile_k"]
    bench = Bench(dut, operand(2, 2, tile_k - 1, Dataflow.OUTPUT_STATIONARY, span=1), 0.2, 0.0)
    tiles = list(bench.images[0])
    if error == "position":  # the last bank's last entry has the tile's length for its position
        tiles[-1] = Tile(bench.layout, tiles[-1].lo, [0] * (tile_k - 1) + [1])
    beats = image(tiles, bench.p["ways"])
    if error == "count":
        beats[0]["granules"][0] |= 255
    if error == "length":
        beats[-1]["last"] = 0
    bench.beats.queue.clear()
    bench.beats.send(beats)
    bench.ends = [len(beats)]
    bench.allowed = 1
    await ClockCycles(dut.clk, 3 * len(beats) + 10 * tile_k + 100)
    for what in ("count", "length", "position"):
        assert getattr(dut, f"bad_{what}").value == int(what == error)
    assert len(bench.records[-1].received) <= tile_k - 1 if error == "position" else bench.asked == 0

    bench.stop()
    await reset(dut)
    bench = Bench(dut, operand(2, 2, tile_k + 1, Dataflow.OUTPUT_STATIONARY), 0.2)
    await bench.finish()


@cocotb.test()
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    for stall in (0.2, 0.4, 0.0):
        bench = Bench(dut, stationary(2, 2, 2 * parameters()["layout"]["tile_k"] - 1), stall, 0.3)
        if stall == 0.0:
            await bench.finish()
        bench.allowed = len(bench.requests)
        await ClockCycles(dut.clk, bench.ends[0] + bench.rng.randrange(20, 80))
        bench.stop()
        await reset(dut)
