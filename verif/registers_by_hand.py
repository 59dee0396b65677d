"""More tests for `bench_registers`, which drive the bus by hand: orders, delays, single cycles."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from amaranth.lib.wiring import In, Out
from cocotb.triggers import FallingEdge, ReadOnly, Timer

from sliceforge.gen.registers import REGISTER_SPACE
from sliceforge.hw.axi import OKAY, SLVERR
from sliceforge.hw.hierarchy import ports_of
from sliceforge.verif.registers_model import ONES, Bench, component, port
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start


class ByHand(Bench):
    """Drives the bus's signals; what is not valid is noise."""

    def drive(self, channel: str, valid: bool, **payload: int) -> None:
        for name, value in {"valid": int(valid), **payload}.items():
            noise = 0 if name == "valid" else self.rng.getrandbits(2)
            getattr(self.dut, f"s_axi_{channel}{name}").value = value if valid else noise

    def passes(self, channel: str) -> bool:
        valid, ready = (getattr(self.dut, f"s_axi_{channel}{end}").value for end in ("valid", "ready"))
        return bool(valid == 1 and ready == 1)

    async def write_at(
        self, offset: int, value: int, strobes: int = 15, *, aw: int = 0, w: int = 0, b: int = 0
    ) -> tuple[int, dict[str, int]]:
        """Valid of address and data from cycles ``aw`` and ``w`` on, ready for the answer from ``b`` on.

        Returns the response, and the cycles of the transfers and of the answer's first cycle, "bvalid".
        """
        dut, prot = self.dut, self.rng.getrandbits(3)
        cycles: dict[str, int] = {}
        for cycle in range(100):
            self.drive("aw", cycle >= aw and "aw" not in cycles, addr=offset, prot=prot)
            self.drive("w", cycle >= w and "w" not in cycles, data=value, strb=strobes)
            dut.s_axi_bready.value = int(cycle >= b)
            await ReadOnly()
            cycles |= {channel: cycle for channel in ("aw", "w", "b") if self.passes(channel)}
            if dut.s_axi_bvalid.value == 1:
                cycles.setdefault("bvalid", cycle)
                response = int(dut.s_axi_bresp.value)
            await FallingEdge(dut.clk)
            if "b" in cycles:
                dut.s_axi_bready.value = self.rng.getrandbits(1)
                return response, cycles
        raise AssertionError(f"no answer; transfers in cycles {cycles}")

    async def read_at(self, offset: int, *, r: int = 0) -> tuple[int, int, dict[str, int]]:
        """Valid from cycle 0 on, ready for the answer from cycle ``r`` on. Data, response, cycles."""
        dut, prot = self.dut, self.rng.getrandbits(3)
        cycles: dict[str, int] = {}
        for cycle in range(100):
            self.drive("ar", "ar" not in cycles, addr=offset, prot=prot)
            dut.s_axi_rready.value = int(cycle >= r)
            await ReadOnly()
            cycles |= {channel: cycle for channel in ("ar", "r") if self.passes(channel)}
            if dut.s_axi_rvalid.value == 1:
                cycles.setdefault("rvalid", cycle)
                data, response = int(dut.s_axi_rdata.value), int(dut.s_axi_rresp.value)
            await FallingEdge(dut.clk)
            if "r" in cycles:
                dut.s_axi_rready.value = self.rng.getrandbits(1)
                return data, response, cycles
        raise AssertionError(f"no answer; transfers in cycles {cycles}")


