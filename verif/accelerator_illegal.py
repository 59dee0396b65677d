"""Tests of `bench_accelerator`: illegal descriptors are refused with their codes."""

from __future__ import annotations

from typing import Any

import cocotb

from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR, DESCRIPTOR_BYTES, PSUM_ALIGNMENT
from sliceforge.sim.descriptor import encode_descriptor
from sliceforge.verif.accelerator_errors import chain, still_works
from sliceforge.verif.accelerator_system import System
from sliceforge.verif.placement import Placed, long, seeded

Wrong = list[tuple[dict[str, int], ErrorCode]]


def illegal_descriptors(placed: Placed, config: Any) -> Wrong:
    """Fields that make a descriptor illegal, each with its code."""
    wide = placed.fields
    _, k, n = placed.layer.shape
    cases: dict[str, list[dict[str, int]]] = {
        "FORMAT": [{"FORMAT": value} for value in (0, 1, 3, 0x82, 0xFF)],
        "SHAPE": [
            *({side: 0} for side in "MNK"),
            *({"K": value} for value in (config.max_k + 1, 1 << 20, (1 << 24) - 1)),
        ],
        "WEIGHT_SLICES": [{"WEIGHT_SLICES": value} for value in (0, *range(config.weight_slices + 1, 8))],
        "LO_BITS": [{"LO_BITS": value} for value in (0, 1, 2, 3, 7)],
        "FREQUENT": [
            {"LO_BITS": 5, "FREQUENT": 8},
            *({"LO_BITS": 6, "FREQUENT": value} for value in (4, 15)),
        ],
        "DATAFLOW": [
            {"DATAFLOW": 3},
            *({name: 0} for name in ("BLOCK", "K_CHUNK", "K_TILE", "ACTIVATIONS_SPAN")),
            {"K_CHUNK": k + 1},
            {"K_TILE": config.tile_k + 1},
            *({"PSUM_GROUP": group, "EXPONENT_WORDS": 1} for group in (5, 6, 7)),
        ],
        "REUSE": [
            {"DATAFLOW": 1, "WEIGHTS_RESIDENT": 0, "BLOCK": 1},
            {"DATAFLOW": 2, "ACTIVATIONS_RESIDENT": 0, "BLOCK": 1},
            {"DATAFLOW": 1, "WEIGHTS_RESIDENT": 0, "BLOCK": 99, "BLOCKS_SHARE": 1},
            {"DATAFLOW": 2, "ACTIVATIONS_RESIDENT": 0, "BLOCK": 99, "BLOCKS_SHARE": 1},
            *(
                {"DATAFLOW": flow, "ACTIVATIONS_RESIDENT": 0, "BLOCK": 99, "ACTIVATIONS_SPAN": 5}
                for flow in (1, 2)
            ),
        ],
        "NEXT_ADDRESS": [{"NEXT": 0, "NEXT_ADDRESS": address} for address in (128, 1 << 40)],
        "LENGTH": [{f"{name}_LENGTH": value} for name in ("WEIGHTS", "ACTIVATIONS") for value in (0, 1)],
    }
    load = config.load_beat_bytes
    raw = not wide.get("REQUANTIZE")
    stride = wide["OUTPUT_STRIDE"]
    unit = 4 if raw else load
    cases["STRIDE"] = [
        *({"OUTPUT_STRIDE": stride | low} for low in _bits(unit)),
        *({"OUTPUT_STRIDE": value} for value in ((0, 4 * n - 4) if raw else (0,))),
        *({"ACTIVATIONS_STRIDE": low} for low in _bits(load)),
    ]
    addresses = {
        "WEIGHTS_ADDRESS": load, "ACTIVATIONS_ADDRESS": load, "PARAMETERS_ADDRESS": 4, "OUTPUT_ADDRESS": unit,
        "PSUM_ADDRESS": PSUM_ALIGNMENT, "NEXT_ADDRESS": DESCRIPTOR_BYTES,
    }  # fmt: skip
    if not raw:
        addresses["LENGTH_ADDRESS"] = 4
        cases["REQUANTIZATION"] = [
            *({"NEXT_LO_BITS": value} for value in (0, 1, 2, 3, 7)),
            {"NEXT_LO_BITS": 5, "NEXT_FREQUENT": 8},
            {"NEXT_LO_BITS": 6, "NEXT_FREQUENT": 4},
            *({"NEXT_K_TILE": value} for value in (0, config.tile_k + 1, 255)),
            {"OUTPUT_GROUP": 0},
        ]
    far = [1 << bit for bit in {config.address_bits, 63} if bit < 64]
    for name, alignment in addresses.items():
        code = {"LENGTH_ADDRESS": "REQUANTIZATION"}.get(name, name)
        extra = {"NEXT": 1} if name == "NEXT_ADDRESS" else {}
        cases.setdefault(code, []).extend(
            {name: wide[name] | bit, **extra} for bit in (*_bits(alignment), *far)
        )
    return [(fields, ErrorCode[f"ILLEGAL_{code}"]) for code, found in cases.items() for fields in found]


