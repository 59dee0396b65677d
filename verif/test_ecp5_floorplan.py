"""Operators get places on an ECP5-85F: each cell its own, those of an operator close to each other."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest

from sliceforge.gen.ecp5_floorplan import place_operators


def netlist(peas: int, lanes: int, each: int = 4) -> dict[str, Any]:
    names = [f"soc.core.array.pea_{p}.lane_{lane}.operator." for p in range(peas) for lane in range(lanes)]
    cells = {
        f"{name}{cell_type}_{number}": {"type": cell_type, "attributes": {}}
        for name in names
        for cell_type in ("MULT18X18D", "DP16KD", "LUT4")
        for number in range(each)
    }
    others = {f"soc.other_{number}": {"type": "MULT18X18D", "attributes": {}} for number in range(8)}
    return {"modules": {"top": {"cells": cells | others}}}


def places(design: dict[str, Any]) -> dict[str, str]:
    cells = design["modules"]["top"]["cells"]
    return {name: c["attributes"]["BEL"] for name, c in cells.items() if "BEL" in c["attributes"]}


@pytest.mark.parametrize(("peas", "lanes"), [(4, 8), (1, 1), (2, 2), (13, 3), (3, 12)])
def test_each_cell_of_an_operator_has_its_own_place(peas: int, lanes: int) -> None:
    design = netlist(peas, lanes)
    place_operators(design, "top")
    found = places(design)
    assert len(found) == len(set(found.values())) == 8 * peas * lanes
    operators, strips = defaultdict(list), defaultdict(set)
    for name, place in found.items():
        x, y, cell = re.fullmatch(r"X(\d+)/Y(\d+)/(MULT18_[0145]|EBR[0-3])", place).groups()  # type: ignore[union-attr]
        assert ("MULT" in cell) == ("MULT18X18D" in name)
        assert int(y) in ((10, 34, 58) if "MULT" in cell else (22, 46, 70)) and 4 <= int(x) <= 120
        operators[name.rsplit(".", 1)[0]].append((int(x), int(y)))
        strips[re.search(r"pea_(\d+)", name)[1]].add(int(x))  # type: ignore[index]
    for cells in operators.values():
        (x, y), (last_x, _) = min(cells), max(cells)
        assert last_x - x <= 6 and {row for _, row in cells} == {y, y + 12}
    taken = sorted((min(columns), max(columns)) for columns in strips.values())
    assert all(first[1] < second[0] for first, second in pairwise(taken))


@pytest.mark.parametrize(("peas", "lanes"), [(14, 1), (5, 8), (1, 40)])
def test_too_many_operators_are_left_to_the_placer(peas: int, lanes: int) -> None:
    design = netlist(peas, lanes)
    place_operators(design, "top")
    assert places(design) == {}


def test_what_does_not_fit_a_block_is_left_to_the_placer() -> None:
    design = netlist(1, 2, each=5)
    place_operators(design, "top")
    assert len(places(design)) == 2 * 8
