"""Runs every cocotb bench: each with each of its parameter sets, on each simulator that is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sliceforge.verif.simulation import SIMULATORS, run_bench

BENCHES = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))


def _cases() -> list[Any]:
    """Icarus is slow: it runs the first parameter set of each block, and not core, accelerator and SoC."""
    cases = []
    for bench in BENCHES:
        module = import_module(f"sliceforge.verif.{bench}")
        for number, parameters in enumerate(module.CASES):
            for simulator in SIMULATORS:
                if simulator == "verilator" or (
                    number == 0 and bench not in ("bench_core", "bench_accelerator", "bench_soc")
                ):
                    name = f"{bench.removeprefix('bench_')}-{number}-{simulator}"
                    cases.append(pytest.param(bench, parameters, simulator, id=name))
    return cases


@pytest.mark.parametrize(("bench", "parameters", "simulator"), _cases())
def test_bench(
    bench: str,
    parameters: dict[str, Any],
    simulator: str,
    tmp_path: Path,
    record_property: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if request.config.getoption("--run-long"):
        monkeypatch.setenv("SLICEFORGE_LONG", "1")  # the accelerator's bench does more of everything
    component = import_module(f"sliceforge.verif.{bench}").component(parameters)
    coverage = run_bench(bench, component, parameters, tmp_path, simulator=simulator)
    if parameters.get("coverage"):
        record_property("coverage", coverage)  # conftest.py prints it at the end of the run


def test_every_block_has_a_bench() -> None:
    """verif/ mirrors hw/ file by file; what is no block of its own is tested in its parents."""
    blocks = {path.stem for path in (Path(__file__).parent.parent / "hw").glob("[a-z]*.py")}
    without = {
        "array", "axi", "board_clock", "board_sdram", "board_top", "hierarchy", "payloads", "sdram_start",
        "sdram_words", "slice_product",
    }  # fmt: skip
    assert {f"bench_{block}" for block in blocks - without} == set(BENCHES)
