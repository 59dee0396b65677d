"""What surrounds a sequencer in its bench: units, core and bus; and what it must do in each cycle."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.gen.errors import ErrorCode
from sliceforge.verif.simulation import parameters

__all__ = ["CODES", "COMPLETE", "HELD_UP", "RUNNING", "STUCK", "Intrusion", "Queue", "Surroundings"]

CODES = [int(code.value) for code in ErrorCode if code != ErrorCode.NONE]
RUNNING = ("release", "fetch", "descriptor", "offer", "settle", "run")
"""Phases in which something can fail. The others: "idle", and "close", after a layer or a failure."""
HELD_UP = {"descriptor_done": 0, "layer_ready": 0, "core_done": 0}
"""The phase goes on, though the units would end it."""
COMPLETE = {"core_done": 1, "stored": 1, "bus_idle": 1}
"""The layer: it ends in the next cycle."""
STUCK = {"bus_idle": 0, "bus_owed": 1, "bus_moves": 0}
PATIENCE = 5
"""Cycles after which a phase ends when nothing is missing."""
OUTPUTS = ("held", "fetch", "run", "descriptor_address", "layer_valid", "busy", "counting", "cleared",
           "error", "layers_done", "layer_ends", "done", "failed")  # fmt: skip


@dataclass
class Intrusion:
    """What happens out of the ordinary: inputs, by name, in cycle ``after`` of a phase of layer ``layer``.

    If ``lasting``, also from then on while the units are not held. ``hits``: cycles.
    """

    phase: str
    layer: int
    inputs: dict[str, int]
    after: int = 0
    lasting: bool = False
    hits: int = 0


@dataclass
class Queue:
    """Addresses of the layers' descriptors, and what is to intrude."""

    addresses: list[int]
    intrusions: list[Intrusion] = field(default_factory=list)
    descriptor_illegal: dict[int, int] = field(default_factory=dict)  # by layer


