"""Bench of hw/sequencer.py: queues of layers, errors, stalls and resets in every phase of them."""

from __future__ import annotations

from typing import Any

import cocotb

from sliceforge.gen.errors import ErrorCode
from sliceforge.hw.sequencer import Sequencer
from sliceforge.verif.sequencer_model import (
    CODES,
    COMPLETE,
    HELD_UP,
    RUNNING,
    STUCK,
    Intrusion,
    Queue,
    Surroundings,
)
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start

CASES = [{"address_bits": 40}, {"address_bits": 32}, {"address_bits": 64}]


def component(p: dict[str, Any]) -> Sequencer:
    return Sequencer(**p)


async def begin(dut: Any, case: str, slow: float = 0.5) -> Surroundings:
    await start(dut, component(parameters()))
    return Surroundings(dut, case, slow)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(slow=[0.0, 0.5, 0.9])
async def runs_queues(dut: Any, slow: float) -> None:
    bench = await begin(dut, "queues", slow)
    for count in (1, 1, 2, 5, 3, 1):
        bench.lingers = bench.rng.choice([0, 1, 7])
        await bench.run(Queue(bench.addresses(count)))
        bench.expect(count, done=True)
        assert bench.seen["fetch"] == bench.seen["run"] == count


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(phase=RUNNING, kind=["unit_error", "core_error", "both"])
async def stops_at_an_error(dut: Any, phase: str, kind: str) -> None:
    """At once or after a while, also in the cycle in which the phase would end; in any layer of a queue."""
    bench = await begin(dut, f"{phase} {kind}")
    rng = bench.rng
    for layers, layer in ((1, 0), (3, 0), (3, 1), (3, 2)):
        if phase == "release" and layer:
            continue  # cannot be told from the end of the layer before
        # The layer ends a cycle after nothing is missing.
        times = ((0, {}),) if phase in ("release", "fetch") else ((0, {}), (1, HELD_UP))
        for after, before in (*times, (1, COMPLETE)) if phase == "run" else times:
            bench.slow = rng.choice([0.0, 0.5])
            bench.lingers = rng.choice([0, 1, 20])
            names = ("unit_error", "core_error") if kind == "both" else (kind,)
            inputs = {name: rng.choice(CODES) for name in names}
            intrusions = [Intrusion(phase, layer, inputs, after, lasting=bool(rng.getrandbits(1)))]
            intrusions += [Intrusion(phase, layer, before, cycle) for cycle in range(after)]
            await bench.run(Queue(bench.addresses(layers), intrusions))
            assert intrusions[0].hits
            bench.expect(layer, error=inputs[names[0]])
            await bench.runs_another()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(also=["", "unit_error", "core_error"])
async def refuses_an_illegal_descriptor(dut: Any, also: str) -> None:
    """By the code that the descriptor unit gives; one of a unit in the same cycle goes first."""
    bench = await begin(dut, f"illegal {also}", slow=0.0 if also else 0.5)
    for code in CODES:
        layer = bench.rng.randrange(3)
        # The descriptor is complete in the phase's first cycle where another error is to meet it.
        intrusions = [Intrusion("descriptor", layer, {also: bench.rng.choice(CODES)})] if also else []
        await bench.run(Queue(bench.addresses(3), intrusions, {layer: code}))
        assert bench.seen["run"] == layer
        bench.expect(layer, error=intrusions[0].inputs[also] if also == "unit_error" else code)
    await bench.runs_another()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(also=["", "unit_error", "core_error"])
async def refuses_an_unaligned_queue_address(dut: Any, also: str) -> None:
    bench = await begin(dut, f"address {also}")
    for bit in range(7):
        intrusions = [Intrusion("release", 0, {also: bench.rng.choice(CODES)})] if also else []
        await bench.run(Queue([bench.addresses(1)[0] + (1 << bit)], intrusions))
        assert not bench.seen["fetch"]
        code = ErrorCode.ILLEGAL_QUEUE_ADDRESS.value
        bench.expect(0, error=intrusions[0].inputs[also] if also == "unit_error" else code)
    await bench.runs_another()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(phase=["descriptor", "offer", "settle", "run"])
async def reports_a_stall(dut: Any, phase: str) -> None:
    """In the second cycle after as many still ones as the limit says; a core's error in that cycle counts
    less."""
    bench = await begin(dut, phase)
    # That phase is two cycles long: the still cycle is the one before them.
    begins, held = ("offer", {"layer_ready": 1}) if phase == "settle" else (phase, HELD_UP)
    for limit in (1,) if phase == "settle" else (1, 2, 3, 17, 300):
        for also in ({}, {"core_error": bench.rng.choice(CODES)}):
            layer = bench.rng.randrange(3)
            bench.calm, bench.stall_limit, bench.lingers = True, limit, bench.rng.choice([0, 5])
            intrusions = [
                Intrusion(begins, layer, STUCK | held, lasting=True),
                Intrusion(phase, layer, also, after=1 if phase == "settle" else limit + 1),
            ]
            await bench.run(Queue(bench.addresses(3), intrusions))
            assert intrusions[0].hits == limit + 2 and intrusions[1].hits == 1
            bench.expect(layer, error=ErrorCode.STALLED.value)
            await bench.runs_another()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(limit=[1, 2, 17], ends=[False, True])
