"""Register map and descriptor layout: the one source of the RTL, the driver, the C header and the documents.

A register or a descriptor word is 32 bits of fields; what no field covers is reserved: it reads 0 and is
written 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.metadata import version

from sliceforge.gen.config import AcceleratorConfig

__all__ = [
    "COUNTERS", "DESCRIPTOR", "DESCRIPTOR_BYTES", "DESCRIPTOR_FORMAT", "IDENTITY", "REGISTER_SPACE", "Access",
    "Field", "Register", "register_map",
]  # fmt: skip

IDENTITY = 0x534C_4647
"""Value of register ID: "SLFG" in ASCII, the first letter in the highest byte."""
REGISTER_SPACE = 0x400
"""Bytes of the register map; the AXI4-Lite slave has as many addresses."""
DESCRIPTOR_BYTES = 128
"""Bytes of a layer descriptor, and its alignment."""
DESCRIPTOR_FORMAT = 2
"""Value of a descriptor's field FORMAT."""
TABLE_WORDS = 64
"""Words of 32 bits of an activation table: 256 entries of 8 bits."""
PSUM_ALIGNMENT = 64
"""Alignment of a layer's partial sums in memory, bytes: a beat of the widest bus."""


class Access(Enum):
    """What software can do with a field."""

    CONSTANT = "ro"  # reads a value that follows from the configuration
    STATUS = "ro"  # noqa: PIE796  reads what the hardware sets; a member of its own (`__new__`)
    CONTROL = "rw"  # reads what was written
    PULSE = "w1"  # writing 1 acts once; reads 0
    STICKY = "w1c"  # set by the hardware until 1 is written

    def __new__(cls, software: str) -> Access:
        member = object.__new__(cls)
        member._value_ = len(cls.__members__)
        member.software = software
        return member

    software: str


@dataclass(frozen=True)
class Field:
    """Bits ``lsb`` .. ``lsb + width - 1`` of a word. ``reset``: its value after reset."""

    name: str
    lsb: int
    width: int
    access: Access
    text: str
    reset: int = 0

    @property
    def mask(self) -> int:
        return ((1 << self.width) - 1) << self.lsb


@dataclass(frozen=True)
class Register:
    """A 32-bit word at byte ``offset`` of the register map or of a descriptor."""

    name: str
    offset: int
    text: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)


COUNTERS = {
    "CYCLES": "Cycles from start to interrupt.",
    "ARRAY_CYCLES": "Cycles from a layer's first outer product to its last accumulation, over all layers.",
    "ARRAY_BUSY": "Cycles in which at least one operator issued an outer product.",
    "ARRAY_STALLED": "Cycles in which a layer was in the array and no operator issued an outer product.",
    "OUTER_PRODUCTS": "Outer products that the operators issued, padding and fillers included.",
    "DESCRIPTOR_BUSY": "Cycles spent fetching descriptors.",
    "WEIGHTS_BUSY": "Cycles in which a beat of weights went from the load unit into the array.",
    "WEIGHTS_STALLED": "Cycles in which the array had room for weights and the load unit had none yet.",
    "ACTIVATIONS_BUSY": "Cycles in which a beat of activations went from the load unit into the array.",
    "ACTIVATIONS_STALLED": (
        "Cycles in which the array had room for activations and the load unit had none yet."
    ),
    "STORE_BUSY": "Cycles in which the store unit handed a beat of results to the bus.",
    "STORE_STALLED": "Cycles in which the array offered results and the store unit did not take them.",
    "READ_STALLED": "Cycles in which the bus did not accept a read address on offer.",
    "BYTES_READ": "Bytes that arrived on the bus, all of every beat.",
    "BYTES_WRITTEN": "Bytes that were written on the bus: those whose strobe was set.",
}
"""Performance counters, in the order of the register map; cleared at start. 64 bits each, low word first."""

_COUNTERS_OFFSET = 0x200


def _word(name: str, offset: int, text: str, access: Access, width: int = 32, reset: int = 0) -> Register:
    """A register of one field, VALUE."""
    return Register(name, offset, text, (Field("VALUE", 0, width, access, text, reset),))


