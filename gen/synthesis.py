"""What Yosys runs for each target of synthesis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["FPGAS", "Fpga"]

SOFT_BITS = 5
"""Products with an operand of up to this many bits are made of LUTs: those of two slices above all, of which
a machine has more than a device has multipliers."""


@dataclass(frozen=True)
class Fpga:
    """A family of FPGAs, and how Yosys maps to it.

    `multipliers` come after a design is read and before `synthesis`, which leaves products alone that are
    mapped by then and makes the others of LUTs.
    """

    command: str
    """Yosys's command and its options, without those for the top module and the hierarchy."""
    multiplier_map: str
    """Options of techmap: what becomes of a product, and how wide a multiplier's ports are."""
    multiplier_packing: str = ""
    """Command that moves registers into multipliers."""

    def multipliers(self, top: str) -> list[str]:
        """Commands that put the products of `top` and the blocks in it that have more than SOFT_BITS bits
        on either side into multipliers."""
        least = f"-D DSP_A_MINWIDTH={SOFT_BITS + 1} -D DSP_B_MINWIDTH={SOFT_BITS + 1} -D DSP_Y_MINWIDTH=9"
        return [
            f"hierarchy -top {top}",
            "proc",
            "opt -nodffe -nosdff",
            # Amaranth extends operands to the width of the product.
            "wreduce t:$mul",
            f"techmap -map +/mul2dsp.v {self.multiplier_map} {least}",
            *([self.multiplier_packing] if self.multiplier_packing else []),
            # What mul2dsp.v calls the products that it finds too small.
            "chtype -set $mul t:$__soft_mul",
        ]

    def synthesis(self, top: str, *, flat: bool) -> str:
        """The command that does all the rest. flat: without boundaries between blocks."""
        # Xilinx's keeps the hierarchy unless told not to, the others flatten.
        flattens = self.command.startswith("synth_xilinx")
        option = " -flatten" if flat and flattens else " -noflatten" if not (flat or flattens) else ""
        return f"{self.command}{option} -top {top}"


FPGAS: Mapping[str, Fpga] = MappingProxyType(
    {
        "ecp5": Fpga(
            "synth_ecp5 -nodsp",
            "-map +/lattice/dsp_map_18x18.v -D DSP_NAME=$__MUL18X18 -D DSP_A_MAXWIDTH=18 -D DSP_B_MAXWIDTH=18",
        ),
        # Of the family's devices only the UltraPlus ones have multipliers.
        "ice40": Fpga(
            "synth_ice40 -device u",
            "-map +/ice40/dsp_map.v -D DSP_NAME=$__MUL16X16 -D DSP_A_MAXWIDTH=16 -D DSP_B_MAXWIDTH=16",
            "ice40_dsp",
        ),
        "xc7": Fpga(
            "synth_xilinx -nodsp -noiopad -noclkbuf",
            "-map +/xilinx/xc7_dsp_map.v -D DSP_NAME=$__MUL25X18 -D DSP_A_MAXWIDTH=25 -D DSP_B_MAXWIDTH=18 "
            "-D DSP_A_MAXWIDTH_PARTIAL=18 -D DSP_SIGNEDONLY=1",
            "xilinx_dsp -family xc7",
        ),
    }
)  # fmt: skip
