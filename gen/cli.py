"""The command line: ``sliceforge`` and its commands.

An error is one line on standard error and exit status 2; no output is written or altered then.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from sliceforge.gen.cli_calibrate import calibrate
from sliceforge.gen.cli_feed_forward import feed_forward
from sliceforge.gen.cli_fpga import fpga
from sliceforge.gen.cli_parts import (
    config_option,
    json_option,
    operand_options,
    print_rows,
    progress_bar,
    report_options,
    set_option,
    write_results,
)
from sliceforge.gen.cli_simulate_board import simulate_board
from sliceforge.gen.cli_synth import synth
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.files import check_folder, check_outputs, load_array, naming, write_all

__all__ = ["cli", "main", "print_report"]


def main() -> None:
    """Console script: runs a command, turns every error of input into one line and status 2."""
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except (ValueError, TypeError) as error:
        _fail(str(error), 2)
    except RuntimeError as error:
        _fail(str(error), 1)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> None:
    print(f"sliceforge: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(package_name="sliceforge")
def cli() -> None:
    """Generates quantized bit-slice GEMM accelerators, and runs GEMMs on them, in simulation or on a board.

    \b
    Example:
      sliceforge generate --config tiny --out build/tiny
    """


@cli.command()
@json_option
def configs(as_json: bool) -> None:
    """The presets and their main figures.

    \b
    Example:
      sliceforge configs
    """
    presets = [AcceleratorConfig.preset(name) for name in AcceleratorConfig.presets()]
    rows: dict[str, Callable[[AcceleratorConfig], Any]] = {
        "PEAs x lanes": lambda c: f"{c.pea_count} x {c.lanes}",
        "operators": lambda c: c.operators,
        "vector length": lambda c: c.vector,
        "multipliers 4b x 4b": lambda c: c.multipliers,
        "output tile": lambda c: f"{c.tile_m} x {c.tile_n}",
        "k-tile": lambda c: c.tile_k,
        "weight bits, up to": lambda c: c.max_weight_bits,
        "largest K": lambda c: c.max_k,
        "accumulator bits": lambda c: c.accumulator_bits,
        "WMEM / AMEM / OMEM KiB": lambda c: f"{c.wmem_kib} / {c.amem_kib} / {c.omem_kib}",
        "stream width bits": lambda c: c.bus_bits,
    }
    if as_json:
        from sliceforge.gen.manifest import derived_values

        print(json.dumps({c.name: {**c.parameters(), **derived_values(c)} for c in presets}, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for config in presets:
        table.add_column(config.name, justify="right")
    for title, figure in rows.items():
        table.add_row(title, *(str(figure(config)) for config in presets))
    Console().print(table)


@cli.command()
@config_option
@set_option
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Made if needed.")
@click.option(
    "--clock-mhz",
    type=float,
    default=100,
    show_default=True,
    metavar="MHZ",
    help="Clock of the timing constraints, 1 to 2000.",
)
@click.option("--html", is_flag=True, help="Also DIR/<name>_registers/: the registers as HTML pages (8 MB).")
def generate(source: str, settings: tuple[str, ...], out: Path, clock_mhz: float, html: bool) -> None:
    """An accelerator, and what its drivers need.

    \b
    DIR/<name>.v             Verilog, top module sliceforge_<name>
    DIR/<name>.json          manifest: parameters, derived values, ports, registers, tools
    DIR/<name>.rdl           register map and layer descriptor in SystemRDL
    DIR/<name>.h             C header of them
    DIR/<name>_registers.md  their documentation
    DIR/<name>.sdc, .xdc     timing constraints
    DIR/<name>.core          FuseSoC core file: lint, synthesis by Yosys or Vivado
    DIR/<name>.f, .vlt       filelist; waivers for Verilator's lint
    DIR/component.xml        IP-XACT: DIR in Vivado's IP catalog

    The same input gives the same bytes.

    \b
    Examples:
      sliceforge generate --config panacea --out build/panacea
      sliceforge generate --config tiny --set weight_slices=3 --set name=tiny3 --out build/tiny3
    """
    config = AcceleratorConfig.load(source, settings)
    check_folder(out, [])
    from sliceforge.gen.constraints import constraints
    from sliceforge.gen.manifest import manifest
    from sliceforge.gen.register_files import register_files
    from sliceforge.gen.source_lists import source_lists
    from sliceforge.gen.verilog import generate_verilog

    beside = {**constraints(config, clock_mhz), **source_lists(config), **register_files(config, html)}
    check_folder(out, [f"{config.name}.v", f"{config.name}.json", *beside])
    with Console(stderr=True).status(f"generating {config.module}"):
        verilog = generate_verilog(config)
        about_hardware = {
            f"{config.name}.v": verilog.encode(),
            f"{config.name}.json": manifest(config, verilog).encode(),
        }
    contents = {out / name: data for name, data in {**about_hardware, **beside}.items()}
    with naming("out", out, "made"):
        for folder in {path.parent for path in contents}:
            folder.mkdir(parents=True, exist_ok=True)
    write_all(contents)
    for path, data in contents.items():
        if path.parent == out:
            print(f"{path}  {len(data):,} bytes")
    pages = {path: len(data) for path, data in contents.items() if path.parent != out}
    if pages:
        index = out / f"{config.name}_registers" / "index.html"
        print(f"{index}  {sum(pages.values()):,} bytes in {len(pages)} files")


@cli.command()
@config_option
@set_option
@operand_options
@click.option("--bias", metavar="B.npy", help="Integers (M,) of 32 bits.")
@click.option(
    "--engine",
    default="golden",
    show_default=True,
    help="golden (numpy), rtl (the Verilog) or uart://DEVICE[?baud=BAUD] (a board).",
)
@click.option("--psum-group", type=int, metavar="G", help="APSQ group size; partial sums in INT8.")
@click.option(
    "--psum-chunk",
    type=int,
    metavar="KC",
    help="Positions along K a step, after which partial sums leave the array.  [default: tile_k, without "
    "--psum-group K]",
)
@click.option("--psum-exponents", metavar="E", help="One integer, p of them (a,b,c), or a .npy file.")
@click.option(
    "--dataflow",
    default="os",
    show_default=True,
    metavar="os|ws|is|auto",
    help="Engines rtl and uart: output, weight or input stationary; auto: the least estimated traffic.",
)
@click.option(
    "--memory-latency", type=int, metavar="CYCLES", help="Engine rtl: of the memory.  [default: 100]"
)
@click.option(
    "--memory-bandwidth",
    type=float,
    metavar="BEATS",
    help="Engine rtl: beats a cycle in each direction, above 0 and up to 1.  [default: 1]",
)
@click.option(
    "--trace", type=click.Path(path_type=Path), metavar="T.fst", help="Engine rtl: write a waveform."
)
@click.option(
    "--trace-from", type=int, metavar="CYCLE", help="First cycle of it, from the start.  [default: 0]"
)
@click.option("--trace-to", type=int, metavar="CYCLE", help="Last cycle of it.  [default: all]")
@click.option("--output", type=click.Path(path_type=Path), metavar="Y.npy", help="Write Y, int64 (M, N).")
@report_options
def gemm(
    source: str,
    settings: tuple[str, ...],
    weights: str,
    activations: str,
    zero_point: int,
    weight_bits: int,
    lo_bits: int,
    bias: str | None,
    engine: str,
    psum_group: int | None,
    psum_chunk: int | None,
    psum_exponents: str | None,
    dataflow: str,
    memory_latency: int | None,
    memory_bandwidth: float | None,
    trace: Path | None,
    trace_from: int | None,
    trace_to: int | None,
    output: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """One GEMM: Y = W @ (x_hat - Z) + B, exact; the RTL is compared with golden on every element.

    The frequent slice is Z >> lo_bits. A mismatch is exit status 1.

    \b
    Examples:
      sliceforge gemm --config tiny --weights W.npy --activations X.npy --zero-point 128 \\
          --engine rtl --output Y.npy --report R.json
      sliceforge gemm --config edge --weights W.npy --activations X.npy --zero-point 128 \\
          --engine uart:///dev/ttyUSB0
    """
    config = AcceleratorConfig.load(source, settings)
    named = {"output": output, "report": report, "trace": trace}
    outputs = {name: path for name, path in named.items() if path is not None}
    inputs = {"weights": weights, "activations": activations, **({"bias": bias} if bias else {})}
    if psum_exponents is not None and psum_exponents.endswith(".npy"):
        inputs["psum_exponents"] = psum_exponents
    check_outputs(outputs, inputs)
    from sliceforge.sim.gemm import gemm as run_gemm

    with progress_bar(f"{engine} on {config.name}") as progress:
        result = run_gemm(
            load_array("weights", weights),
            load_array("activations", activations),
            config=config,
            zero_point=zero_point,
            weight_bits=weight_bits,
            lo_bits=lo_bits,
            bias=None if bias is None else load_array("bias", bias),
            engine=engine,
            psum_group=psum_group,
            psum_chunk=psum_chunk,
            psum_exponents=None if psum_exponents is None else _exponents(psum_exponents),
            dataflow=dataflow,
            memory_latency=memory_latency,
            memory_bandwidth=memory_bandwidth,
            trace=trace,
            trace_from=trace_from,
            trace_to=trace_to,
            progress=progress,
        )
    text = write_results(outputs, result.output, result.report)
    if as_json:
        print(text)
    else:
        print_report(result.report)


cli.add_command(calibrate)
cli.add_command(feed_forward)
cli.add_command(fpga)
cli.add_command(simulate_board)
cli.add_command(synth)


def print_report(report: dict[str, Any]) -> None:
    """The report as a table; shares in per cent."""
    rows = {}
    for key, value in report.items():
        if key == "accesses" and value is not None:
            for tensor, moved in value.items():
                name = tensor.replace("_", " ")
                rows[f"{name}, bytes on chip + DRAM"] = "{chip_bytes:,} + {dram_bytes:,}".format(**moved)
        if key == "dataflow_estimates" and value is not None:
            best = ", ".join(f"{name} {size:,}" for name, size in value.items())
            rows["estimated DRAM bytes, least taken"] = best
        if value is None or isinstance(value, dict):
            continue
        if key == "shape":
            text = "M {} x K {} x N {}".format(*value)
        elif key == "dram_bytes_least":
            text = "{:,} + {:,}".format(*value)
        elif isinstance(value, float):
            text = f"{value:.3f}" if key.startswith("speedup") else f"{value:.1%}"
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        rows[key.replace("_", " ")] = text
    print_rows(rows)


def _exponents(text: str) -> npt.NDArray[Any] | int:
    if text.endswith(".npy"):
        return load_array("psum_exponents", text)
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"psum_exponents must be integers such as 7 or 7,5,6, not {text!r}") from None
    return values[0] if len(values) == 1 else np.array(values)
