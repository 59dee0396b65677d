"""How fast the accelerator's cocotb bench simulates: one layer of preset tiny, for `make bench`.

Leaves "cycles seconds" of the run in the file where a bench leaves its coverage.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb

from sliceforge.gen import AcceleratorConfig
from sliceforge.verif.accelerator_layers import small_layer
from sliceforge.verif.accelerator_system import System, component
from sliceforge.verif.placement import place_layers, seeded

__all__ = ["CASE", "component"]

CASE: dict[str, Any] = asdict(AcceleratorConfig.preset("tiny"))


@cocotb.test()
async def one_layer(dut: Any) -> None:
    system = await System.start(dut, pauses=0.0)
    rng = seeded("rate")
    layer = small_layer(rng, system.config, (40, 200, 40), weight_bits=7)
    placed = place_layers(rng, [layer])
    start, first = time.perf_counter(), system.master.cycle
    await system.run(placed)
    seconds, cycles = time.perf_counter() - start, system.master.cycle - first
    Path(os.environ["SLICEFORGE_COVERAGE"]).write_text(f"{cycles} {seconds}", encoding="ascii")
