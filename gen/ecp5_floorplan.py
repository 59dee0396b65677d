"""Where the multipliers and block RAMs of the operators stand on an ECP5-85F.

The 32 operators of an edge have 4 multipliers and 4 block RAMs each, of 156 and 208. By the time that
nextpnr's placers give them their places few are left, and the 8 cells of an operator end up all over the
chip: the wires to and from a multiplier are then some 40 tiles long, where 10 would do.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

__all__ = ["place_operators"]

# Columns of tiles at which a block of 4 multipliers begins, and the rows of these blocks. 12 rows on, at the
# same columns, stand blocks of 4 block RAMs.
_COLUMNS = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
_ROWS = (10, 34, 58)
_BLOCKS = {
    "MULT18X18D": (0, {0: "MULT18_0", 1: "MULT18_1", 4: "MULT18_4", 5: "MULT18_5"}),
    "DP16KD": (12, {0: "EBR0", 2: "EBR1", 4: "EBR2", 6: "EBR3"}),
}


def place_operators(netlist: Mapping[str, Any], top: str) -> None:
    """Gives multipliers and block RAMs of the operators in the module ``top`` of ``netlist`` their places on
    an 85F: a PEA takes a strip of the chip, and each of its lanes a column and a row of it.

    What an operator has above 4 of a kind is left to the placer, and all is where the operators are too many.
    """
    cells = netlist["modules"][top]["cells"]
    operators: dict[tuple[int, int], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, cell in cells.items():
        found = re.search(r"\.pea_(\d+)\.lane_(\d+)\.operator\.", name)
        if found and cell["type"] in _BLOCKS:
            operators[int(found[1]), int(found[2])][cell["type"]].append(name)
    peas, lanes = (1 + max((key[axis] for key in operators), default=0) for axis in (0, 1))
    width = -(-lanes // len(_ROWS))
    if peas * width > len(_COLUMNS):
        return
    for (pea, lane), blocks in operators.items():
        # Columns that are over stay free in the middle.
        column = pea * width + lane % width
        column += (len(_COLUMNS) - peas * width) * (2 * pea >= peas)
        for cell_type, names in blocks.items():
            rows_on, places = _BLOCKS[cell_type]
            for name, (columns_on, place) in zip(sorted(names), places.items(), strict=False):
                x, y = _COLUMNS[column] + columns_on, _ROWS[lane // width] + rows_on
                cells[name]["attributes"]["BEL"] = f"X{x}/Y{y}/{place}"
