"""Tests of `bench_accelerator`: whatever fails is reported once, with its code, and leaves the machine ready.

After each error the layers before the failed one are done, memory outside the failed layer's results is
untouched, and the next start is right.
"""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp

from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR, DESCRIPTOR_BYTES
from sliceforge.sim.driver import BusError
from sliceforge.sim.layer_image import encode_descriptor
from sliceforge.verif.accelerator_coverage import sample_error, sample_fault, sample_stall
from sliceforge.verif.accelerator_system import System
from sliceforge.verif.axi import Fault
from sliceforge.verif.placement import (
    MEMORY_BYTES,
    Placed,
    long,
    passes,
    place_layers,
    seeded,
    small_layer,
)

ACCESSES = {
    "descriptor": ErrorCode.DESCRIPTOR_READ,
    "weights": ErrorCode.WEIGHTS_READ,
    "activations": ErrorCode.ACTIVATIONS_READ,
    "bias": ErrorCode.BIAS_READ,
    "output": ErrorCode.OUTPUT_WRITE,
}


def chain(rng: random.Random, system: System, count: int = 3, **settings: Any) -> list[Placed]:
    """Small layers with more than one tile each way."""
    return place_layers(rng, [small_layer(rng, system.config, **settings) for _ in range(count)])


async def still_works(system: System, rng: random.Random) -> None:
    """The next start is right."""
    await system.run(chain(rng, system, 1))


