"""Bench of hw/tile_loader.py: what is written where for each image of a layer, space, malformed images."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.config import TileLayout
from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import beat_layout
from sliceforge.hw.tile_loader import TileLoader
from sliceforge.hw.tile_nest import TileNest
from sliceforge.verif.loop_nest import Nest, Operand, random_nest, random_operand, shared_operand
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Source, reset, start
from sliceforge.verif.tiles import Tile, image, random_tile

CASES = [
    {
        "layout": {"vector": 4, "dense": 1, "run_bits": 4, "tile_k": 16},
        "banks": 2, "ways": 1, "slots": 3, "tile_m": 8, "tile_n": 8, "k_bits": 8, "reuse": "columns",
    },
    {
        "layout": {"vector": 2, "dense": 2, "run_bits": 1, "tile_k": 4},
        "banks": 16, "ways": 1, "slots": 2, "tile_m": 32, "tile_n": 2, "k_bits": 13, "reuse": "columns",
    },
    {
        "layout": {"vector": 4, "dense": 2, "run_bits": 3, "tile_k": 32},
        "banks": 7, "ways": 2, "slots": 4, "tile_m": 28, "tile_n": 16, "k_bits": 8, "reuse": "rows",
    },
    {
        "layout": {"vector": 8, "dense": 1, "run_bits": 6, "tile_k": 64},
        "banks": 3, "ways": 4, "slots": 2, "tile_m": 16, "tile_n": 24, "k_bits": 9, "reuse": "rows",
    },
]  # fmt: skip


def component(p: dict[str, Any]) -> TileLoader:
    return TileLoader(**p | {"layout": TileLayout(**p["layout"])})


def random_layer(rng: random.Random, dataflow: Dataflow) -> Operand:
    """Up to 3 x 3 tiles, 2 chunks of 2 k-tiles."""
    p = parameters()
    tile = (p["tile_m"], p["tile_n"], p["layout"]["tile_k"])
    return random_operand(rng, random_nest(rng, dataflow, tile, most=(3, 3, 2, 2)), p["reuse"][:-1])


class Bench:
    """One layer: its images, a slot of each bank after the other, and a record of what is written."""

    def __init__(
        self, dut: Any, stall: float, sparsity: float = 0.5, *, layer: Operand | None = None,
        compressed: bool = True,
    ) -> None:  # fmt: skip
        self.dut, self.p = dut, parameters()
        self.layout = TileLayout(**self.p["layout"])
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {sparsity} {compressed}")
        self.beats = Source(dut, "beats", beat_layout(self.layout.granule_bits, self.p["ways"]), stall=stall)
        self.dense = rng.randint(1, self.layout.dense)
        self.sparsity = sparsity if compressed else 1.0
        layer = layer or random_layer(rng, rng.choice(list(Dataflow)))
        self.lengths = [length for length, _ in layer.loads]
        self.region_ends = [ends for _, ends in layer.loads]
        inputs = {**layer.inputs, "dense": self.dense, "compressed": int(compressed)}
        for name, value in inputs.items():
            getattr(dut, name).value = value
        self.images: list[list[Tile]] = []
        self.loaded = self.used = self.cycles = 0
        self.freeing = 0.05  # share of cycles in which a slot is freed
        self.task = cocotb.start_soon(self.watch())

    def random_image(self, length: int) -> list[Tile]:
        return [
            random_tile(self.rng, self.layout, length=length, dense=self.dense, sparsity=self.sparsity)
            for _ in range(self.p["banks"])
        ]

    def add(self, tiles: list[Tile]) -> None:
        self.beats.send(image(tiles, self.p["ways"], last=self.region_ends[len(self.images)]))
        self.images.append(tiles)

    async def watch(self) -> None:
        """Gives space, collects the writes of an image, and compares them when it is loaded."""
        dut, p, layout = self.dut, self.p, self.layout
        written: list[dict[int, int]] = [{} for _ in range(p["banks"])]
        inside = False
        await FallingEdge(dut.clk)
        while True:
            self.used -= self.used > 0 and self.rng.random() < self.freeing
            space = self.used < p["slots"]
            dut.space.value = int(space)
            await ReadOnly()
            assert dut.complete.value == int(self.loaded == len(self.lengths))
            taken = dut.beats__ready.value == 1 and dut.beats__valid.value == 1
            assert inside or space or dut.beats__ready.value == 0
            write = int(dut.write.value)
            assert taken or not write
            for b in (b for b in range(p["banks"]) if write >> b & 1):
                address = int(getattr(dut, f"write_address_{b % p['ways']}").value)
                granule = int(getattr(dut, f"write_granule_{b % p['ways']}").value)
                if dut.write_header.value == 1:
                    granule = int(dut.write_counts.value) >> 8 * b & 255
                assert address not in written[b], f"bank {b}: address {address} is written twice"
                written[b][address] = granule
            if taken:
                inside = True
                self.cycles += 1
            if dut.loaded.value == 1:
                base = self.loaded % p["slots"] * layout.slot_granules
                slots = [tile.slot() for tile in self.images[self.loaded]]
                assert written == [{base + o: granule for o, granule in slot.items()} for slot in slots]
                written = [{} for _ in range(p["banks"])]
                self.loaded += 1
                self.used += 1
                inside = False
            await FallingEdge(dut.clk)

    async def finish(self) -> None:
        """Waits for the layer's last image; what comes behind it is not taken, though there is space."""
        beats = sum(len(image(tiles, self.p["ways"])) for tiles in self.images)
        next_layer = self.random_image(1)
        self.beats.send(image(next_layer, self.p["ways"]))
        for _ in range(20_000):
            if self.loaded == len(self.images):
                break
            await FallingEdge(self.dut.clk)
        self.freeing = 1
        await ClockCycles(self.dut.clk, 50)
        assert self.loaded == len(self.images) == len(self.lengths)
        assert self.beats.sent == self.cycles == beats
        assert self.dut.bad_count.value == 0 and self.dut.bad_length.value == 0

    def stop(self) -> None:
        self.task.cancel()
        self.beats.stop()


