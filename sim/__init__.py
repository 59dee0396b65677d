"""Golden model, quantization, memory images and the RTL engine of sliceforge."""

from sliceforge.sim.apsq import apsq
from sliceforge.sim.gemm import MismatchError, gemm
from sliceforge.sim.golden import GemmResult, aqs_gemm
from sliceforge.sim.requantize import requantize
from sliceforge.sim.rle import rle_decode, rle_encode
from sliceforge.sim.slices import bit_slices, sbr_slices, zero_point_manipulation

__all__ = [
    "GemmResult",
    "MismatchError",
    "apsq",
    "aqs_gemm",
    "bit_slices",
    "gemm",
    "requantize",
    "rle_decode",
    "rle_encode",
    "sbr_slices",
    "zero_point_manipulation",
]
