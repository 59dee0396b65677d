"""Descriptors for benches: the places of their fields, and random legal ones."""

from __future__ import annotations

import random
from collections.abc import Mapping

from sliceforge.gen.registers import DESCRIPTOR, DESCRIPTOR_BYTES, DESCRIPTOR_FORMAT, PSUM_ALIGNMENT
from sliceforge.verif.simulation import parameters

__all__ = ["ADDRESSES", "PLACES", "RESERVED", "alignment", "join", "random_fields", "with_address"]

ADDRESSES = ("weights", "activations", "parameters", "output", "psum", "next", "length")
PLACES = {
    (word.name if field.name == "VALUE" else field.name).lower(): (8 * word.offset + field.lsb, field.width)
    for word in DESCRIPTOR
    for field in word.fields
}
"""First bit in the descriptor, and bits, of each field, by the name of the port's member."""
_USED = sum(((1 << width) - 1) << first for first, width in PLACES.values())
RESERVED = [bit for bit in range(8 * DESCRIPTOR_BYTES) if not _USED >> bit & 1]


def join(values: Mapping[str, int]) -> int:
    """The descriptor's bits, the first in memory lowest."""
    assert all(value < 1 << PLACES[name][1] for name, value in values.items())
    return sum(value << PLACES[name][0] for name, value in values.items())


def with_address(values: dict[str, int], name: str, address: int) -> dict[str, int]:
    return values | {f"{name}_address": address & 0xFFFF_FFFF, f"{name}_address_high": address >> 32}


def alignment(name: str, requantize: int) -> int:
    """Bytes."""
    beat = int(parameters()["load_beat_bytes"])
    output = max(4, beat) if requantize else 4
    fixed = {"parameters": 4, "output": output, "psum": PSUM_ALIGNMENT, "next": DESCRIPTOR_BYTES, "length": 4}
    return fixed.get(name, beat)


def random_fields(rng: random.Random, **fixed: int) -> dict[str, int]:
    """Legal ones: anything in the fields that the core checks, and the extremes of the others. ``fixed``: by
    name, of the fields that no other depends on, or ``next`` or ``requantize``."""
    values = {name: rng.getrandbits(width) for name, (_, width) in PLACES.items()}
    values |= {"format": DESCRIPTOR_FORMAT, "n": rng.choice([0, 1, (1 << 24) - 1, rng.getrandbits(24)])}
    values |= fixed
    for name in ("weights_length", "activations_length"):
        values[name] = rng.choice([2, (1 << 32) - 1, rng.randrange(2, 1 << 32)])
    values["exponent_words"] = rng.choice([1, (1 << 24) - 1]) if values["psum_group"] else rng.choice([0, 1])
    beat, space = parameters()["load_beat_bytes"], 1 << parameters()["address_bits"]
    values["activations_stride"] = rng.choice([0, beat, (1 << 32) - beat, rng.randrange(0, 1 << 32, beat)])
    requantize = values["requantize"]
    step = least = alignment("output", requantize)
    if requantize:
        lo_bits, last = rng.choice([4, 5, 6]), parameters()["tile_k"]
        values |= {"next_lo_bits": lo_bits, "next_frequent": rng.choice([0, (1 << 8 - lo_bits) - 1])}
        values |= {"next_k_tile": rng.choice([1, last, rng.randint(1, last)])}
        values |= {"output_group": rng.choice([1, (1 << 24) - 1])}
    else:
        least = 4 * values["n"]
    values["output_stride"] = rng.choice([least, (1 << 32) - step, rng.randrange(least, 1 << 32, step)])
    for name in ADDRESSES:
        if name != "length" or requantize:
            step = alignment(name, requantize)
            address = rng.choice([0, space - step, rng.randrange(0, space, step)])
            values = with_address(values, name, address)
    return values if values["next"] else with_address(values, "next", 0)
