"""Why a layer stopped: the error codes of the hardware, and what each means."""

from typing import Any

from amaranth.lib import enum

__all__ = ["ERROR_TEXTS", "ErrorCode"]


class ErrorCode(enum.Enum, shape=6):  # type: ignore[call-arg, misc]  # Amaranth has no types
    """One code a layer: the first that was seen."""

    NONE = 0
    ILLEGAL_SHAPE = 1
    ILLEGAL_WEIGHT_SLICES = 2
    ILLEGAL_LO_BITS = 3
    ILLEGAL_FREQUENT = 4
    ILLEGAL_FORMAT = 5
    ILLEGAL_STRIDE = 6
    ILLEGAL_LENGTH = 7
    WEIGHT_COUNT = 8
    WEIGHT_LENGTH = 9
    WEIGHT_POSITION = 10
    WEIGHT_RESIDENCY = 11
    ILLEGAL_DATAFLOW = 12
    ILLEGAL_REUSE = 13
    PSUM_RESIDENCY = 14
    PSUM_EXPONENTS = 15
    ACTIVATION_COUNT = 16
    ACTIVATION_LENGTH = 17
    ACTIVATION_POSITION = 18
    ACTIVATION_RESIDENCY = 19
    ACTIVATION_SLICE = 20
    ILLEGAL_WEIGHTS_ADDRESS = 24
    ILLEGAL_ACTIVATIONS_ADDRESS = 25
    ILLEGAL_PARAMETERS_ADDRESS = 26
    ILLEGAL_OUTPUT_ADDRESS = 27
    ILLEGAL_NEXT_ADDRESS = 28
    ILLEGAL_QUEUE_ADDRESS = 29
    ILLEGAL_PSUM_ADDRESS = 30
    ILLEGAL_REQUANTIZATION = 31
    DESCRIPTOR_READ = 32
    WEIGHTS_READ = 33
    ACTIVATIONS_READ = 34
    PARAMETERS_READ = 35
    OUTPUT_WRITE = 36
    PSUMS_READ = 37
    ILLEGAL_SCALE = 38
    STALLED = 40


ERROR_TEXTS: dict[Any, str] = {
    ErrorCode.NONE: "No error.",
    ErrorCode.ILLEGAL_SHAPE: "M, N or K is 0, or K exceeds max_k.",
    ErrorCode.ILLEGAL_WEIGHT_SLICES: "No weight slice, or more than the machine has.",
    ErrorCode.ILLEGAL_LO_BITS: "lo_bits is not 4, 5 or 6.",
    ErrorCode.ILLEGAL_FREQUENT: "The frequent slice r does not fit 8 - lo_bits bits.",
    ErrorCode.ILLEGAL_FORMAT: "The descriptor's format is unknown, or a reserved bit is set.",
    ErrorCode.ILLEGAL_STRIDE: (
        "The output stride is no multiple of 4, or less than a row of N results; or a stride of regions is "
        "no multiple of a load beat."
    ),
    ErrorCode.ILLEGAL_LENGTH: "A region of weights or activations has no length.",
    ErrorCode.WEIGHT_COUNT: "The header of a weight tile counts more entries than the tile has positions.",
    ErrorCode.WEIGHT_LENGTH: "A region of weight tiles is longer or shorter than its headers say.",
    ErrorCode.WEIGHT_POSITION: "A weight stream's entry lies past its tile.",
    ErrorCode.WEIGHT_RESIDENCY: (
        "The weights are to stay in WMEM over the tiles that use them, and do not fit."
    ),
    ErrorCode.ILLEGAL_DATAFLOW: (
        "The dataflow is unknown; a block, K-chunk, k-tile or span is 0, or a K-chunk or k-tile too large; "
        "or a group of partial sums has more than 4."
    ),
    ErrorCode.ILLEGAL_REUSE: (
        "What must be read again from memory cannot be: the stationary operand for another block, or "
        "activations in parts for another row of tiles."
    ),
    ErrorCode.PSUM_RESIDENCY: "The partial sums of a K-chunk are to stay in OMEM, and do not fit.",
    ErrorCode.PSUM_EXPONENTS: (
        "There are fewer exponents than K-chunks, or more than the machine has room for."
    ),
    ErrorCode.ACTIVATION_COUNT: (
        "The header of an activation tile counts more entries than the tile has positions."
    ),
    ErrorCode.ACTIVATION_LENGTH: "A region of activation tiles is longer or shorter than its headers say.",
    ErrorCode.ACTIVATION_POSITION: "An activation stream's entry lies past its tile.",
    ErrorCode.ACTIVATION_RESIDENCY: (
        "The activations are to stay in AMEM over the tiles that use them, and do not fit."
    ),
    ErrorCode.ACTIVATION_SLICE: "An HO activation slice has more than 8 - lo_bits bits.",
    ErrorCode.ILLEGAL_WEIGHTS_ADDRESS: "The weights' address is not aligned, or past the address space.",
    ErrorCode.ILLEGAL_ACTIVATIONS_ADDRESS: (
        "The activations' address is not aligned, or past the address space."
    ),
    ErrorCode.ILLEGAL_PARAMETERS_ADDRESS: (
        "The parameters' address is not aligned, or past the address space."
    ),
    ErrorCode.ILLEGAL_OUTPUT_ADDRESS: "The output's address is not aligned, or past the address space.",
    ErrorCode.ILLEGAL_NEXT_ADDRESS: (
        "The next descriptor's address is not aligned, or past the address space."
    ),
    ErrorCode.ILLEGAL_QUEUE_ADDRESS: (
        "The first descriptor's address is not aligned, or past the address space."
    ),
    ErrorCode.ILLEGAL_PSUM_ADDRESS: "The partial sums' address is not aligned, or past the address space.",
    ErrorCode.ILLEGAL_REQUANTIZATION: (
        "The next layer's lo_bits, r or k-tile is not one that it can have, OUTPUT_GROUP is 0, or the "
        "length's address is not aligned, or past the address space."
    ),
    ErrorCode.DESCRIPTOR_READ: "The memory answered a descriptor's read with an error.",
    ErrorCode.WEIGHTS_READ: (
        "The memory answered a read of weights with an error, or they pass the end of the address space."
    ),
    ErrorCode.ACTIVATIONS_READ: (
        "The memory answered a read of activations with an error, or they pass the end of the address space."
    ),
    ErrorCode.PARAMETERS_READ: (
        "The memory answered a read of parameters with an error, or they pass the end of the address space."
    ),
    ErrorCode.OUTPUT_WRITE: (
        "The memory answered a write of results or partial sums with an error, or they pass the end of the "
        "address space."
    ),
    ErrorCode.PSUMS_READ: (
        "The memory answered a read of partial sums with an error, or they pass the end of the address space."
    ),
    ErrorCode.ILLEGAL_SCALE: "A row's multiplier has more than 31 bits, or its shift is not 1 to 62.",
    ErrorCode.STALLED: "The memory owed an answer and moved nothing for STALL_LIMIT cycles.",
}
