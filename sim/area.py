"""Area of an accelerator by block on a target of synthesis, its longest path, and what its features cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.synthesis import TARGETS, Target
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.blocks import (
    CellCounts,
    block_counts,
    path_levels,
    plain_names,
    synthesize,
)

__all__ = ["FEATURES", "area_report", "leading_figure", "module_areas"]

FEATURES = {
    "compensation": r"lane__kept_weight_sum|pea__compensation_subtract_\d+",
    "RLE decoders": r"\w+__rle_decoder",
    "APSQ engine": "apsq_engine|step_exponents",
}
"""What is compared with the whole: regular expressions of blocks, none of which is in another."""


def area_report(config: AcceleratorConfig, target: str) -> dict[str, Any]:
    """What ``config`` takes on ``target``: `module_areas` of its Verilog, and

    - ``features``: figures of each of FEATURES, and ``percent``: each in per cent of the whole's.
    """
    report = module_areas(generate_verilog(config), config.module, target)
    whole = next(row for row in report["blocks"] if row["block"] == "accelerator")
    features = {}
    for name, pattern in FEATURES.items():
        parts = [row for row in report["blocks"] if re.fullmatch(pattern, row["block"])]
        sums = {key: sum(row[key] for row in parts) for key in _figure_names(TARGETS[target])}
        shares = {key: 100 * size / whole[key] for key, size in sums.items() if whole[key]}
        features[name] = {**sums, "percent": shares}
    return {"config": config.name, **report, "features": features}


def module_areas(verilog: str, top: str, target: str) -> dict[str, Any]:
    """What ``verilog`` takes from module ``top`` down on ``target`` (a key of TARGETS):

    - ``blocks``: its modules, the largest first: ``instances``, the figures of all instances with the blocks
      in them, and ``delay_ps`` of the longest path in one without the blocks in it (None: no logic). Names
      are without ``top``, which itself is ``accelerator``.
    - ``levels``: cells on the longest path of the whole, carry chains cell by cell.
    - ``delay_ps``: the longest of the blocks' paths. All delays are ABC's estimates: on FPGAs with a fixed
      time for each wire, on osu018 without wires.

    Figures are numbers of cells by kind; with standard cells also ``area_um2``, and memories apart as
    ``memory_bits``. Raises ValueError for an unknown target, ToolError for a missing tool or library,
    RuntimeError as `synthesize` and `block_counts` do.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    to = TARGETS[target]
    folders = synthesize(verilog, top, to)
    areas = to.areas()
    rows = [
        {
            "block": name,
            "instances": block.instances,
            **_figures(block.all, to, areas),
            "delay_ps": block.delay,
        }
        for name, block in plain_names(block_counts(folders, top, to, CellCounts), top).items()
    ]
    leading = leading_figure(target)
    return {
        "target": target,
        "levels": path_levels(folders, top, to),
        "delay_ps": max((row["delay_ps"] for row in rows if row["delay_ps"] is not None), default=0.0),
        "blocks": sorted(rows, key=lambda row: -row[leading]),
    }


def leading_figure(target: str) -> str:
    """The figure by which sizes are compared."""
    names = _figure_names(TARGETS[target])
    return "area_um2" if "area_um2" in names else names[0]


def _figure_names(target: Target) -> list[str]:
    return [*target.kinds, *(["area_um2", "memory_bits"] if target.liberty else [])]


def _figures(counts: CellCounts, target: Target, areas: Mapping[str, float]) -> dict[str, float]:
    figures: dict[str, float] = {
        kind: sum(count for name, count in counts.types.items() if re.fullmatch(types, name))
        for kind, types in target.kinds.items()
    }
    if target.liberty:
        figures["area_um2"] = sum(areas[name] * count for name, count in counts.types.items())
        figures["memory_bits"] = counts.memory_bits
    return figures
