"""The command ``sliceforge feed-forward``: a block of a real network on the RTL, layer after layer."""

from __future__ import annotations

from pathlib import Path

import click

from sliceforge.gen.cli_parts import (
    config_option,
    print_rows,
    progress_bar,
    report_options,
    set_option,
    write_results,
)
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.files import check_outputs

__all__ = ["feed_forward"]


@click.command("feed-forward")
@config_option
@set_option
@click.option("--layer", type=int, default=3, show_default=True, help="MiniLM's encoder layer, 0 to 5.")
@click.option("--tokens", type=int, default=128, show_default=True, help="Of the text that is shipped.")
@click.option("--function", default="gelu", show_default=True, help="gelu, silu, relu or identity.")
@click.option("--lo-bits", type=int, default=4, show_default=True, help="l of both layers: 4, 5 or 6.")
@click.option("--dataflow", default="os", show_default=True, metavar="os|ws|is|auto", help="Loop order.")
@click.option("--psum-group", type=int, metavar="G", help="APSQ group size; exponents are calibrated.")
@click.option(
    "--psum-chunk",
    type=int,
    metavar="KC",
    help="Positions along K after which partial sums leave the array.  [default: K, with --psum-group "
    "tile_m]",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="Y.npy", help="Write Y, int64 (384, N).")
@report_options
def feed_forward(
    source: str,
    settings: tuple[str, ...],
    layer: int,
    tokens: int,
    function: str,
    lo_bits: int,
    dataflow: str,
    psum_group: int | None,
    psum_chunk: int | None,
    output: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Two layers of MiniLM and the function between them on the RTL, from one descriptor list.

    The first layer's results are requantized, mapped and stored as the second one's input by the machine.
    Each layer is compared with the golden model on every element; a mismatch is exit status 1.

    \b
    Example:
      sliceforge feed-forward --config tiny --tokens 16 --dataflow auto --psum-group 2
    """
    config = AcceleratorConfig.load(source, settings)
    named = {"output": output, "report": report}
    outputs = {name: path for name, path in named.items() if path is not None}
    check_outputs(outputs, {})
    from sliceforge.sim import checks
    from sliceforge.sim.chain import feed_forward as block
    from sliceforge.sim.chain_rtl import chain_rtl, with_apsq
    from sliceforge.sim.plans import named_dataflow

    # Before the network is loaded, which takes seconds.
    bits = checks.lo_bits(lo_bits)
    checks.integer("layer", layer, 0, 5)
    named_dataflow(dataflow)
    if psum_group is not None:
        checks.integer("psum_group", psum_group, 1, 4)
    if psum_chunk is not None:
        checks.integer("psum_chunk", psum_chunk, 1)
    layers, activations = block(layer, tokens=tokens, lo_bits=(bits, bits), function=function)
    if psum_group is not None:
        layers = with_apsq(layers, activations, group=psum_group, chunk=psum_chunk or config.tile_m)
    with progress_bar(f"rtl on {config.name}") as progress:
        run = chain_rtl(
            layers, activations, config=config, dataflow=dataflow, chunk=psum_chunk, progress=progress
        )
    text = write_results(outputs, run.outputs[-1], run.report)
    if as_json:
        print(text)
        return
    facts = run.report
    print_rows(
        {
            "config": config.name,
            "layers": ", ".join("M {} x K {} x N {}".format(*shape) for shape in facts["shapes"]),
            "function between them": function,
            "dataflow": ", ".join(facts["dataflows"]),
            "partial sums": "32 bits" if psum_group is None else f"INT8, groups of {psum_group}",
            "golden model": "equal on every element",
            "cycle bound": f"{facts['cycle_bound']:,}",
            "total cycles": f"{facts['total_cycles']:,}",
            "utilization total": f"{facts['utilization_total']:.1%}",
            "dram bytes read": f"{facts['dram_bytes_read']:,}",
            "dram bytes written": f"{facts['dram_bytes_written']:,}",
        }
    )
