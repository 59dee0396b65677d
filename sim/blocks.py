"""Synthesis block by block: each module of the Verilog once and by itself, counted as often as it is there.

Nothing is optimized across the boundaries of modules: a port that its parent ties to a constant costs its
logic all the same. Blocks are synthesized two at a time and kept, so a block whose Verilog is the same is not
synthesized again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Generic, Self, TypeVar

from sliceforge.gen.synthesis import Target
from sliceforge.sim.toolchain import ToolError, cached_build

__all__ = ["Block", "CellCounts", "block_counts", "netlist", "path_levels", "plain_names", "synthesize"]

_RUN = "from pyosys import libyosys; libyosys.run_pass('script run.ys', libyosys.Design())"
# What ABC and ABC9 write of a module, and of the delay they find in it.
_DELAYS = re.compile(r"(?:of|from) module `\\?(\S+)' to |\bDel(?:ay)? = +(\d+\.\d+)")


@dataclass(frozen=True)
class CellCounts:
    """Numbers of cells by type, and bits of memory beside them."""

    types: Mapping[str, int] = field(default_factory=dict)
    memory_bits: int = 0

    def __add__(self, other: Self) -> Self:
        return replace(
            self,
            types=Counter(self.types) + Counter(other.types),
            memory_bits=self.memory_bits + other.memory_bits,
        )

    def __mul__(self, times: int) -> Self:
        types = {name: times * count for name, count in self.types.items()}
        return replace(self, types=types, memory_bits=times * self.memory_bits)


Counts = TypeVar("Counts", bound=CellCounts)


@dataclass(frozen=True)
class Block(Generic[Counts]):
    """One module of the Verilog."""

    instances: int
    """How often it is there in the whole."""
    own: Counts
    """One instance's, without the blocks in it."""
    total: Counts
    """One instance's, with the blocks in it."""
    delay: float | None = None
    """ps, of the longest path in the module without the blocks in it; None where the tools give none."""

    @property
    def all(self) -> Counts:
        """All instances', with the blocks in them."""
        return self.total * self.instances


def synthesize(verilog: str, top: str, target: Target) -> dict[str, Path]:
    """Folders with what Yosys made of each block of ``verilog`` that ``top`` needs, for the functions below.

    A block is a module together with those that were elaborated within it, ``<module>__<name>``; they stay
    modules of their own. Raises ToolError if pyosys or the target's library is missing, RuntimeError for
    Verilog that Yosys refuses.
    """
    if importlib.util.find_spec("pyosys") is None:
        raise ToolError("pyosys is missing: run `make setup`, or `pip install 'sliceforge[dev]'`")
    library = b""
    if target.liberty is not None:
        if not target.liberty.is_file():
            raise ToolError(
                f"{target.liberty} is missing: install it, on Debian with `apt install qflow-tech-osu018`"
            )
        library = target.liberty.read_bytes()
    found = re.finditer(r"^\s*module\s+(\w+).*?\bendmodule\b", verilog, re.MULTILINE | re.DOTALL)
    modules = {module[1]: module[0] for module in found}
    blocks: dict[str, str] = {}
    for name, text in modules.items():
        head = name.split("__")[0]
        key = head if head in modules else name
        blocks[key] = f"{blocks.get(key, '')}{text}\n"
    inside = {
        name: sorted((set(re.findall(r"\w+", text)) & set(blocks)) - {name}) for name, text in blocks.items()
    }

    def one(name: str) -> Path:
        return _synthesized(name, blocks[name], [modules[child] for child in inside[name]], target, library)

    order = _parents_first(top, inside)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(order, pool.map(one, order), strict=True))


def _synthesized(name: str, verilog: str, below: list[str], target: Target, library: bytes) -> Path:
    """below: the modules that the block instantiates, of which only the ports matter."""
    commands = [
        "read_verilog block.v",
        "read_verilog -lib below.v",
        *(command.format(top=name) for command in target.commands),
        "tee -q -o stat.json stat -json",
        "write_rtlil netlist.il",
    ]
    sources = {"block.v": verilog, "below.v": "\n".join(below)}

    def build(folder: Path) -> None:
        log = _yosys(folder, commands, sources, name)
        delays: dict[str, float] = {}
        module = ""
        for found, delay in _DELAYS.findall(log):
            if found:
                module = found.rstrip("'")
            else:
                delays[module] = float(delay)  # the last one is of the finished netlist
        (folder / "delays.json").write_text(json.dumps(delays), encoding="utf-8")

    return cached_build([verilog, *below, *commands, library, version("pyosys")], build, f"synth-{name}")


