"""More tests for `bench_core`: layers that are refused or stopped, and the coverage of all tests."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import cocotb

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.sim.plans import plan, plans
from sliceforge.verif.core_system import Bench, component, rng, weight_bits_of
from sliceforge.verif.coverage import report_coverage
from sliceforge.verif.layers import Layer, random_layer
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import start


@cocotb.test()
async def refuses_illegal_descriptors(dut: Any) -> None:
    """Each gives its code, takes no data, and the next layer is right."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    machine = bench.config
    good = random_layer(rng("illegal"), machine, (3, 5, 2), weight_bits=4)
    illegal = [
        *(({side: 0}, ErrorCode.ILLEGAL_SHAPE) for side in "mnk"),
        ({"k": machine.max_k + 1}, ErrorCode.ILLEGAL_SHAPE),
        ({"weight_slices": 0}, ErrorCode.ILLEGAL_WEIGHT_SLICES),
        ({"weight_slices": machine.weight_slices + 1}, ErrorCode.ILLEGAL_WEIGHT_SLICES),
        *(({"lo_bits": bits}, ErrorCode.ILLEGAL_LO_BITS) for bits in (0, 3, 7)),
        ({"lo_bits": 5, "frequent": 8}, ErrorCode.ILLEGAL_FREQUENT),
        ({"lo_bits": 6, "frequent": 4}, ErrorCode.ILLEGAL_FREQUENT),
        *(
            (fields, ErrorCode.ILLEGAL_DATAFLOW)
            for fields in (
                {"dataflow": 3}, {"block": 0}, {"chunk": 0}, {"chunk": 6}, {"k_tile": 0},
                {"k_tile": machine.tile_k + 1}, {"activations_span": 0}, {"psum_group": 5},
            )
        ),
    ]  # fmt: skip
    for flow, stationary, side, tile in (
        (1, "weights", "n", machine.tile_n),
        (2, "activations", "m", machine.tile_m),
    ):
        again = {"dataflow": flow, f"{stationary}_resident": 0}
        illegal += [
            ({**again, side: tile + 1}, ErrorCode.ILLEGAL_REUSE),  # for the next block
            ({**again, "blocks_share": 1}, ErrorCode.ILLEGAL_REUSE),
            (
                {"dataflow": flow, "activations_resident": 0, "activations_span": 16},
                ErrorCode.ILLEGAL_REUSE,
            ),
        ]
    for fields, code in illegal:
        await bench.fail(good, code, layers=[changed(good, **fields)], weights=[], activations=[], biases=[])
        bench.send(good)
        await bench.receive(good)


def changed(layer: Layer, **fields: int) -> dict[str, Any]:
    """The layer's descriptor with these fields, of its loops or of itself."""
    descriptor = layer.descriptor
    loops = {name: fields.get(name, value) for name, value in descriptor["loops"].items()}
    return {**{name: fields.get(name, value) for name, value in descriptor.items()}, "loops": loops}


