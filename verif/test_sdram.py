"""The SDRAM of a board: its times, LiteDRAM's controller as Verilog, and the rules of simulation's chip."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.sdram import CHIPS, Sdram, controller_verilog
from sliceforge.gen.verilog import generate_soc_verilog, soc
from sliceforge.sim.sdram_chip import FAULTS, chip_parameters
from sliceforge.sim.toolchain import ToolError
from sliceforge.verif import sdram_rules
from sliceforge.verif.simulation import run_bench

SDRAM = Sdram(CHIPS["ulx3s"], 50_000_000)
TINY = AcceleratorConfig.preset("tiny")
RATES = {"clock_hz": 50_000_000, "baud": 1_000_000}


def test_the_chip_is_the_slowest_of_those_on_the_boards() -> None:
    """By LiteDRAM's tables, where they have the time; and its geometry is what they have in common."""
    modules = importlib.import_module("litedram.modules")
    init = importlib.import_module("litedram.init")
    chip = SDRAM.chip
    for name in ("MT48LC16M16", "IS42S16160", "W9825G6KH6", "AS4C16M16", "AS4C32M16"):
        module = getattr(modules, name)
        technology, speed = module.technology_timings, module.speedgrade_timings["default"]
        assert (module.nbanks, module.nrows) == (4, 1 << chip.row_bits), name
        assert module.ncols >= 1 << chip.column_bits, name
        assert chip.t_rp >= speed.tRP and chip.t_rcd >= speed.tRCD and chip.t_wr >= speed.tWR, name
        assert chip.t_rfc >= speed.tRFC[1] and chip.t_ras >= (speed.tRAS or 0), name
        assert chip.t_rrd >= (technology.tRRD or (None, 0))[1] and chip.refresh <= technology.tREFI, name
    # Its last step is LiteDRAM's own, for one word at a time.
    phy = type("phy", (), {"cl": 2, "nphases": 1})
    sequence, _ = init.get_sdr_phy_init_sequence(phy, None)
    command, address, _ = SDRAM.parameters("x")["start"]["steps"][-1]
    assert (command, address) == ("mode", sequence[-1][1])


def test_times_in_cycles() -> None:
    assert SDRAM.cycles(margin=0.0) == {
        "t_rp": 1, "t_rcd": 1, "t_wr": 1, "t_rfc": 4, "t_ras": 3, "t_rc": 4, "t_rrd": 1, "power_up": 10_000,
        "refresh": 390,
    }  # fmt: skip
    assert SDRAM.cycles() == {
        "t_rp": 2, "t_rcd": 2, "t_wr": 2, "t_rfc": 4, "t_ras": 3, "t_rc": 4, "t_rrd": 1, "power_up": 10_001,
        "refresh": 390,
    }  # fmt: skip
    for clock_hz in (24_999_999, 50_000_001):
        with pytest.raises(
            ValueError, match=f"clock_hz of an SDRAM must be 25000000..50000000, not {clock_hz}"
        ):
            replace(SDRAM, clock_hz=clock_hz).cycles()


def test_the_controller_is_the_same_bytes_every_time() -> None:
    """Also in another process, whose sets are in another order; and nothing tells when it was made."""
    text = controller_verilog(SDRAM, "controller")
    program = (
        "import sys; from sliceforge.verif.test_sdram import SDRAM, controller_verilog; "
        "sys.stdout.write(controller_verilog(SDRAM, 'controller'))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert done.stdout == text
    assert re.findall(r"^module (\w+)", text, re.M) == ["controller"]
    assert not re.search(r"20\d\d-\d\d|\d\d:\d\d:\d\d|/home|/tmp", text)
    assert controller_verilog(replace(SDRAM, clock_hz=40_000_000), "controller") != text


def test_a_missing_litedram_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "litedram" else find(name))
    with pytest.raises(ToolError, match=r"^litedram is missing: run `make setup`, or `pip install 'slicef"):
        controller_verilog(SDRAM, "controller")


def test_the_soc_has_one_memory() -> None:
    with pytest.raises(ValueError, match="memory_kib must not be given with an SDRAM, not 64"):
        soc(TINY, **RATES, memory_kib=64, sdram=SDRAM)
    with pytest.raises(TypeError, match="memory_kib must be an integer, not None"):
        soc(TINY, **RATES)


def test_the_socs_verilog() -> None:
    """With the controller in it, once, by a name of its own, so that two can live in one design."""
    text = generate_soc_verilog(TINY, **RATES, sdram=SDRAM)
    assert text.startswith("// Clock 50000000 Hz, UART 1000000 baud, SDRAM 32768 KiB.\n")
    assert text == generate_soc_verilog(TINY, **RATES, sdram=SDRAM)
    modules = re.findall(r"^module (\w+)", text, re.M)
    assert modules.count("sliceforge_tiny_soc_sdram_controller") == 1
    assert all(name.startswith("sliceforge_tiny") for name in modules) and len(set(modules)) == len(modules)


@pytest.mark.parametrize("fault", sdram_rules.SEQUENCES, ids=lambda fault: FAULTS[fault])
def test_the_chip_finds(fault: int, tmp_path: Path) -> None:
    assert set(sdram_rules.SEQUENCES) == set(range(len(FAULTS)))
    run_bench("sdram_rules", sdram_rules.component({}), {"fault": fault}, tmp_path)


def test_the_chips_parameters_are_in_its_verilog() -> None:
    verilog = (Path(__file__).parent.parent / "sim" / "sdram_chip.v").read_text("utf-8")
    named = set(re.findall(r"parameter integer (\w+) =", verilog))
    assert set(chip_parameters(SDRAM)) | {"REFRESHES"} == named
    assert {int(code) for code in re.findall(r"fail\((\d+)\)", verilog)} == set(range(1, len(FAULTS)))
