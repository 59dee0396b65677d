# amaranth: UnusedElaboratable=no
# (a plan whose build was done before is only looked up)
"""Boards: which machine goes on which, and the plan of Amaranth's platform for its build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from amaranth.build.run import BuildPlan

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.ecp5_cells import ecp5_accumulators
from sliceforge.gen.sdram import CHIPS, Sdram
from sliceforge.gen.synthesis import FPGAS
from sliceforge.gen.verilog import generate_soc_verilog, soc_module
from sliceforge.hw.board_top import BoardTop

__all__ = ["BOARDS", "MEMORIES", "Board", "board", "build_plan"]


@dataclass(frozen=True)
class Board:
    """A board that `sliceforge fpga` knows, and what goes on it."""

    name: str
    title: str
    platform: str
    """Module and class in amaranth_boards."""
    family: str
    """Of the FPGA: "ecp5" (bitstream from tools that pip installs) or "xc7" (project for Vivado)."""
    preset: str
    settings: Mapping[str, int] = field(default_factory=dict)
    """Fields of the configuration that the FPGA decides, and that the host need not know."""
    clock_hz: int = 50_000_000
    memory_kib: int = 64
    """Of memory on the FPGA, where it is not the SDRAM."""
    sdram: str | None = None
    """Name in `CHIPS` of the SDRAM that is the memory."""
    baud: int = 1_000_000

    def config(self, source: str | None = None, settings: tuple[str, ...] = ()) -> AcceleratorConfig:
        """The configuration: the board's preset or ``source``, the FPGA's settings, then ``settings``."""
        own = tuple(f"{key}={value}" for key, value in self.settings.items())
        return AcceleratorConfig.load(source or self.preset, (*own, *settings))

    @property
    def memory(self) -> dict[str, Any]:
        """The arguments of `generate_soc_verilog` that say which memory it has."""
        if self.sdram is None:
            return {"memory_kib": self.memory_kib}
        return {"sdram": Sdram(CHIPS[self.sdram], self.clock_hz)}

    @property
    def memory_bytes(self) -> int:
        if self.sdram is not None:
            return CHIPS[self.sdram].memory_bytes
        return 1024 * self.memory_kib

    @property
    def device(self) -> str:
        """The maker's name of the FPGA."""
        return str(self.amaranth_platform.device)

    @property
    def amaranth_platform(self) -> Any:
        """Class of the board in amaranth_boards."""
        module, name = self.platform.split(":")
        return getattr(import_module(f"amaranth_boards.{module}"), name)

    @property
    def bitstream(self) -> bool:
        """Whether the whole build runs here; else it ends with the project for the maker's tools."""
        return self.family == "ecp5"


# An ECP5-85F has 156 multipliers and 208 block RAMs. An edge's 32 operators take 4 of each: only 16 KiB
# are left for a memory on the chip; with fewer tables the logic does not fit.
_ECP5 = {"packing": 2, "packed_products": 8, "table_products": 8}
_XC7 = {"packing": 4, "packed_products": 16}

BOARDS = {
    board.name: board
    for board in (
        Board(
            "ulx3s-85f", "ULX3S with ECP5 LFE5U-85F", "ulx3s:ULX3S_85F_Platform", "ecp5", "edge", _ECP5,
            memory_kib=16, sdram="ulx3s",
        ),
        Board(
            "ulx3s-45f", "ULX3S with ECP5 LFE5U-45F", "ulx3s:ULX3S_45F_Platform", "ecp5", "tiny", _ECP5,
            sdram="ulx3s",
        ),
        Board(
            "ecpix5-85", "ECPIX-5 with ECP5 LFE5UM5G-85F", "ecpix5:ECPIX585Platform", "ecp5", "edge", _ECP5,
            memory_kib=16,
        ),
        Board(
            "ecpix5-45", "ECPIX-5 with ECP5 LFE5UM5G-45F", "ecpix5:ECPIX545Platform", "ecp5", "tiny", _ECP5
        ),
        Board("arty-a7", "Arty A7-100T with XC7A100T", "arty_a7:ArtyA7_100Platform", "xc7", "edge", _XC7),
        Board("cmod-a7", "Cmod A7-35T with XC7A35T", "cmod_a7:CmodA7_35Platform", "xc7", "tiny", _XC7),
    )
}  # fmt: skip


