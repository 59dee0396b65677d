"""One GEMM on one machine: the golden model, or the RTL, simulated or on a board, compared with it element by
element.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim import checks
from sliceforge.sim.apsq import apsq_gemm, check_exponents
from sliceforge.sim.core_engine import CoreRun
from sliceforge.sim.golden import GemmResult, aqs_gemm
from sliceforge.sim.layer_image import LayerImage, least_bytes, pack_layer
from sliceforge.sim.limits import check_hardware, check_psums
from sliceforge.sim.plans import DATAFLOWS, dataflow_name, named_dataflow, plan
from sliceforge.sim.rtl import Memory, Trace, run_layer
from sliceforge.sim.schedule import Schedule, dram_bytes
from sliceforge.sim.uart_engine import Board, run_on_board
from sliceforge.sim.verilated import Progress
from sliceforge.sim.work import count_filler, kept_activation_vectors, kept_weight_vectors

__all__ = ["DATAFLOWS", "ENGINES", "MismatchError", "compare", "folded_bias", "gemm"]

ENGINES = ("golden", "rtl")


class MismatchError(RuntimeError):
    """RTL and golden model differ; the message names the first differing element."""


def gemm(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    *,
    config: AcceleratorConfig | str,
    zero_point: int,
    weight_bits: int = 7,
    lo_bits: int = 4,
    bias: npt.ArrayLike | None = None,
    engine: str = "golden",
    psum_group: int | None = None,
    psum_chunk: int | None = None,
    psum_exponents: npt.ArrayLike | None = None,
    dataflow: str = "os",
    memory_latency: int | None = None,
    memory_bandwidth: float | None = None,
    trace: str | Path | None = None,
    trace_from: int | None = None,
    trace_to: int | None = None,
    progress: Progress | None = None,
) -> GemmResult:
    """``Y = W @ (x_hat - zero_point) + bias``, or with ``psum_group`` the APSQ of arithmetic.md section 8.

    weights (M, K), activations (K, N), bias (M,): integers; see `aqs_gemm`. config: a configuration or a
    preset's name. engine: ``golden`` (numpy), ``rtl`` (the generated Verilog in simulation) or
    ``uart://DEVICE[?baud=BAUD]`` (a board at a serial port); the last two are compared with golden, and a
    layer that does not fit a board's memory runs in parts. psum_chunk: positions along K a step, after which
    partial sums leave the array; tile_k by default, without psum_group K. psum_exponents: one integer or one
    a step. dataflow: output, weight or input stationary (``os``, ``ws``, ``is``), or ``auto``: the one with
    the least estimated traffic to DRAM.
    For engine ``rtl`` alone, memory_latency (cycles, 100) and memory_bandwidth (beats a cycle in each
    direction, 1): see `rtl.Memory`; trace: write the waveform (FST) of cycles trace_from..trace_to to this
    file. progress: called with the share done, 0..1, from time to time. Returns ``.output`` int64 (M, N) and
    ``.report`` (interface.md). Raises TypeError or ValueError for an illegal argument, MismatchError where
    the RTL differs from golden, RuntimeError where it stops or a board does not answer.
    """
    machine = AcceleratorConfig.preset(config) if isinstance(config, str) else config
    if not isinstance(machine, AcceleratorConfig):
        raise TypeError(f"config must be an AcceleratorConfig or a preset's name, not {config!r}")
    board = None
    if isinstance(engine, str) and engine.startswith("uart:"):
        board = Board.parse(engine)
    elif not isinstance(engine, str) or engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, uart://DEVICE, not {engine!r}")
    w, x, b = checks.gemm_operands(weights, activations, bias, weight_bits)
    zero, low = checks.zero_point(zero_point), checks.lo_bits(lo_bits)
    checks.weight_bits(weight_bits, machine)
    operands: dict[str, Any] = {"zero_point": zero, "weight_bits": weight_bits, "lo_bits": low}
    named_dataflow(dataflow)
    chunk = w.shape[1] if psum_group is None else machine.tile_k
    if psum_chunk is not None:
        if psum_group is None and dataflow == "os" and engine == "golden":
            raise ValueError(f"psum_chunk must come with psum_group, not alone as {psum_chunk!r}")
        chunk = checks.integer("psum_chunk", psum_chunk, 1)
    exponents: list[int] = []
    if psum_group is None:
        if psum_exponents is not None:
            raise ValueError(f"psum_exponents must come with psum_group, not alone as {psum_exponents!r}")
    else:
        checks.integer("psum_group", psum_group, 1)
        exponents = _exponents(psum_group, psum_exponents, -(-w.shape[1] // chunk))
    memory, waveform = _engine_options(
        engine, memory_latency, memory_bandwidth, trace, trace_from=trace_from, trace_to=trace_to
    )
    run = None
    if engine != "golden":
        check_hardware(w, x.shape[1], b, zero, machine)
        folded = folded_bias(w, b, zero, low)
        if psum_group is not None:
            check_psums(w, folded, zero, low, group=psum_group, chunk=chunk, exponents=exponents)

        def pack(rows: slice, columns: slice) -> LayerImage:
            return pack_layer(
                w[rows], x[:, columns], folded[rows], config=machine, dataflow=DATAFLOWS[dataflow],
                chunk=chunk, psum_group=psum_group or 0, psum_exponents=exponents or None, **operands,
            )  # fmt: skip

        shape = len(w), x.shape[1]
        if board is None:
            run = _simulate(pack(slice(None), slice(None)), memory, waveform, progress)
        else:
            run = _Run(*run_on_board(board, machine, shape, pack, progress))

    if psum_group is None:
        result = aqs_gemm(w, x, bias=b, vector=machine.vector, **operands)
    else:
        result = apsq_gemm(
            w,
            x,
            bias=b,
            vector=machine.vector,
            psum_group=psum_group,
            psum_chunk=chunk,
            psum_exponents=exponents,
            **operands,
        )
    facts = {**result.report, "engine": engine, "config": machine.name, "operators": machine.operators}
    facts["config_parameters"] = machine.parameters()
    facts["outer_products_filler"] = count_filler(
        kept_weight_vectors(w, weight_bits, machine.vector),
        kept_activation_vectors(x, zero, low, machine.vector),
        weight_bits,
        tile_k=machine.tile_k,
        run_bits=machine.run_bits,
    )
    done, full = facts["outer_products_done"], facts["outer_products_full"]
    facts["cycle_bound"] = bound = -(-done // machine.operators)
    facts["speedup_bound"] = full / done
    machine_alone = (
        "dataflow", "dataflow_estimates", "parts", "schedule", "accesses", "speedup_over_dense",
        "memory_latency", "memory_bandwidth", "dram_bytes_least", "counters",
    )  # fmt: skip
    facts |= dict.fromkeys(machine_alone)
    if run is not None:
        compare(run.output, result.output, "RTL")
        if run.core is not None:
            compare(run.core.output, result.output, "RTL of the core alone")
        facts |= _report(run, bound, full / machine.operators)
        if dataflow == "auto":
            facts["dataflow_estimates"] = _estimates(run.images)
    return GemmResult(result.output, facts)


@dataclass(frozen=True, eq=False)
class _Run:
    """What a machine made of a layer, in one part or several, and what only a simulation knows."""

    output: npt.NDArray[np.int64]
    counters: dict[str, int]
    images: list[LayerImage]
    core: CoreRun | None = None
    memory: Memory | None = None


def _simulate(image: LayerImage, memory: Memory, waveform: Trace | None, progress: Progress | None) -> _Run:
    run = run_layer(image, memory=memory, trace=waveform, progress=progress)
    return _Run(run.system.outputs[0], run.system.counters, [image], run.core, memory)


def _report(run: _Run, bound: int, dense: float) -> dict[str, Any]:
    """What the report has of a run. dense: cycles of a dense machine."""
    counters, schedules = run.counters, [image.schedule for image in run.images]
    cycles = None if run.core is None else run.core.cycles
    if not any(schedule.psums_resident for schedule in schedules):
        cycles = counters["ARRAY_CYCLES"]
    traffic = [image.schedule.traffic(*image.image_bytes) for image in run.images]
    return {
        "dataflow": ", ".join(dict.fromkeys(dataflow_name(schedule.dataflow) for schedule in schedules)),
        "parts": len(run.images),
        "schedule": _facts(schedules[0]) if len(schedules) == 1 else None,
        "accesses": {
            name: {
                "chip_bytes": sum(part[name].chip for part in traffic),
                "dram_bytes": sum(part[name].dram for part in traffic),
            }
            for name in traffic[0]
        },
        "cycles": cycles,
        "total_cycles": counters["CYCLES"],
        "utilization": None if cycles is None else bound / cycles,
        "utilization_total": bound / counters["CYCLES"],
        "speedup_over_dense": None if cycles is None else dense / cycles,
        "memory_latency": None if run.memory is None else run.memory.latency,
        "memory_bandwidth": None if run.memory is None else run.memory.bandwidth,
        "dram_bytes_read": counters["BYTES_READ"],
        "dram_bytes_written": counters["BYTES_WRITTEN"],
        "dram_bytes_least": [sum(counts) for counts in zip(*map(least_bytes, run.images), strict=True)],
        "counters": counters,
    }


def _facts(schedule: Schedule) -> dict[str, Any]:
    return {
        "k_chunk": schedule.chunk,
        "block": schedule.block,
        "weights_resident": schedule.weights_resident,
        "activations_resident": schedule.activations_resident,
        "blocks_share": schedule.blocks_share,
        "psums_resident": schedule.psums_resident,
    }


def _estimates(images: list[LayerImage]) -> dict[str, int]:
    """Estimated bytes over the bus of the best schedules of each loop order."""
    estimates = {}
    for name, flow in DATAFLOWS.items():
        if flow is not None:
            estimates[name] = sum(_least_traffic(image, flow) for image in images)
    return estimates


def _least_traffic(image: LayerImage, flow: Dataflow) -> int:
    s, (weights, activations) = image.schedule, image.image_bytes
    best = plan(
        s.config, s.m, s.k, s.n, dataflow=flow, chunk=s.chunk, psum_group=s.psum_group,
        weight_bytes=weights, activation_bytes=activations,
    )  # fmt: skip
    return dram_bytes(best.traffic(weights, activations))


def folded_bias(
    weights: npt.NDArray[Any], bias: npt.NDArray[np.int64], zero_point: int, lo_bits: int
) -> npt.NDArray[np.int64]:
    """``bias - zp * sum_k W[:, k] + 2^l * r * sum_k W[:, k]`` (M,), r = zp >> l (arithmetic.md section 5)."""
    frequent = (zero_point >> lo_bits) << lo_bits
    folded: npt.NDArray[np.int64] = bias + (frequent - zero_point) * weights.sum(axis=1, dtype=np.int64)
    return folded


def _exponents(psum_group: int, psum_exponents: npt.ArrayLike | None, steps: int) -> list[int]:
    if psum_exponents is None:
        raise ValueError(
            f"psum_exponents must be given with psum_group = {psum_group}: one integer 0..31, or one a step, "
            "not None"
        )
    return check_exponents("psum_exponents", psum_exponents, steps)


def _engine_options(
    engine: str,
    memory_latency: int | None,
    memory_bandwidth: float | None,
    trace: str | Path | None,
    **cycles: int | None,
) -> tuple[Memory, Trace | None]:
    """The options of engine rtl; each is refused with another engine."""
    memory = {"latency": memory_latency, "bandwidth": memory_bandwidth}
    given = {f"memory_{name}": value for name, value in memory.items()} | {"trace": trace, **cycles}
    for name, value in given.items():
        if value is not None and engine != "rtl":
            raise ValueError(f"{name} needs engine rtl, not {engine!r}")
    if trace is None:
        for name, value in cycles.items():
            if value is not None:
                raise ValueError(f"{name} must come with trace, not alone as {value!r}")
    elif not isinstance(trace, (str, Path)):
        raise TypeError(f"trace must be the name of a file, not {trace!r}")
    chosen = Memory(**{name: value for name, value in memory.items() if value is not None})  # type: ignore[arg-type]
    if trace is None:
        return chosen, None
    first = 0 if cycles["trace_from"] is None else cycles["trace_from"]
    return chosen, Trace(Path(trace), first, cycles["trace_to"])


def compare(rtl: npt.NDArray[np.int64], golden: npt.NDArray[np.int64], what: str) -> None:
    """MismatchError that names the first element in which ``rtl`` and ``golden`` (M, N) differ."""
    different = np.argwhere(rtl != golden)
    if len(different):
        row, column = (int(index) for index in different[0])
        raise MismatchError(
            f"{what} and golden model differ in {len(different)} of {golden.size} elements, first in "
            f"Y[{row}, {column}]: RTL {rtl[row, column]}, golden {golden[row, column]}"
        )