def _yosys(folder: Path, commands: Iterable[str], sources: Mapping[str, str], name: str) -> str:
    """Runs the commands in ``folder``, in a process of its own; returns the log."""
    for file, text in {**sources, "run.ys": "\n".join(commands) + "\n"}.items():
        (folder / file).write_text(text, encoding="utf-8")
    # Two blocks are run at a time; and threads would mix up the order in which modules are logged.
    environment = {**os.environ, "YOSYS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        found = re.findall(r"^ERROR: .*", done.stdout + done.stderr, re.MULTILINE)
        raise RuntimeError(f"Yosys failed on {name}: {found[-1] if found else done.stderr[-4000:]}")
    return done.stdout


def block_counts(
    folders: Mapping[str, Path], top: str, target: Target, counts: Callable[..., Counts]
) -> dict[str, Block[Counts]]:
    """Each module by name, from ``top`` down: a block before the blocks in it.

    counts: the class to count with. Raises RuntimeError for cells that have no count in ``target``: for
    gates, a latch or a flip-flop with an asynchronous reset.
    """
    stats, delays = {}, {}
    for folder in folders.values():
        modules = json.loads((folder / "stat.json").read_text("utf-8"))["modules"]
        stats.update({name.removeprefix("\\"): stat for name, stat in modules.items()})
        delays.update(json.loads((folder / "delays.json").read_text("utf-8")))
    own: dict[str, Counts] = {}
    inside: dict[str, dict[str, int]] = {}
    counted = re.compile("|".join(f"(?:{kind})" for kind in target.kinds.values()))
    for name, stat in stats.items():
        cells = {key.removeprefix("\\"): count for key, count in stat["num_cells_by_type"].items()}
        inside[name] = {key: cells.pop(key) for key in list(cells) if key in stats}
        types = {}
        for key, count in cells.items():
            plain = key.removeprefix("$_").removesuffix("_") if key.startswith("$_") else key
            if counted.fullmatch(plain):
                types[plain] = count
            elif not key.startswith("$mem"):  # ports and initial values of memories
                raise RuntimeError(f"module {name} has {count} cells of type {key}, which have no count")
        own[name] = counts(types, stat["num_memory_bits"])

    totals: dict[str, Counts] = {}
    for name in reversed(order := _parents_first(top, inside)):
        totals[name] = sum((totals[child] * count for child, count in inside[name].items()), own[name])
    instances = Counter({top: 1})
    for name in order:
        for child, count in inside[name].items():
            instances[child] += instances[name] * count
    return {name: Block(instances[name], own[name], totals[name], delays.get(name)) for name in order}


def plain_names(blocks: Mapping[str, Block[Counts]], module: str) -> dict[str, Block[Counts]]:
    """The same by names without ``module``, as ``lane__operator`` for ``<module>_lane__operator``.

    The whole is ``accelerator``.
    """
    return {
        name.removeprefix(f"{module}_") if name != module else "accelerator": block
        for name, block in blocks.items()
    }


def path_levels(folders: Mapping[str, Path], top: str, target: Target) -> int:
    """Cells on the longest path of the whole between registers, memories, multipliers and ports."""
    commands = [
        "flatten -noscopeinfo",
        f"select -set state {' '.join(target.state)}",
        "select -set logic * @state %d",
        "tee -q -o path.txt ltp @logic",
    ]
    folder = _joined(folders, top, commands, target)
    found = re.search(r"\(length=(-?\d+)\)", (folder / "path.txt").read_text("utf-8"))
    return max(0, int(found[1])) if found else 0


def netlist(folders: Mapping[str, Path], top: str, target: Target) -> str:
    """Verilog of the whole, in the modules that it had; wires within a module are of one bit."""
    folder = _joined(folders, top, ["splitnets", "write_verilog -noattr netlist.v"], target)
    return (folder / "netlist.v").read_text("utf-8")


def _joined(folders: Mapping[str, Path], top: str, commands: Iterable[str], target: Target) -> Path:
    """The folder in which Yosys ran ``commands`` on the netlist of the whole."""
    script = [
        *target.cells,
        *(f"read_rtlil {folder}/netlist.il" for folder in folders.values()),
        f"hierarchy -check -top {top}",
        *commands,
    ]

    def build(folder: Path) -> None:
        _yosys(folder, script, {}, top)

    # A folder's name has the digest of its content.
    return cached_build([*script, version("pyosys")], build, f"netlist-{top}")


def _parents_first(top: str, inside: Mapping[str, Iterable[str]]) -> list[str]:
    """Every module below ``top``, each after all that it is in."""
    finished: dict[str, None] = {}

    def visit(name: str) -> None:
        for child in reversed(list(inside[name])):
            if child not in finished:
                visit(child)
        finished[name] = None

    visit(top)
    return list(finished)[::-1]
