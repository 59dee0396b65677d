"""The command ``sliceforge calibrate``: exponents of the stored partial sums."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from sliceforge.gen.cli_parts import (
    config_option,
    operand_options,
    print_rows,
    report_options,
    set_option,
    write_results,
)
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.files import check_outputs, load_array

__all__ = ["calibrate"]


@click.command()
@config_option
@set_option
@operand_options
@click.option("--psum-group", required=True, type=int, metavar="G", help="APSQ group size.")
@click.option("--psum-chunk", type=int, metavar="KC", help="Positions along K a step.  [default: tile_k]")
@click.option("--per", default="layer", show_default=True, help="layer (one exponent) or step (p of them).")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="E.npy",
    help="Write them, int64 (p,).",
)
@report_options
def calibrate(
    source: str,
    settings: tuple[str, ...],
    weights: str,
    activations: str,
    zero_point: int,
    weight_bits: int,
    lo_bits: int,
    psum_group: int,
    psum_chunk: int | None,
    per: str,
    output: Path,
    report: Path | None,
    as_json: bool,
) -> None:
    """Exponents of APSQ for a layer, from operands as they occur in it: the least mean squared error.

    For gemm --psum-exponents E.npy, with the same group and chunk. The figures are those of the result
    on these operands, without bias.

    \b
    Example:
      sliceforge calibrate --config tiny --weights W.npy --activations X.npy --zero-point 128 \\
          --psum-group 2 --per step --output E.npy
    """
    config = AcceleratorConfig.load(source, settings)
    outputs = {"output": output, **({"report": report} if report else {})}
    check_outputs(outputs, {"weights": weights, "activations": activations})
    from sliceforge.sim import checks
    from sliceforge.sim.apsq import psum_tiles
    from sliceforge.sim.calibrate import psum_quality, tile_exponents

    bits = checks.weight_bits(weight_bits, config)
    chunk = checks.integer("psum_chunk", config.tile_k if psum_chunk is None else psum_chunk, 1)
    w, x = load_array("weights", weights), load_array("activations", activations)
    tiles = psum_tiles(w, x, zero_point, bits, lo_bits, chunk)
    exponents = tile_exponents(tiles, psum_group, per)
    # What a GEMM adds to its partial sums (arithmetic.md section 8), for the errors relative to its result.
    folded = (((zero_point >> lo_bits) << lo_bits) - zero_point) * w.sum(axis=1, dtype=np.int64)
    quality = psum_quality(tiles, exponents, psum_group, folded[:, None])
    facts = {
        "config": config.name,
        "shape": [*w.shape, x.shape[1]],
        "weight_bits": bits,
        "lo_bits": lo_bits,
        "zero_point": zero_point,
        "psum_group": psum_group,
        "psum_chunk": chunk,
        "psum_exponents": exponents,
        "per": per,
        **asdict(quality),
    }
    text = write_results(outputs, np.array(exponents, np.int64), facts)
    if as_json:
        print(text)
        return
    error, ratio = quality.relative_error, quality.snr_db
    print_rows(
        {
            "config": config.name,
            "shape": f"M {w.shape[0]} x K {w.shape[1]} x N {x.shape[1]}",
            "steps": f"{len(exponents)} of {chunk}",
            "group": str(psum_group),
            "exponents": ", ".join(map(str, exponents[:1] if per == "layer" else exponents)),
            "relative error": "-" if error is None else f"{error:.3%}",
            "signal to noise": "-" if ratio is None else f"{ratio:.1f} dB",
            "stored values clipped": f"{quality.clipped_share:.3%}",
        }
    )
