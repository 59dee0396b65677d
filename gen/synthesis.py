"""Targets of synthesis: what Yosys runs for each, and what the cells are that come out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

__all__ = ["FPGAS", "GATES", "LIBERTY", "TARGETS", "Fpga", "Target", "gate_commands"]

LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
"""Where Debian's qflow-tech-osu018 puts the OSU 0.18 um standard cells."""

SOFT_BITS = 5
"""Products with an operand of up to this many bits are made of LUTs: those of two slices above all, of which
a machine has more than a device has multipliers."""


@dataclass(frozen=True)
class Fpga:
    """A family of FPGAs, and how Yosys maps to it.

    ``multipliers`` come after a design is read and before ``synthesis``, which leaves products alone that are
    mapped by then and makes the others of LUTs.
    """

    command: str
    """Yosys's command and its options, without those for the top module and the hierarchy."""
    multiplier_map: str
    """Options of techmap: what becomes of a product, and how wide a multiplier's ports are."""
    multiplier_packing: str = ""
    """Command that moves registers into multipliers."""

    def multipliers(self, top: str) -> list[str]:
        """Commands that put the products of ``top`` and of the blocks in it that have more than SOFT_BITS
        bits on either side into multipliers."""
        least = f"-D DSP_A_MINWIDTH={SOFT_BITS + 1} -D DSP_B_MINWIDTH={SOFT_BITS + 1} -D DSP_Y_MINWIDTH=9"
        return [
            f"hierarchy -check -top {top}",
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
        # synth_xilinx keeps the hierarchy unless told not to, the others flatten.
        flattens = not self.command.startswith("synth_xilinx")
        option = "" if flat == flattens else " -flatten" if flat else " -noflatten"
        return f"{self.command}{option} -top {top}"


FPGAS: Mapping[str, Fpga] = MappingProxyType(
    {
        "ecp5": Fpga(
            "synth_ecp5 -nodsp",
            "-map +/lattice/dsp_map_18x18.v -D DSP_NAME=$__MUL18X18 "
            "-D DSP_A_MAXWIDTH=18 -D DSP_B_MAXWIDTH=18",
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
)


@dataclass(frozen=True)
class Target:
    """What a design is synthesized to, block by block."""

    commands: tuple[str, ...]
    """Yosys's commands for a block that is read, ``{top}``; blocks in it are known by their ports."""
    kinds: Mapping[str, str]
    """What is counted together: its name, and a regular expression of types of cells; those of Yosys without
    ``$_`` and ``_``. The first is what sizes are compared by, if the cells have no area."""
    state: tuple[str, ...]
    """Types of cells at which a path starts and ends, as Yosys's `select` takes them."""
    cells: tuple[str, ...] = ()
    """Commands that make Yosys know the cells' ports."""
    liberty: Path | None = None
    """Library of the standard cells, if it is made of such."""

    def areas(self) -> dict[str, float]:
        """Area of each type of cell of the library, in um^2."""
        if self.liberty is None:
            return {}
        # A cell's own attributes come before its pins.
        found = re.findall(
            r"^\s*cell\s*\(\s*\"?(\w+)\"?\s*\)\s*\{[^{}]*?\barea\s*:\s*([\d.]+)",
            self.liberty.read_text(),
            re.MULTILINE,
        )
        return {name: float(area) for name, area in found}


def gate_commands(abc: str, *, flip_flops: str | None = None) -> tuple[str, ...]:
    """Commands that leave nothing but gates of ``abc``'s options, flip-flops and memories.

    As Yosys's own `synth`, but memories stay (a ROM made of a case statement does not become one), and
    what enables and resets flip-flops is made of gates before ABC sees it; `opt` with opt_dff would undo it.
    ABC's scripts are to do without SAT sweeping (&fraig, scorr), which takes minutes on a multiplier of
    32 x 31 bits and makes a lane 1 % smaller.

    flip_flops: the command that chooses them, by default D and clock as Yosys has them.
    """
    return (
        "hierarchy -check -top {top}",
        "proc -norom",
        "opt -nodffe -nosdff",
        "wreduce",
        "peepopt",
        "opt_clean",
        "alumacc",
        "share",
        "opt",
        "memory_dff",
        "opt_clean",
        "opt -fast -full",
        "techmap",
        "opt -fast",
        "dfflegalize -cell $_DFF_P_ 01",
        "opt_expr",
        "opt_merge",
        "opt_clean",
        *([flip_flops] if flip_flops else []),
        f"abc {abc}",
        "opt_clean",
    )


GATES = Target(
    # cmos3 makes ABC count area in transistors of static CMOS.
    gate_commands("-g cmos3,AND,OR,XOR,XNOR,MUX -script +strash;dc2;&get,-n;&dch,-f;&nf;&put"),
    kinds=MappingProxyType({"gates": "NOT|NAND|NOR|AND|OR|AOI3|OAI3|XOR|XNOR|MUX", "flip_flops": "DFF_P"}),
    state=("t:$_DFF_P_", "t:$mem*"),
)
"""Yosys's own gates, of no library."""


def _fpga(name: str, kinds: Mapping[str, str], state: tuple[str, ...], cells: tuple[str, ...]) -> Target:
    fpga = FPGAS[name]
    commands = (
        *fpga.multipliers("{top}"),
        # abc9 of Yosys 0.70 fails on names such as `words__payload.word` beside one with a $; ports stay.
        "rename -unescape w:* x:* %d",
        fpga.synthesis("{top}", flat=False),
    )
    return Target(commands, MappingProxyType(kinds), state, cells)


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "ecp5": _fpga(
            "ecp5",
            {
                "LUTs": "LUT4",
                "carries": "CCU2C",
                "muxes": "PFUMX|L6MUX21",
                "flip_flops": "TRELLIS_FF",
                "LUT_RAMs": "TRELLIS_DPR16X4",
                "block_RAMs": "DP16KD",
                "multipliers": "MULT18X18D",
            },
            ("t:TRELLIS_FF", "t:TRELLIS_DPR16X4", "t:DP16KD", "t:MULT18X18D"),
            ("read_verilog -lib +/lattice/cells_sim_ecp5.v +/lattice/cells_bb_ecp5.v",),
        ),
        "ice40": _fpga(
            "ice40",
            {
                "LUTs": "SB_LUT4",
                "carries": "SB_CARRY",
                "flip_flops": r"SB_DFF\w*",
                "block_RAMs": "SB_RAM40_4K",
                "multipliers": "SB_MAC16",
            },
            ("t:SB_DFF*", "t:SB_RAM40_4K", "t:SB_MAC16"),
            ("read_verilog -D ICE40_U -lib +/ice40/cells_sim.v",),
        ),
        "xc7": _fpga(
            "xc7",
            {
                "LUTs": "LUT[1-6]|INV",
                "carries": "CARRY4",
                "muxes": "MUXF[78]",
                "flip_flops": "FD[RSCP]E(_1)?",
                "LUT_RAMs": r"RAM\d+(M|X1[SD]|M16)\w*|SRL(16E|C32E)",
                "block_RAMs": "RAMB(18|36)E1",
                "multipliers": "DSP48E1",
            },
            ("t:FD?E", "t:RAM*", "t:SRL*", "t:DSP48E1"),
            ("read_verilog -lib +/xilinx/cells_sim.v", "read_verilog -lib +/xilinx/cells_xtra.v"),
        ),
        "osu018": Target(
            gate_commands(
                f"-liberty {LIBERTY} "
                "-script +strash;dc2;&get,-n;&dch,-f;&nf;&put;buffer,-c;topo;upsize;dnsize;stime,-p",
                flip_flops=f"dfflibmap -liberty {LIBERTY}",
            ),
            kinds=MappingProxyType({"gates": r"(?!DFF|LATCH)[A-Z]\w+", "flip_flops": r"DFF\w+"}),
            state=("t:DFF*", "t:$mem*"),
            cells=(f"read_liberty -lib {LIBERTY}",),
            liberty=LIBERTY,
        ),
    }
)
"""By the names of the command line."""
