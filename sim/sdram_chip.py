"""The SDRAM chip of simulation: its Verilog with the times of a chip, and what its ``fault`` means."""

from __future__ import annotations

from importlib.resources import files

from sliceforge.gen.sdram import Sdram

__all__ = ["FAULTS", "chip_parameters", "chip_verilog"]

FAULTS = (
    "none",
    "a command before the power-up pause was over",
    "a command while the chip was refreshed or its mode was set",
    "a command before the first precharge of all banks",
    "an activate before the mode was set and all refreshes were made",
    "an activate in a bank with an open row",
    "an activate before tRP was over",
    "an activate before tRC was over",
    "an activate before tRRD was over",
    "an activate too long after a refresh",
    "a read or write without an open row, or before tRCD was over",
    "a precharge before tRAS was over",
    "a precharge before tWR was over",
    "data on the pins while the chip drives them",
    "a write without data on the pins",
    "a masked read",
    "a refresh or a mode with a bank that was not closed",
    "another mode than CAS latency 2 and bursts of one word",
    "a command that is none",
)


def chip_verilog() -> str:
    """The module ``sdram_chip``."""
    return files("sliceforge.sim").joinpath("sdram_chip.v").read_text(encoding="utf-8")


def chip_parameters(sdram: Sdram) -> dict[str, int]:
    """The module's parameters: the chip's own times, without the controller's margin. A refresh may come one
    interval late: the controller finishes what it has begun.
    """
    chip, cycles = sdram.chip, sdram.cycles(margin=0.0)
    refresh, power_up = cycles.pop("refresh"), cycles.pop("power_up")
    return {
        "ROW_BITS": chip.row_bits, "COLUMN_BITS": chip.column_bits, "POWER_UP": power_up,
        "REFRESH": 2 * refresh, **{name.upper(): count for name, count in cycles.items()},
    }  # fmt: skip
