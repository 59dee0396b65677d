"""Bench of hw/core.py, end to end: random layers with stalls on every stream, errors, resets, coverage.

Every result is compared with int64 ``W @ (x_hat - zp) + bias``, or with APSQ's; so is every partial sum that
is sent to memory, from where the bench gives it back after a while; the count of outer products with what
arithmetic.md section 5 asks for on the padded grid.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import replace
from typing import Any
from zlib import crc32

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.verilog import core
from sliceforge.hw.core import Core
from sliceforge.sim.schedule import plan, plans
from sliceforge.verif.core_coverage import CorePorts, sample_errors, sample_layer
from sliceforge.verif.coverage import report_coverage
from sliceforge.verif.layers import Layer, random_layer, random_schedule
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start

# Two and three weight slices are measured for coverage. Their memories are small, so that their rings
# wrap, and their runs are short, so that they need fillers.
CASES: list[dict[str, Any]] = [
    {"name": "tiny", "pea_count": 2, "lanes": 2, "run_bits": 2, "tile_k": 16, "wmem_kib": 1, "amem_kib": 1,
     "omem_kib": 1, "bus_bits": 64, "max_k": 512, "coverage": True},
    {"name": "three_slices", "pea_count": 2, "lanes": 4, "weight_slices": 3, "run_bits": 2, "tile_k": 8,
     "fifo_depth": 2, "wmem_kib": 2, "amem_kib": 2, "omem_kib": 2, "bus_bits": 256, "max_k": 300,
     "coverage": True},
    {"name": "odd", "pea_count": 3, "lanes": 5, "vector": 2, "run_bits": 1, "tile_k": 12, "fifo_depth": 3,
     "wmem_kib": 1, "amem_kib": 1, "omem_kib": 1, "bus_bits": 128, "max_k": 200},
    {"name": "wide", "pea_count": 1, "lanes": 3, "vector": 8, "weight_slices": 1, "run_bits": 6,
     "tile_k": 4, "wmem_kib": 1, "amem_kib": 1, "omem_kib": 3, "bus_bits": 512, "max_k": 100},
]  # fmt: skip


def config(p: dict[str, Any]) -> AcceleratorConfig:
    return AcceleratorConfig(**{key: value for key, value in p.items() if key != "coverage"})


def component(p: dict[str, Any]) -> Core:
    return core(config(p))


class Bench:
    def __init__(self, dut: Any, stalls: dict[str, float] | float = 0.0) -> None:
        self.dut = dut
        self.config = config(parameters())
        block = component(parameters())

        def driver(kind: Any, name: str) -> Any:
            stall = stalls if isinstance(stalls, float) else stalls.get(name, 0.0)
            return kind(dut, name, getattr(block, name).payload.shape(), stall=stall)

        self.sources = {
            name: driver(Source, name)
            for name in ("layers", "weights", "activations", "biases", "exponents", "fills")
        }
        self.results: Sink = driver(Sink, "results")
        self.status: Sink = driver(Sink, "status")
        self.rng = rng("loop", stalls)
        self.spilled: deque[tuple[int, Layer]] = deque()  # layers that send partial sums to memory
        self.looked = 0  # results that were looked at for partial sums
        self.layers = self.closed = 0  # sent; those of them whose status was looked at
        self.exponents: deque[tuple[int, list[Any]]] = deque()  # of layers whose turn has not come
        self.loop = cocotb.start_soon(self._loop_back())

    def send(self, layer: Layer, **replace: Any) -> None:
        """Queues all that belongs to a layer; ``replace`` exchanges the payloads of a stream."""
        payloads: dict[str, Any] = {
            "layers": [layer.descriptor],
            "weights": layer.weight_beats(),
            "activations": layer.activation_beats(),
            "biases": [{"bias": bias} for bias in layer.biases],
            "exponents": layer.exponent_words,
        }
        payloads |= replace
        self.exponents.append((self.layers, payloads.pop("exponents")))
        self.layers += 1
        for name, queued in payloads.items():
            self.sources[name].send(queued)
        if not layer.schedule.psums_resident:
            self.spilled.append((self.layers, layer))

    async def _loop_back(self) -> None:
        """What is around the core: a layer's exponents come when the layer before is closed; partial sums
        that come out go in again, for the K-chunks that add them."""
        memory: dict[tuple[int, int, int, int], list[int]] = {}  # tiles by layer, row, column, K-chunk
        writes: deque[tuple[int, int, int, int]] = deque()
        reads: deque[tuple[Layer, int, int, int, int]] = deque()
        words: list[int] = []
        while True:
            await FallingEdge(self.dut.clk)
            while self.exponents and self.exponents[0][0] <= self.closed + len(self.status.received):
                self.sources["exponents"].send(self.exponents.popleft()[1])
            while self.spilled:
                number, layer = self.spilled.popleft()
                tiles = list(layer.schedule.tiles())
                writes.extend((number, *tile) for tile in tiles if tile[2] < layer.schedule.steps - 1)
                reads.extend((layer, number, *tile) for tile in tiles if layer.steps_added(tile[2]))
            for beat in self.results.received[self.looked :]:
                if beat["is_psum"]:
                    words += beat["sums"][: beat["count"]]
                    if beat["last_of_tile"]:
                        memory[writes.popleft()], words = words, []
            self.looked = len(self.results.received)
            if reads and self.rng.random() < 0.05:
                layer, number, i, j, c = reads[0]
                if (number, i, j, c - 1) in memory:
                    reads.popleft()
                    stored = {step: memory[number, i, j, step] for step in layer.steps_added(c)}
                    self.sources["fills"].send(self._pieces(layer, stored))

    def _pieces(self, layer: Layer, stored: dict[int, list[int]]) -> list[dict[str, Any]]:
        """Words of the partial sum memory, whole or in halves, in any order."""
        group, sums = layer.schedule.psum_group, self.config.result_sums
        width = max(1, sums // 4) if group else sums  # in words of 32 bits
        pieces = []
        half = (1 << sums // 2) - 1
        for step, words in stored.items():
            for word in range(len(words) // width):
                here = words[word * width : (word + 1) * width]
                if group:
                    narrow = b"".join(value.to_bytes(4, "little") for value in here)[:sums]
                    piece = {"word": word, "position": step % group, "narrow": list(narrow)}
                else:
                    piece = {"word": word, "full_sums": here}
                masks = [half, ~half] if self.rng.random() < 0.2 else [-1]
                pieces += [{**piece, "columns": mask} for mask in masks]
        order = self.rng.permutation(len(pieces)) if self.rng.random() < 0.5 else range(len(pieces))
        return [{**pieces[at], "last": int(i == len(pieces) - 1)} for i, at in enumerate(order)]

    async def receive(self, *layers: Layer) -> list[dict[str, Any]]:
        """Waits for the layers, compares every result; returns their status."""
        beats = [beat for layer in layers for beat in layer.result_beats()]
        work = sum(layer.products() for layer in layers)
        await quiet(
            self.dut, self.results, self.status, expected=[len(beats), len(layers)],
            limit=100_000 + 40 * work,
        )  # fmt: skip
        for got, want in zip(self.results.received, beats, strict=True):
            assert {**got, "sums": got["sums"][: want["count"]]} == want
        assert all(source.idle for source in self.sources.values())
        statuses = list(self.status.received)
        for layer, status in zip(layers, statuses, strict=True):
            assert status["error"] is ErrorCode.NONE
            assert status["products"] == layer.products()
            bound = -(-layer.products() // self.config.operators)
            assert bound <= status["cycles"] <= status["total_cycles"]
        self._clear()
        return statuses

    def _clear(self) -> None:
        self.closed += len(self.status.received)
        self.results.received.clear()
        self.status.received.clear()
        self.looked = 0

    async def fail(self, layer: Layer, code: ErrorCode, **replace: Any) -> None:
        """Sends a layer that must end with ``code``; takes the status when all that was sent is drained."""
        self.status.stall = 1.0
        self.send(layer, **replace)
        for _ in range(100_000 + 40 * layer.products()):
            await RisingEdge(self.dut.clk)
            if self.dut.status__valid.value and all(source.idle for source in self.sources.values()):
                break
        self.status.stall = 0.0
        await ClockCycles(self.dut.clk, 50)
        assert [status["error"] for status in self.status.received] == [code]
        sample_errors(code)
        self._clear()

    def stop(self) -> None:
        self.loop.cancel()
        for driver in (*self.sources.values(), self.results, self.status):
            driver.stop()


def rng(*salt: Any) -> np.random.Generator:
    return np.random.default_rng([cocotb.RANDOM_SEED, *(crc32(str(s).encode()) for s in salt)])


def weight_bits_of(machine: AcceleratorConfig) -> list[int]:
    return [bits for bits in (4, 7, 10) if bits <= machine.max_weight_bits]


def sizes(tile: int) -> list[int]:
    return [1, max(1, tile - 1), tile, tile + 1, 2 * tile + 3]


# Dataflow, group size and number of K-chunks: one, some, a group and about it, many.
CHUNKED = [
    (dataflow, group, steps)
    for dataflow in Dataflow
    for group in range(5)
    for steps in sorted({1, max(1, group - 1), max(1, group), max(1, group) + 1, 2 * max(1, group) + 2})
]


@cocotb.test()
@cocotb.parametrize(stall=STALLS)
async def random_layers(dut: Any, stall: float) -> None:
    """Sizes around the tile, every corner of slicing, sparsity, dataflow and K-chunks."""
    await start(dut, component(parameters()))
    ports = CorePorts(dut)
    bench = Bench(dut, stall)
    machine = bench.config
    r = np.random.default_rng([cocotb.RANDOM_SEED, int(10 * stall)])
    for number, (dataflow, group, steps) in enumerate(CHUNKED):
        lo_bits = 4 + number % 3
        top = (256 >> lo_bits) - 1
        frequent = [0, top, int(r.integers(0, top + 1))][number // 3 % 3]
        if steps == 1:
            k = chunk = min(machine.max_k, int(r.choice([*sizes(machine.tile_k), 5 * machine.tile_k + 1])))
        else:
            chunk = int(r.choice([1, 3, machine.tile_k, machine.tile_k + 1]))
            chunk = min(chunk, machine.max_k // steps)
            k = chunk * steps - int(r.integers(0, chunk))
        shape = int(r.choice(sizes(machine.tile_m))), k, int(r.choice(sizes(machine.tile_n)))
        layer = random_layer(
            r,
            machine,
            shape,
            weight_bits=int(r.choice(weight_bits_of(machine))),
            lo_bits=lo_bits,
            zero_point=int(r.choice([frequent << lo_bits, (frequent << lo_bits) + (1 << lo_bits) - 1])),
            weight_sparsity=float(r.choice([0.0, 0.5, 0.97, 1.0])),
            activation_sparsity=float(r.choice([0.0, 0.5, 0.97, 1.0])),
            schedule=random_schedule(
                r,
                machine,
                shape,
                dataflow=dataflow,
                chunk=chunk,
                psum_group=group,
                spills=(number + STALLS.index(stall)) % 2 == 0,
            ),
        )
        assert layer.schedule.steps == steps
        bench.send(layer)
        await bench.receive(layer)
        sample_layer(layer)
    ports.stop()
    bench.stop()


@cocotb.test()
@cocotb.parametrize(
    slow=["layers", "weights", "activations", "biases", "exponents", "fills", "results", "status"]
)
async def back_to_back_with_one_slow_stream(dut: Any, slow: str) -> None:
    """Layers of all dataflows queued one behind the other, everything at full speed but one stream."""
    await start(dut, component(parameters()))
    ports = CorePorts(dut)
    bench = Bench(dut, {slow: 0.9})
    machine = bench.config
    r = rng(slow)
    large = machine.tile_m + 1, 2 * machine.tile_k, machine.tile_n + 1
    layers = []
    for number, shape in enumerate([large, (1, 1, 1), large, (3, 7, 5), large]):
        flow, group = list(Dataflow)[(number + 1) % 3], [3, 0, 2, 0, 0][number]
        found = plans(
            machine,
            *shape,
            dataflow=flow,
            chunk=machine.tile_k // 2 if shape == large else None,
            psum_group=group,
        )
        spills = number < 4 and shape == large
        schedule = next(s for s in found if s.psums_resident != spills)
        layers.append(
            random_layer(r, machine, shape, weight_bits=weight_bits_of(machine)[-1], schedule=schedule)
        )
    for layer in layers:
        bench.send(layer)
    await bench.receive(*layers)
    ports.stop()
    bench.stop()


@cocotb.test()
async def extreme_values(dut: Any) -> None:
    """The largest K with all weights and activations at the ends of their ranges: nothing wraps."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    machine = bench.config
    for bits, zero_point, value in itertools.product(weight_bits_of(machine), (0, 255), (0, 255)):
        for weight in (-(1 << (bits - 1)), (1 << (bits - 1)) - 1):
            layer = Layer(
                plan(machine, 2, machine.max_k, 2),
                np.full((2, machine.max_k), weight, np.int16),
                np.full((machine.max_k, 2), value, np.uint8),
                np.array([2**31 - 1, -(2**31)]) // 2,
                bits,
                4,
                zero_point,
            )
            bench.send(layer)
            await bench.receive(layer)