def fault_at(rng: random.Random, placed: Placed, access: str, when: str, response: AxiResp) -> Fault:
    """An error response to the ``when``, "first", "later" or "last", beat of an access."""
    bus = placed.layer.config.bus_bits // 8

    def beats(at: int, size: int) -> int:
        return -(-(at + size) // bus) - at // bus

    if access == "output":
        rows = placed.rows()
        start, stop = rows[0][0], rows[-1][0] + len(rows[-1][1])
        tile = 4 * placed.layer.config.tile_n  # bytes that are written at once
        count = sum(
            beats(at + i, min(tile, len(row) - i)) for at, row in rows for i in range(0, len(row), tile)
        )
    else:
        start, data = placed.pieces()[access]
        stop = start + len(data)
        count = beats(start, len(data)) * passes(placed).get(access, 1)
    after = {"first": 0, "later": rng.randrange(count), "last": count - 1}[when]
    return Fault("write" if access == "output" else "read", start, stop, response, after)


@cocotb.test()
@cocotb.parametrize(access=list(ACCESSES), pauses=[0.0, 0.25])
async def error_responses(dut: Any, access: str, pauses: float) -> None:
    """SLVERR and DECERR on the first, a later and the last beat, in any layer of a chain."""
    system = await System.start(dut, pauses=pauses)
    rng = seeded("faults", access, pauses)
    for when in ("first", "later", "last") * long(1, 5):
        for response in (AxiResp.SLVERR, AxiResp.DECERR):
            placed = chain(rng, system)
            failing = rng.randrange(3)
            fault = fault_at(rng, placed[failing], access, when, response)
            system.memory.faults = [fault]
            await system.fail(placed, ACCESSES[access], failing, trusted=access in ("descriptor", "output"))
            assert fault.hits
            sample_fault(access, when, response.name)
            system.memory.faults = []
            await still_works(system, rng)
    await system.finish()


@cocotb.test()
async def several_errors_at_once(dut: Any) -> None:
    """Everything that is read or written fails: one error is reported, one of those; nothing more follows,
    not even from a memory that stops answering then."""
    system = await System.start(dut)
    rng = seeded("several")
    await system.write("STALL_LIMIT", 100)
    for _ in range(long(8, 40)):
        placed = chain(rng, system, 2)
        system.load(placed)
        failing = rng.randrange(2)
        before = bytearray(system.memory.data)
        accesses = rng.sample(list(ACCESSES), rng.randint(2, 5))
        system.memory.faults = [
            fault_at(rng, placed[failing], access, rng.choice(["first", "later"]), AxiResp.SLVERR)
            for access in accesses
        ]
        await system.write("INTERRUPT_ENABLE", 3)
        await system.begin(placed)
        await system.port.interrupt()
        system.pauses.stopped.add(rng.choice(["ar", "r", "aw", "w", "b"]))
        code = await system.read("STATUS", "ERROR_CODE")
        assert code in [ACCESSES[access].value for access in accesses]
        await system.write("INTERRUPT_PENDING", 7)
        await ClockCycles(dut.clk, 400)
        assert dut.irq.value == 0 and await system.read("STATUS", "ERROR_CODE") == code
        system.pauses.stopped.clear()
        await system.wait_idle()
        await system.once()
        assert await system.read("STATUS", "ERROR_CODE") == code
        assert await system.read("LAYERS_DONE") == failing
        system.compare(before, placed[:failing], anything=placed[failing : failing + 1])
        system.memory.faults = []
        await still_works(system, rng)
    await system.finish()


# Descriptors.


def illegal_descriptors(placed: Placed, config: Any) -> list[tuple[dict[str, int], ErrorCode]]:
    """Fields that make a descriptor illegal, each with its code."""
    ab, load = config.address_bits, config.load_beat_bytes
    row = 4 * placed.image.n
    wide = placed.fields
    far = [1 << bit for bit in {ab, 63} if bit < 64]
    found: list[tuple[dict[str, int], ErrorCode]] = [
        *(({"FORMAT": value}, ErrorCode.ILLEGAL_FORMAT) for value in (0, 2, 3, 0x81, 0xFF)),
        *(({side: 0}, ErrorCode.ILLEGAL_SHAPE) for side in "MNK"),
        *(({"K": value}, ErrorCode.ILLEGAL_SHAPE) for value in (config.max_k + 1, 1 << 20, (1 << 24) - 1)),
        *(
            ({"WEIGHT_SLICES": value}, ErrorCode.ILLEGAL_WEIGHT_SLICES)
            for value in (0, *range(config.weight_slices + 1, 8))
        ),
        *(({"LO_BITS": value}, ErrorCode.ILLEGAL_LO_BITS) for value in (0, 1, 2, 3, 7)),
        ({"LO_BITS": 5, "FREQUENT": 8}, ErrorCode.ILLEGAL_FREQUENT),
        ({"LO_BITS": 6, "FREQUENT": 4}, ErrorCode.ILLEGAL_FREQUENT),
        ({"LO_BITS": 6, "FREQUENT": 15}, ErrorCode.ILLEGAL_FREQUENT),
        *(({"OUTPUT_STRIDE": wide["OUTPUT_STRIDE"] | low}, ErrorCode.ILLEGAL_STRIDE) for low in (1, 2)),
        *(({"OUTPUT_STRIDE": stride}, ErrorCode.ILLEGAL_STRIDE) for stride in (0, row - 4)),
        ({"NEXT": 0, "NEXT_ADDRESS": 128}, ErrorCode.ILLEGAL_NEXT_ADDRESS),
        ({"NEXT": 0, "NEXT_ADDRESS": 1 << 40}, ErrorCode.ILLEGAL_NEXT_ADDRESS),
    ]
    for name, code, alignment in (
        ("WEIGHTS_ADDRESS", ErrorCode.ILLEGAL_WEIGHTS_ADDRESS, load),
        ("ACTIVATIONS_ADDRESS", ErrorCode.ILLEGAL_ACTIVATIONS_ADDRESS, load),
        ("BIAS_ADDRESS", ErrorCode.ILLEGAL_BIAS_ADDRESS, 4),
        ("OUTPUT_ADDRESS", ErrorCode.ILLEGAL_OUTPUT_ADDRESS, 4),
        ("NEXT_ADDRESS", ErrorCode.ILLEGAL_NEXT_ADDRESS, DESCRIPTOR_BYTES),
    ):
        at = wide[name]
        low = [at | 1 << bit for bit in range((alignment - 1).bit_length())]
        found += [({name: value, **_next(name)}, code) for value in (*low, *(at | bit for bit in far))]
    for name in ("WEIGHTS_LENGTH", "ACTIVATIONS_LENGTH"):
        found += [({name: value}, ErrorCode.ILLEGAL_LENGTH) for value in (0, 1)]
    return found


def _next(name: str) -> dict[str, int]:
    return {"NEXT": 1} if name == "NEXT_ADDRESS" else {}


@cocotb.test()
async def refuses_illegal_descriptors(dut: Any) -> None:
    """Every field's illegal values, and every reserved bit: the code, and no access but the descriptor's."""
    system = await System.start(dut, pauses=0.1, latency=4)
    rng = seeded("illegal")
    good = chain(rng, system, 2)
    system.load(good)
    words = {word.offset: sum(field.mask for field in word.fields) for word in DESCRIPTOR}
    reserved = [
        8 * offset + bit
        for offset in range(0, DESCRIPTOR_BYTES, 4)
        for bit in range(32)
        if not words.get(offset, 0) >> bit & 1
    ]
    illegal = [(dict(fields), code, None) for fields, code in illegal_descriptors(good[1], system.config)] + [
        ({}, ErrorCode.ILLEGAL_FORMAT, bit) for bit in rng.sample(reserved, long(20, len(reserved)))
    ]
    for number, (fields, code, bit) in enumerate(illegal):
        failing = number % 2
        target = good[failing]
        data = int.from_bytes(encode_descriptor({**target.fields, **fields}), "little")
        data |= 1 << bit if bit is not None else 0
        system.memory.put(target.address, data.to_bytes(DESCRIPTOR_BYTES, "little"))
        before = bytearray(system.memory.data)
        reads, writes = len(system.master.reads), len(system.master.writes)
        await system.expect(good, code, failing)
        system.compare(before, good[:failing])
        new = system.master.reads[reads:]
        beats = sum(count for at, count in new if target.address <= at < target.address + DESCRIPTOR_BYTES)
        assert beats == DESCRIPTOR_BYTES * 8 // system.config.bus_bits, f"{fields}: read {new}"
        if failing == 0:
            assert sum(count for _, count in new) == beats, f"{fields}: data was read"
            assert len(system.master.writes) == writes, f"{fields}: data was written"
        system.load(good)
    for low in range(7):
        await system.expect(good, ErrorCode.ILLEGAL_QUEUE_ADDRESS, 0, queue=good[0].address | 1 << low)
    await still_works(system, rng)
    await system.finish()


# Regions and images.


@cocotb.test()
@cocotb.parametrize(operand=["weights", "activations"])
async def stops_at_malformed_regions(dut: Any, operand: str) -> None:
    """Lengths of regions in descriptor and headers, counts, positions, slices, residency."""
    system = await System.start(dut)
    rng = seeded("regions", operand)
    name = operand.removesuffix("s").upper()
    length = ErrorCode[f"{name}_LENGTH"]
    field = f"{operand.upper()}_LENGTH"
    for case in malformed(system.config, operand):
        for failing in (0, 1) * long(1, 4):
            placed = chain(rng, system, 2, **case.settings)
            target = placed[failing]
            case.spoil(target, rng)
            await system.fail(placed, ErrorCode[f"{name}_{case.kind}"], failing, trusted=False)
        await still_works(system, rng)
    # The first region's length, in the descriptor. A longer one goes on in what follows it in memory.
    for change in (-1, 1, 7, 1 << 20, (1 << 32) - 1):
        placed = chain(rng, system, 2)
        target = placed[rng.randrange(2)]
        target.fields[field] = min(max(2, target.fields[field] + change), (1 << 32) - 1)
        await system.fail(placed, length, placed.index(target), trusted=False)
        await still_works(system, rng)
    await system.finish()


class Malformed:
    """A way to spoil an operand: ``kind`` of error, ``settings`` of the layer, ``spoil(placed, rng)``."""

    def __init__(self, kind: str, spoil: Any, **settings: Any) -> None:
        self.kind, self.spoil, self.settings = kind, spoil, settings


def malformed(config: Any, operand: str) -> list[Malformed]:
    layout = config.weight_layout if operand == "weights" else config.activation_layout
    beat = config.load_beat_bytes
    slices = config.weight_slices
    sparse = {
        "weight_bits": 3 * slices + 1, "weight_sparsity": 1.0, "activation_sparsity": 1.0,
        "shape": (config.tile_m + 1, min(config.max_k, 2 * config.tile_k), config.tile_n + 1),
    }  # fmt: skip

    def header(value: Any) -> Any:
        """Exchanges the next region's length in the first region's header."""

        def spoil(placed: Placed, rng: random.Random) -> None:
            data = getattr(placed, operand)
            following = int.from_bytes(data[:4], "little")
            data[:4] = value(following).to_bytes(4, "little")

        return spoil

    def last_header(placed: Placed, rng: random.Random) -> None:
        """The last region's header names one more."""
        data = getattr(placed, operand)
        at, length = 0, placed.fields[f"{operand.upper()}_LENGTH"]
        while following := int.from_bytes(data[at : at + 4], "little"):
            at, length = at + length * beat, following
        data[at : at + 4] = rng.choice([1, 2, 100, 0xFFFF_FFFF]).to_bytes(4, "little")

    def count(placed: Placed, rng: random.Random) -> None:
        """More entries than positions, in the first image's first bank."""
        getattr(placed, operand)[beat] = config.tile_k + 1

    def position(placed: Placed, rng: random.Random) -> None:
        """One entry too many whose skips lead past the tile; the image has no entries of its own."""
        data = getattr(placed, operand)
        images = placed.layer.first_image_beats(operand.removesuffix("s"))
        longest = (1 << layout.run_bits) - 1
        entries = config.tile_k // (longest + 1) + 1
        granule = sum(longest << i * layout.entry_bits for i in range(layout.entries_per_granule))
        section = b""
        for _ in range(layout.ho_granules(entries)):
            section += granule.to_bytes(layout.granule_bits // 8, "little").ljust(beat, b"\0")
        data[beat] = entries
        end = beat * (1 + images)
        data[end:end] = section
        added = len(section) // beat
        placed.fields[f"{operand.upper()}_LENGTH"] += added

    def slice_(placed: Placed, rng: random.Random) -> None:
        """The first slice of the first entry gets all bits; everything is kept."""
        depth = -(-config.lanes // config.load_ways)
        first = layout.header_beats(config.lanes, config.load_ways)
        first += depth * layout.lo_granules(min(config.tile_k, placed.image.k), 1)
        at = beat * (1 + first)
        bits = int.from_bytes(placed.activations[at : at + 4], "little") | 15 << layout.run_bits
        placed.activations[at : at + 4] = bits.to_bytes(4, "little")

    def residency(placed: Placed, rng: random.Random) -> None:
        placed.fields[f"{operand.upper()}_RESIDENT"] = 1

    found = [
        Malformed("LENGTH", last_header),
        Malformed("COUNT", count, **sparse),
    ]
    if operand == "activations" or slices > 1:
        found.append(Malformed("POSITION", position, **sparse))
    if operand == "weights":
        found += [
            Malformed("LENGTH", header(value))
            for value in (lambda n: 0, lambda n: 1, lambda n: n - 1, lambda n: n + 1, lambda n: n + 9)
        ]
    else:
        found.append(Malformed("SLICE", slice_, **{**sparse, "lo_bits": 6, "activation_sparsity": 0.0}))
    slots = config.weight_slots if operand == "weights" else config.activation_slots
    if slots * config.tile_k < config.max_k:
        m, n = (1, config.tile_n + 1) if operand == "weights" else (config.tile_m + 1, 1)
        found.append(Malformed("RESIDENCY", residency, shape=(m, slots * config.tile_k + 1, n)))
    return found


@cocotb.test()
async def stops_where_the_address_space_ends(dut: Any) -> None:
    """What passes the end is an error; no access wraps to the start."""
    system = await System.start(dut)
    rng = seeded("past the space")
    end = 1 << system.config.address_bits
    for access in ("weights", "activations", "bias", "output"):
        for _ in range(long(2, 8)):
            name = f"{access.upper()}_ADDRESS"
            placed = place_layers(
                rng, [small_layer(rng, system.config)], memory_bytes=MEMORY_BYTES // 2, top=name
            )
            alignment = system.config.load_beat_bytes if access in ("weights", "activations") else 4
            at = placed[0].fields[name]
            placed[0].fields[name] = at + alignment * rng.randint(1, (end - at) // alignment - 1)
            if access != "output":
                placed[0].clip(access, end - placed[0].fields[name])
            reads, writes = len(system.master.reads), len(system.master.writes)
            system.load(placed)
            before = bytearray(system.memory.data)
            await system.expect(placed, ACCESSES[access], 0)
            wrapped = [at for at, _ in system.master.reads[reads:] if at == 0]
            wrapped += [at for at, _ in system.master.writes[writes:] if at == 0]
            assert not wrapped, "an access wrapped to address 0"
            if access == "output":
                placed[0].space = end
            system.compare(before, [], anything=placed)
    await still_works(system, rng)
    await system.finish()


# A memory that stops.


@cocotb.test()
@cocotb.parametrize(channel=["ar", "r", "aw", "w", "b"])
async def reports_a_memory_that_stopped(dut: Any, channel: str) -> None:
    """STALLED when nothing has moved for STALL_LIMIT cycles; ready when the memory answers again."""
    system = await System.start(dut, pauses=0.1, latency=4)
    rng = seeded("stall", channel)
    for limit in (64, 300):
        await system.write("STALL_LIMIT", limit)
        for _ in range(long(3, 10)):
            placed = chain(rng, system, 2)
            system.load(placed)
            before = bytearray(system.memory.data)
            await system.write("INTERRUPT_ENABLE", 3)
            await system.begin(placed)
            await ClockCycles(dut.clk, rng.choice([0, 5, 20, 60, 100, rng.randrange(400)]))
            done = await system.read("LAYERS_DONE")
            system.pauses.stopped.add(channel)
            await system.port.interrupt()
            if await system.read("STATUS", "ERROR_CODE") == 0:  # it was done before it noticed
                system.pauses.stopped.clear()
                await system.write("INTERRUPT_PENDING", 7)
                system.compare(before, placed)
                continue
            still = system.master.still
            assert limit <= still <= limit + 30, f"reported after {still} cycles"
            assert await system.read("STATUS", "ERROR_CODE") == ErrorCode.STALLED.value
            assert await system.read("INTERRUPT_PENDING", "ERROR") == 1
            assert await system.read("STATUS", "BUSY") == 1
            layer = await system.read("LAYERS_DONE")
            assert layer >= done
            await system.write("INTERRUPT_PENDING", 7)
            try:
                await system.write("CONTROL", 1)
                raise AssertionError("START was accepted while the bus owes answers")
            except BusError:
                pass
            await ClockCycles(dut.clk, 3 * limit)
            assert dut.irq.value == 0 and await system.read("STATUS", "BUSY") == 1
            system.pauses.stopped.clear()
            await system.wait_idle()
            await system.once()
            system.compare(before, placed[:layer], placed[layer : layer + 1])
            sample_error(ErrorCode.STALLED)
            sample_stall(channel)
            await still_works(system, rng)
    # 0: it waits for ever.
    await system.write("STALL_LIMIT", 0)
    placed = chain(rng, system, 1)
    system.load(placed)
    before = bytearray(system.memory.data)
    await system.write("INTERRUPT_ENABLE", 3)
    system.pauses.stopped.add(channel)
    await system.begin(placed)
    await ClockCycles(dut.clk, 3000)
    assert dut.irq.value == 0
    system.pauses.stopped.clear()
    await system.port.interrupt()
    await system.write("INTERRUPT_PENDING", 7)
    system.compare(before, placed)
    await system.finish()