MEMORIES = ("sdram", "chip")

# The line keeps no clock; its first register in the design is a synchronizer's, which Verilog does not tell.
_UART_XDC = """\
set_property ASYNC_REG TRUE [get_cells soc/uart_receiver/synchronizer/stage?_reg]
set_false_path -from [get_ports uart_0__rx__io]
set_false_path -to [get_ports uart_0__tx__io]
"""


def board(name: str, memory: str | None = None) -> Board:
    """The board of this name, with the memory that it has by itself, or with its "sdram" or one on the FPGA,
    "chip". ValueError lists boards and memories.
    """
    if name not in BOARDS:
        raise ValueError(f"board must be one of {', '.join(BOARDS)}, not {name!r}")
    if memory not in (None, *MEMORIES):
        raise ValueError(f"memory must be one of {', '.join(MEMORIES)}, not {memory!r}")
    found = BOARDS[name]
    if memory == "sdram" and found.sdram is None:
        with_sdram = ", ".join(b.name for b in BOARDS.values() if b.sdram)
        raise ValueError(f"memory sdram must be on a board that has one ({with_sdram}), not on {name}")
    return replace(found, sdram=None) if memory == "chip" else found


def build_plan(target: Board, config: AcceleratorConfig, **options: str) -> BuildPlan:
    """All files of the build and its script, from Amaranth's platform for the board; ``options`` as its
    overrides (``nextpnr_opts``). The same bytes every time.
    """
    platform = target.amaranth_platform()
    soc = soc_module(config)
    verilog = generate_soc_verilog(config, clock_hz=target.clock_hz, baud=target.baud, **target.memory)
    platform.add_file(f"{soc}.v", verilog)
    if target.family == "ecp5":
        platform.add_file("ecp5_cells.verilog", ecp5_accumulators(verilog))
        options |= {"script_after_read": _ecp5_script(target.clock_hz), "synth_opts": "-nodsp -run map_luts:"}
    else:
        platform.add_file("uart.xdc", _UART_XDC)
    row_bits = None if target.sdram is None else CHIPS[target.sdram].row_bits
    top = BoardTop(soc=soc, family=target.family, clock_hz=target.clock_hz, row_bits=row_bits)
    plan: BuildPlan = platform.prepare(top, "top", **options)
    return plan


def _ecp5_script(clock_hz: int) -> str:
    """Yosys's commands up to the last part of synth_ecp5, which maps the logic of the whole.

    What comes before flip-flops is done block by block, once for each block: of the whole at once it takes
    four times as long. ABC's goal for logic is less than a quarter of a period, as it knows of cells and
    short wires only: shorter paths cost LUTs, longer ones do not keep up.

    The resets of the domains go through global buffers: 28,000 flip-flops of an edge-sized machine take one
    of them, and with that many wires more the router takes 20 times as long.
    """
    coarse = "synth_ecp5 -nodsp -noflatten -top top"
    return "\n".join(
        [
            "read_verilog -overwrite ecp5_cells.verilog",
            f"scratchpad -set abc9.D {225_000_000_000 // clock_hz}",
            f"{coarse} -run begin:coarse",
            *FPGAS["ecp5"].multipliers("top"),
            f"{coarse} -run coarse:map_ffs",
            "flatten",
            "opt",
            "clean",
            "synth_ecp5 -nodsp -top top -run map_ffs:map_luts",
            "setattr -set clkbuf_sink 1 =TRELLIS_FF/w:LSR",
            "clkbufmap -buf DCCA CLKO:CLKI w:*rst w:*held",
        ]
    )