class Surroundings:
    """``await run(queue)`` starts a queue and returns when BUSY has fallen; ``seen`` counts the pulses.

    slow: share of cycles in which the units do not get on. To set: ``stall_limit``; ``lingers``, the least
    cycles that the bus is not idle in "close"; ``calm``, if it is idle otherwise.
    """

    def __init__(self, dut: Any, case: str, slow: float = 0.5) -> None:
        self.dut, self.slow = dut, slow
        self.bits = parameters()["address_bits"]
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {case} {slow}")
        self.phase, self.cycles, self.layer = "idle", 0, 0  # cycles: in this phase
        self.stall_limit, self.calm, self.lingers = 0, False, 0
        self.still = 0  # cycles in a row up to now in which the bus owed something and did not move
        self.stalled = False  # they were enough in the cycle before
        self.layer_done = False  # nothing of the layer was missing in the cycle before
        self.counting, self.error, self.layers_done = False, 0, 0
        self.ends = False  # the queue: no layer follows
        self.waits = 0  # cycles in which nothing was missing
        self.was_idle = False  # the bus, since the phase began
        self.queue = Queue([0])
        self.done = {"descriptor": False, "core": False, "stored": False}
        self.seen: Counter[str] = Counter()

    def addresses(self, count: int) -> list[int]:
        """Random ones of descriptors, their highest bits set now and then."""
        return [self.rng.getrandbits(self.bits - 7) << 7 for _ in range(count)]

    async def run(self, queue: Queue, limit: int = 2000) -> None:
        assert self.phase == "idle"
        self.queue, self.layer = queue, 0
        self.seen.clear()
        await self.step(start=1, queue_address=queue.addresses[0])
        for _ in range(limit):
            if self.phase == "idle":
                break
            await self.step()
        else:
            raise AssertionError(f"layer {self.layer} is in phase {self.phase} after {limit} cycles")
        for _ in range(10):
            await self.step()

    async def step(self, **inputs: int) -> None:
        """A cycle: looks where the sequencer is, drives, and checks."""
        self.enter()
        inputs = {**self.surroundings(), **self.intrusions(), **inputs}
        for name, value in inputs.items():
            getattr(self.dut, name).value = value
        await ReadOnly()
        seen = {name: int(getattr(self.dut, name).value) for name in OUTPUTS}
        self.check(inputs, seen)
        await FallingEdge(self.dut.clk)

    def enter(self) -> None:
        """The phase of this cycle, from the outputs that follow from the state alone."""
        before = self.phase
        closed = before == "close" and self.was_idle
        if self.dut.busy.value == 0:
            assert before == "idle" or closed, f"BUSY fell in phase {before}"
            self.phase = "idle"
        elif self.dut.fetch.value == 1:
            assert before == "release" or (closed and not self.ends), f"fetch in phase {before}"
            self.phase = "fetch"
        elif before == "fetch":
            self.phase = "descriptor"
        elif before == "descriptor" and self.dut.layer_valid.value == 1:
            self.phase = "offer"
        elif before == "settle" and self.dut.run.value == 1:
            assert self.cycles >= 2, "the core has no time to refuse a layer"
            self.phase = "run"
        if before != self.phase:
            self.cycles = self.waits = 0

    def surroundings(self) -> dict[str, int]:
        """What units, core and bus say; noise where nobody may look."""
        rng, phase = self.rng, self.phase
        if phase in ("idle", "release", "close"):
            self.done = dict.fromkeys(self.done, False)
        self.done["descriptor"] |= phase == "descriptor" and rng.random() >= self.slow
        for name in ("core", "stored"):
            self.done[name] |= phase == "run" and rng.random() >= self.slow
        follows = self.layer + 1 < len(self.queue.addresses)
        complete = self.done["descriptor"]
        illegal = self.queue.descriptor_illegal.get(self.layer, 0)
        noise = rng.getrandbits(self.bits)
        idle, owed, moves = self.bus()
        late = phase == "idle" or (phase == "close" and self.ends)  # errors that come too late to count
        unit_error, core_error = (rng.choice([0, *CODES]) if late else 0 for _ in range(2))
        return {
            "start": int(phase != "idle" and rng.random() < 0.1), "soft_reset": 0,
            "queue_address": rng.getrandbits(self.bits), "stall_limit": self.stall_limit,
            "descriptor_done": int(complete),
            "descriptor_illegal": illegal if complete else rng.choice([0, *CODES]),
            "next_valid": int(follows) if complete else rng.getrandbits(1),
            "next_address": self.queue.addresses[self.layer + 1] if complete and follows else noise,
            "layer_ready": int(rng.random() >= self.slow),
            "core_done": int(self.done["core"]), "core_error": core_error, "stored": int(self.done["stored"]),
            "unit_error": unit_error, "bus_idle": idle, "bus_owed": owed, "bus_moves": moves,
        }  # fmt: skip

    def bus(self) -> tuple[int, int, int]:
        """idle, owed, moves."""
        if self.phase == "close" and self.cycles < self.lingers:
            return 0, 1, 1
        if not self.calm and self.phase in ("descriptor", "run", "close") and self.rng.random() < self.slow:
            return self.rng.choice([(0, 0, 0), (0, 1, 0), (0, 1, 1)])
        return 1, 0, 0

    def intrusions(self) -> dict[str, int]:
        inputs: dict[str, int] = {}
        for intrusion in self.queue.intrusions:
            here = (intrusion.phase, intrusion.layer) == (self.phase, self.layer)
            begins = here and self.cycles == intrusion.after and not intrusion.hits
            goes_on = intrusion.lasting and intrusion.hits and self.dut.held.value == 0
            if begins or goes_on:
                intrusion.hits += 1
                inputs |= intrusion.inputs
        return inputs

    def errors(self, i: dict[str, int]) -> list[int]:
        """Codes of the errors of this cycle, that which counts first."""
        found = [i["unit_error"]]
        if self.phase == "descriptor" and i["descriptor_done"]:
            found.append(i["descriptor_illegal"])
        if self.phase == "release" and self.queue.addresses[0] % 128:
            found.append(ErrorCode.ILLEGAL_QUEUE_ADDRESS.value)
        if self.stalled:
            found.append(ErrorCode.STALLED.value)
        found.append(i["core_error"])
        return [code for code in found if code]

    def check(self, i: dict[str, int], seen: dict[str, int]) -> None:
        phase, soft_reset = self.phase, bool(i["soft_reset"])
        errors = self.errors(i) if phase in RUNNING else []
        stops = phase in RUNNING and (bool(errors) or soft_reset)
        after_layer = phase == "close" and self.counting
        expected = {
            "busy": phase != "idle",
            "held": phase in ("idle", "release", "close"),
            "fetch": phase == "fetch",
            "layer_valid": phase == "offer",
            "cleared": phase == "idle" and i["start"] and not soft_reset,
            "failed": bool(errors) and not soft_reset,
            "counting": self.counting,
            "error": self.error,
            "layers_done": self.layers_done,
        }
        assert {name: seen[name] for name in expected} == expected, f"in phase {phase}, layer {self.layer}"
        # What comes some time, but only when nothing is missing; and then soon.
        layer_done = self.layer_done
        assert seen["run"] == (phase == "run" and self.cycles == 0)
        assert not seen["layer_ends"] or (phase == "run" and layer_done and not stops)
        assert not seen["done"] or (after_layer and self.ends and i["bus_idle"] and not soft_reset)
        if phase in RUNNING[1:]:
            assert seen["descriptor_address"] == self.queue.addresses[self.layer]
        ready = {"idle": False, "descriptor": i["descriptor_done"], "offer": i["layer_ready"],
                 "run": layer_done, "close": i["bus_idle"]}  # fmt: skip
        self.waits = self.waits + 1 if ready.get(phase, True) else 0
        self.was_idle = bool(i["bus_idle"]) or (self.was_idle and self.cycles > 0)
        assert self.waits <= PATIENCE, f"phase {phase} does not end"

        for name in ("cleared", "fetch", "run", "layer_ends", "done", "failed"):
            self.seen[name] += seen[name]
        self.layer_done = bool(i["core_done"] and i["stored"] and i["bus_idle"])
        self.stalled = bool(i["stall_limit"]) and self.still >= i["stall_limit"]
        self.still = self.still + 1 if i["bus_owed"] and not i["bus_moves"] else 0
        self.cycles += 1
        self.follow(i, seen, stops, errors)

    def follow(self, i: dict[str, int], seen: dict[str, int], stops: bool, errors: list[int]) -> None:
        """What this cycle changes."""
        now = self.phase
        if seen["cleared"]:
            self.counting, self.error, self.layers_done, self.ends = True, 0, 0, False
        if seen["layer_ends"]:
            self.layers_done += 1
            self.layer += 1
            self.ends = self.layer == len(self.queue.addresses)
        if stops or seen["done"] or (now != "idle" and i["soft_reset"]):
            self.counting, self.ends = False, True
        if seen["failed"]:
            self.error = errors[0]
        if stops or seen["layer_ends"]:
            self.phase = "close"
        elif now == "offer" and i["layer_ready"]:
            self.phase = "settle"
        elif seen["cleared"]:
            self.phase = "release"
        if self.phase != now:
            self.cycles = self.waits = 0

    async def runs_another(self) -> None:
        """Whatever became of the queue before, the next one runs."""
        self.stall_limit = self.lingers = 0
        self.calm = False
        await self.run(Queue(self.addresses(2)))
        self.expect(2, done=True)

    def expect(self, layers: int, *, done: bool = False, error: int = 0) -> None:
        """What became of the queue: layers done, and whether it was done or failed, once; or neither."""
        assert self.layers_done == layers == self.seen["layer_ends"]
        assert (self.seen["done"], self.seen["failed"]) == (int(done), int(error != 0)), self.seen
        assert self.error == error and not self.counting
        assert self.seen["cleared"] == 1