async def by_hand(dut: Any, case: str) -> ByHand:
    await start(dut, component(parameters()))
    return ByHand(dut, case)


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(b=[0, 3, 12])
async def takes_address_and_data_in_any_order(dut: Any, b: int) -> None:
    """Together, or either first; ready for the answer before it is there, or long after."""
    bench = await by_hand(dut, f"orders {b}")
    for aw, w in ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (0, 7), (7, 0), (0, 0), (3, 3)):
        for offset in (bench.any_offset() for _ in range(6)):
            value, strobes = bench.rng.getrandbits(32), bench.rng.choice([15, bench.rng.getrandbits(4)])
            expected = bench.write(offset, value, strobes)
            response, cycles = await bench.write_at(offset, value, strobes, aw=aw, w=w, b=b)
            assert response == expected
            assert (cycles["aw"], cycles["w"]) == (aw, w)
            assert cycles["bvalid"] == max(aw, w) + 2
            assert cycles["b"] == max(b, cycles["bvalid"])
            bench.check()
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(r=[0, 1, 2, 12])
async def holds_an_answer_until_it_is_taken(dut: Any, r: int) -> None:
    """It shows what was there when the address came, whatever changes while it waits."""
    bench = await by_hand(dut, f"reads {r}")
    for _ in range(3):
        for offset in range(0, REGISTER_SPACE, 4):
            bench.set_status()
            expected = bench.word(offset)
            task = cocotb.start_soon(bench.read_at(offset, r=r))
            await FallingEdge(dut.clk)
            bench.set_status()
            data, response, cycles = await task
            assert response == (SLVERR if expected is None else OKAY)
            assert expected is None or data == expected
            assert (cycles["ar"], cycles["rvalid"], cycles["r"]) == (0, 1, max(1, r))
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def takes_the_next_write_while_an_answer_waits(dut: Any) -> None:
    """One: it acts when that answer has been taken; the write after it waits until then."""
    bench = await by_hand(dut, "pipelined")
    offset = bench.named["INTERRUPT_ENABLE"].offset

    async def offer(value: int | None, b: int) -> bool:
        """A cycle in which a write of ``value``, if any, is on offer. True if it is taken."""
        for channel, payload in (("aw", {"addr": offset}), ("w", {"data": value or 0, "strb": 15})):
            bench.drive(channel, value is not None, **payload)
        dut.s_axi_bready.value = b
        await ReadOnly()
        taken = [bench.passes(channel) for channel in ("aw", "w")]
        await FallingEdge(dut.clk)
        assert taken[0] == taken[1]
        return taken[0]

    assert await offer(5, b=0)
    assert not await offer(None, b=0)
    assert await offer(2, b=0)
    for _ in range(10):
        assert not await offer(7, b=0)
    bench.write(offset, 5)
    bench.check()
    # An answer is taken, the write behind it acts, and there is room for another.
    assert [await offer(7, b) for b in (1, 0, 0)] == [False, False, True]
    bench.write(offset, 2)
    bench.check()
    assert not any([await offer(None, b) for b in (1, 0, 0)])
    bench.write(offset, 7)
    bench.check()
    assert bench.checker.taken["b"] == 2
    for _ in range(10):
        await offer(None, b=1)
    assert bench.checker.taken == {"ar": 0, "r": 0, "aw": 3, "w": 3, "b": 3}
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def loses_no_event(dut: Any) -> None:
    """What is set in the very cycle in which it is cleared stays set; before that, it is cleared."""
    bench = await by_hand(dut, "events")
    pending = bench.named["INTERRUPT_PENDING"]
    for field in pending.fields:
        name = port(pending, field)
        alone = await clear(bench, name, field.mask)
        cleared = alone.index(0)
        assert alone == [1] * cleared + [0] * (len(alone) - cleared)
        for event in range(6):
            stays = event >= cleared - 1
            expected = [int(cycle < cleared or (stays and cycle > event)) for cycle in range(8)]
            assert await clear(bench, name, field.mask, event) == expected, f"{name}: event in cycle {event}"
    await bench.finish()


