"""Bench of hw/descriptor_unit.py: legal descriptors, and all that makes one illegal; memory is modelled."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR_BYTES, DESCRIPTOR_FORMAT
from sliceforge.hw.descriptor_unit import DescriptorUnit
from sliceforge.verif.descriptors import ADDRESSES, RESERVED, alignment, join, random_fields, with_address
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start, to_fields, to_int

CASES = [
    {"bus_bits": 512, "address_bits": 40, "load_beat_bytes": 64, "tile_k": 32},
    {"bus_bits": 32, "address_bits": 32, "load_beat_bytes": 16, "tile_k": 4},
    {"bus_bits": 64, "address_bits": 64, "load_beat_bytes": 8, "tile_k": 128},
    {"bus_bits": 128, "address_bits": 33, "load_beat_bytes": 16, "tile_k": 20},
    {"bus_bits": 256, "address_bits": 32, "load_beat_bytes": 32, "tile_k": 60},
]
CHECKED = [(name, 0) for name in ADDRESSES] + [("output", 1), ("length", 1)]


def component(p: dict[str, Any]) -> DescriptorUnit:
    return DescriptorUnit(**p)


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

    async def fetch(self, bits: int, *, after: int = 0) -> tuple[dict[str, int], int]:
        """The fields and the error code. They must be there 6 cycles after the last answer (3 of the reader,
        one to store it and two to check) and ``after`` cycles later."""
        dut = self.dut
        address = self.random_address()
        memory = self.memory(address, bits)
        await self.begin(address)
        cycles = since = 0
        while since < 6:
            assert dut.done.value == 0, "done too early"
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

    def seen(self) -> tuple[dict[str, int], int]:
        dut = self.dut
        assert dut.done.value == 1 and dut.failed.value == 0
        return to_fields(self.descriptor, int(dut.descriptor.value)), int(dut.illegal.value)

    async def expect(self, values: dict[str, int], *codes: ErrorCode, legal: bool = False) -> None:
        """``values`` are seen as they are, and refused by one of ``codes`` unless they are ``legal``."""
        seen, illegal = await self.fetch(join(values))
        assert seen == values
        expected = [0] if legal else [code.value for code in codes]
        assert illegal in expected, f"{illegal}, not {expected}, for {values}"


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
    assert len(RESERVED) > 100
    for bit in RESERVED:
        values = random_fields(bench.rng)
        seen = await bench.fetch(join(values) | 1 << bit)
        assert seen == (values, ErrorCode.ILLEGAL_FORMAT.value), f"bit {bit % 32} of word {bit // 32}"


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def checks_format_lengths_and_exponents(dut: Any) -> None:
    """A region has a header and something behind it; partial sums of 8 bits have exponents."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "fields")
    for value in (0, 1, 255, *(DESCRIPTOR_FORMAT ^ 1 << bit for bit in range(8))):
        await bench.expect(random_fields(bench.rng) | {"format": value}, ErrorCode.ILLEGAL_FORMAT)
    for name in ("weights_length", "activations_length"):
        for value in (0, 3, *(1 << bit for bit in range(32))):
            values = random_fields(bench.rng) | {name: value}
            await bench.expect(values, ErrorCode.ILLEGAL_LENGTH, legal=value >= 2)
    for group in range(8):
        for words in (0, *(1 << bit for bit in range(24))):
            values = random_fields(bench.rng) | {"psum_group": group, "exponent_words": words}
            await bench.expect(values, ErrorCode.PSUM_EXPONENTS, legal=group == 0 or words > 0)


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize((("name", "requantize"), CHECKED))
async def checks_addresses(dut: Any, name: str, requantize: int) -> None:
    """Each bit alone, in an address of which all others are legal; a length's, if it is used."""
    await start(dut, component(parameters()))
    bench = Bench(dut, f"{name} {requantize}")
    space, step = 1 << bench.address_bits, alignment(name, requantize)
    code = ErrorCode["ILLEGAL_REQUANTIZATION" if name == "length" else f"ILLEGAL_{name.upper()}_ADDRESS"]
    for bit in range(64):
        values = random_fields(bench.rng, next=1, requantize=requantize)
        base = bench.rng.choice([0, bench.rng.randrange(0, space, step)])
        legal = step <= 1 << bit < space or (name == "length" and not requantize)
        await bench.expect(with_address(values, name, base ^ 1 << bit), code, legal=legal)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def refuses_an_address_of_no_next_layer(dut: Any) -> None:
    """Without NEXT its address must be 0; with NEXT, 0 is an address."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "next")
    for bit in range(64):
        values = with_address(random_fields(bench.rng, next=0), "next", 1 << bit)
        await bench.expect(values, ErrorCode.ILLEGAL_NEXT_ADDRESS)
    for follows in (0, 1):
        await bench.expect(with_address(random_fields(bench.rng, next=follows), "next", 0), legal=True)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def checks_strides(dut: Any) -> None:
    """Of results: a multiple of 4 bytes, and a row or more. Between regions: load beats, of the output's 1 or
    more."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "stride")
    beat, code = parameters()["load_beat_bytes"], ErrorCode.ILLEGAL_STRIDE
    bits = [1 << bit for bit in range(32)]
    for n in (1, 2, 3, 1 << 23, (1 << 24) - 1, *(bench.rng.getrandbits(24) | 1 for _ in range(5))):
        row = 4 * n
        for stride in (0, *range(row - 4, row + 5), 1 << 31, *range((1 << 32) - 4, 1 << 32)):
            values = random_fields(bench.rng, n=n, requantize=0) | {"output_stride": stride}
            await bench.expect(values, code, legal=stride % 4 == 0 and stride >= row)
    for stride in (0, *bits, *((1 << 32) - bit for bit in bits)):
        values = random_fields(bench.rng, requantize=1) | {"output_stride": stride}
        await bench.expect(values, code, legal=stride % max(4, beat) == 0 and stride > 0)
        values = random_fields(bench.rng) | {"activations_stride": stride}
        await bench.expect(values, code, legal=stride % beat == 0)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def checks_requantization(dut: Any) -> None:
    """The next layer's slices and k-tile, and the rows of tiles in a group; all only with REQUANTIZE."""
    await start(dut, component(parameters()))
    bench = Bench(dut, "requantization")
    last = parameters()["tile_k"]
    tries = [
        ({"next_lo_bits": lo_bits, "next_frequent": r}, 4 <= lo_bits <= 6 and r < 2 ** (8 - lo_bits))
        for lo_bits, r in product(range(8), range(16))
    ]
    tries += [({"next_k_tile": k}, 1 <= k <= last) for k in (0, 1, last - 1, last, last + 1, 128, 255)]
    tries += [({"output_group": group}, group > 0) for group in (0, *(1 << bit for bit in range(24)))]
    for change, good in tries:
        for requantize in (0, 1):
            values = random_fields(bench.rng, requantize=requantize) | change
            await bench.expect(values, ErrorCode.ILLEGAL_REQUANTIZATION, legal=good or not requantize)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def names_one_of_several_errors(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, "several")
    wrong = {f"ILLEGAL_{name.upper()}_ADDRESS": {f"{name}_address": 1} for name in ADDRESSES[:-1]}
    wrong |= {
        "ILLEGAL_FORMAT": {"format": 7},
        "ILLEGAL_LENGTH": {"weights_length": 1},
        "ILLEGAL_STRIDE": {"output_stride": 2},
        "ILLEGAL_REQUANTIZATION": {"output_group": 0},
        "PSUM_EXPONENTS": {"psum_group": 1, "exponent_words": 0},
    }
    for _ in range(40):
        codes = bench.rng.sample(sorted(wrong), bench.rng.randrange(2, len(wrong) + 1))
        values = random_fields(bench.rng, requantize=1)
        for code in codes:
            values |= wrong[code]
        await bench.expect(values, *(ErrorCode[code] for code in codes))


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
        memory: Mapping[int, int] = defaultdict(lambda: bench.rng.getrandbits(8 * bench.bus_bytes))
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
