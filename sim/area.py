"""Area of an accelerator by block on a target of synthesis, its longest path, and what its features cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.synthesis import TARGETS, Target
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.blocks import (
    Block,
    CellCounts,
    block_counts,
    path_levels,
    plain_names,
    synthesize,
)

__all__ = ["FEATURES", "area_report", "leading_figure"]

FEATURES = {
    "compensation": r"lane__kept_weight_sum|pea__compensation_subtract_\d+",
    "RLE decoders": r"\w+__rle_decoder",
    "APSQ engine": "apsq_engine|step_exponents",
}
"""What is compared with the whole: regular expressions of blocks, none of which is in another."""


def area_report(config: AcceleratorConfig, target: str) -> dict[str, Any]:
    """What ``config`` takes on ``target`` (a key of TARGETS).

    - ``blocks``: each module, the whole (``accelerator``) first: its instances, figures of all of them with
      the blocks in them, and the delay in ps of the longest path in one without the blocks in it.
    - ``features``: figures of each of FEATURES, and in per cent of the whole's.
    - ``levels``: cells on the longest path of the whole, carry chains cell by cell.
    - ``delay_ps``: the longest of the blocks' paths, as ABC estimates it: on FPGAs with 0.25 to 0.3 ns for
      each wire, on osu018 without wires.

    Figures are numbers of cells by kind; with standard cells also ``area_um2``, memories apart as
    ``memory_bits``. Raises ValueError for an unknown target, ToolError for a missing tool or library.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    to = TARGETS[target]
    folders = synthesize(generate_verilog(config), config.module, to)
    counted = block_counts(folders, config.module, to, CellCounts)
    blocks = plain_names(counted, config.module)
    areas = to.areas()
    whole = _figures(blocks["accelerator"].all, to, areas)
    features = {}
    for name, pattern in FEATURES.items():
        parts = [block.all for key, block in blocks.items() if re.fullmatch(pattern, key)]
        figures = _figures(sum(parts[1:], parts[0]), to, areas)
        shares = {key: 100 * size / whole[key] for key, size in figures.items() if whole[key]}
        features[name] = {**figures, "percent": shares}
    leading = leading_figure(to)
    rows = [_row(name, block, to, areas) for name, block in blocks.items()]
    return {
        "config": config.name,
        "target": target,
        "levels": path_levels(folders, config.module, to),
        "delay_ps": max(row["delay_ps"] or 0.0 for row in rows),
        "features": features,
        "blocks": sorted(rows, key=lambda row: -row[leading]),
    }


def leading_figure(target: Target) -> str:
    """The figure by which sizes are compared."""
    return "area_um2" if target.liberty else next(iter(target.kinds))


def _row(name: str, block: Block[CellCounts], target: Target, areas: Mapping[str, float]) -> dict[str, Any]:
    figures = _figures(block.all, target, areas)
    return {"block": name, "instances": block.instances, **figures, "delay_ps": block.delay}


def _figures(counts: CellCounts, target: Target, areas: Mapping[str, float]) -> dict[str, float]:
    figures: dict[str, float] = {
        kind: sum(count for name, count in counts.types.items() if re.fullmatch(types, name))
        for kind, types in target.kinds.items()
    }
    if target.liberty:
        area = sum(areas[name] * count for name, count in counts.types.items())
        figures |= {"area_um2": area, "memory_bits": counts.memory_bits}
    return figures
