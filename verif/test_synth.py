"""Area by block (sliceforge.sim.area), on modules whose cells are known, and the command `synth`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.synthesis import LIBERTY, TARGETS
from sliceforge.sim import blocks
from sliceforge.sim.area import FEATURES, area_report, leading_figure, module_areas
from sliceforge.sim.toolchain import ToolError
from sliceforge.verif.test_cells import HIERARCHY

TINY = AcceleratorConfig.preset("tiny")
SLICEFORGE = Path(sys.executable).with_name("sliceforge")

needs_osu018 = pytest.mark.skipif(not LIBERTY.is_file(), reason="qflow-tech-osu018 is not installed")

AND = "input a, b, c, d, output y", "assign y = a & b & c & d;"
FLIP_FLOP = "input c, d, output reg q", "always @(posedge c) q <= d;"
COUNTER = "input c, output reg [31:0] q", "always @(posedge c) q <= q + 1;"
# As Amaranth writes the product of a signed slice and an unsigned one.
SLICES = (
    "input c, input [3:0] a, b, output reg [7:0] q",
    "always @(posedge c) q <= $signed({{4{a[3]}}, a}) * $signed({4'b0, b});",
)
WIDE = "input [15:0] a, b, output [31:0] y", "assign y = a * b;"
NARROW = "input [15:0] a, input [4:0] b, output [20:0] y", "assign y = a * b;"
MEMORY = (
    "input c, w, input [8:0] a, input [31:0] d, output reg [31:0] q",
    "reg [31:0] m [0:511]; always @(posedge c) begin if (w) m[a] <= d; q <= m[a]; end",
)


def areas(module: tuple[str, str], target: str) -> dict[str, Any]:
    ports, body = module
    report = module_areas(f"module top({ports}); {body} endmodule", "top", target)
    assert len(report["blocks"]) == 1
    return {**report, **report["blocks"][0]}


@pytest.mark.parametrize(
    ("module", "target", "figures"),
    [
        (AND, "ecp5", {"LUTs": 1, "flip_flops": 0, "levels": 1}),
        (AND, "ice40", {"LUTs": 1, "levels": 1}),
        (AND, "xc7", {"LUTs": 1, "levels": 1}),
        (FLIP_FLOP, "ecp5", {"LUTs": 0, "flip_flops": 1, "levels": 0}),
        (FLIP_FLOP, "ice40", {"LUTs": 0, "flip_flops": 1}),
        (FLIP_FLOP, "xc7", {"LUTs": 0, "flip_flops": 1}),
        (COUNTER, "ecp5", {"flip_flops": 32, "carries": 16, "levels": 16}),
        (SLICES, "ecp5", {"multipliers": 0, "flip_flops": 8}),
        (SLICES, "ice40", {"multipliers": 0}),
        (SLICES, "xc7", {"multipliers": 0}),
        (WIDE, "ecp5", {"multipliers": 1, "LUTs": 0}),
        (WIDE, "ice40", {"multipliers": 1}),
        (WIDE, "xc7", {"multipliers": 1}),
        (NARROW, "ecp5", {"multipliers": 0}),
        (MEMORY, "ecp5", {"block_RAMs": 1, "LUT_RAMs": 0}),
        (MEMORY, "ice40", {"block_RAMs": 4}),
        (MEMORY, "xc7", {"block_RAMs": 1, "LUT_RAMs": 0}),
    ],
)
def test_known_cells(module: tuple[str, str], target: str, figures: dict[str, int]) -> None:
    found = areas(module, target)
    assert {key: found[key] for key in figures} == figures


@needs_osu018
@pytest.mark.parametrize(
    ("module", "figures"),
    [
        (("input a, b, output y", "assign y = ~(a & b);"), {"gates": 1, "area_um2": 24, "levels": 1}),
        (FLIP_FLOP, {"gates": 0, "flip_flops": 1, "area_um2": 96}),
        (MEMORY, {"gates": 0, "flip_flops": 0, "area_um2": 0, "memory_bits": 512 * 32}),
    ],
)
def test_known_standard_cells(module: tuple[str, str], figures: dict[str, int]) -> None:
    """NAND2X1 and DFFPOSX1, with the areas of the library."""
    found = areas(module, "osu018")
    assert {key: found[key] for key in figures} == figures


def test_hierarchy() -> None:
    """Five times `leaf`, three LUTs and flip-flops each; a path ends at each flip-flop."""
    report = module_areas(HIERARCHY, "top", "ecp5")
    rows = {row["block"]: row for row in report["blocks"]}
    assert list(rows) == ["accelerator", "leaf", "pair"]
    assert {name: row["instances"] for name, row in rows.items()} == {"accelerator": 1, "leaf": 5, "pair": 2}
    assert {name: row["LUTs"] for name, row in rows.items()} == {"accelerator": 16, "leaf": 15, "pair": 12}
    assert {name: row["flip_flops"] for name, row in rows.items()} == {
        "accelerator": 15, "leaf": 15, "pair": 12
    }  # fmt: skip
    assert report["levels"] == 1
    assert report["delay_ps"] == max(row["delay_ps"] or 0 for row in rows.values()) > 0


def test_a_block_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With another top, only the top is synthesized; with another release of Yosys, all is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # what an earlier run made of "again" is not here
    module_areas(HIERARCHY, "top", "ecp5")
    ran = []
    run = blocks._yosys
    monkeypatch.setattr(blocks, "_yosys", lambda *arguments: ran.append(arguments[-1]) or run(*arguments))
    top = re.search(r"^module top.*?^endmodule", HIERARCHY, re.MULTILINE | re.DOTALL)
    assert top is not None
    changed = HIERARCHY.replace(top[0], top[0].replace("^", "&"))
    before = blocks.synthesize(HIERARCHY, "top", TARGETS["ecp5"])
    assert ran == []
    blocks.synthesize(changed, "top", TARGETS["ecp5"])
    assert ran == ["top"]
    ran.clear()
    monkeypatch.setattr(blocks, "version", lambda name: "0.70 again")
    after = blocks.synthesize(changed, "top", TARGETS["ecp5"])
    assert sorted(ran) == ["leaf", "pair", "top"]
    assert not set(before.values()) & set(after.values())


@pytest.mark.parametrize(
    ("body", "error"),
    [("assign y = ;", "syntax error"), ("absent i(a, y);", "absent")],
)
def test_refused(body: str, error: str) -> None:
    with pytest.raises(RuntimeError, match=error):
        areas(("input a, output y", body), "ecp5")


def test_missing_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: path != LIBERTY)
    with pytest.raises(ToolError, match="apt install qflow-tech-osu018") as error:
        areas(AND, "osu018")
    assert "\n" not in str(error.value)


def check_report(report: dict[str, Any]) -> None:
    """Of preset tiny."""
    rows = {row["block"]: row for row in report["blocks"]}
    whole = next(iter(rows.values()))
    assert whole["block"] == "accelerator" and whole["instances"] == 1
    leading = leading_figure(report["target"])
    sizes = [row[leading] for row in report["blocks"]]
    assert sizes == sorted(sizes, reverse=True)
    assert rows["pea"]["instances"] == TINY.pea_count
    assert rows["lane__operator"]["instances"] == TINY.operators
    assert rows["lane__operator"]["flip_flops"] >= TINY.operators * TINY.vector**2 * TINY.accumulator_bits
    if "multipliers" in whole:
        assert rows["lane__operator"]["multipliers"] == 0
        assert rows["requantize_column"]["multipliers"] > 0
    assert report["levels"] > 1
    assert report["delay_ps"] > 0
    assert list(report["features"]) == list(FEATURES)
    for feature in report["features"].values():
        assert 0 < feature["percent"][leading] < 50
        assert feature["percent"][leading] == pytest.approx(100 * feature[leading] / whole[leading])
    engine = rows["apsq_engine"][leading] + rows["step_exponents"][leading]
    assert report["features"]["APSQ engine"][leading] == engine


def test_command(tmp_path: Path) -> None:
    """The report, its file and the table say the same; the second run finds all blocks."""
    out = tmp_path / "new" / "folder"
    command = [SLICEFORGE, "synth", "--config", "tiny", "--target", "ecp5"]
    done = subprocess.run([*command, "--json", "--out", out], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert [path.name for path in out.iterdir()] == ["tiny_ecp5.json"]
    assert json.loads((out / "tiny_ecp5.json").read_text("utf-8")) == report
    assert report["config"] == "tiny" and report["target"] == "ecp5"
    check_report(report)

    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("accelerator", "requantize_column", *FEATURES):
        assert re.search(rf"^{name} ", printed, re.MULTILINE), name
    assert f"longest path: {report['levels']} cells" in printed
    luts = report["blocks"][0]["LUTs"]
    assert re.search(rf"^accelerator +1 +{luts:,} ", printed, re.MULTILINE)


@pytest.mark.long
@pytest.mark.parametrize("target", ["ice40", "xc7", pytest.param("osu018", marks=needs_osu018)])
def test_preset_tiny(target: str) -> None:
    check_report(area_report(TINY, target))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--target", "asic"], "target must be one of ecp5, ice40, xc7, osu018, not 'asic'"),
        (["--target", "ecp5", "--config", "large"], "large"),
        (["--target", "ecp5", "--out", ""], "out must be the name of a folder, not ''"),
        ([], "Missing option '--target'"),
    ],
)
def test_wrong_input(options: list[str], error: str, tmp_path: Path) -> None:
    arguments = options if "--config" in options else [*options, "--config", "tiny"]
    done = subprocess.run(
        [SLICEFORGE, "synth", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert error in done.stderr
    assert list(tmp_path.iterdir()) == []