@cocotb.test()
@cocotb.parametrize(dataflow=list(Dataflow))
async def loads_the_images_of_a_layer(dut: Any, dataflow: Dataflow) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    for i in range(10):
        stall, sparsity = STALLS[i % 3], (0.0, 0.6, 0.95, 1.0)[i % 4]
        bench = Bench(dut, stall, sparsity, layer=random_layer(rng, dataflow), compressed=i % 5 != 4)
        for length in bench.lengths:
            bench.add(bench.random_image(length))
        await bench.finish()
        bench.stop()
        await reset(dut)


@cocotb.test()
async def loads_once_what_blocks_share(dut: Any) -> None:
    await start(dut, component(parameters()))
    p, rng = parameters(), random.Random(cocotb.RANDOM_SEED)
    for stall in STALLS:
        tile = (p["tile_m"], p["tile_n"], p["layout"]["tile_k"])
        bench = Bench(dut, stall, layer=shared_operand(rng, tile, p["reuse"][:-1], slots=8))
        for length in bench.lengths:
            bench.add(bench.random_image(length))
        await bench.finish()
        bench.stop()
        await reset(dut)


def plain_layer(tiles: int, k: int) -> Operand:
    """Of so many rows and columns of tiles, and of one k-tile; each image is a region."""
    p = parameters()
    nest = Nest(
        m=tiles * p["tile_m"], n=tiles * p["tile_n"], k=k, tile_m=p["tile_m"], tile_n=p["tile_n"],
        chunk=k, k_tile=p["layout"]["tile_k"],
    )  # fmt: skip
    return Operand(nest, p["reuse"][:-1], span=1)


