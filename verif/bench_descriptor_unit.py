"""Bench of hw/descriptor_unit.py: legal descriptors, and all that makes one illegal; memory is modelled."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR, DESCRIPTOR_BYTES, DESCRIPTOR_FORMAT, PSUM_ALIGNMENT
from sliceforge.hw.descriptor_unit import DescriptorUnit
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start, to_fields, to_int

CASES = [
    {"bus_bits": 512, "address_bits": 40, "load_beat_bytes": 64},
    {"bus_bits": 32, "address_bits": 32, "load_beat_bytes": 16},
    {"bus_bits": 64, "address_bits": 64, "load_beat_bytes": 8},
    {"bus_bits": 128, "address_bits": 33, "load_beat_bytes": 16},
    {"bus_bits": 256, "address_bits": 32, "load_beat_bytes": 32},
]
ADDRESSES = ("weights", "activations", "parameters", "output", "psum", "next")
WORDS = DESCRIPTOR_BYTES // 4
Fields = dict[str, int]


def component(p: dict[str, Any]) -> DescriptorUnit:
    return DescriptorUnit(**p)


def fields() -> dict[str, tuple[int, int]]:
    """First bit in the descriptor, and bits, of each field, by the name of the port's member."""
    return {
        (word.name if field.name == "VALUE" else field.name).lower(): (
            8 * word.offset + field.lsb, field.width
        )
        for word in DESCRIPTOR
        for field in word.fields
    }  # fmt: skip


def join(values: Mapping[str, int]) -> int:
    """The descriptor's bits, the first in memory lowest."""
    places = fields()
    assert all(value < 1 << places[name][1] for name, value in values.items())
    return sum(value << places[name][0] for name, value in values.items())


def with_address(values: Fields, name: str, address: int) -> Fields:
    return values | {f"{name}_address": address & 0xFFFF_FFFF, f"{name}_address_high": address >> 32}


def alignment(name: str) -> int:
    """Bytes."""
    fixed = {"parameters": 4, "output": 4, "psum": PSUM_ALIGNMENT, "next": DESCRIPTOR_BYTES}
    return fixed.get(name, int(parameters()["load_beat_bytes"]))


def random_fields(rng: random.Random) -> Fields:
    """Legal ones: anything in the fields that the core checks, and the extremes of the others."""
    values = {name: rng.getrandbits(width) for name, (_, width) in fields().items()}
    values["format"] = DESCRIPTOR_FORMAT
    values["n"] = rng.choice([0, 1, (1 << 24) - 1, rng.getrandbits(24)])
    least = 4 * values["n"]
    values["output_stride"] = rng.choice([least, (1 << 32) - 4, rng.randrange(least, 1 << 32, 4)])
    for name in ("weights", "activations"):
        values[f"{name}_length"] = rng.choice([2, (1 << 32) - 1, rng.randrange(2, 1 << 32)])
    bits = parameters()["address_bits"]
    for name in ADDRESSES:
        step = alignment(name)
        address = rng.choice([0, (1 << bits) - step, rng.randrange(0, 1 << bits, step)])
        values = with_address(values, name, address)
    return values if values["next"] else with_address(values, "next", 0)


