"""Bench of hw/host_bridge.py: any requests against a model of the link, slaves that err or never answer.

A protocol checker watches the bus in all tests.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.host_link import MOST_WORDS, Operation, Status
from sliceforge.hw.axi import DECERR, SLVERR
from sliceforge.verif.host_bridge_model import Bench, component
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start

CASES = [
    {"hello": [0x5346_4C4B, 1, 25_000_000, 1_000_000, 0x8000_0000, 65_536], "timeout": 64},
    {"hello": [0x7D7E_0001], "timeout": 1000},
]

HELLO, READ, WRITE, RESET = Operation
OK, SLAVE_ERROR, BUS_TIMEOUT, BAD_REQUEST = Status


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS, answers=STALLS)
async def executes_requests(dut: Any, stall: float, answers: float) -> None:
    """Random ones with slaves that err now and then, and the longest."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall=stall, answers=answers)
    for i in range(60):
        bench.slave.errors.clear()
        if i % 4 == 3:
            known = [*bench.slave.words, 0]
            bench.slave.errors[bench.random.choice(known)] = bench.random.choice([SLVERR, DECERR])
        await bench.execute_random()
    bench.slave.errors.clear()
    words = [bench.random.getrandbits(32) for _ in range(MOST_WORDS)]
    await bench.execute(1, WRITE, 0x7000, words)
    await bench.execute(2, READ, 0x7000, count=MOST_WORDS)
    await bench.execute(3, WRITE, 0x7000, words[::-1])
    await bench.execute(4, READ, 0x7000, count=MOST_WORDS)
    await bench.finish()


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(error=[SLVERR, DECERR], at=[0, 1, 6])
async def stops_at_an_error(dut: Any, error: int, at: int) -> None:
    """What is behind it is neither read nor written; the next request is executed."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall=0.2)
    bench.slave.errors[0x100 + 4 * at] = error
    await bench.execute(1, WRITE, 0x100, range(1, 8))
    await bench.execute(2, READ, 0x100, count=7)
    assert len(bench.slave.words) == at
    await bench.execute(3, READ, 0x104 + 4 * at, count=7)
    await bench.finish()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def refuses_bad_requests(dut: Any) -> None:
    """Whatever their tag; and they do not count as executed."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    await bench.execute(7, WRITE, 0x40, [1, 2, 3])
    most = 4 * MOST_WORDS
    for tag in (7, 8):
        for operation in (4, 5, 0x7F, 0x80, 0x82, 0xFF):
            await bench.refuse(BAD_REQUEST, tag, operation)
        for operation in (READ, WRITE):
            for low in (1, 2, 3):
                await bench.refuse(
                    BAD_REQUEST, tag, operation, 0x40 + low, count=1, bytes=4 * (operation == WRITE)
                )
            for count, size in (
                (0, 0),
                (MOST_WORDS + 1, most),
                (MOST_WORDS + 1, 0),
                (0xFFFF, most),
                (0x101, 4),
            ):
                await bench.refuse(BAD_REQUEST, tag, operation, 0x40, count=count, bytes=size)
        for size in (1, 4, 8, most):
            await bench.refuse(BAD_REQUEST, tag, READ, 0x40, count=1, bytes=size)
        for size in (0, 4, 7, 9, 11, 12, most):
            await bench.refuse(BAD_REQUEST, tag, WRITE, 0x40, count=2, bytes=size)
        for operation in (HELLO, RESET):
            await bench.refuse(BAD_REQUEST, tag, operation, count=1)
            await bench.refuse(BAD_REQUEST, tag, operation, count=256, bytes=most)
            await bench.refuse(BAD_REQUEST, tag, operation, bytes=4)
            await bench.refuse(BAD_REQUEST, tag, operation, 2)
    await bench.refuse(OK, 7, WRITE, 0x40, [1, 2, 3])  # still the last executed one
    await bench.execute(8, WRITE, 0x40, [4])
    await bench.finish()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def executes_a_tag_once(dut: Any) -> None:
    """A WRITE or RESET with the last executed request's tag only has its status, good or bad."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall=0.2)
    await bench.execute(0, WRITE, 0x40, [1])  # no tag has been seen: the 0 of a register is none
    bench.slave.errors[0x80] = SLVERR
    for tag, operation, address, words in (
        (1, WRITE, 0x40, [5]), (2, WRITE, 0x80, [6, 7]), (3, RESET, 0, []), (4, WRITE, 0x40, [8, 9]),
    ):  # fmt: skip
        await bench.execute(tag, operation, address, words)
        assert bench.executed is not None
        for _ in range(2):
            await bench.refuse(bench.executed[1], tag, operation, address, words)
            await bench.refuse(bench.executed[1], tag, WRITE, 0x44, [1, 2, 3])
            await bench.refuse(bench.executed[1], tag, RESET)
        for _ in range(2):  # reading twice is allowed
            await bench.execute(tag, READ, 0x40, count=2)
            await bench.execute(tag, HELLO)
        await bench.refuse(OK, tag, WRITE, 0x40, [3])  # HELLO is what was executed last
    await reset(dut)
    await bench.execute(4, WRITE, 0x40, [1])
    await bench.finish()


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(channel=["ar", "r", "aw", "w", "b"], first=[0, 3])
async def gives_up_without_an_answer(dut: Any, channel: str, first: int) -> None:
    """And makes no access until RESET, though the slave may answer late; the bus's rules are kept."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall=0.2)
    operation = READ if channel in ("ar", "r") else WRITE
    words = [] if operation == READ else [11, 12, 13, 14, 15]
    if first:
        await bench.execute(1, operation, 0x40, words[:first], **({} if words else {"count": first}))
    bench.slave.silent = channel
    fields = {} if words else {"count": 5}
    await bench.refuse(BUS_TIMEOUT, 2, operation, 0x40, words, **fields)
    await bench.refuse(BUS_TIMEOUT, 2, operation, 0x40, words, **fields)
    bench.slave.silent = None
    await ClockCycles(dut.clk, 30)
    late = len(bench.slave.accesses)
    for tag, again in enumerate((READ, WRITE, READ, WRITE), start=3):
        sent = [1] if again == WRITE else []
        await bench.refuse(BUS_TIMEOUT, tag, again, 0x1000, sent, count=1)
    await bench.refuse(BAD_REQUEST, 9, READ, 0x1000, count=0)
    await bench.expect(OK, 10, HELLO)
    assert len(bench.slave.accesses) == late
    await bench.execute(11, RESET)
    for _ in range(10):
        await bench.execute_random()
    await bench.finish()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def waits_as_long_as_it_says(dut: Any) -> None:
    """Each access has the whole time; a cycle more is too much."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    # The address is taken in the first cycle of waiting, the answer given in the one behind the delay.
    bench.slave.delay = bench.p["timeout"] - 2
    await bench.execute(1, READ, 0x40, count=3)
    await bench.execute(2, READ, 0x40, count=3)
    bench.slave.delay += 1
    await bench.refuse(BUS_TIMEOUT, 3, READ, 0x40, count=3)
    bench.slave.delay = 0
    await bench.execute(4, RESET)
    await bench.execute_random()
    await bench.finish()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def takes_the_cycles_that_it_documents(dut: Any) -> None:
    """3 a word, and the slave's 1; those before the first access, and those of the answer."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    names = ("requests__valid", "m_axi_arvalid", "m_axi_rvalid", "words__valid")
    moments: dict[str, list[int]] = {name: [] for name in names}

    async def watch_all() -> None:
        while True:
            await ReadOnly()
            for name in names:
                if getattr(dut, name).value == 1:
                    moments[name].append(bench.checker.cycle)
            await FallingEdge(dut.clk)

    task = cocotb.start_soon(watch_all())
    await bench.execute(1, READ, 0x40, count=6)
    task.cancel()
    requests, addresses, answers, words = moments.values()
    assert addresses[0] - requests[0] == 3
    assert [after - before for before, after in pairwise(addresses)] == [4] * 5
    assert words[0] - answers[-1] == 2
    assert [after - before for before, after in pairwise(words)] == [2] + [3] * 5
    await bench.finish()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def starts_afresh_at_reset(dut: Any) -> None:
    """In the middle of accesses and of an answer."""
    await start(dut, component(parameters()))
    for cycles in (3, 5, 8, 30, 60):
        bench = Bench(dut, answers=0.2)
        words = list(range(7))
        task = cocotb.start_soon(
            bench.ask(1, bench.random.choice([READ, WRITE]), 0x40, words, bytes=28, count=7)
        )
        await ClockCycles(dut.clk, 7 + cycles)
        await FallingEdge(dut.clk)
        task.cancel()
        bench.stop()
        for name in ("arready", "rvalid", "awready", "wready", "bvalid"):
            getattr(dut, f"m_axi_{name}").value = 0
        dut.word_valid.value = 0
        await reset(dut)
        assert dut.words__valid.value == 0
        bench = Bench(dut)
        for _ in range(5):
            await bench.execute_random()
        await bench.finish()
        bench.stop()
