"""One GEMM on one machine: the golden model, or the generated RTL compared with it element by element."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.hw.payloads import DIM_BITS
from sliceforge.sim import checks
from sliceforge.sim.apsq import apsq_gemm
from sliceforge.sim.golden import GemmResult, aqs_gemm
from sliceforge.sim.layer_image import least_bytes, pack_layer
from sliceforge.sim.rtl import Memory, Trace, run_layer
from sliceforge.sim.verilated import Progress
from sliceforge.sim.work import count_filler, kept_activation_vectors, kept_weight_vectors

__all__ = ["ENGINES", "MismatchError", "folded_bias", "gemm"]

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
    memory_latency: int | None = None,
    memory_bandwidth: float | None = None,
    trace: str | Path | None = None,
    trace_from: int | None = None,
    trace_to: int | None = None,
    progress: Progress | None = None,
) -> GemmResult:
    """``Y = W @ (x_hat - zero_point) + bias``, or with ``psum_group`` the APSQ of arithmetic.md section 8.

    weights (M, K), activations (K, N), bias (M,): integers; see `aqs_gemm`. config: a configuration or a
    preset's name. engine: ``golden`` (numpy) or ``rtl`` (the generated Verilog in simulation, compared
    with golden). psum_chunk: positions along K a step, tile_k by default; psum_exponents: one integer or
    one a step. For engine ``rtl`` alone, memory_latency (cycles, 100) and memory_bandwidth (beats a cycle in
    each direction, 1): see `rtl.Memory`; trace: write the waveform (FST) of cycles trace_from..trace_to to
    this file. progress: called with the share done, 0..1, from time to time.
    Returns ``.output`` int64 (M, N) and ``.report`` (interface.md). Raises TypeError or ValueError for an
    illegal argument, MismatchError where the RTL differs from golden, RuntimeError where it stops.
    """
    machine = AcceleratorConfig.preset(config) if isinstance(config, str) else config
    if not isinstance(machine, AcceleratorConfig):
        raise TypeError(f"config must be an AcceleratorConfig or a preset's name, not {config!r}")
    if not isinstance(engine, str) or engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    w, x, b = checks.gemm_operands(weights, activations, bias, weight_bits)
    zero, low = checks.zero_point(zero_point), checks.lo_bits(lo_bits)
    checks.weight_bits(weight_bits, machine)
    operands: dict[str, Any] = {"zero_point": zero, "weight_bits": weight_bits, "lo_bits": low}
    if psum_group is None:
        for name, value in (("psum_chunk", psum_chunk), ("psum_exponents", psum_exponents)):
            if value is not None:
                raise ValueError(f"{name} must come with psum_group, not alone as {value!r}")
    else:
        _check_psum(engine, psum_group, psum_exponents)
    memory, waveform = _engine_options(
        engine, memory_latency, memory_bandwidth, trace, trace_from=trace_from, trace_to=trace_to
    )
    if engine == "rtl":
        _check_rtl(w, x, b, zero, machine)

    if psum_group is None:
        result = aqs_gemm(w, x, bias=b, vector=machine.vector, **operands)
    else:
        assert psum_exponents is not None
        result = apsq_gemm(
            w,
            x,
            bias=b,
            vector=machine.vector,
            psum_group=psum_group,
            psum_chunk=machine.tile_k if psum_chunk is None else psum_chunk,
            psum_exponents=psum_exponents,
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
    rtl_alone = ("speedup_over_dense", "memory_latency", "memory_bandwidth", "dram_bytes_least", "counters")
    facts |= dict.fromkeys(rtl_alone)
    if engine == "rtl":
        image = pack_layer(w, x, folded_bias(w, b, zero, low), config=machine, **operands)
        run = run_layer(image, memory=memory, trace=waveform, progress=progress)
        _compare(run.system.outputs[0], result.output, "RTL")
        _compare(run.core.output, result.output, "RTL of the core alone")
        counters = run.system.counters
        facts["cycles"], facts["total_cycles"] = run.core.cycles, counters["CYCLES"]
        facts["utilization"] = bound / run.core.cycles
        facts["utilization_total"] = bound / counters["CYCLES"]
        facts["speedup_over_dense"] = full / machine.operators / run.core.cycles
        facts["memory_latency"], facts["memory_bandwidth"] = memory.latency, memory.bandwidth
        facts["dram_bytes_read"], facts["dram_bytes_written"] = (
            counters["BYTES_READ"], counters["BYTES_WRITTEN"]
        )  # fmt: skip
        facts["dram_bytes_least"] = list(least_bytes(image))
        facts["counters"] = counters
    return GemmResult(result.output, facts)


def folded_bias(
    weights: npt.NDArray[Any], bias: npt.NDArray[np.int64], zero_point: int, lo_bits: int
) -> npt.NDArray[np.int64]:
    """``bias - zp * sum_k W[:, k] + 2^l * r * sum_k W[:, k]`` (M,), r = zp >> l (arithmetic.md section 5)."""
    frequent = (zero_point >> lo_bits) << lo_bits
    folded: npt.NDArray[np.int64] = bias + (frequent - zero_point) * weights.sum(axis=1, dtype=np.int64)
    return folded


def _check_psum(engine: str, psum_group: int, psum_exponents: npt.ArrayLike | None) -> None:
    checks.integer("psum_group", psum_group, 1)
    if psum_exponents is None:
        raise ValueError(
            f"psum_exponents must be given with psum_group = {psum_group}: one integer 0..31, or one a step, "
            "not None"
        )
    if engine != "golden":
        raise ValueError(f"psum_group needs engine golden, not {engine!r}: this core keeps full partial sums")


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


def _check_rtl(
    w: npt.NDArray[Any],
    x: npt.NDArray[np.uint8],
    bias: npt.NDArray[np.int64],
    zero_point: int,
    config: AcceleratorConfig,
) -> None:
    """Refuses what the hardware cannot hold (arithmetic.md section 1), before it starts."""
    if w.shape[1] > config.max_k:
        raise ValueError(
            f"weights must have at most max_k = {config.max_k} columns for engine rtl, not {w.shape[1]}"
        )
    for name, side in (("weights", len(w)), ("activations", x.shape[1])):
        if side >= 1 << DIM_BITS:
            kind = "rows" if name == "weights" else "columns"
            raise ValueError(f"{name} must have less than 2^{DIM_BITS} {kind} for engine rtl, not {side}")
    # |x_hat - zp| <= max(zp, 255 - zp), and folding adds |zp - 2^l r| <= zp times the same sum of weights.
    sums = np.abs(w.astype(np.int64)).sum(axis=1)
    bound = int((np.abs(bias) + sums * max(zero_point, 255 - zero_point)).max())
    folded = int((np.abs(bias) + sums * 63).max())
    if max(bound, folded) >= 1 << 31:
        raise ValueError(
            f"bias must keep every result and folded bias within 32 bits for engine rtl: "
            f"with these weights they may reach {max(bound, folded)}"
        )


def _compare(rtl: npt.NDArray[np.int64], golden: npt.NDArray[np.int64], what: str) -> None:
    different = np.argwhere(rtl != golden)
    if len(different):
        row, column = (int(index) for index in different[0])
        raise MismatchError(
            f"{what} and golden model differ in {len(different)} of {golden.size} elements, first in "
            f"Y[{row}, {column}]: RTL {rtl[row, column]}, golden {golden[row, column]}"
        )
