"""Tests of `bench_accelerator`: malformed regions, lengths of chains, partial sums and scales end a layer."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.sim.driver import AcceleratorError
from sliceforge.sim.images import image_beats
from sliceforge.verif.accelerator_coverage import sample_error
from sliceforge.verif.accelerator_errors import chain, still_works
from sliceforge.verif.accelerator_layers import cut_layer, linked_layers, small_layer
from sliceforge.verif.accelerator_system import System
from sliceforge.verif.placement import Placed, long, place_layers, seeded

OTHERS = (Dataflow.WEIGHT_STATIONARY, Dataflow.INPUT_STATIONARY)


@cocotb.test()
@cocotb.parametrize(operand=["weights", "activations"])
async def stops_at_malformed_regions(dut: Any, operand: str) -> None:
    """Lengths of regions in descriptor and headers, counts, positions, slices, residency."""
    system = await System.start(dut)
    rng = seeded("regions", operand)
    name = operand.removesuffix("s").upper()
    length = ErrorCode[f"{name}_LENGTH"]
    field = f"{operand.upper()}_LENGTH"
    for case in malformed(system.config, operand):
        for failing in (0, 1) * long(1, 4):
            flow = rng.choice([Dataflow.OUTPUT_STATIONARY, *case.flows])
            placed = chain(rng, system, 2, flow=flow, **case.settings)
            target = placed[failing]
            case.spoil(target, rng)
            await system.fail(placed, ErrorCode[f"{name}_{case.kind}"], failing, trusted=False)
        await still_works(system, rng)
    # The first region's length, in the descriptor. A longer one goes on in what follows it in memory.
    for change in (-1, 1, 7, 1 << 20, (1 << 32) - 1):
        placed = chain(rng, system, 2)
        target = placed[rng.randrange(2)]
        target.fields[field] = min(max(2, target.fields[field] + change), (1 << 32) - 1)
        await system.fail(placed, length, placed.index(target), trusted=False)
        await still_works(system, rng)
    await system.finish()


class Malformed:
    """A way to spoil an operand: ``kind`` of error, ``settings`` of the layer, ``spoil(placed, rng)``; other
    ``flows`` in which it can be met."""

    def __init__(self, kind: str, spoil: Any, flows: tuple[Dataflow, ...] = (), **settings: Any) -> None:
        self.kind, self.spoil, self.flows, self.settings = kind, spoil, flows, settings


def malformed(config: Any, operand: str) -> list[Malformed]:
    layout = config.weight_layout if operand == "weights" else config.activation_layout
    beat = config.load_beat_bytes
    slices = config.weight_slices
    sparse = {
        "weight_bits": 3 * slices + 1, "weight_sparsity": 1.0, "activation_sparsity": 1.0,
        "shape": (config.tile_m + 1, min(config.max_k, 2 * config.tile_k), config.tile_n + 1),
    }  # fmt: skip

    def header(value: Any) -> Any:
        """Exchanges the next region's length in the first region's header."""

        def spoil(placed: Placed, rng: random.Random) -> None:
            data = getattr(placed, operand)
            following = int.from_bytes(data[:4], "little")
            data[:4] = value(following).to_bytes(4, "little")

        return spoil

    def last_header(placed: Placed, rng: random.Random) -> None:
        """The last region's header names one more."""
        data = getattr(placed, operand)
        at, length = 0, placed.fields[f"{operand.upper()}_LENGTH"]
        while following := int.from_bytes(data[at : at + 4], "little"):
            at, length = at + length * beat, following
        data[at : at + 4] = rng.choice([1, 2, 100, 0xFFFF_FFFF]).to_bytes(4, "little")

    def count(placed: Placed, rng: random.Random) -> None:
        """More entries than positions, in the first image's first bank."""
        getattr(placed, operand)[beat] = config.tile_k + 1

    def position(placed: Placed, rng: random.Random) -> None:
        """One entry too many whose skips lead past the tile; the image has no entries of its own."""
        data = getattr(placed, operand)
        s, dense = placed.layer.schedule, max(1, slices - 1) if operand == "weights" else 1
        first = s.k_slices[0]
        images = image_beats(
            np.frombuffer(data, np.uint8).reshape(-1, beat)[1:],
            banks=config.pea_count if operand == "weights" else config.lanes,
            ways=config.load_ways, length=first.stop - first.start, dense=dense, layout=layout,
        )  # fmt: skip
        longest = (1 << layout.run_bits) - 1
        entries = config.tile_k // (longest + 1) + 1
        granule = sum(longest << i * layout.entry_bits for i in range(layout.entries_per_granule))
        section = b""
        for _ in range(layout.ho_granules(entries)):
            section += granule.to_bytes(layout.granule_bits // 8, "little").ljust(beat, b"\0")
        data[beat] = entries
        end = beat * (1 + images)
        data[end:end] = section
        added = len(section) // beat
        placed.fields[f"{operand.upper()}_LENGTH"] += added

    def slice_(placed: Placed, rng: random.Random) -> None:
        """The first slice of the first entry gets all bits; everything is kept."""
        depth = -(-config.lanes // config.load_ways)
        first = layout.header_beats(config.lanes, config.load_ways)
        first += depth * layout.lo_granules(min(config.tile_k, placed.layer.shape[1]), 1)
        at = beat * (1 + first)
        bits = int.from_bytes(placed.activations[at : at + 4], "little") | 15 << layout.run_bits
        placed.activations[at : at + 4] = bits.to_bytes(4, "little")

    def residency(placed: Placed, rng: random.Random) -> None:
        placed.fields[f"{operand.upper()}_RESIDENT"] = 1

    found = [
        Malformed("LENGTH", last_header, OTHERS),
        Malformed("COUNT", count, OTHERS, **sparse),
    ]
    if operand == "activations" or slices > 1:
        found.append(Malformed("POSITION", position, OTHERS, **sparse))
    if operand == "weights":
        found += [
            Malformed("LENGTH", header(value), (Dataflow.WEIGHT_STATIONARY,))
            for value in (lambda n: 0, lambda n: 1, lambda n: n - 1, lambda n: n + 1, lambda n: n + 9)
        ]
    else:
        found.append(
            Malformed("SLICE", slice_, OTHERS, **{**sparse, "lo_bits": 6, "activation_sparsity": 0.0})
        )
    slots = config.weight_slots if operand == "weights" else config.activation_slots
    if slots * config.tile_k < config.max_k:
        m, n = (1, config.tile_n + 1) if operand == "weights" else (config.tile_m + 1, 1)
        found.append(Malformed("RESIDENCY", residency, shape=(m, slots * config.tile_k + 1, n)))
    return found


@cocotb.test()
async def stops_at_a_chain_of_wrong_lengths(dut: Any) -> None:
    """A layer whose activations another one wrote: lengths that are not those of the images, in the
    descriptor or in a region's header."""
    system = await System.start(dut)
    rng = seeded("chains")
    memory, put = system.memory, system.memory.put
    codes = [code for code in ErrorCode if code.name.startswith("ACTIVATION_")]
    for wrong in (lambda n: 0, lambda n: 1, lambda n: n - 1, lambda n: n + 1, lambda n: n + 9) * long(1, 4):
        for of_first in (True, False):
            placed = place_layers(rng, linked_layers(rng, system.config))
            lengths = [(at, data) for at, data in placed[0].output() if len(data) == 4]
            spoiled, data = lengths[0] if of_first else rng.choice(lengths[1:])
            value = max(0, wrong(int.from_bytes(data, "little")))

            def spoil(address: int, data: bytes, spoiled: int = spoiled, value: int = value) -> None:
                """Writes memory, and another length where the length is written."""
                put(address, data)
                if address <= spoiled < address + len(data):
                    put(spoiled, value.to_bytes(4, "little"))

            system.load(placed)
            before = bytearray(memory.data)
            memory.put = spoil  # type: ignore[method-assign]
            try:
                await system.call(system.driver.execute, placed[0].address, layers=2)
            except AcceleratorError as error:
                found = ErrorCode.ILLEGAL_LENGTH if of_first and value < 2 else None
                assert error.layer == 1 and (error.code == found or (not found and error.code in codes)), (
                    error
                )
                sample_error(error.code)
            else:
                raise AssertionError(f"no error with a length of {value}")
            finally:
                memory.put = put  # type: ignore[method-assign]
            await system.once()
            system.compare(before, [], anything=placed)
            await still_works(system, rng)
    await system.finish()


# Partial sums and parameters.


@cocotb.test()
async def stops_at_partial_sums_without_room(dut: Any) -> None:
    """Partial sums that are to stay in OMEM; exponents that are too few, none, or too many."""
    system = await System.start(dut)
    rng = seeded("room")
    c = system.config
    for group in [*range(5)] * long(1, 4):
        columns = c.psum_slots * {1: 4, 2: 2}.get(group, 1) + 1
        while True:
            shape = (c.tile_m + 1, 13, columns * c.tile_n)
            layer = cut_layer(rng, c, shape=shape, flow=Dataflow.WEIGHT_STATIONARY, group=group)
            if layer.schedule.waiting_psums == columns:
                break
        placed = place_layers(rng, [small_layer(rng, c), layer])
        placed[1].fields["PSUMS_RESIDENT"] = 1
        await system.fail(placed, ErrorCode.PSUM_RESIDENCY, 1, trusted=False)
        await still_works(system, rng)
    room = -(-c.max_k // 4)
    for words in (0, 1, room + 1, room + 50):
        layer = cut_layer(rng, c, group=rng.randint(1, 4), chunk=2, spilled=words > 1)  # 7 exponents
        placed = place_layers(rng, [layer, small_layer(rng, c)])
        placed[0].fields["EXPONENT_WORDS"] = words
        await system.fail(placed, ErrorCode.PSUM_EXPONENTS, 0, trusted=False)
        await still_works(system, rng)
    await system.finish()


@cocotb.test()
async def stops_at_illegal_scales(dut: Any) -> None:
    """A multiplier of more than 31 bits, a shift of 0 or more than 62; in any row."""
    system = await System.start(dut)
    rng = seeded("scales")
    for word, value in ((1, 1 << 31), (1, (1 << 32) - 1), (2, 0), (2, 63), (2, 64), (2, 255), (2, 1 << 31)):
        layer = cut_layer(rng, system.config, requantize=True)
        placed = place_layers(rng, [small_layer(rng, system.config), layer])
        m, image = layer.shape[0], layer.image
        first = len(image.parameters) - 3 * m
        at = 4 * (first + 3 * rng.choice([0, rng.randrange(m), m - 1]) + word)
        placed[1].parameters[at : at + 4] = value.to_bytes(4, "little")
        await system.fail(placed, ErrorCode.ILLEGAL_SCALE, 1, trusted=False)
        await still_works(system, rng)
    await system.finish()