@cocotb.test()
async def refuses_illegal_descriptors(dut: Any) -> None:
    """Each gives its code, takes no data, and the next layer is right."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    machine = bench.config
    good = random_layer(rng("illegal"), machine, (3, 5, 2), weight_bits=4)
    illegal = [
        *(({side: 0}, ErrorCode.ILLEGAL_SHAPE) for side in "mnk"),
        ({"k": machine.max_k + 1}, ErrorCode.ILLEGAL_SHAPE),
        ({"weight_slices": 0}, ErrorCode.ILLEGAL_WEIGHT_SLICES),
        ({"weight_slices": machine.weight_slices + 1}, ErrorCode.ILLEGAL_WEIGHT_SLICES),
        *(({"lo_bits": bits}, ErrorCode.ILLEGAL_LO_BITS) for bits in (0, 3, 7)),
        ({"lo_bits": 5, "frequent": 8}, ErrorCode.ILLEGAL_FREQUENT),
        ({"lo_bits": 6, "frequent": 4}, ErrorCode.ILLEGAL_FREQUENT),
        *(
            (fields, ErrorCode.ILLEGAL_DATAFLOW)
            for fields in (
                {"dataflow": 3}, {"block": 0}, {"chunk": 0}, {"chunk": 6}, {"k_tile": 0},
                {"k_tile": machine.tile_k + 1}, {"activations_span": 0}, {"psum_group": 5},
            )
        ),
    ]  # fmt: skip
    for flow, stationary, side, tile in (
        (1, "weights", "n", machine.tile_n),
        (2, "activations", "m", machine.tile_m),
    ):
        again = {"dataflow": flow, f"{stationary}_resident": 0}
        illegal += [
            ({**again, side: tile + 1}, ErrorCode.ILLEGAL_REUSE),  # for the next block
            ({**again, "blocks_share": 1}, ErrorCode.ILLEGAL_REUSE),
            (
                {"dataflow": flow, "activations_resident": 0, "activations_span": 16},
                ErrorCode.ILLEGAL_REUSE,
            ),
        ]
    for fields, code in illegal:
        await bench.fail(good, code, layers=[changed(good, **fields)], weights=[], activations=[], biases=[])
        bench.send(good)
        await bench.receive(good)


def changed(layer: Layer, **fields: int) -> dict[str, Any]:
    """The layer's descriptor with these fields, of its loops or of itself."""
    descriptor = layer.descriptor
    loops = {name: fields.get(name, value) for name, value in descriptor["loops"].items()}
    return {**{name: fields.get(name, value) for name, value in descriptor.items()}, "loops": loops}


