"""Layer descriptors: their fields as bytes, and back (gen/registers.py, `DESCRIPTOR`)."""

from __future__ import annotations

from collections.abc import Mapping

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import DESCRIPTOR, DESCRIPTOR_BYTES, DESCRIPTOR_FORMAT
from sliceforge.hw.payloads import DIM_BITS
from sliceforge.sim import checks
from sliceforge.sim.schedule import Schedule

__all__ = ["MOST_SPAN", "decode_descriptor", "descriptor_schedule", "encode_descriptor"]

MOST_SPAN = (1 << DIM_BITS) - 1
"""ACTIVATIONS_SPAN of regions that end only where the loops say so."""


def _descriptor_fields() -> dict[str, tuple[int, int]]:
    """(lowest bit in the descriptor, width) of each field; the two words of an address are one field."""
    fields: dict[str, tuple[int, int]] = {}
    for register in DESCRIPTOR:
        for field in register.fields:
            name = register.name if field.name == "VALUE" else field.name
            if name.endswith("_HIGH"):
                name = name.removesuffix("_HIGH")
                fields[name] = (fields[name][0], fields[name][1] + field.width)
            else:
                fields[name] = (8 * register.offset + field.lsb, field.width)
    return fields


_FIELDS = _descriptor_fields()


def encode_descriptor(values: Mapping[str, int]) -> bytes:
    """A descriptor of these fields, named as in `registers.DESCRIPTOR`: a register's name, or its fields'
    where it has several; an address is one value of 64 bits. Absent fields are 0, and values need not be
    legal, but must fit: else ValueError.
    """
    word = 0
    for name, value in values.items():
        lsb, width = _FIELDS[name]
        word |= checks.integer(name, int(value), 0, (1 << width) - 1) << lsb
    return word.to_bytes(DESCRIPTOR_BYTES, "little")


def decode_descriptor(data: bytes | bytearray | memoryview) -> dict[str, int]:
    """All fields of a descriptor, as `encode_descriptor` takes them. ValueError if its format is unknown or
    a reserved bit is set.
    """
    word = int.from_bytes(data, "little")
    values = {name: word >> lsb & ((1 << width) - 1) for name, (lsb, width) in _FIELDS.items()}
    if len(data) != DESCRIPTOR_BYTES or encode_descriptor(values) != bytes(data):
        raise ValueError(f"descriptor must have {DESCRIPTOR_BYTES} bytes and all reserved bits 0")
    if values["FORMAT"] != DESCRIPTOR_FORMAT:
        raise ValueError(f"descriptor must have format {DESCRIPTOR_FORMAT}, not {values['FORMAT']}")
    return values


def descriptor_schedule(descriptor: Mapping[str, int], config: AcceleratorConfig) -> Schedule:
    """The schedule that a descriptor's fields (`decode_descriptor`) describe. ValueError for a dataflow that
    there is none of."""
    d = descriptor
    return Schedule(
        config=config,
        m=d["M"],
        k=d["K"],
        n=d["N"],
        chunk=d["K_CHUNK"],
        k_tile=d["K_TILE"],
        dataflow=Dataflow(d["DATAFLOW"]),
        block=d["BLOCK"],
        span=None if d["ACTIVATIONS_SPAN"] == MOST_SPAN else d["ACTIVATIONS_SPAN"],
        psum_group=d["PSUM_GROUP"],
        weights_resident=bool(d["WEIGHTS_RESIDENT"]),
        activations_resident=bool(d["ACTIVATIONS_RESIDENT"]),
        blocks_share=bool(d["BLOCKS_SHARE"]),
        psums_resident=bool(d["PSUMS_RESIDENT"]),
    )