@cache
def register_map(config: AcceleratorConfig) -> tuple[Register, ...]:
    """The registers of ``config``'s accelerator, in order of offset."""
    major, minor, patch = (int(part) for part in version("sliceforge").split(".")[:3])
    release = (
        Field("PATCH", 0, 8, Access.CONSTANT, "Third number of the release.", patch),
        Field("MINOR", 8, 8, Access.CONSTANT, "Second number of the release.", minor),
        Field("MAJOR", 16, 8, Access.CONSTANT, "First number of the release.", major),
    )
    constants = {
        "PEA_COUNT": (config.pea_count, "Processing element arrays."),
        "LANES": (config.lanes, "Operators of a PEA."),
        "VECTOR": (config.vector, "Slices in a vector."),
        "WEIGHT_SLICES": (config.weight_slices, "Largest number of weight slices."),
        "RUN_BITS": (config.run_bits, "Bits of the skip field of a run-length coded entry."),
        "TILE_K": (config.tile_k, "Positions along K in a tile image."),
        "FIFO_DEPTH": (config.fifo_depth, "Records in each of an operator's FIFOs."),
        "WMEM_KIB": (config.wmem_kib, "Weight memory, KiB."),
        "AMEM_KIB": (config.amem_kib, "Activation memory, KiB."),
        "OMEM_KIB": (config.omem_kib, "Output memory, KiB."),
        "BUS_BITS": (config.bus_bits, "Width of the AXI4 master's data."),
        "ADDRESS_BITS": (config.address_bits, "Width of the AXI4 master's addresses."),
        "MAX_K": (config.max_k, "Largest K."),
        "LOAD_BUFFER": (config.load_buffer, "Beats in the buffer of each load unit."),
        "WEIGHT_SLOTS": (config.weight_slots, "Tiles in a PEA's bank of WMEM."),
        "ACTIVATION_SLOTS": (config.activation_slots, "Tiles in a lane's bank of AMEM."),
        "PSUM_SLOTS": (config.psum_slots, "Tiles of partial sums at full width in OMEM."),
    }
    high = config.address_bits - 32
    registers = [
        _word("ID", 0x000, 'The letters "SLFG".', Access.CONSTANT, reset=IDENTITY),
        Register("VERSION", 0x004, "Release of sliceforge that generated the accelerator.", release),
        *(
            _word(name, 0x010 + 4 * i, text, Access.CONSTANT, reset=value)
            for i, (name, (value, text)) in enumerate(constants.items())
        ),
        Register(
            "CONTROL", 0x100, "Starts and stops.",
            (
                Field("START", 0, 1, Access.PULSE,
                      "Starts with the descriptor at QUEUE_ADDRESS and clears the counters. While BUSY "
                      "the write is answered with SLVERR and does nothing."),
                Field("SOFT_RESET", 1, 1, Access.PULSE,
                      "Drops whatever runs. BUSY falls when the bus has given all answers that it owes. "
                      "Sticky bits and counters stay. Written together with START, nothing starts."),
            ),
        ),
        Register(
            "STATUS", 0x104, "What the accelerator does and what became of the last start.",
            (
                Field("BUSY", 0, 1, Access.STATUS,
                      "From start until all layers are done, or one failed and the bus has answered all."),
                Field("ERROR_CODE", 8, 6, Access.STATUS, "Why the last start failed; 0 if it did not."),
            ),
        ),
        Register(
            "INTERRUPT_ENABLE", 0x108, "Which pending bits raise the interrupt.",
            (
                Field("DONE", 0, 1, Access.CONTROL, "As in INTERRUPT_PENDING."),
                Field("ERROR", 1, 1, Access.CONTROL, "As in INTERRUPT_PENDING."),
                Field("LAYER", 2, 1, Access.CONTROL, "As in INTERRUPT_PENDING."),
            ),
        ),
        Register(
            "INTERRUPT_PENDING", 0x10C, "What happened; writing 1 clears a bit.",
            (
                Field("DONE", 0, 1, Access.STICKY, "All layers of the queue are done."),
                Field("ERROR", 1, 1, Access.STICKY, "A layer failed; STATUS.ERROR_CODE says why."),
                Field("LAYER", 2, 1, Access.STICKY, "A layer whose descriptor sets INTERRUPT is done."),
            ),
        ),
        _word("QUEUE_ADDRESS", 0x110, "Address of the first descriptor, bits 31..0.", Access.CONTROL),
        *([_word("QUEUE_ADDRESS_HIGH", 0x114, "Address of the first descriptor, bits 32 and up.",
                 Access.CONTROL, width=high)] if high else []),
        _word("STALL_LIMIT", 0x118,
              "Cycles after which a bus that owes an answer and moves nothing is an error; 0: never.",
              Access.CONTROL, reset=1 << 20),
        _word("LAYERS_DONE", 0x11C, "Layers done since start.", Access.STATUS),
    ]  # fmt: skip
    for i, (name, text) in enumerate(COUNTERS.items()):
        offset = _COUNTERS_OFFSET + 8 * i
        registers += [
            _word(name, offset, f"{text} Bits 31..0.", Access.STATUS),
            _word(f"{name}_HIGH", offset + 4, f"{text} Bits 39..32.", Access.STATUS, width=8),
        ]
    return tuple(registers)