def _bits(alignment: int) -> list[int]:
    """Those of an address that must be 0."""
    return [1 << bit for bit in range((alignment - 1).bit_length())]


@cocotb.test()
@cocotb.parametrize(requantize=[False, True])
async def refuses_illegal_descriptors(dut: Any, requantize: bool) -> None:
    """Every field's illegal values, and every reserved bit: the code, and no access but the descriptor's."""
    system = await System.start(dut, pauses=0.1, latency=4)
    rng = seeded("illegal", requantize)
    good = chain(rng, system, 2, requantize=requantize)
    system.load(good)
    words = {word.offset: sum(field.mask for field in word.fields) for word in DESCRIPTOR}
    reserved = [
        8 * offset + bit
        for offset in range(0, DESCRIPTOR_BYTES, 4)
        for bit in range(32)
        if not words.get(offset, 0) >> bit & 1
    ]
    illegal: list[tuple[dict[str, int], ErrorCode, int | None]] = [
        *((fields, code, None) for fields, code in illegal_descriptors(good[1], system.config)),
        *(({}, ErrorCode.ILLEGAL_FORMAT, bit) for bit in rng.sample(reserved, long(10, len(reserved)))),
    ]
    if requantize:  # the rest has been seen
        kinds = ("ILLEGAL_REQUANTIZATION", "ILLEGAL_STRIDE", "ILLEGAL_OUTPUT_ADDRESS")
        illegal = [case for case in illegal if case[1].name in kinds]
    for number, (fields, code, bit) in enumerate(illegal):
        failing = int(number % 6 == 0)
        target = good[failing]
        data = int.from_bytes(encode_descriptor({**target.fields, **fields}), "little")
        data |= 1 << bit if bit is not None else 0
        system.memory.put(target.address, data.to_bytes(DESCRIPTOR_BYTES, "little"))
        before = bytearray(system.memory.data)
        reads, writes = len(system.master.reads), len(system.master.writes)
        await system.expect(good, code, failing)
        system.compare(before, good[:failing])
        new = system.master.reads[reads:]
        beats = sum(count for at, count in new if target.address <= at < target.address + DESCRIPTOR_BYTES)
        assert beats == DESCRIPTOR_BYTES * 8 // system.config.bus_bits, f"{fields}: read {new}"
        if failing == 0:
            assert sum(count for _, count in new) == beats, f"{fields}: data was read"
            assert len(system.master.writes) == writes, f"{fields}: data was written"
        system.load(good)
    for low in range(7):
        await system.expect(good, ErrorCode.ILLEGAL_QUEUE_ADDRESS, 0, queue=good[0].address | 1 << low)
    await still_works(system, rng)
    await system.finish()
