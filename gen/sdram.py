"""SDR SDRAM of a board: its timing, its power-up sequence, and LiteDRAM's controller for it as Verilog.

The controller is LiteDRAM's (https://github.com/enjoy-digital/litedram, BSD-2), from the package that pip
installs; nothing of it is in this repository. Ours are the pins' registers (hw/board_sdram.py), the power-up
sequence (hw/sdram_start.py) and the bus (hw/sdram_words.py), so no processor is needed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil
from typing import Any

__all__ = ["CHIPS", "Sdram", "SdramChip", "controller_verilog", "sdram_identity"]

_PACKAGES = ("litedram", "litex", "migen")
_CAS_LATENCY = 2  # all chips have it up to 100 MHz
_READ_LATENCY = _CAS_LATENCY + 1  # and the register of the data pins
_MODE_CYCLES = 2  # from a mode register's write to the next command (tMRD)
_MARGIN_NS = 1.0  # of each time: the clock's jitter, where a time is a whole number of cycles
_REFRESHES = 8  # in the power-up sequence: the most that one of the makers asks for
_SETTLE = 16  # cycles from a reset in the middle to the sequence: all that was begun is over
_LEAST_HZ, _MOST_HZ = 25_000_000, 50_000_000  # LiteDRAM's refresh; the pins' delays (hw/board_sdram.py)
_BANK_BITS, _WORD_BYTES = 2, 2
# Migen writes non-blocking assignments in combinational and initial processes, and signals that none reads.
_WAIVED = ("COMBDLY", "INITIALDLY", "PROCASSINIT", "UNUSEDSIGNAL", "WIDTHEXPAND")
_ALL_BANKS = 1 << 10  # address bit of a precharge


@dataclass(frozen=True)
class SdramChip:
    """Geometry and times of a chip of 4 banks and 16 data pins; times in ns, by the data sheets' names."""

    name: str
    row_bits: int
    column_bits: int
    t_rp: float
    t_rcd: float
    t_wr: float
    t_rfc: float
    t_ras: float
    t_rrd: float
    refresh: float
    """From one refresh to the next, on average."""
    power_up: float
    """From a stable clock to the first command."""

    @property
    def word_address_bits(self) -> int:
        return self.row_bits + _BANK_BITS + self.column_bits

    @property
    def memory_bytes(self) -> int:
        return _WORD_BYTES << self.word_address_bits