@cocotb.test()
async def stops_where_partial_sums_do_not_fit(dut: Any) -> None:
    """A tile more than OMEM has room for, at every width; as many as it has are right."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.1)
    machine = bench.config
    k = machine.tile_k + 1
    for group, dataflow in itertools.product(
        range(5), (Dataflow.WEIGHT_STATIONARY, Dataflow.INPUT_STATIONARY)
    ):
        room = machine.psum_slots * {1: 4, 2: 2}.get(group, 1)
        m, n = 2, room * machine.tile_n + 1
        if dataflow == Dataflow.INPUT_STATIONARY:
            m, n = room * machine.tile_m + 1, 2
        found = plans(machine, m, k, n, dataflow=dataflow, chunk=k - 1, psum_group=group)
        schedule = next(s for s in found if s.block == room and s.psums_resident)
        good = random_layer(rng("room", group), machine, (m, k, n), weight_bits=4, schedule=schedule)
        found = plans(machine, m, k, n, dataflow=dataflow, chunk=k - 1, psum_group=group)
        schedule = next(s for s in found if s.block == room + 1 and not s.psums_resident)
        bad = random_layer(
            rng("room", group), machine, (m, k, n), weight_bits=4,
            schedule=replace(schedule, psums_resident=True),
        )  # fmt: skip
        await bench.fail(bad, ErrorCode.PSUM_RESIDENCY)
        bench.send(good)
        await bench.receive(good)
    bench.stop()


@cocotb.test()
async def stops_at_a_wrong_number_of_exponents(dut: Any) -> None:
    """Fewer words than there are steps, or more than the machine holds."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.1)
    machine = bench.config
    schedule = plan(machine, 3, 17, 3, chunk=1, psum_group=3)
    layer = random_layer(rng("steps"), machine, (3, 17, 3), weight_bits=4, schedule=schedule)
    words = layer.exponent_words
    few = [*words[:3], {**words[3], "last": 1}]
    many = [{"word": 0, "last": 0}] * (-(-machine.max_k // 4) + 1)
    # Without weights, a small layer does not end before a large machine has taken too many words.
    for wrong in ({"exponents": few}, {"exponents": many, "weights": []}):
        await bench.fail(layer, ErrorCode.PSUM_EXPONENTS, **wrong)
        bench.send(layer)
        await bench.receive(layer)
    bench.stop()


@cocotb.test()
@cocotb.parametrize(operand=["weight", "activation"], stall=[0.0, 0.3])
async def stops_at_malformed_images(dut: Any, operand: str, stall: float) -> None:
    """Count, length, position and residency errors: the code, a clean stop, and the next layer is right."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall)
    machine = bench.config
    layout = machine.weight_layout if operand == "weight" else machine.activation_layout
    stream = f"{operand}s"
    last_bit = 1 << (layout.granule_bits * machine.load_ways)
    full = (machine.tile_m + 1, 2 * machine.tile_k, machine.tile_n + 1)

    def beats(layer: Layer) -> list[int]:
        return layer.weight_beats() if operand == "weight" else layer.activation_beats()

    def code(kind: str) -> ErrorCode:
        return ErrorCode[f"{operand.upper()}_{kind}"]

    def sparse(salt: str) -> Layer:
        return random_layer(
            rng(operand, salt), machine, full, weight_bits=weight_bits_of(machine)[-1],
            weight_sparsity=1.0, activation_sparsity=1.0,
        )  # fmt: skip

    good = random_layer(rng(operand), machine, (machine.tile_m, machine.tile_k + 1, 3), weight_bits=4)
    layer = sparse("bad")
    payloads = beats(layer)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("COUNT", {stream: [payloads[0] | machine.tile_k + 1, *payloads[1:]]}),
        ("LENGTH", {stream: [payloads[0] | last_bit, *payloads[1:]]}),
        ("LENGTH", {stream: [payload & ~last_bit for payload in payloads]}),
    ]
    compressible = operand == "activation" or machine.weight_slices > 1
    if compressible:
        cases.append(("POSITION", {stream: past_the_tile(layer, payloads, operand)}))
    if operand == "activation":  # all kept, and one HO slice of more than 8 - lo_bits bits
        bad = random_layer(rng("slice"), machine, full, weight_bits=4, lo_bits=6, activation_sparsity=0.0)
        wrong = replace_first_entry(bad, bad.activation_beats())
        await bench.fail(bad, ErrorCode.ACTIVATION_SLICE, activations=wrong)
        bench.send(good)
        await bench.receive(good)
    for kind, wrong in cases:
        await bench.fail(layer, code(kind), **wrong)
        bench.send(good)
        await bench.receive(good)

    # One k-tile more than a bank holds, said to be resident.
    slots = machine.weight_slots if operand == "weight" else machine.activation_slots
    if slots * machine.tile_k < machine.max_k:
        m, n = (1, machine.tile_n + 1) if operand == "weight" else (machine.tile_m + 1, 1)
        large = random_layer(rng(operand, 9), machine, (m, slots * machine.tile_k + 1, n), weight_bits=4)
        assert not large.descriptor[f"{stream}_resident"]
        await bench.fail(large, code("RESIDENCY"), layers=[changed(large, **{f"{stream}_resident": 1})])
        bench.send(good)
        await bench.receive(good)


def past_the_tile(layer: Layer, payloads: list[int], operand: str) -> list[int]:
    """The layer's beats with one entry in bank 0 of the first image that lies past the tile.

    The image has no entries, so its HO section is new: granules whose entries all have the longest skip.
    It is not the last of its region.
    """
    machine = layer.config
    layout = machine.weight_layout if operand == "weight" else machine.activation_layout
    longest = (1 << layout.run_bits) - 1
    count = machine.tile_k // (longest + 1) + 1
    entries = sum(longest << i * layout.entry_bits for i in range(layout.entries_per_granule))
    end = layer.first_image_beats(operand)
    granules = layout.ho_granules(count)
    return [payloads[0] | count, *payloads[1:end], *[entries] * granules, *payloads[end:]]


def replace_first_entry(layer: Layer, payloads: list[int]) -> list[int]:
    """The layer's beats with all bits of the first slice of bank 0's first entry set; all is kept."""
    machine = layer.config
    layout = machine.activation_layout
    header = layout.header_beats(machine.lanes, machine.load_ways)
    depth = -(-machine.lanes // machine.load_ways)
    first = header + depth * layout.lo_granules(machine.tile_k, 1)
    changed = list(payloads)
    changed[first] |= 15 << layout.run_bits
    return changed


@cocotb.test()
async def zz_covers_all_bins(dut: Any) -> None:
    """Last: prints the coverage table; on the machine that is measured, every bin must have been hit."""
    missing = report_coverage("core", cocotb.log.info)
    assert not (parameters().get("coverage") and missing), f"bins never hit: {missing}"
