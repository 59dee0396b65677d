"""Bench of hw/core.py, end to end: random layers with stalls on every stream, errors, resets, coverage.

Every result is compared with int64 ``W @ (x_hat - zp) + bias``, or with APSQ's; so is every partial sum that
is sent to memory, from where the bench gives it back after a while; the count of outer products with what
arithmetic.md section 5 asks for on the padded grid.
"""

from __future__ import annotations

import itertools
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.plans import plan, plans
from sliceforge.verif.core_coverage import CorePorts, sample_layer
from sliceforge.verif.core_system import Bench, component, rng, sizes, weight_bits_of
from sliceforge.verif.layers import Layer, random_layer, random_schedule
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start

__all__ = ["CASES", "MODULES", "component"]

MODULES = ["core_errors"]

# Two and three weight slices are measured for coverage. Their memories are small, so that their rings
# wrap, and their runs are short, so that they need fillers.
CASES: list[dict[str, Any]] = [
    {"name": "tiny", "pea_count": 2, "lanes": 2, "run_bits": 2, "tile_k": 16, "wmem_kib": 1, "amem_kib": 1,
     "omem_kib": 1, "bus_bits": 64, "max_k": 512, "coverage": True},
    {"name": "three_slices", "pea_count": 2, "lanes": 4, "weight_slices": 3, "run_bits": 2, "tile_k": 8,
     "fifo_depth": 2, "wmem_kib": 2, "amem_kib": 2, "omem_kib": 2, "bus_bits": 256, "max_k": 300,
     "packing": 4, "packed_products": 4, "table_products": 6, "coverage": True},
    {"name": "odd", "pea_count": 3, "lanes": 5, "vector": 2, "run_bits": 1, "tile_k": 12, "fifo_depth": 3,
     "wmem_kib": 1, "amem_kib": 1, "omem_kib": 1, "bus_bits": 128, "max_k": 200},
    {"name": "wide", "pea_count": 1, "lanes": 3, "vector": 8, "weight_slices": 1, "run_bits": 6,
     "tile_k": 4, "wmem_kib": 1, "amem_kib": 1, "omem_kib": 3, "bus_bits": 512, "max_k": 100,
     "packed_products": 24, "table_products": 30},
]  # fmt: skip


# Dataflow, group size and number of K-chunks: one, some, a group and about it, many.
CHUNKED = [
    (dataflow, group, steps)
    for dataflow in Dataflow
    for group in range(5)
    for steps in sorted({1, max(1, group - 1), max(1, group), max(1, group) + 1, 2 * max(1, group) + 2})
]


@cocotb.test()
@cocotb.parametrize(stall=STALLS)
async def random_layers(dut: Any, stall: float) -> None:
    """Sizes around the tile, every corner of slicing, sparsity, dataflow and K-chunks."""
    await start(dut, component(parameters()))
    ports = CorePorts(dut)
    bench = Bench(dut, stall)
    machine = bench.config
    r = np.random.default_rng([cocotb.RANDOM_SEED, int(10 * stall)])
    for number, (dataflow, group, steps) in enumerate(CHUNKED):
        lo_bits = 4 + number % 3
        top = (256 >> lo_bits) - 1
        frequent = [0, top, int(r.integers(0, top + 1))][number // 3 % 3]
        if steps == 1:
            k = chunk = min(machine.max_k, int(r.choice([*sizes(machine.tile_k), 5 * machine.tile_k + 1])))
        else:
            chunk = int(r.choice([1, 3, machine.tile_k, machine.tile_k + 1]))
            chunk = min(chunk, machine.max_k // steps)
            k = chunk * steps - int(r.integers(0, chunk))
        shape = int(r.choice(sizes(machine.tile_m))), k, int(r.choice(sizes(machine.tile_n)))
        layer = random_layer(
            r,
            machine,
            shape,
            weight_bits=int(r.choice(weight_bits_of(machine))),
            lo_bits=lo_bits,
            zero_point=int(r.choice([frequent << lo_bits, (frequent << lo_bits) + (1 << lo_bits) - 1])),
            weight_sparsity=float(r.choice([0.0, 0.5, 0.97, 1.0])),
            activation_sparsity=float(r.choice([0.0, 0.5, 0.97, 1.0])),
            schedule=random_schedule(
                r,
                machine,
                shape,
                dataflow=dataflow,
                chunk=chunk,
                psum_group=group,
                spills=(number + STALLS.index(stall)) % 2 == 0,
            ),
        )
        assert layer.schedule.steps == steps
        bench.send(layer)
        await bench.receive(layer)
        sample_layer(layer)
    ports.stop()
    bench.stop()


@cocotb.test()
@cocotb.parametrize(
    slow=["layers", "weights", "activations", "biases", "exponents", "fills", "results", "status"]
)
async def back_to_back_with_one_slow_stream(dut: Any, slow: str) -> None:
    """Layers of all dataflows queued one behind the other, everything at full speed but one stream."""
    await start(dut, component(parameters()))
    ports = CorePorts(dut)
    bench = Bench(dut, {slow: 0.9})
    machine = bench.config
    r = rng(slow)
    large = machine.tile_m + 1, 2 * machine.tile_k, machine.tile_n + 1
    wide = 1, 2 * machine.tile_k, 3 * machine.tile_n + 1
    layers = []
    for number, shape in enumerate([wide, (1, 1, 1), large, (3, 7, 5), large]):
        flow, group = list(Dataflow)[(number + 1) % 3], [3, 0, 2, 0, 0][number]
        found = plans(
            machine,
            *shape,
            dataflow=flow,
            chunk=machine.tile_k // 2 if shape in (large, wide) else None,
            psum_group=group,
        )
        spills = number < 4 and shape in (large, wide)
        # The largest block: more tiles of partial sums come back than the memory has room for.
        schedule = max((s for s in found if s.psums_resident != spills), key=lambda s: s.block)
        layers.append(
            random_layer(r, machine, shape, weight_bits=weight_bits_of(machine)[-1], schedule=schedule)
        )
    for layer in layers:
        bench.send(layer)
    await bench.receive(*layers)
    ports.stop()
    bench.stop()


@cocotb.test()
async def extreme_values(dut: Any) -> None:
    """The largest K with all weights and activations at the ends of their ranges: nothing wraps."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    machine = bench.config
    for bits, zero_point, value in itertools.product(weight_bits_of(machine), (0, 255), (0, 255)):
        for weight in (-(1 << (bits - 1)), (1 << (bits - 1)) - 1):
            layer = Layer(
                plan(machine, 2, machine.max_k, 2),
                np.full((2, machine.max_k), weight, np.int16),
                np.full((machine.max_k, 2), value, np.uint8),
                np.array([2**31 - 1, -(2**31)]) // 2,
                bits,
                4,
                zero_point,
            )
            bench.send(layer)
            await bench.receive(layer)


@cocotb.test()
async def forgets_a_layer_at_reset(dut: Any) -> None:
    """Reset at many points of a layer; the next one is right."""
    await start(dut, component(parameters()))
    r = rng("reset")
    for cycles in (1, 3, 10, 30, 60, 100, 150, 250):
        bench = Bench(dut, 0.1)
        machine = bench.config
        shape = (2 * machine.tile_m, 2 * machine.tile_k, 2 * machine.tile_n)
        schedule = random_schedule(
            r,
            machine,
            shape,
            dataflow=Dataflow.WEIGHT_STATIONARY,
            chunk=machine.tile_k,
            psum_group=2,
            spills=True,
        )
        bench.send(random_layer(r, machine, shape, weight_bits=4, schedule=schedule))
        await ClockCycles(dut.clk, cycles)
        bench.stop()
        await reset(dut)
        bench = Bench(dut, 0.1)
        layer = random_layer(r, machine, (machine.tile_m + 1, machine.tile_k + 1, 2), weight_bits=4)
        bench.send(layer)
        await bench.receive(layer)
        bench.stop()