@cocotb.test()
async def takes_a_beat_a_cycle(dut: Any) -> None:
    """But for the cycle between two images, and those in which the next one is not known yet."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.0)
    bench.freeing = 1
    for length in bench.lengths:
        bench.add(bench.random_image(length))
    settles = TileNest.SETTLES + 1
    *others, last = (len(image(tiles, bench.p["ways"])) for tiles in bench.images)
    await ClockCycles(dut.clk, settles + sum(max(beats + 1, settles) for beats in others) + last - 1)
    assert bench.loaded == len(bench.lengths) - 1
    await ClockCycles(dut.clk, 1)
    assert bench.loaded == len(bench.lengths)
    await bench.finish()


@cocotb.test()
async def stops_when_the_slots_are_full(dut: Any) -> None:
    """Images beyond the slots wait until one is freed; the image on its way is completed."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.0, layer=plain_layer(tiles=3, k=parameters()["layout"]["tile_k"]))
    slots = bench.p["slots"]
    bench.freeing = 0
    for length in bench.lengths[: slots + 3]:
        bench.add(bench.random_image(length))
    for freed in range(3):
        bench.used -= freed > 0
        await ClockCycles(dut.clk, 2 * len(bench.beats.queue) + 10)
        assert bench.loaded == slots + freed
    bench.used = 0
    bench.freeing = 0.5
    for length in bench.lengths[slots + 3 :]:
        bench.add(bench.random_image(length))
    await bench.finish()


@cocotb.test()
@cocotb.parametrize(
    case=["count", "not_compressed", "last_in_header", "last_in_lo", "last_early", "last_late"]
)
async def stops_at_a_malformed_image(dut: Any, case: str) -> None:
    """The right error is flagged, nothing is loaded any more; after a reset all is well."""
    await start(dut, component(parameters()))
    layer = plain_layer(tiles=2, k=parameters()["layout"]["tile_k"] - 1)  # a region is one image
    bench = Bench(dut, 0.2, 0.0, layer=layer, compressed=case != "not_compressed")
    v, ways, banks = bench.layout.vector, bench.p["ways"], bench.p["banks"]
    beats = image(bench.random_image(bench.lengths[0]), ways)
    b = banks - 1
    where, byte = divmod(b // ways, 2 * v)  # of the last bank's count
    bad = {
        "count": where, "not_compressed": where, "last_in_header": 0,
        "last_in_lo": -(-(-(-banks // ways)) // (2 * v)),
        "last_early": len(beats) - 2, "last_late": len(beats) - 1,
    }[case]  # fmt: skip
    if case.startswith("last"):
        beats[bad]["last"] ^= 1
    else:
        beats[bad]["granules"][b % ways] &= ~(255 << 8 * byte)
        beats[bad]["granules"][b % ways] |= (bench.lengths[0] + 1 if case == "count" else 1) << 8 * byte
    bench.beats.send(beats + image(bench.random_image(bench.lengths[0]), ways))
    await ClockCycles(dut.clk, 3 * len(beats) + 50)
    assert dut.bad_length.value == int(case.startswith("last"))
    assert dut.bad_count.value == int(not case.startswith("last"))
    assert bench.beats.sent == bad + 1 and bench.loaded == 0

    bench.stop()
    await reset(dut)
    assert dut.bad_length.value == dut.bad_count.value == 0
    bench = Bench(dut, 0.2)
    for length in bench.lengths:
        bench.add(bench.random_image(length))
    await bench.finish()


@cocotb.test()
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    for stall in (0.2, 0.3, 0.4, 0.0):
        bench = Bench(dut, stall, 0.0)
        for length in bench.lengths:
            bench.add(bench.random_image(length))
        if stall == 0.0:
            await bench.finish()
        await ClockCycles(dut.clk, bench.rng.randrange(5, len(bench.beats.queue) + 10))
        bench.stop()
        await reset(dut)