class Bench:
    """``await fetch(bits)`` resets the unit, has it fetch, and returns what it says.

    refuses, waits : shares of cycles in which no burst is taken, and no answer given.
    """

    def __init__(self, dut: Any, case: str, *, refuses: float = 0.0, waits: float = 0.0) -> None:
        self.dut, self.refuses, self.waits = dut, refuses, waits
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {case} {refuses} {waits}")
        p = parameters()
        self.address_bits, self.bus_bytes = p["address_bits"], p["bus_bits"] // 8
        block = component(p)
        self.requests, self.answers = block.requests.payload.shape(), block.answer.shape()
        self.descriptor = block.descriptor.shape()

    def random_address(self) -> int:
        bits = self.address_bits - 7
        return self.rng.choice([0, (1 << bits) - 1, self.rng.getrandbits(bits)]) << 7

    async def begin(self, address: int) -> None:
        dut = self.dut
        self.owed: list[int] = []  # addresses of the beats that were asked for, and not given
        self.asked: list[int] = []
        self.offer: int | None = None
        dut.requests__ready.value = dut.answer.value = 0
        await reset(dut, 1)
        assert dut.done.value == 0 and dut.failed.value == 0
        dut.start.value = 1
        dut.address.value = address
        await FallingEdge(dut.clk)
        dut.start.value = 0

    async def step(self, memory: Mapping[int, int], error_at: int | None = None) -> None:
        """A cycle: perhaps takes a burst, perhaps gives the next beat of those that are owed."""
        dut, rng, layout = self.dut, self.rng, self.requests
        answer = rng.getrandbits(8 * self.bus_bytes + 1)  # noise, not valid
        if self.owed and rng.random() >= self.waits:
            address = self.owed.pop(0)
            error = address == error_at
            answer = to_int(self.answers, {"data": memory[address], "error": error, "valid": 1})
        dut.answer.value = answer
        ready = rng.random() >= self.refuses
        dut.requests__ready.value = int(ready)
        await ReadOnly()
        if dut.requests__valid.value == 1:
            bits = int(dut.requests__payload.value)
            assert self.offer in (None, bits), "an offer was changed"
            self.offer = None if ready else bits
            if ready:
                request = to_fields(layout, bits)
                addresses = [request["address"] + i * self.bus_bytes for i in range(request["last_beat"] + 1)]
                self.owed += addresses
                self.asked += addresses
        else:
            assert self.offer is None, "an offer was withdrawn"
        await FallingEdge(dut.clk)

    def memory(self, address: int, bits: int) -> dict[int, int]:
        """Beats of the bus by address."""
        width = 8 * self.bus_bytes
        return {
            address + i * self.bus_bytes: bits >> i * width & ((1 << width) - 1)
            for i in range(DESCRIPTOR_BYTES // self.bus_bytes)
        }

    async def fetch(self, bits: int, *, address: int | None = None, after: int = 0) -> tuple[Fields, int]:
        """The fields and the error code. They must be there soon after the last beat, and ``after`` cycles
        later."""
        dut = self.dut
        address = self.random_address() if address is None else address
        memory = self.memory(address, bits)
        await self.begin(address)
        cycles = since = 0
        while since < 5:
            assert dut.done.value == 0 or since, "done before the last beat"
            if dut.done.value == 1:
                break
            await self.step(memory)
            cycles += 1
            since += self.asked == list(memory) and not self.owed
            assert cycles < 1000, f"{len(self.asked)} beats asked for"
        seen = self.seen()
        for _ in range(after):
            await self.step(memory)
            assert self.seen() == seen
        assert self.asked == list(memory), "not the descriptor's beats, or not in order"
        return seen

    def seen(self) -> tuple[Fields, int]:
        dut = self.dut
        assert dut.done.value == 1 and dut.failed.value == 0
        return to_fields(self.descriptor, int(dut.descriptor.value)), int(dut.illegal.value)

    async def expect(self, values: Fields, *codes: ErrorCode) -> None:
        """``values`` are seen as they are, and refused by one of ``codes``; legal if there is none."""
        seen, illegal = await self.fetch(join(values))
        assert seen == values
        assert illegal in ([code.value for code in codes] or [0]), f"{illegal}, not {codes}, for {values}"


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(refuses=STALLS, waits=STALLS)
async def fetches_legal_descriptors(dut: Any, refuses: float, waits: float) -> None:
    """From anywhere, the last address included; they stay, and nothing more is asked for."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "legal", refuses=refuses, waits=waits)
    for _ in range(12):
        values = random_fields(bench.rng)
        assert await bench.fetch(join(values), after=20) == (values, 0)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def refuses_every_reserved_bit(dut: Any) -> None:
    """Each alone, among all other bits of the 128 bytes as legal as before."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "reserved")
    places = fields().values()
    used = sum(((1 << width) - 1) << first for first, width in places)
    assert used.bit_count() == sum(width for _, width in places)
    reserved = [bit for bit in range(8 * DESCRIPTOR_BYTES) if not used >> bit & 1]
    assert len(reserved) > 100
    for bit in reserved:
        values = random_fields(bench.rng)
        seen = await bench.fetch(join(values) | 1 << bit)
        assert seen == (values, ErrorCode.ILLEGAL_FORMAT.value), f"bit {bit % 32} of word {bit // 32}"


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def refuses_other_formats(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, "format")
    for value in (0, 1, 255, *(DESCRIPTOR_FORMAT ^ 1 << bit for bit in range(8))):
        await bench.expect(random_fields(bench.rng) | {"format": value}, ErrorCode.ILLEGAL_FORMAT)


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(name=ADDRESSES)
async def checks_addresses(dut: Any, name: str) -> None:
    """Each bit alone, in an address of which all others are legal."""
    await start(dut, component(parameters()))
    bench = Bench(dut, name)
    bits, step = bench.address_bits, alignment(name)
    code = ErrorCode[f"ILLEGAL_{name.upper()}_ADDRESS"]
    for bit in range(64):
        values = random_fields(bench.rng) | {"next": 1}
        if name != "next":
            values = with_address(values, "next", bench.random_address())
        base = bench.rng.choice([0, bench.rng.randrange(0, 1 << bits, step)])
        legal = step <= 1 << bit < 1 << bits
        await bench.expect(with_address(values, name, base ^ 1 << bit), *([] if legal else [code]))


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def refuses_an_address_of_no_next_layer(dut: Any) -> None:
    """Without NEXT its address must be 0; with NEXT, 0 is an address."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "next")
    for bit in range(64):
        values = with_address(random_fields(bench.rng) | {"next": 0}, "next", 1 << bit)
        await bench.expect(values, ErrorCode.ILLEGAL_NEXT_ADDRESS)
    for follows in (0, 1):
        await bench.expect(with_address(random_fields(bench.rng) | {"next": follows}, "next", 0))


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def checks_lengths(dut: Any) -> None:
    """A region has a header and something behind it."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "lengths")
    for name in ("weights_length", "activations_length"):
        for value in (0, 1):
            await bench.expect(random_fields(bench.rng) | {name: value}, ErrorCode.ILLEGAL_LENGTH)
        for value in (2, 3, *(1 << bit for bit in range(2, 32))):
            await bench.expect(random_fields(bench.rng) | {name: value})


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def checks_the_stride(dut: Any) -> None:
    """A multiple of 4 bytes, and a row of results or more."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "stride")
    for n in (1, 2, 3, 1 << 23, (1 << 24) - 1, *(bench.rng.getrandbits(24) | 1 for _ in range(10))):
        values = random_fields(bench.rng) | {"n": n}
        for stride in (4 * n, 4 * n + 4, 1 << 31, (1 << 32) - 4):
            await bench.expect(values | {"output_stride": stride})
        odd = [4 * n + i for i in (1, 2, 3)] + [(1 << 32) - i for i in (1, 2, 3)]
        for stride in (0, 4 * n - 4, 4 * n - 1, *odd):
            await bench.expect(values | {"output_stride": stride}, ErrorCode.ILLEGAL_STRIDE)


def illegal(rng: random.Random, values: Fields, code: ErrorCode) -> Fields:
    """``values``, made illegal in one more way."""
    if code == ErrorCode.ILLEGAL_FORMAT:
        return values | {"format": 7}
    if code == ErrorCode.ILLEGAL_LENGTH:
        return values | {"weights_length": rng.choice([0, 1])}
    if code == ErrorCode.ILLEGAL_STRIDE:
        return values | {"output_stride": values["output_stride"] | 2}
    return values | {f"{code.name.split('_')[1].lower()}_address": 1}


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def names_one_of_several_errors(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, "several")
    kinds = [ErrorCode.ILLEGAL_FORMAT, ErrorCode.ILLEGAL_LENGTH, ErrorCode.ILLEGAL_STRIDE]
    kinds += [ErrorCode[f"ILLEGAL_{name.upper()}_ADDRESS"] for name in ADDRESSES]
    for _ in range(40):
        codes = bench.rng.sample(kinds, bench.rng.randrange(2, len(kinds) + 1))
        values = random_fields(bench.rng)
        for code in codes:
            values = illegal(bench.rng, values, code)
        await bench.expect(values, *codes)


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(waits=STALLS)
async def fails_at_a_read_error(dut: Any, waits: float) -> None:
    """In any beat; until a reset, after which the next descriptor is fetched."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "error", waits=waits)
    for beat in range(DESCRIPTOR_BYTES // bench.bus_bytes):
        address = bench.random_address()
        memory = bench.memory(address, join(random_fields(bench.rng)))
        error_at = address + beat * bench.bus_bytes
        await bench.begin(address)
        given = since = 0
        while given <= beat:
            assert dut.failed.value == 0
            await bench.step(memory, error_at)
            given = len(bench.asked) - len(bench.owed)
        for since in range(40):
            await bench.step(memory, error_at)
            assert dut.failed.value == 1 or since < 2
    values = random_fields(bench.rng)
    assert await bench.fetch(join(values), after=20) == (values, 0)


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def starts_afresh_after_reset(dut: Any, stall: float) -> None:
    """Reset at any time; the answers that are owed come while it lasts, and are dropped."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "reset", refuses=stall, waits=stall)
    for turn in range(40):
        await bench.begin(bench.random_address())
        memory = _Noise(bench)
        for _ in range(turn):
            await bench.step(memory)
        dut.rst.value = 1
        await bench.step(memory)  # what is on offer may still be taken
        while bench.owed:
            bench.offer = None
            assert dut.requests__valid.value == 0
            await bench.step(memory)
        values = random_fields(bench.rng)
        assert await bench.fetch(join(values), after=3) == (values, 0)


class _Noise(Mapping[int, int]):
    """A memory with anything in it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __getitem__(self, address: int) -> int:
        return self._bench.rng.getrandbits(8 * self._bench.bus_bytes)

    def __iter__(self) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError
