"""Functional coverage of the accelerator's bench: which bins there are, and when each is sampled.

Sampled only after memory and counters of a run, or its error, were found right, so a bin that is hit is a bin
that was checked. What the core does inside is covered by its own bench (`core_coverage`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import cocotb
from amaranth.hdl import Fragment
from cocotb_coverage.coverage import CoverPoint

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.hw.axi import window_beats
from sliceforge.hw.sequencer import Sequencer
from sliceforge.verif.accelerator_queues import STEPS, step_class
from sliceforge.verif.coverage import report_coverage
from sliceforge.verif.placement import Placed
from sliceforge.verif.simulation import parameters

__all__ = [
    "STATES", "sample_channels", "sample_error", "sample_fault", "sample_reset", "sample_run",
    "sample_soft_reset", "sample_stall",
]  # fmt: skip

ACCESSES = (
    "descriptor", "weights", "activations", "parameters", "psums", "output", "stored psums"
)  # fmt: skip
STATES: dict[int, str] = {
    number: name
    for name, number in Fragment.get(Sequencer(address_bits=32), None).generated["state"].encoding.items()
}
"""Of the sequencer, by their numbers."""
_CHANNELS = ("ar", "r", "aw", "w", "b")
# Only a simulation knows its machine; pytest imports this, too.
_MACHINE = parameters() if "SLICEFORGE_PARAMETERS" in os.environ else {}
_WORDS = _MACHINE.get("bus_bits", 64) // 32


def _point(name: str, bins: Sequence[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return CoverPoint(f"accelerator.{name}", xf=lambda value: value, bins=list(bins))


# Our master always takes answers, so there is no bin for their waiting.
@_point(
    "memory channel",
    [f"{c} valid waits" for c in ("ar", "aw", "w")] + [f"{c} ready waits" for c in _CHANNELS],
)
def _memory_channel(value: str) -> None: ...


@_point(
    "register channel",
    [f"{c} {kind} waits" for c in _CHANNELS for kind in ("valid", "ready")],
)
def _register_channel(value: str) -> None: ...


@_point(
    "error response",
    [f"{a} {w} {r}" for a in ACCESSES for w in ("first", "later", "last") for r in ("SLVERR", "DECERR")],
)
def _error_response(value: str) -> None: ...


@_point("error code", [code.name for code in ErrorCode if code is not ErrorCode.NONE])
def _error_code(value: str) -> None: ...


@_point("memory stopped", _CHANNELS)
def _stopped(value: str) -> None: ...


@_point("residency", [f"{o} {s}" for o in ("weights", "activations") for s in ("resident", "loaded again")])
def _residency(value: str) -> None: ...


@_point("size", [f"{d} {s}" for d in "MNK" for s in ("1", "tile - 1", "tile", "tile + 1", "tiles")])
def _size(value: str) -> None: ...


# Word of the bus in which it begins.
@_point("offset", [f"{what} {word}" for what in ("parameters", "output") for word in range(_WORDS)])
def _offset(value: str) -> None: ...


@_point("stride", ["no gap", "whole beats", "odd"] if _WORDS > 1 else ["no gap", "whole beats"])
def _stride(value: str) -> None: ...


@_point(
    "burst", [f"{kind} {length}" for kind in ("read", "write") for length in ("1", "more")] + ["read most"]
)
def _burst(value: str) -> None: ...


# As many bursts of one kind were unanswered at a time.
@_point("on their way", ["reads 1", "reads several", "writes 1", "writes several", "writes 16"])
def _on_their_way(value: str) -> None: ...


@_point("split at 4 KiB", ["weights", "activations", "parameters", "psums", "output"])
def _split(value: str) -> None: ...


@_point("queue", ["1", "2", "more"])
def _queue(value: str) -> None: ...


# The number of K-chunks, without APSQ and beside its group size.
@_point(
    "dataflow x partial sums",
    [
        f"{flow.name} group {group} steps {steps}"
        for flow in Dataflow
        for group in STEPS
        for steps in STEPS[group]
    ],
)
def _psums(value: str) -> None: ...


@_point(
    "partial sums' place",
    [
        f"{flow.name} group {g} {place}"
        for flow in Dataflow
        for g in STEPS
        for place in ("resident", "spilled")
    ],
)
def _psum_place(value: str) -> None: ...


@_point(
    "results",
    ["raw", "requantized", "requantized, ReLU", "requantized, table", *(f"lo_bits {n}" for n in (4, 5, 6))],
)
def _results(value: str) -> None: ...


# A layer whose activations come from outside, or from a layer of this dataflow before it.
@_point("feeds", [f"{a} {b.name}" for a in ("host", *(f.name for f in Dataflow)) for b in Dataflow])
def _feeds(value: str) -> None: ...


@_point("soft reset", list(STATES.values()))
def _soft_reset(value: str) -> None: ...


@_point("soft reset while", ["reads are owed", "writes are owed", "both are owed", "nothing is owed"])
def _soft_reset_while(value: str) -> None: ...


@_point("reset while", ["reads are owed", "writes are owed", "both are owed", "nothing is owed"])
def _reset_while(value: str) -> None: ...


def sample_error(code: ErrorCode) -> None:
    """A layer ended with ``code``, as it had to."""
    _error_code(code.name)


def sample_fault(access: str, when: str, response: str) -> None:
    """An error response was reported as it had to be."""
    _error_response(f"{access} {when} {response}")


def sample_stall(channel: str) -> None:
    """A memory that stopped on this channel was reported."""
    _stopped(channel)


def sample_soft_reset(state: int, owed: str) -> None:
    """A soft reset in this state of the sequencer, after which a layer was right."""
    _soft_reset(STATES[state])
    _soft_reset_while(f"{owed} owed")


def sample_reset(owed: str) -> None:
    """A reset, after which a layer was right."""
    _reset_while(f"{owed} owed")


def sample_run(placed: Sequence[Placed]) -> None:
    """A chain whose results were all right."""
    _queue({1: "1", 2: "2"}.get(len(placed), "more"))
    for layer in placed:
        _sample_layer(layer)


def sample_channels(system: Any) -> None:
    """A test on ``system`` that passed: what its checkers saw."""
    for channel in _CHANNELS:
        for checker, sample in ((system.master, _memory_channel), (system.slave, _register_channel)):
            if checker.waited[channel]:
                sample(f"{channel} valid waits")
            if channel in checker.unasked:
                sample(f"{channel} ready waits")
    for kind in ("reads", "writes"):
        for count in system.master.on_their_way[kind]:
            _on_their_way(f"{kind} {count}" if count in (1, 16) else f"{kind} several")
    most = min(max(1, system.config.load_buffer // 4), window_beats(system.config.bus_bits))
    for kind, bursts in (("read", system.master.reads), ("write", system.master.writes)):
        for _, beats in bursts:
            _burst(f"{kind} {'1' if beats == 1 else 'more'}")
            if kind == "read" and beats == most:
                _burst("read most")


def _sample_layer(placed: Placed) -> None:
    c, s, image = placed.layer.config, placed.layer.schedule, placed.layer.image
    m, k, n = placed.layer.shape
    flow = f"{s.dataflow.name} group {s.psum_group}"
    _psums(f"{flow} steps {step_class(s.psum_group, s.steps)}")
    if s.steps > 1:
        _psum_place(f"{flow} {'resident' if s.psums_resident else 'spilled'}")
    producer, output = placed.layer.producer, image.output
    _feeds(f"{'host' if producer is None else producer.schedule.dataflow.name} {s.dataflow.name}")
    _results("raw" if output is None else "requantized")
    if output is not None:
        _results(f"lo_bits {output.lo_bits}")
        for name, used in (("ReLU", output.relu), ("table", output.table is not None)):
            if used:
                _results(f"requantized, {name}")
    for name, size, tile in (("M", m, c.tile_m), ("N", n, c.tile_n), ("K", k, c.tile_k)):
        sizes = {1: "1", tile - 1: "tile - 1", tile: "tile", tile + 1: "tile + 1"}
        _size(f"{name} {sizes.get(size, 'tiles')}")
    if s.columns > 1:
        _residency(f"weights {'resident' if s.weights_resident else 'loaded again'}")
    if s.rows > 1:
        _residency(f"activations {'resident' if s.activations_resident else 'loaded again'}")
    fields, bus = placed.fields, c.bus_bits // 8
    _offset(f"parameters {fields['PARAMETERS_ADDRESS'] % bus // 4}")
    if output is None:
        _offset(f"output {fields['OUTPUT_ADDRESS'] % bus // 4}")
    if m > 1 and output is None:
        stride = fields["OUTPUT_STRIDE"]
        _stride("no gap" if stride == 4 * n else "odd" if stride % bus else "whole beats")
    for what, spans in (*placed.reads().items(), *placed.writes().items()):
        if any(first // 4096 != (first + size - 1) // 4096 for first, size in spans):
            _split(what)


@cocotb.test()
async def zz_covers_all_bins(dut: Any) -> None:
    """Last: prints the coverage table; on the machines that are measured, every bin must have been hit."""
    missing = report_coverage("accelerator", cocotb.log.info)
    assert not (parameters().get("coverage") and missing), f"bins never hit: {missing}"
