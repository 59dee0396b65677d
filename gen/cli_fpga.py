"""``sliceforge fpga``: a bitstream, or the project for the maker's tools, for a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sliceforge.gen.boards import BOARDS, MEMORIES, Board, board
from sliceforge.gen.cli_parts import json_option, print_rows, print_table, set_option
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.files import check_folder, naming, write_all

__all__ = ["fpga"]


# What a build leaves, and how it is called in the output folder, behind the board's name.
_BUILT = (
    ("top.bit", ".bit"), ("top.svf", ".svf"), ("top.tim", "_nextpnr.log"), ("top.rpt", "_yosys.log")
)  # fmt: skip


@click.command()
@click.option("--board", "name", metavar="BOARD", help=f"One of {', '.join(BOARDS)}.")
@click.option("--list", "list_boards", is_flag=True, help="List the boards, and what goes on them.")
@click.option("--config", "source", metavar="PRESET|FILE.toml", help="Another machine than the board's.")
@click.option(
    "--memory",
    metavar="|".join(MEMORIES),
    help="The board's SDRAM, or a memory on the FPGA.  [default: the SDRAM, where the board has one]",
)
@set_option
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Made if needed.")
@json_option
def fpga(
    name: str | None,
    list_boards: bool,
    source: str | None,
    memory: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """The accelerator on a board, with memory and a UART to the host.

    \b
    ECP5 boards: DIR/<board>.bit and .svf, by Yosys and nextpnr, and their logs; where timing is
    not met they are written too, and the exit status is 1
    Xilinx boards: DIR/ is a project for Vivado, run by its build_top.sh
    DIR/fpga.json: clock, Fmax, and what of the FPGA is used

    What `gemm --engine uart:///dev/ttyUSB0` needs to know is on the board.

    \b
    Examples:
      sliceforge fpga --list
      sliceforge fpga --board ulx3s-85f --out build/ulx3s-85f
    """
    if list_boards:
        for option, value in (("board", name), ("config", source), ("memory", memory), ("out", out)):
            if value is not None:
                raise ValueError(f"{option} must not be given with --list, not as {str(value)!r}")
        _print_boards(as_json)
        return
    for option, value in (("board", name), ("out", out)):
        if value is None:
            raise ValueError(f"{option} must be given, or --list for the boards")
    assert name is not None and out is not None
    target = board(name, memory)
    config = target.config(source, settings)
    check_folder(out, ["fpga.json", *(f"{name}{suffix}" for _, suffix in _BUILT)])
    facts, files = (_bitstream if target.bitstream else _project)(target, config)
    contents = {out / file: data for file, data in files.items()}
    contents[out / "fpga.json"] = f"{json.dumps(facts, indent=2)}\n".encode()
    with naming("out", out, "made"):
        for folder in {path.parent for path in contents}:
            folder.mkdir(parents=True, exist_ok=True)
    write_all(contents)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _print_facts(facts, out)
    if facts.get("timing_met") is False:
        raise RuntimeError(
            f"timing is not met: Fmax {facts['fmax_hz'] / 1e6:.1f} MHz, the board's clock is "
            f"{facts['clock_hz'] / 1e6:.1f} MHz"
        )


_MEMORY_TITLES = {"sdram": "of SDRAM", "chip": "on the FPGA"}


def _memory(target: Board) -> str:
    return "chip" if target.sdram is None else "sdram"


def _facts(target: Board, config: AcceleratorConfig) -> dict[str, Any]:
    return {
        "board": target.name,
        "title": target.title,
        "config": config.name,
        "config_parameters": config.parameters(),
        "operators": config.operators,
        "multipliers": config.multipliers,
        "memory": _memory(target),
        "memory_kib": target.memory_bytes // 1024,
        "baud": target.baud,
        "clock_hz": target.clock_hz,
    }


def _bitstream(target: Board, config: AcceleratorConfig) -> tuple[dict[str, Any], dict[str, bytes]]:
    from sliceforge.gen.fpga import build_bitstream

    title = f"{config.name} for {target.name}"
    with Console(stderr=True).status(title) as status:
        placed = build_bitstream(target, config, lambda step: status.update(f"{title}: {step}"))
    files = {f"{target.name}{suffix}": (placed.folder / file).read_bytes() for file, suffix in _BUILT}
    return {**_facts(target, config), **placed.summary()}, files


def _project(target: Board, config: AcceleratorConfig) -> tuple[dict[str, Any], dict[str, bytes]]:
    from sliceforge.gen.fpga import project_files

    with Console(stderr=True).status(f"{config.name} for {target.name}"):
        files = project_files(target, config)
    return {**_facts(target, config), "project": sorted(files)}, files


def _print_facts(facts: dict[str, Any], out: Path) -> None:
    rows = {
        "board": facts["title"],
        "machine": "{config}, {operators} operators, {multipliers} multipliers 4b x 4b".format(**facts),
        "memory": f"{facts['memory_kib']:,} KiB {_MEMORY_TITLES[facts['memory']]}",
        "clock": f"{facts['clock_hz'] / 1e6:.1f} MHz",
    }
    if "project" in facts:
        rows["Vivado project"] = f"{out}: sh build_top.sh there, with vivado on the PATH"
    else:
        rows["Fmax"] = f"{facts['fmax_hz'] / 1e6:.1f} MHz"
        for resource, count in facts["utilization"].items():
            if count["used"]:
                share = count["used"] / count["available"]
                rows[resource] = f"{count['used']:,} of {count['available']:,} ({share:.0%})"
        rows["bitstream"] = str(out / f"{facts['board']}.bit")
    print_rows(rows)


def _print_boards(as_json: bool) -> None:
    boards: dict[str, dict[str, Any]] = {
        b.name: {
            "title": b.title,
            "config": b.preset,
            "clock_hz": b.clock_hz,
            "memory": _memory(b),
            "memory_kib": b.memory_bytes // 1024,
            "ends_with": "bitstream" if b.bitstream else "project for Vivado",
        }
        for b in BOARDS.values()
    }
    if as_json:
        print(json.dumps(boards, indent=2))
    else:
        columns = ("board", "FPGA", "machine", "clock", "memory", "ends with")
        rows = [
            (
                name, b["title"], b["config"], f"{b['clock_hz'] / 1e6:.0f} MHz",
                f"{b['memory_kib']:,} KiB {_MEMORY_TITLES[b['memory']]}", b["ends_with"],
            )
            for name, b in boards.items()
        ]  # fmt: skip
        print_table(columns, rows, justify="left")
