"""Bench of hw/write_arbiter.py: the order of jobs, and behind each its own beats; rate; reset."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.payloads import write_beat_layout, write_job_layout
from sliceforge.hw.write_arbiter import WriteArbiter
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start

CASES = [
    {"bus_bits": 128, "address_bits": 32, "most_beats": 17},
    {"bus_bits": 32, "address_bits": 64, "most_beats": 1},
]

Payload = dict[str, int]


def component(p: dict[str, Any]) -> WriteArbiter:
    return WriteArbiter(**p)


class Bench:
    """Two writers. ``stalls``: of each one's jobs, of its beats, of the jobs that leave, of their beats."""

    def __init__(self, dut: Any, *, stalls: Any = (0, 0, 0, 0, 0, 0)) -> None:
        self.dut, self.p = dut, parameters()
        jobs = write_job_layout(self.p["address_bits"], self.p["most_beats"])
        beats = write_beat_layout(self.p["bus_bits"])
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {stalls}")
        self.jobs_in = [Source(dut, f"jobs_{i}", jobs, stall=stalls[i]) for i in range(2)]
        self.beats_in = [Source(dut, f"beats_{i}", beats, stall=stalls[2 + i]) for i in range(2)]
        self.jobs = Sink(dut, "jobs", jobs, stall=stalls[4])
        self.beats = Sink(dut, "beats", beats, stall=stalls[5])
        self.sent: list[list[tuple[Payload, list[Payload]]]] = [[], []]  # each writer's jobs with beats
        self.taken: list[int] = []  # the writers whose jobs were taken, in order
        self.cycle = 0
        self.job_cycles: list[int] = []
        self.beat_cycles: list[int] = []
        self.task = cocotb.start_soon(self.watch())

    def send(self, writer: int, beats: int = 0) -> None:
        """A job of ``beats`` beats, or of any number."""
        p, rng, most = self.p, self.rng, self.p["most_beats"]
        count = beats or rng.choice([1, most, rng.randint(1, most)])
        address = rng.getrandbits(p["address_bits"] + 1)
        job = {"address": address, "beats": count, "is_psum": rng.getrandbits(1)}
        words = p["bus_bits"] // 32
        data = [
            {"data": rng.getrandbits(p["bus_bits"]), "strobes": rng.getrandbits(words)} for _ in range(count)
        ]
        self.jobs_in[writer].send([job])
        self.beats_in[writer].send(data)
        self.sent[writer].append((job, data))

    async def watch(self) -> None:
        """In every cycle: of two offers the second writer's is taken, if there is room, which follows from
        what is inside; what was taken before leaves; no beat precedes the taking of its job."""
        dut = self.dut
        waiting = 0  # jobs that were taken and have not left
        owed: deque[int] = deque()  # beats that have not left, of each job that was taken
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            self.cycle += 1
            valid, ready = (
                [getattr(dut, f"jobs_{i}__{name}").value == 1 for i in range(2)]
                for name in ("valid", "ready")
            )
            room = waiting < 2 and len(owed) < 4
            assert ready == [room and not valid[1], room]
            assert dut.jobs__valid.value == (waiting > 0)
            waiting -= dut.jobs__valid.value == 1 and dut.jobs__ready.value == 1
            if dut.beats__valid.value == 1:
                assert owed, "a beat precedes its job"
                if dut.beats__ready.value == 1:
                    self.beat_cycles.append(self.cycle)
                    owed[0] -= 1
                    if not owed[0]:
                        owed.popleft()
            if room and any(valid):
                waiting += 1
                writer = int(valid[1])
                self.taken.append(writer)
                owed.append(self.sent[writer][self.taken.count(writer) - 1][0]["beats"])
                self.job_cycles.append(self.cycle)

    def stop(self) -> None:
        self.task.cancel()
        for driver in (*self.jobs_in, *self.beats_in, self.jobs, self.beats):
            driver.stop()

    async def finish(self) -> None:
        both = [*self.sent[0], *self.sent[1]]
        await quiet(self.dut, self.jobs, self.beats, expected=[len(both), sum(len(b) for _, b in both)])
        rest = [iter(jobs) for jobs in self.sent]
        order = [next(rest[writer]) for writer in self.taken]
        assert self.jobs.received == [job for job, _ in order]
        assert self.beats.received == [beat for _, beats in order for beat in beats]
        assert all(source.idle for source in (*self.jobs_in, *self.beats_in))
        self.stop()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(
    stalls=[
        *((s,) * 6 for s in STALLS), (0.9, 0, 0, 0, 0.3, 0), (0.3, 0.8, 0.5, 0, 0, 0.3),
        (0.1, 0.1, 0, 0.8, 0.8, 0), (0.7, 0.8, 0, 0, 0, 0.6),
    ]
)  # fmt: skip
async def passes_jobs_and_their_beats(dut: Any, stalls: tuple[float, ...]) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, stalls=stalls)
    for number in range(40):
        bench.send(bench.rng.getrandbits(1) if number > 1 else number)
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(writers=[(0,), (1,), (0, 1)])
async def passes_a_beat_a_cycle(dut: Any, writers: tuple[int, ...]) -> None:
    """Without a pause between jobs, the first beat a cycle after its job was taken."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    for writer in writers:
        for _ in range(4):
            bench.send(writer, beats=bench.p["most_beats"])
    await bench.finish()
    first, count = bench.job_cycles[0] + 1, len(writers) * 4 * bench.p["most_beats"]
    assert bench.beat_cycles == list(range(first, first + count))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def keeps_an_offer_of_the_first_writer(dut: Any) -> None:
    """It stands when the second writer comes; from then on the second goes first."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stalls=(0, 0, 0, 0, 1.0, 0))
    bench.send(0)
    await ClockCycles(dut.clk, 5)
    for writer in (0, 1, 1):
        bench.send(writer)
    await ClockCycles(dut.clk, 5)
    assert bench.taken == [0, 1]  # what there is room for
    bench.jobs.stall = 0.0
    await bench.finish()
    assert bench.taken == [0, 1, 1, 0]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def passes_beats_of_a_writer_whose_neighbour_waits(dut: Any) -> None:
    """The second writer's beats do not wait for a job of the first that is not taken yet, or never comes."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stalls=(0, 0, 1.0, 0, 0, 0))
    for _ in range(6):
        bench.send(1)
    await ClockCycles(dut.clk, 20 + 7 * bench.p["most_beats"])
    assert bench.beats_in[1].idle
    bench.send(0)
    await ClockCycles(dut.clk, 10)
    assert bench.taken == [1] * 6 + [0]
    bench.beats_in[0].stall = 0.0
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_jobs_at_reset(dut: Any) -> None:
    """With jobs on offer, and between the beats of a job."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for stall in (0.1, 0.3, 0.5, 0.8, 0.0):
        bench = Bench(dut, stalls=(0.1, 0.1, 0.1, 0.1, stall, stall))
        for _ in range(12):
            bench.send(rng.getrandbits(1))
        if stall:
            await ClockCycles(dut.clk, rng.randrange(3, 60))
            bench.stop()
            await reset(dut)
        else:
            await bench.finish()