# The slowest of the chips that ULX3S boards came with, by LiteDRAM's tables (verif/test_sdram.py compares):
# MT48LC16M16, IS42S16160, W9825G6KH6, AS4C16M16; and of AS4C32M16 the half that the others have, too.
CHIPS = {
    "ulx3s": SdramChip(
        "ulx3s", row_bits=13, column_bits=9, t_rp=20, t_rcd=20, t_wr=20, t_rfc=70, t_ras=45, t_rrd=15,
        refresh=64e6 / 8192, power_up=200_000,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sdram:
    """A chip, and the rate of its clock, which is the design's."""

    chip: SdramChip
    clock_hz: int

    def cycles(self, *, margin: float = _MARGIN_NS) -> dict[str, int]:
        """The least cycles of each time, with ``margin`` ns more; of `refresh` the most, without.

        Raises ValueError for a clock of less than 25 or more than 50 MHz.
        """
        chip, hz = self.chip, self.clock_hz
        if not _LEAST_HZ <= hz <= _MOST_HZ:
            raise ValueError(f"clock_hz of an SDRAM must be {_LEAST_HZ}..{_MOST_HZ}, not {hz}")
        times = {
            "t_rp": chip.t_rp, "t_rcd": chip.t_rcd, "t_wr": chip.t_wr, "t_rfc": chip.t_rfc,
            "t_ras": chip.t_ras, "t_rc": chip.t_ras + chip.t_rp, "t_rrd": chip.t_rrd,
            "power_up": chip.power_up,
        }  # fmt: skip
        found = {name: ceil((time + margin) * hz / 1e9) for name, time in times.items()}
        return {**found, "refresh": int(chip.refresh * hz / 1e9)}

    def parameters(self, controller: str) -> dict[str, Any]:
        """The parameters of `SdramMemory` that follow from it; ``controller`` names LiteDRAM's module."""
        cycles = self.cycles()
        precharge = ("precharge", _ALL_BANKS, cycles["t_rp"])
        refresh = ("refresh", 0, cycles["t_rfc"])
        mode = ("mode", _CAS_LATENCY << 4, _MODE_CYCLES)  # bursts of one word, in order
        return {
            "controller": controller,
            "word_address_bits": self.chip.word_address_bits,
            "row_bits": self.chip.row_bits,
            "start": {
                "pause": cycles["power_up"],
                "settle": _SETTLE,
                "steps": (precharge, *[refresh] * _REFRESHES, mode),
            },
        }


def sdram_identity() -> tuple[str, ...]:
    """The packages that the controller's Verilog depends on. ToolError: as of `controller_verilog`."""
    _check_packages()
    return tuple(f"{package} {version(package)}" for package in _PACKAGES)


def controller_verilog(sdram: Sdram, module: str) -> str:
    """LiteDRAM's controller as ``module``: a port of 16 bits, and DFI, all of it the same bytes every time.

    Raises ToolError if LiteDRAM is not installed.
    """
    packages = ", ".join(sdram_identity())
    from migen.fhdl import verilog

    core = _core(sdram)
    text = str(verilog.convert(core, core.ports, name=module))
    chip = f"{sdram.chip.name} at {sdram.clock_hz} Hz"
    header = f"// LiteDRAM's controller for the SDRAM of {chip} ({packages})."
    body = "\n".join(line.rstrip() for line in text.splitlines()[1:]).strip()
    waivers = [[f"// verilator lint_{state} {name}" for name in _WAIVED] for state in ("off", "on")]
    return "\n".join([header, *waivers[0], body, *waivers[1], ""])


def _check_packages() -> None:
    from sliceforge.sim.toolchain import ToolError  # which imports this package

    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ToolError(f"{package} is missing: run `make setup`, or `pip install 'sliceforge[fpga]'`")


def _core(sdram: Sdram) -> Any:
    """A migen module with LiteDRAM's controller and crossbar, and ``ports``: what crosses its boundary."""
    from litedram.common import GeomSettings, PhySettings, TimingSettings
    from litedram.core.controller import ControllerSettings, LiteDRAMController
    from litedram.core.crossbar import LiteDRAMCrossbar
    from migen import Module, Signal

    chip, cycles = sdram.chip, sdram.cycles()
    phy = PhySettings(
        phytype="pins", memtype="SDR", databits=16, dfi_databits=16, nphases=1, rdphase=0, wrphase=0,
        cl=_CAS_LATENCY, read_latency=_READ_LATENCY, write_latency=0,
    )  # fmt: skip
    geometry = GeomSettings(_BANK_BITS, chip.row_bits, chip.column_bits)
    timing = TimingSettings(
        tRP=cycles["t_rp"], tRCD=cycles["t_rcd"], tWR=cycles["t_wr"], tRFC=cycles["t_rfc"],
        tRAS=cycles["t_ras"], tRC=cycles["t_rc"], tRRD=cycles["t_rrd"], tREFI=cycles["refresh"],
        tWTR=2, tCCD=1, tFAW=None, tZQCS=None,
    )  # fmt: skip
    core = Module()
    core.submodules.controller = controller = LiteDRAMController(
        phy, geometry, timing, sdram.clock_hz, ControllerSettings()
    )
    core.submodules.crossbar = crossbar = LiteDRAMCrossbar(controller.interface)
    port, dfi = crossbar.get_port(), controller.dfi.p0
    inputs = {
        "command_valid": port.cmd.valid, "command_write": port.cmd.we, "command_address": port.cmd.addr,
        "write_data": port.wdata.data, "write_strobes": port.wdata.we, "dfi_read_data": dfi.rddata,
    }  # fmt: skip
    outputs = {
        "command_ready": port.cmd.ready, "write_taken": port.wdata.ready, "read_valid": port.rdata.valid,
        "read_data": port.rdata.data, "dfi_ras_n": dfi.ras_n, "dfi_cas_n": dfi.cas_n, "dfi_we_n": dfi.we_n,
        "dfi_bank": dfi.bank, "dfi_address": dfi.address, "dfi_write_data": dfi.wrdata,
        "dfi_write_enable": dfi.wrdata_en, "dfi_write_mask": dfi.wrdata_mask,
    }  # fmt: skip
    core.ports = set()
    for name, signal in {**inputs, **outputs}.items():
        port_signal = Signal(len(signal), name=name)
        core.ports.add(port_signal)
        core.comb += signal.eq(port_signal) if name in inputs else port_signal.eq(signal)
    return core
