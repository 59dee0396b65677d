"""Bench of hw/step_exponents.py: every group size, words that come late, too few of them and too many."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.hw.step_exponents import StepExponents
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Source, reset, start, to_fields
from sliceforge.verif.tiles import join

CASES = [{"max_k": 20}, {"max_k": 1}]
LATENCY = 3


def component(p: dict[str, Any]) -> StepExponents:
    return StepExponents(**p)


def room() -> int:
    """Words that it holds."""
    return max(2, -(-int(parameters()["max_k"]) // 4))


class Bench:
    """A layer of ``steps`` steps in groups of ``group``."""

    def __init__(self, dut: Any, group: int, steps: int, *, stall: float = 0.0) -> None:
        self.dut, self.group = dut, group
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {group} {steps} {stall}")
        self.exponents = [rng.choice([0, 31, rng.randrange(32)]) for _ in range(steps)]
        block = component(parameters())
        self.before = block.exponents.shape()
        self.words = Source(dut, "words", block.words.payload.shape(), stall=stall)
        dut.psum_group.value = group

    def send(self, count: int | None = None) -> None:
        """The exponents' words, of which the last one may not be full; or ``count`` words."""
        words = -(-len(self.exponents) // 4) if count is None else count
        padded = self.exponents + [self.rng.randrange(32) for _ in range(4 * words)]
        self.words.send([
            {"word": join(padded[4 * i : 4 * i + 4], 8), "last": int(i == words - 1)} for i in range(words)
        ])  # fmt: skip

    def check(self, step: int) -> None:
        """What it says of a step, while that is valid."""
        position = step % self.group
        assert int(self.dut.position.value) == position
        assert int(self.dut.exponent.value) == self.exponents[step]
        seen = to_fields(self.before, int(self.dut.exponents.value.resolve("zeros")))
        before = {i % self.group: exponent for i, exponent in enumerate(self.exponents[:step])}
        assert {j: seen[j] for j in before} == before

    async def run(self, rounds: int, pause: float) -> None:
        """Goes through all steps, some times; a step stays valid until it ends."""
        dut, steps = self.dut, len(self.exponents)
        for step in rounds * list(range(steps)):
            for waited in range(2000):
                if dut.valid.value == 1:
                    break
                if 4 * self.words.sent > step:  # the word is here
                    assert waited < 2000 - LATENCY
                await FallingEdge(dut.clk)
            else:
                raise AssertionError(f"step {step} does not come")
            assert 4 * self.words.sent > step
            self.check(step)
            while self.rng.random() < pause:
                await FallingEdge(dut.clk)
                assert dut.valid.value == 1
                self.check(step)
            dut.step_ends.value, dut.last_step.value = 1, int(step == steps - 1)
            await FallingEdge(dut.clk)
            dut.step_ends.value, dut.last_step.value = 0, self.rng.getrandbits(1)
            assert dut.valid.value == 0
        assert dut.bad_steps.value == 0

    async def finish(self) -> None:
        assert self.words.idle
        self.words.stop()
        await reset(self.dut)


def some_steps(group: int) -> list[int]:
    """1, a group and one to either side, primes; as many as there is room for."""
    most = 4 * room()
    return sorted({steps for steps in (1, group - 1, group, group + 1, 7, 13, most) if 0 < steps <= most})


@cocotb.test()
@cocotb.parametrize(stall=STALLS)
async def gives_every_steps_exponents(dut: Any, stall: float) -> None:
    await start(dut, component(parameters()))
    for group in range(1, 5):
        for steps in some_steps(group):
            bench = Bench(dut, group, steps, stall=stall)
            bench.send()
            await bench.run(2, pause=min(stall, 0.5))
            await bench.finish()


@cocotb.test()
async def has_the_latency_that_it_documents(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, 2, 5)
    bench.send()
    await ClockCycles(dut.clk, 20)
    await FallingEdge(dut.clk)
    dut.step_ends.value = 1
    for cycle in range(1, LATENCY + 1):
        await FallingEdge(dut.clk)
        dut.step_ends.value = 0
        assert dut.valid.value == (cycle == LATENCY)
    bench.check(1)


@cocotb.test()
async def needs_none_at_full_width(dut: Any) -> None:
    await start(dut, component(parameters()))
    Bench(dut, 0, 1)
    await ClockCycles(dut.clk, 3)
    for _ in range(9 * room()):
        await FallingEdge(dut.clk)
        dut.step_ends.value = 1
        await FallingEdge(dut.clk)
        dut.step_ends.value = 0
        await ClockCycles(dut.clk, LATENCY)
        assert dut.valid.value == 1 and dut.bad_steps.value == 0


@cocotb.test()
async def refuses_too_few_words(dut: Any) -> None:
    """At the first step without one, not before."""
    await start(dut, component(parameters()))
    for words in {1, room() - 1}:
        bench = Bench(dut, 3, 4 * words + 1, stall=0.3)
        bench.send(words)
        for step in range(4 * words):
            while dut.valid.value == 0:
                await FallingEdge(dut.clk)
            assert dut.bad_steps.value == 0
            bench.check(step)
            dut.step_ends.value = 1
            await FallingEdge(dut.clk)
            dut.step_ends.value = 0
        await ClockCycles(dut.clk, 20)
        assert dut.bad_steps.value == 1 and dut.valid.value == 0
        await bench.finish()
        assert dut.bad_steps.value == 0


@cocotb.test()
async def refuses_too_many_words(dut: Any) -> None:
    await start(dut, component(parameters()))
    for more in (0, 1, 3):
        bench = Bench(dut, 4, 1, stall=0.2)
        bench.send(room() + more)
        await ClockCycles(dut.clk, 10 * room() + 50)
        assert dut.bad_steps.value == int(more > 0)
        await bench.finish()


@cocotb.test()
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    for cycles in (3, 7, 12, 25):
        bench = Bench(dut, 3, 8, stall=0.2)
        bench.send()
        task = cocotb.start_soon(bench.run(9, pause=0.1))
        await ClockCycles(dut.clk, cycles)
        task.cancel()
        bench.words.stop()
        dut.step_ends.value = 0
        await reset(dut)
        assert dut.valid.value == 0
        bench = Bench(dut, 2, 5, stall=0.2)
        bench.send()
        await bench.run(2, pause=0.1)
        await bench.finish()
