"""A netlist of ECP5's cells, made easier for place and route: constants, ends of carry chains, a floorplan.

An input of a cell that is not connected is 1. A 0 comes to it by wires, from one cell for the whole chip: of
an edge-sized machine that net had 17,900 users. And nextpnr spends a cell on the carry that a chain begins
with, and one on the carry that comes out of it, even where nobody takes that.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from sliceforge.gen.ecp5_floorplan import place_operators

__all__ = ["prepare", "tidy"]

Cell = dict[str, Any]

_NOTHING = ["x"]  # the port is there, without a net


def prepare(name: str, top: str, device: str) -> None:
    """Makes the netlist in the file ``name`` ready for place and route on ``device``: `tidy`, and
    `place_operators` where that is an 85F."""
    path = Path(name)
    netlist = json.loads(path.read_text("utf-8"))
    tidy(netlist, top)
    if device.endswith("-85F"):
        place_operators(netlist, top)
    path.write_text(json.dumps(netlist), encoding="utf-8")


def tidy(netlist: Mapping[str, Any], top: str) -> None:
    """Rewrites the module ``top`` of ``netlist``, as of Yosys's ``write_json``; it does what it did before.

    A CCU2C takes its 0s into its tables; a constant carry into a chain comes from a cell of the chain; a
    carry out that nobody reads gets no net. Upper address bits of a TRELLIS_DPR16X4 that are 0 for writing
    and reading follow the lowest one: the words stand elsewhere, and are found there.
    """
    module = netlist["modules"][top]
    cells: dict[str, Cell] = module["cells"]
    read: Counter[Any] = Counter(bit for port in module["ports"].values() for bit in port["bits"])
    for cell in cells.values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] != "output":
                read.update(bits)
    numbers = count(1 + max(bit for bit in _bits(module) if isinstance(bit, int)))
    for name, cell in list(cells.items()):
        if cell["type"] == "CCU2C":
            for half in "01":
                _fold(cell, half)
            carry = cell["connections"].get("CIN", _NOTHING)[0]
            if isinstance(carry, str):
                connection: list[Any] = _NOTHING
                if carry in ("0", "1") and not _ignores_carry(cell, read):
                    connection = [next(numbers)]
                    cells[f"{name}$first"] = _first(carry, connection)
                _connect(cell, "CIN", "input", connection)
            if not read[cell["connections"].get("COUT", _NOTHING)[0]]:
                _connect(cell, "COUT", "output", _NOTHING)
        elif cell["type"] == "TRELLIS_DPR16X4":
            _follow(cell)


def _bits(module: Mapping[str, Any]) -> set[Any]:
    return {bit for net in module["netnames"].values() for bit in net["bits"]}


def _connect(cell: Cell, port: str, direction: str, bits: list[Any]) -> None:
    cell["connections"][port] = bits
    cell["port_directions"][port] = direction


def _ignores_carry(cell: Cell, read: Counter[Any]) -> bool:
    """Whether the first half's LUT is 0, so that it makes the carry, and nobody reads its sum. Its constant
    inputs are 1 by now."""
    if any(read[bit] for bit in cell["connections"].get("S0", ())):
        return False
    ones = sum(1 << place for place, pin in enumerate("ABCD") if cell["connections"][f"{pin}0"] == ["1"])
    table = cell["parameters"]["INIT0"][::-1]
    return "1" not in [table[place] for place in range(16) if place & ones == ones]


def _first(carry: str, connection: list[Any]) -> Cell:
    """A cell that begins a chain with ``carry``: its LUTs are 0, so that the carry is the table's value for A
    and B alone, here where both are 1."""
    inputs = {f"{pin}{half}": ["1"] for half in "01" for pin in "ABCD"}
    return {
        "hide_name": 1,
        "type": "CCU2C",
        "parameters": {
            "INIT0": f"{0:016b}", "INIT1": f"{8 * int(carry):016b}", "INJECT1_0": "NO", "INJECT1_1": "NO"
        },
        "attributes": {},
        "port_directions": {**dict.fromkeys([*inputs, "CIN"], "input"), "COUT": "output"},
        "connections": {**inputs, "CIN": _NOTHING, "COUT": connection},
    }  # fmt: skip


def _fold(cell: Cell, half: str) -> None:
    """The table's value where an input is 0 becomes that where it is 1 too, and the input 1. The first four
    places, with C and D at 0, are the carry's as well, and keep what they say of A and B."""
    connections, parameters = cell["connections"], cell["parameters"]
    zeros = [place for place, pin in enumerate("ABCD") if connections[f"{pin}{half}"] == ["0"]]
    table = parameters[f"INIT{half}"][::-1]
    mask = sum(1 << place for place in zeros)
    parameters[f"INIT{half}"] = "".join(table[place & ~mask] for place in range(16))[::-1]
    for place in zeros:
        connections[f"{'ABCD'[place]}{half}"] = ["1"]


def _follow(cell: Cell) -> None:
    """Only where all words begin as 0 or unknown."""
    write, read = cell["connections"]["WAD"], cell["connections"]["RAD"]
    if "1" in cell["parameters"].get("INITVAL", "") or isinstance(write[0], str):
        return
    for place in range(1, 4):
        if write[place] == read[place] == "0":
            write[place], read[place] = write[0], read[0]
    cell["parameters"]["INITVAL"] = "0" * 64