@cocotb.test()
async def stops_where_partial_sums_do_not_fit(dut: Any) -> None:
    """A tile more than OMEM has room for, at every width; as many as it has are right."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.1)
    machine = bench.config
    k = machine.tile_k + 1
    for group, dataflow in itertools.product(
        range(5), (Dataflow.WEIGHT_STATIONARY, Dataflow.INPUT_STATIONARY)
    ):
        room = machine.psum_slots * {1: 4, 2: 2}.get(group, 1)
        m, n = 2, room * machine.tile_n + 1
        if dataflow == Dataflow.INPUT_STATIONARY:
            m, n = room * machine.tile_m + 1, 2
        found = plans(machine, m, k, n, dataflow=dataflow, chunk=k - 1, psum_group=group)
        schedule = next(s for s in found if s.block == room and s.psums_resident)
        good = random_layer(rng("room", group), machine, (m, k, n), weight_bits=4, schedule=schedule)
        found = plans(machine, m, k, n, dataflow=dataflow, chunk=k - 1, psum_group=group)
        schedule = next(s for s in found if s.block == room + 1 and not s.psums_resident)
        bad = random_layer(
            rng("room", group), machine, (m, k, n), weight_bits=4,
            schedule=replace(schedule, psums_resident=True),
        )  # fmt: skip
        await bench.fail(bad, ErrorCode.PSUM_RESIDENCY)
        bench.send(good)
        await bench.receive(good)
    bench.stop()


@cocotb.test()
async def stops_at_a_wrong_number_of_exponents(dut: Any) -> None:
    """Fewer words than there are steps, or more than the machine holds."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.1)
    machine = bench.config
    schedule = plan(machine, 3, 17, 3, chunk=1, psum_group=3)
    layer = random_layer(rng("steps"), machine, (3, 17, 3), weight_bits=4, schedule=schedule)
    words = layer.exponent_words
    few = [*words[:3], {**words[3], "last": 1}]
    many = [{"word": 0, "last": 0}] * (-(-machine.max_k // 4) + 1)
    for wrong in (few, many):
        await bench.fail(layer, ErrorCode.PSUM_EXPONENTS, exponents=wrong)
        bench.send(layer)
        await bench.receive(layer)
    bench.stop()


@cocotb.test()
@cocotb.parametrize(operand=["weight", "activation"], stall=[0.0, 0.3])
async def stops_at_malformed_images(dut: Any, operand: str, stall: float) -> None:
    """Count, length, position and residency errors: the code, a clean stop, and the next layer is right."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall)
    machine = bench.config
    layout = machine.weight_layout if operand == "weight" else machine.activation_layout
    stream = f"{operand}s"
    last_bit = 1 << (layout.granule_bits * machine.load_ways)
    full = (machine.tile_m + 1, 2 * machine.tile_k, machine.tile_n + 1)

    def beats(layer: Layer) -> list[int]:
        return layer.weight_beats() if operand == "weight" else layer.activation_beats()

    def code(kind: str) -> ErrorCode:
        return ErrorCode[f"{operand.upper()}_{kind}"]

    def sparse(salt: str) -> Layer:
        return random_layer(
            rng(operand, salt), machine, full, weight_bits=weight_bits_of(machine)[-1],
            weight_sparsity=1.0, activation_sparsity=1.0,
        )  # fmt: skip

    good = random_layer(rng(operand), machine, (machine.tile_m, machine.tile_k + 1, 3), weight_bits=4)
    layer = sparse("bad")
    payloads = beats(layer)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("COUNT", {stream: [payloads[0] | machine.tile_k + 1, *payloads[1:]]}),
        ("LENGTH", {stream: [payloads[0] | last_bit, *payloads[1:]]}),
        ("LENGTH", {stream: [payload & ~last_bit for payload in payloads]}),
    ]
    compressible = operand == "activation" or machine.weight_slices > 1
    if compressible:
        cases.append(("POSITION", {stream: past_the_tile(layer, payloads, operand)}))
    if operand == "activation":  # all kept, and one HO slice of more than 8 - lo_bits bits
        bad = random_layer(rng("slice"), machine, full, weight_bits=4, lo_bits=6, activation_sparsity=0.0)
        wrong = replace_first_entry(bad, bad.activation_beats())
        await bench.fail(bad, ErrorCode.ACTIVATION_SLICE, activations=wrong)
        bench.send(good)
        await bench.receive(good)
    for kind, wrong in cases:
        await bench.fail(layer, code(kind), **wrong)
        bench.send(good)
        await bench.receive(good)

    # One k-tile more than a bank holds, said to be resident.
    slots = machine.weight_slots if operand == "weight" else machine.activation_slots
    if slots * machine.tile_k < machine.max_k:
        m, n = (1, machine.tile_n + 1) if operand == "weight" else (machine.tile_m + 1, 1)
        large = random_layer(rng(operand, 9), machine, (m, slots * machine.tile_k + 1, n), weight_bits=4)
        assert not large.descriptor[f"{stream}_resident"]
        await bench.fail(large, code("RESIDENCY"), layers=[changed(large, **{f"{stream}_resident": 1})])
        bench.send(good)
        await bench.receive(good)


def past_the_tile(layer: Layer, payloads: list[int], operand: str) -> list[int]:
    """The layer's beats with one entry in bank 0 of the first image that lies past the tile.

    The image has no entries, so its HO section is new: granules whose entries all have the longest skip.
    It is not the last of its region.
    """
    machine = layer.config
    layout = machine.weight_layout if operand == "weight" else machine.activation_layout
    longest = (1 << layout.run_bits) - 1
    count = machine.tile_k // (longest + 1) + 1
    entries = sum(longest << i * layout.entry_bits for i in range(layout.entries_per_granule))
    end = layer.first_image_beats(operand)
    granules = layout.ho_granules(count)
    return [payloads[0] | count, *payloads[1:end], *[entries] * granules, *payloads[end:]]


def replace_first_entry(layer: Layer, payloads: list[int]) -> list[int]:
    """The layer's beats with all bits of the first slice of bank 0's first entry set; all is kept."""
    machine = layer.config
    layout = machine.activation_layout
    header = layout.header_beats(machine.lanes, machine.load_ways)
    depth = -(-machine.lanes // machine.load_ways)
    first = header + depth * layout.lo_granules(machine.tile_k, 1)
    changed = list(payloads)
    changed[first] |= 15 << layout.run_bits
    return changed


@cocotb.test()
async def forgets_a_layer_at_reset(dut: Any) -> None:
    """Reset at many points of a layer; the next one is right."""
    await start(dut, component(parameters()))
    r = rng("reset")
    for cycles in (1, 3, 10, 30, 60, 100, 150, 250):
        bench = Bench(dut, 0.1)
        machine = bench.config
        shape = (2 * machine.tile_m, 2 * machine.tile_k, 2 * machine.tile_n)
        schedule = random_schedule(
            r,
            machine,
            shape,
            dataflow=Dataflow.WEIGHT_STATIONARY,
            chunk=machine.tile_k,
            psum_group=2,
            spills=True,
        )
        bench.send(random_layer(r, machine, shape, weight_bits=4, schedule=schedule))
        await ClockCycles(dut.clk, cycles)
        bench.stop()
        await reset(dut)
        bench = Bench(dut, 0.1)
        layer = random_layer(r, machine, (machine.tile_m + 1, machine.tile_k + 1, 2), weight_bits=4)
        bench.send(layer)
        await bench.receive(layer)
        bench.stop()


@cocotb.test()
async def zz_covers_all_bins(dut: Any) -> None:
    """Last: prints the coverage table; on the machine that is measured, every bin must have been hit."""
    missing = report_coverage("core", cocotb.log.info)
    assert not (parameters().get("coverage") and missing), f"bins never hit: {missing}"