async def reports_a_stall_though_the_bus_moves_then(dut: Any, limit: int, ends: bool) -> None:
    """A cycle too late, be it the last one of the layer: that ``ends`` a cycle later."""
    bench = await begin(dut, f"late {limit} {ends}")
    bench.calm, bench.stall_limit = True, limit
    intrusions = [Intrusion("run", 0, STUCK | HELD_UP, cycle) for cycle in range(limit)]
    last = COMPLETE if ends else STUCK | HELD_UP
    intrusions.append(Intrusion("run", 0, last | {"bus_moves": 1}, limit))
    intrusions.append(Intrusion("run", 0, {} if ends else HELD_UP, limit + 1))
    await bench.run(Queue(bench.addresses(2), intrusions))
    assert all(intrusion.hits for intrusion in intrusions)
    bench.expect(0, error=ErrorCode.STALLED.value)
    await bench.runs_another()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(limit=[0, 1, 2, 5, 9, (1 << 32) - 1, 1 << 31, 1 << 16])
async def reports_no_stall_before_the_limit(dut: Any, limit: int) -> None:
    """The bus moves, or owes nothing for a moment, in the limit's last cycle; the limit 0 is none."""
    bench = await begin(dut, f"limit {limit}")
    bench.calm, bench.stall_limit = True, limit
    still = limit - 1 if 0 < limit < 100 else 300
    intrusions = [Intrusion("run", 0, HELD_UP, cycle) for cycle in range(5 * (still + 1))]
    for turn in range(5):
        first = turn * (still + 1)
        intrusions += [Intrusion("run", 0, STUCK, first + cycle) for cycle in range(still)]
        relief = {"bus_owed": 0} if turn % 2 else {"bus_moves": 1}
        intrusions.append(Intrusion("run", 0, STUCK | relief, first + still))
    await bench.run(Queue(bench.addresses(2), intrusions))
    assert all(intrusion.hits for intrusion in intrusions)
    bench.expect(2, done=True)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(phase=RUNNING, also=["", "unit_error", "core_error"])
async def stops_at_a_soft_reset(dut: Any, phase: str, also: str) -> None:
    """Neither done nor failed, whatever else happens in that cycle."""
    bench = await begin(dut, f"soft reset {phase} {also}")
    rng = bench.rng
    for layers, layer in ((1, 0), (3, 0), (3, 1), (3, 2)):
        if phase == "release" and layer:
            continue
        for after in range(2 if phase == "run" else 1):  # when the layer would end, too
            bench.slow = rng.choice([0.0, 0.5])
            bench.lingers = rng.choice([0, 1, 20])
            inputs = {"soft_reset": 1} | ({also: rng.choice(CODES)} if also else {})
            intrusions = [Intrusion(phase, layer, inputs, after)]
            intrusions += [Intrusion(phase, layer, COMPLETE, cycle) for cycle in range(after)]
            await bench.run(Queue(bench.addresses(layers), intrusions))
            assert all(intrusion.hits == 1 for intrusion in intrusions)
            bench.expect(layer)
            await bench.runs_another()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(lingers=[0, 1, 3, 10])
async def stops_at_a_soft_reset_between_layers(dut: Any, lingers: int) -> None:
    """After a layer, be it the last, in any cycle until the bus is idle, that one included."""
    bench = await begin(dut, f"between {lingers}")
    bench.calm = True
    for layers, layer in ((1, 1), (3, 1), (3, 2), (3, 3)):
        for after in range(lingers + 1):
            bench.lingers = lingers
            intrusion = Intrusion("close", layer, {"soft_reset": 1}, after)
            await bench.run(Queue(bench.addresses(layers), [intrusion]))
            assert intrusion.hits == 1
            bench.expect(layer)
            assert bench.seen["run"] == layer
    await bench.runs_another()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def fails_once_though_a_soft_reset_follows(dut: Any) -> None:
    bench = await begin(dut, "after a failure")
    bench.calm, bench.lingers = True, 6
    for after in range(bench.lingers + 1):
        failure = Intrusion("run", 0, {"unit_error": ErrorCode.PARAMETERS_READ.value})
        intrusion = Intrusion("close", 0, {"soft_reset": 1}, after)
        await bench.run(Queue(bench.addresses(2), [failure, intrusion]))
        assert intrusion.hits == 1
        bench.expect(0, error=ErrorCode.PARAMETERS_READ.value)
    await bench.runs_another()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def stays_idle(dut: Any) -> None:
    """At a soft reset, also one with a start, nothing begins."""
    bench = await begin(dut, "idle")
    for _ in range(3):
        for inputs in ({}, {"soft_reset": 1}, {"start": 1, "soft_reset": 1}, {}, {"soft_reset": 1}):
            await bench.step(**inputs)
        for _ in range(10):
            await bench.step()
        assert not bench.seen.total()
    await bench.runs_another()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(phase=[*RUNNING, "close"])
async def forgets_everything_at_reset(dut: Any, phase: str) -> None:
    bench = await begin(dut, f"reset {phase}")
    bench.lingers = 1
    bench.queue = Queue(bench.addresses(3))
    await bench.step(start=1, queue_address=bench.queue.addresses[0])
    stays = {"layer_ready": 0} if phase == "offer" else {}  # else that phase may end with its first cycle
    while (bench.phase, bench.layer) != (phase, 1 if phase == "close" else 0):
        await bench.step(**stays)
    await reset(dut)
    again = Surroundings(dut, f"again {phase}")
    for _ in range(10):
        await again.step()
    await again.runs_another()
