"""Golden model, quantization, memory images and the RTL engine of sliceforge."""

from sliceforge.sim.activation_table import activation_table
from sliceforge.sim.apsq import apsq
from sliceforge.sim.calibrate import calibrate_exponents
from sliceforge.sim.chain import ChainLayer, Requantize, feed_forward, run_chain
from sliceforge.sim.chain_rtl import chain_rtl, with_apsq
from sliceforge.sim.gemm import MismatchError, gemm
from sliceforge.sim.golden import GemmResult, aqs_gemm
from sliceforge.sim.requantize import requantize, requantize_parameters
from sliceforge.sim.rle import rle_decode, rle_encode
from sliceforge.sim.slices import bit_slices, sbr_slices, zero_point_manipulation

__all__ = [
    "ChainLayer",
    "GemmResult",
    "MismatchError",
    "Requantize",
    "activation_table",
    "apsq",
    "aqs_gemm",
    "bit_slices",
    "calibrate_exponents",
    "chain_rtl",
    "feed_forward",
    "gemm",
    "requantize",
    "requantize_parameters",
    "rle_decode",
    "rle_encode",
    "run_chain",
    "sbr_slices",
    "with_apsq",
    "zero_point_manipulation",
]