def _dimension(name: str, offset: int, text: str) -> Register:
    return _word(name, offset, text, Access.CONTROL, width=24)


def _address(name: str, offset: int, text: str) -> tuple[Register, Register]:
    return (
        _word(name, offset, f"{text} Bits 31..0.", Access.CONTROL),
        _word(f"{name}_HIGH", offset + 4, f"{text} Bits 63..32.", Access.CONTROL),
    )


DESCRIPTOR = (
    Register(
        "LAYER", 0x00, "Kind of layer.",
        (
            Field("FORMAT", 0, 8, Access.CONTROL, f"Must be {DESCRIPTOR_FORMAT}."),
            Field("NEXT", 8, 1, Access.CONTROL, "NEXT_ADDRESS holds the address of another layer."),
            Field("INTERRUPT", 9, 1, Access.CONTROL, "Set INTERRUPT_PENDING.LAYER when the layer is done."),
            Field("WEIGHTS_RESIDENT", 10, 1, Access.CONTROL,
                  "Weight tiles stay in WMEM over the columns of tiles that follow each other in the loops: "
                  "at most WEIGHT_SLOTS k-tiles."),
            Field("ACTIVATIONS_RESIDENT", 11, 1, Access.CONTROL,
                  "Activation tiles stay in AMEM over the rows of tiles that follow each other in the loops: "
                  "at most ACTIVATION_SLOTS k-tiles."),
            Field("PSUMS_RESIDENT", 12, 1, Access.CONTROL,
                  "Partial sums of a block stay in OMEM: at most PSUM_SLOTS tiles at full width or in groups "
                  "of 3 and 4, twice as many in groups of 2, four times in groups of 1."),
            Field("BLOCKS_SHARE", 13, 1, Access.CONTROL,
                  "The stationary operand, which is resident, stays over all blocks."),
            Field("LO_BITS", 16, 3, Access.CONTROL, "Bits of the low activation slice: 4, 5 or 6."),
            Field("WEIGHT_SLICES", 20, 3, Access.CONTROL, "Slices of a weight: (weight bits - 1) / 3."),
            Field("FREQUENT", 24, 4, Access.CONTROL, "Frequent high slice r = zero point >> lo_bits."),
            Field("DATAFLOW", 28, 2, Access.CONTROL, "0: output, 1: weight, 2: input stationary."),
        ),
    ),
    _dimension("M", 0x04, "Rows of W and of Y."),
    _dimension("N", 0x08, "Columns of X and of Y."),
    _dimension("K", 0x0C, "Columns of W, rows of X."),
    *_address("WEIGHTS_ADDRESS", 0x10, "Regions of weight tiles; on a load beat."),
    _word("WEIGHTS_LENGTH", 0x18, "Load beats of the first region of weights, its header included.",
          Access.CONTROL),
    _dimension("K_CHUNK", 0x1C, "Positions along K after which sums leave the array."),
    *_address("ACTIVATIONS_ADDRESS", 0x20, "Regions of activation tiles; on a load beat."),
    _word("ACTIVATIONS_LENGTH", 0x28, "Load beats of the first region of activations, its header included.",
          Access.CONTROL),
    _word("ACTIVATIONS_STRIDE", 0x2C,
          "Bytes from a region of activations to the next; 0: they lie one behind the other.",
          Access.CONTROL),
    *_address("PARAMETERS_ADDRESS", 0x30,
              "Activation table, exponents, folded biases and scales; a multiple of 4."),
    *_address("OUTPUT_ADDRESS", 0x38,
              "First result, Y[0, 0], 32 bits, a multiple of 4; or, with REQUANTIZE, the next layer's first "
              "region of activations, on a load beat."),
    _word("OUTPUT_STRIDE", 0x40,
          "Bytes from a row of results to the next: a multiple of 4, 4 N or more; or, with REQUANTIZE, from "
          "a region to the next.", Access.CONTROL),
    Register(
        "TILING", 0x44, "How K is cut, and how partial sums are kept.",
        (
            Field("K_TILE", 0, 8, Access.CONTROL, "Positions along K in a tile image: up to TILE_K."),
            Field("PSUM_GROUP", 8, 3, Access.CONTROL,
                  "Group size of APSQ, 1 to 4: partial sums of 8 bits; 0: partial sums of 32 bits."),
        ),
    ),
    *_address("NEXT_ADDRESS", 0x48, f"Next descriptor, a multiple of {DESCRIPTOR_BYTES}; 0 without NEXT."),
    *_address("PSUM_ADDRESS", 0x50,
              f"Where partial sums are kept that are not resident; a multiple of {PSUM_ALIGNMENT}."),
    _dimension("ACTIVATIONS_SPAN", 0x58,
               "Positions along K after which a region of activations ends, at the latest."),
    _dimension("BLOCK", 0x5C,
               "Tiles in a block: of columns if weight stationary, of rows if input stationary."),
    _dimension("EXPONENT_WORDS", 0x60, "Words of four exponents each, one a K-chunk."),
    Register(
        "REQUANTIZATION", 0x64, "What becomes of results.",
        (
            Field("REQUANTIZE", 0, 1, Access.CONTROL,
                  "Results are requantized to 8 bits and stored as the next layer's activations; else they "
                  "are stored as they are."),
            Field("RELU", 1, 1, Access.CONTROL, "What is below the zero point becomes the zero point."),
            Field("TABLE", 2, 1, Access.CONTROL, "The activation table maps each value at the end."),
            Field("NEXT_LO_BITS", 4, 3, Access.CONTROL, "Bits of the next layer's low slice: 4, 5 or 6."),
            Field("NEXT_FREQUENT", 8, 4, Access.CONTROL, "The next layer's frequent high slice."),
            Field("ZERO_POINT", 16, 8, Access.CONTROL, "Zero point of what is requantized."),
            Field("NEXT_K_TILE", 24, 8, Access.CONTROL, "The next layer's K_TILE."),
        ),
    ),
    *_address("LENGTH_ADDRESS", 0x68,
              "Where the length of the first region goes: the next descriptor's ACTIVATIONS_LENGTH; a "
              "multiple of 4."),
    _dimension("OUTPUT_GROUP", 0x70,
               "Rows of tiles whose regions lie side by side: those in a K-chunk of the next layer if it is "
               "weight stationary, else all."),
    _dimension("OUTPUT_TILE_ROWS", 0x74, "Rows of tiles of Y."),
    _dimension("OUTPUT_TILE_COLUMNS", 0x78, "Columns of tiles of Y."),
)  # fmt: skip
"""Layer descriptor: words of `DESCRIPTOR_BYTES` bytes; words that are not listed are reserved."""