async def clear(bench: ByHand, name: str, mask: int, event: int | None = None) -> list[int]:
    """Sets a sticky field and clears it; an event comes in a cycle. Returns the field, cycle by cycle."""
    dut, pending = bench.dut, bench.named["INTERRUPT_PENDING"].offset
    set_, seen = getattr(dut, f"set_{name}"), []
    set_.value = 1
    await FallingEdge(dut.clk)
    task = cocotb.start_soon(bench.write_at(pending, mask))
    for cycle in range(8):
        set_.value = int(cycle == event)
        await ReadOnly()
        seen.append(int(getattr(dut, name).value))
        await FallingEdge(dut.clk)
    assert (await task)[0] == OKAY
    await bench.write_at(pending, mask)
    return seen


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def pulses_for_a_cycle(dut: Any) -> None:
    """Each pulse alone, in the cycle before the answer; writes at once after each other give one each."""
    bench = await by_hand(dut, "pulses")
    control = bench.named["CONTROL"]
    for field in (*control.fields, *control.fields):
        name = port(control, field)
        task = cocotb.start_soon(bench.write_at(control.offset, field.mask))
        seen = []
        for _ in range(6):
            await ReadOnly()
            seen.append(int(getattr(dut, name).value))
            await FallingEdge(dut.clk)
        await task
        bench.write(control.offset, field.mask)
        assert sum(seen) == 1
        bench.check()
    for _ in range(10):
        await bench.write_at(control.offset, control.fields[1].mask)
        bench.write(control.offset, control.fields[1].mask)
    for wait in range(5):  # a pulse cannot be read, not even in its cycle
        task = cocotb.start_soon(bench.write_at(control.offset, control.fields[1].mask))
        bench.write(control.offset, control.fields[1].mask)
        for _ in range(wait):
            await FallingEdge(dut.clk)
        assert (await bench.read_at(control.offset))[:2] == (0, OKAY)
        await task
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(half=["aw", "w", "answers"])
async def starts_afresh_after_reset(dut: Any, half: str) -> None:
    """Halves of writes and answers that wait are dropped, and all fields have their reset values."""
    bench = await by_hand(dut, f"reset {half}")
    bench.set_status(busy=0)
    await bench.raise_events(1.0)
    for offset in bench.registers:
        await bench.write_at(offset, ONES ^ bench.rng.getrandbits(4))
    await bench.raise_events(1.0)
    dut.s_axi_bready.value = dut.s_axi_rready.value = 0
    dut.s_axi_awaddr.value = dut.s_axi_araddr.value = bench.named["QUEUE_ADDRESS"].offset
    dut.s_axi_wdata.value, dut.s_axi_wstrb.value = 0x1234_5678, 15
    dut.s_axi_awvalid.value = int(half != "w")
    dut.s_axi_wvalid.value = int(half != "aw")
    dut.s_axi_arvalid.value = int(half == "answers")
    await FallingEdge(dut.clk)
    dut.s_axi_awvalid.value = dut.s_axi_wvalid.value = dut.s_axi_arvalid.value = 0
    for _ in range(5):
        await FallingEdge(dut.clk)
    answers = int(half == "answers")
    assert dut.s_axi_bvalid.value == dut.s_axi_rvalid.value == answers
    bench.task.cancel()
    await reset(dut)
    await FallingEdge(dut.clk)  # a master waits for a rising edge without reset
    again = ByHand(dut, f"again {half}")
    for offset in again.registers:
        again.set_status()
        data, response, _ = await again.read_at(offset)
        assert (data, response) == (again.word(offset), OKAY)
    # The other half of what was begun would act now.
    dut.s_axi_awvalid.value, dut.s_axi_wvalid.value = int(half == "w"), int(half == "aw")
    dut.s_axi_awaddr.value = again.named["QUEUE_ADDRESS"].offset
    await FallingEdge(dut.clk)
    dut.s_axi_awvalid.value = dut.s_axi_wvalid.value = 0
    for _ in range(5):
        await FallingEdge(dut.clk)
    assert dut.s_axi_bvalid.value == 0
    again.check()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def shows_registers_alone(dut: Any) -> None:
    """What is on the bus does not change while a cycle lasts, whatever the inputs do."""
    block = component(parameters())
    await start(dut, block)
    rng = random.Random(cocotb.RANDOM_SEED)
    ports = list(ports_of(block))
    inputs = [(name, len(value)) for name, value, flow in ports if flow == In]
    outputs = [name for name, _, flow in ports if flow == Out and name.startswith("s_axi")]
    for _ in range(300):
        seen = set()
        for _ in range(3):
            for name, width in inputs:
                getattr(dut, name).value = rng.getrandbits(width)
            await Timer(1, unit="ns")
            seen.add(tuple(str(getattr(dut, name).value) for name in outputs))
        assert len(seen) == 1
        await FallingEdge(dut.clk)
