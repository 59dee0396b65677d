"""Bench of hw/read_arbiter.py: bursts of all readers; the bus is modelled here, and each cycle looked at."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from amaranth.lib.wiring import In, Out
from cocotb.triggers import FallingEdge, ReadOnly, Timer

from sliceforge.hw.hierarchy import ports_of
from sliceforge.hw.read_arbiter import ReadArbiter
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start, to_fields, to_int

CASES = [
    {"bus_bits": 64, "address_bits": 40, "readers": 4, "in_flight": 16, "enough_beats": 32},
    {"bus_bits": 32, "address_bits": 32, "readers": 3, "in_flight": 2, "enough_beats": 16},
    {"bus_bits": 512, "address_bits": 64, "readers": 2, "in_flight": 5, "enough_beats": 64},
    {"bus_bits": 128, "address_bits": 33, "readers": 1, "in_flight": 3, "enough_beats": 512},
    {"bus_bits": 256, "address_bits": 32, "readers": 5, "in_flight": 4, "enough_beats": 5},
]
CONSTANTS = {"burst": 1, "lock": 0, "cache": 0b0011, "prot": 0}
"""Of each address: incrementing, no lock, normal memory, data access; its size is that of the bus."""


def component(p: dict[str, Any]) -> ReadArbiter:
    return ReadArbiter(**p)


class Bench:
    """Readers and bus. Each is told what to do by shares of cycles, which may be changed at any time.

    asks : in which a reader with bursts in ``wanted`` and nothing on offer makes an offer, by reader.
    eager : in which a reader that offers is eager, by reader.
    refuses, waits : in which the bus takes no address, and gives no beat though it owes one.
    fails : of beats that are errors.
    """

    def __init__(self, dut: Any, case: str, *, stall: float = 0.0) -> None:
        self.dut, self.p = dut, parameters()
        p = self.p
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {case} {stall}")
        self.readers = range(p["readers"])
        self.asks = [1 - stall] * p["readers"]
        self.eager = [0.5] * p["readers"]
        self.refuses = self.waits = stall
        self.fails = 0.0
        block = component(p)
        self.request_layout = block.requests_0.payload.shape()
        self.answer_layout = block.answer_0.shape()
        ports = list(ports_of(block))
        self.inputs = [(name, len(value)) for name, value, flow in ports if flow == In]
        self.bus_outputs = [name for name, _, flow in ports if flow == Out and name.startswith("m_axi")]

        self.wanted: list[deque[tuple[int, int]]] = [deque() for _ in self.readers]  # (address, last_beat)
        self.offers: list[tuple[int, int] | None] = [None for _ in self.readers]
        self.passed_by = [0] * p["readers"]  # grants to others since the reader is eager, without a break
        self.granted: list[int] = []  # readers, in the order in which they were served
        self.to_bus: deque[tuple[int, int]] = deque()  # taken from readers, not yet by the bus
        self.owners: deque[list[int]] = deque()  # reader and beats left, of each burst that was taken
        self.on_way = 0  # beats that were taken from readers and have not arrived
        self.bus_owes: deque[int] = deque()  # beats left of each burst that the bus has taken
        self.beat: dict[str, int] | None = None  # on offer by the bus
        self.offered_address: tuple[int, int] | None = None
        self.arrived: tuple[int, dict[str, int]] | None = None  # last cycle's beat, and whose it is
        self.counts = dict.fromkeys(("refused", "beats", "answers"), 0)

    def want(self, reader: int, bursts: int, most_beats: int = 4) -> None:
        """Random bursts; the arbiter passes any address and length."""
        for _ in range(bursts):
            last_beat = self.rng.choice([0, self.rng.randrange(most_beats), most_beats - 1])
            self.wanted[reader].append((self.rng.getrandbits(self.p["address_bits"]), last_beat))

    def withdraw(self, reader: int) -> None:
        """The reader is reset."""
        self.wanted[reader].clear()
        self.offers[reader] = None

    async def step(self, cycles: int = 1) -> None:
        for _ in range(cycles):
            shown = await self.noise()
            eager = self.drive()
            await ReadOnly()
            self.check(eager)
            assert self.shown() == shown, "the bus's signals are no registers"
            await FallingEdge(self.dut.clk)

    def shown(self) -> list[str]:
        """All outputs to the bus."""
        return [str(getattr(self.dut, name).value) for name in self.bus_outputs]

    async def noise(self) -> list[str]:
        """Anything on all inputs, for a moment of the cycle. Returns what the bus sees then."""
        for name, width in self.inputs:
            getattr(self.dut, name).value = self.rng.getrandbits(width)
        await Timer(1, unit="ns")
        return self.shown()

    def drive(self) -> list[bool]:
        """Returns which readers offer eagerly."""
        dut, rng = self.dut, self.rng
        eager = []
        for i in self.readers:
            if self.offers[i] is None and self.wanted[i] and rng.random() < self.asks[i]:
                self.offers[i] = self.wanted[i].popleft()
            offer, wish = self.offers[i], rng.random() < self.eager[i]
            address, last_beat = offer or (rng.getrandbits(32), rng.getrandbits(8))
            request = to_int(self.request_layout, {"address": address, "last_beat": last_beat})
            getattr(dut, f"requests_{i}__payload").value = request
            getattr(dut, f"requests_{i}__valid").value = int(offer is not None)
            getattr(dut, f"eager_{i}").value = int(wish)
            eager.append(wish and offer is not None)
        dut.m_axi_arready.value = int(rng.random() >= self.refuses)
        if self.beat is None and self.bus_owes and rng.random() >= self.waits:
            failed = rng.random() < self.fails
            self.beat = {
                "data": rng.getrandbits(self.p["bus_bits"]),
                "resp": rng.choice([2, 3]) if failed else 0,
                "last": int(self.bus_owes[0] == 1),
            }
        beat = self.beat or {
            "data": rng.getrandbits(32), "resp": rng.getrandbits(2), "last": rng.getrandbits(1)
        }  # fmt: skip
        dut.m_axi_rvalid.value = int(self.beat is not None)
        for name, value in beat.items():
            getattr(dut, f"m_axi_r{name}").value = value
        return eager

    def check(self, eager: list[bool]) -> None:
        """A cycle: answers, then the bus's beat, then its address, then the readers' requests."""
        dut = self.dut
        arrived = self.arrived
        for i in self.readers:
            answer = to_fields(self.answer_layout, int(getattr(dut, f"answer_{i}").value.resolve("zeros")))
            assert answer["valid"] == (arrived is not None and arrived[0] == i)
            if arrived is not None and arrived[0] == i:
                assert (answer["data"], answer["error"]) == (arrived[1]["data"], arrived[1]["resp"] != 0)
                self.counts["answers"] += 1
        assert dut.beat.value == (arrived is not None)
        assert dut.m_axi_rready.value == 1
        assert dut.owed.value == bool(self.owners)
        busy = self.owners or arrived or any(self.offers)
        assert dut.idle.value == (not busy)

        takes_address = self.check_address()
        self.arrived = None
        if self.beat is not None:
            owner = self.owners[0]
            self.arrived = (owner[0], self.beat)
            self.counts["beats"] += 1
            self.on_way -= 1
            for owing in (self.bus_owes, self.owners):
                if self.beat["last"]:
                    owing.popleft()
            if not self.beat["last"]:
                self.bus_owes[0] -= 1
                owner[1] -= 1
        assert dut.moves.value == (takes_address or self.beat is not None)
        self.beat = None
        if takes_address:
            self.bus_owes.append(self.to_bus.popleft()[1] + 1)
        self.check_requests(eager)

    def check_address(self) -> bool:
        """True if the bus takes an address in this cycle. What was taken a cycle ago is on offer."""
        dut = self.dut
        valid, ready = dut.m_axi_arvalid.value == 1, dut.m_axi_arready.value == 1
        assert valid == bool(self.to_bus)
        if valid:
            offer = (int(dut.m_axi_araddr.value), int(dut.m_axi_arlen.value))
            assert offer == self.to_bus[0]
        if valid and ready:
            size = (self.p["bus_bits"] // 8).bit_length() - 1
            for name, value in (CONSTANTS | {"size": size}).items():
                assert getattr(dut, f"m_axi_ar{name}").value == value, name
        assert dut.refused.value == (valid and not ready)
        self.counts["refused"] += valid and not ready
        return bool(valid and ready)

    def check_requests(self, eager: list[bool]) -> None:
        """At most one is taken, an eager one if there is any, and each has its turn."""
        taken = [
            i
            for i in self.readers
            if self.offers[i] is not None and getattr(self.dut, f"requests_{i}__ready").value == 1
        ]
        assert len(taken) <= 1
        for i in self.readers:
            if taken and any(eager):
                assert eager[taken[0]], f"reader {taken[0]} was taken before eager {eager}"
            among = eager[i] or (self.offers[i] is not None and not any(eager))
            if i in taken or not among:
                self.passed_by[i] = 0
            elif taken:
                self.passed_by[i] += 1
                assert self.passed_by[i] < len(self.readers), f"reader {i} starves"
        for i in taken:
            self.granted.append(i)
            offer = self.offers[i]
            assert offer is not None
            self.to_bus.append(offer)
            self.owners.append([i, offer[1] + 1])
            assert self.on_way < self.p["enough_beats"]
            self.on_way += offer[1] + 1
            assert len(self.owners) <= self.p["in_flight"]
            self.offers[i] = None

    @property
    def complete(self) -> bool:
        return not (any(self.wanted) or any(self.offers) or self.owners or self.arrived)

    async def finish(self, limit: int = 20_000) -> None:
        """Until everything was asked for and answered; then nothing more comes."""
        for _ in range(limit):
            if self.complete:
                break
            await self.step()
        assert self.complete, f"not complete after {limit} cycles"
        await self.step(20)
        assert self.dut.idle.value == 1
        assert self.counts["answers"] == self.counts["beats"]


async def begin(dut: Any, case: str, *, stall: float = 0.0) -> Bench:
    await start(dut, component(parameters()))
    await FallingEdge(dut.clk)  # after this one it is ready
    return Bench(dut, case, stall=stall)


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(readers=STALLS, bus=STALLS)
async def answers_who_asked(dut: Any, readers: float, bus: float) -> None:
    """With readers and bus at any pace, short bursts and the longest, and errors now and then."""
    bench = await begin(dut, f"random {readers}", stall=bus)
    bench.asks, bench.fails = [1 - readers] * len(bench.readers), 0.1
    for i in bench.readers:
        bench.want(i, 25)
        bench.want(i, 1, most_beats=256 if bus < 0.5 else 20)
        bench.want(i, 5)
    await bench.finish()
    assert sorted(bench.granted) == [i for i in bench.readers for _ in range(31)]
    assert not bus or bench.counts["refused"]


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def serves_each_in_turn(dut: Any, stall: float) -> None:
    """Readers that always ask are served alike: all eager, or none of them."""
    for eager in (0.0, 1.0):
        bench = await begin(dut, f"turns {eager}", stall=stall)
        count = len(bench.readers)
        bench.asks, bench.eager = [1.0] * count, [eager] * count
        for i in bench.readers:
            bench.want(i, 20, most_beats=1)
        await bench.finish()
        for turn in range(0, 20 * count, count):
            assert sorted(bench.granted[turn : turn + count]) == list(bench.readers)


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def serves_eager_readers_first(dut: Any, stall: float) -> None:
    """One reader is not eager: it is served when no other asks; it may become eager while it waits."""
    for lazy in range(parameters()["readers"]):
        bench = await begin(dut, f"eager {lazy}", stall=stall)
        others = [i for i in bench.readers if i != lazy]
        bench.asks = [1.0 for _ in bench.readers]
        bench.eager = [float(i != lazy) for i in bench.readers]
        for i in bench.readers:
            bench.want(i, 6, most_beats=2)
        await bench.finish()
        assert bench.granted[-6:] == [lazy] * 6
        for i in bench.readers:
            bench.want(i, 6, most_beats=2)
        served = len(bench.granted)
        while others and len(bench.granted) < served + len(others):
            await bench.step()
        bench.eager[lazy] = 1.0
        await bench.finish()
        assert not others or lazy in bench.granted[served : served + 2 * len(others) + 2]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def limits_what_is_on_its_way(dut: Any) -> None:
    """As many bursts as documented are taken from the readers and are passed on, not one more."""
    bench = await begin(dut, "limit")
    p = bench.p
    for beats in (1, 2, 3, 100, 256):
        bench.waits = 1.0
        for i in bench.readers:
            bench.wanted[i].extend([(bench.rng.getrandbits(32), beats - 1)] * (p["in_flight"] + 2))
        await bench.step(3 * p["in_flight"] + 20)
        enough = -(-p["enough_beats"] // beats)  # bursts with so many beats or more
        assert len(bench.owners) == min(p["in_flight"], enough)
        assert not bench.to_bus
        for i in bench.readers:
            bench.withdraw(i)
        bench.waits = 0.0
        await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def waits_for_the_bus_to_take_an_address(dut: Any) -> None:
    """What is behind it stays with the readers."""
    bench = await begin(dut, "refused")
    bench.refuses = 1.0
    for i in bench.readers:
        bench.want(i, 3)
    await bench.step(30)
    assert len(bench.owners) == len(bench.to_bus) == 1
    assert bench.counts["refused"] == 29
    bench.refuses = 0.0
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def passes_a_beat_a_cycle(dut: Any) -> None:
    """Of bursts of two or more; single beats every other cycle, as addresses."""
    bench = await begin(dut, "throughput")
    for i in bench.readers:
        bench.want(i, 60, most_beats=1)
    await bench.step(5)
    if bench.p["in_flight"] > 3:  # an address, a beat and what is between them
        before = bench.counts["beats"]
        for _ in range(25):
            await bench.step(2)
            before += 1
            assert bench.counts["beats"] == before
    await bench.finish()
    if bench.p["in_flight"] > 3 and bench.p["enough_beats"] > 6:
        for i in bench.readers:
            bench.wanted[i].extend([(0, 1)] * 60)
        await bench.step(5)
        before = bench.counts["beats"]
        await bench.step(50)
        assert bench.counts["beats"] == before + 50
        await bench.finish()
    bench.want(0, 1, most_beats=1)
    bench.wanted[0].append((0, 255))
    await bench.step(7)
    before = bench.counts["beats"]
    await bench.step(200)
    assert bench.counts["beats"] == before + 200
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def lets_readers_be_reset(dut: Any, stall: float) -> None:
    """They withdraw what they offer, and what they have asked for still arrives: idle is low until then."""
    bench = await begin(dut, "withdraw", stall=stall)
    for _ in range(30):
        for i in bench.readers:
            bench.want(i, 5)
        await bench.step(bench.rng.randrange(12))
        for i in bench.readers:
            bench.withdraw(i)
        if bench.rng.random() < 0.5:
            await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def starts_afresh_after_reset(dut: Any, stall: float) -> None:
    """Of readers, bus and arbiter."""
    for turn in range(5):
        bench = await begin(dut, f"reset {turn}", stall=stall)
        for i in bench.readers:
            bench.want(i, 10)
        await bench.step(bench.rng.randrange(5, 30))
        for i in bench.readers:
            getattr(dut, f"requests_{i}__valid").value = 0
        dut.m_axi_rvalid.value = 0
        await reset(dut)
        assert dut.m_axi_arvalid.value == 0 and dut.idle.value == 1 and dut.beat.value == 0
