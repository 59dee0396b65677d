"""The command ``sliceforge synth``: area by block after synthesis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sliceforge.gen.cli_parts import config_option, json_option, print_table, set_option
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.files import check_folder, naming, write_all
from sliceforge.gen.synthesis import TARGETS

__all__ = ["synth"]

LEAST_SHARE = 0.005
"""Blocks with less of the whole than this are not in the table."""


@click.command()
@config_option
@set_option
@click.option("--target", required=True, metavar="|".join(TARGETS), help="What it is made of.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write DIR/<name>_<target>.json.")
@json_option
def synth(source: str, settings: tuple[str, ...], target: str, out: Path | None, as_json: bool) -> None:
    """Area by block after synthesis with Yosys, the longest path, and what features cost.

    Each distinct block is synthesized once and by itself, and kept for the next run. A block's row counts all
    of its instances, with the blocks in them. Its delay is that of the longest path in it without the blocks
    in it, as ABC estimates it before place and route. osu018 are standard cells; memories are counted in bits
    there.

    \b
    Example:
      sliceforge synth --config tiny --target ecp5
    """
    config = AcceleratorConfig.load(source, settings)
    from sliceforge.sim.area import area_report, leading_figure

    name = f"{config.name}_{target}.json"
    if out is not None and target in TARGETS:
        check_folder(out, [name])
    with Console(stderr=True).status(f"synthesizing {config.module} for {target}"):
        report = area_report(config, target)
    text = json.dumps(report, indent=2)
    if out is not None:
        with naming("out", out, "made"):
            out.mkdir(parents=True, exist_ok=True)
        write_all({out / name: f"{text}\n".encode()})
    if as_json:
        print(text)
        return
    _print_blocks(report, leading_figure(target))
    print(
        f"\nlongest path: {report['levels']} cells; in one block up to {report['delay_ps'] / 1000:.2f} ns "
        "(estimate)\n"
    )
    _print_features(report)


def _print_blocks(report: dict[str, Any], leading: str) -> None:
    rows = report["blocks"]
    least = LEAST_SHARE * rows[0][leading]
    figures = [key for key in rows[0] if key not in ("block", "instances", "delay_ps")]
    lines = [
        (
            row["block"],
            *(f"{row[key]:,.0f}" for key in ("instances", *figures)),
            "" if row["delay_ps"] is None else f"{row['delay_ps'] / 1000:.2f}",
        )
        for row in rows
        if row[leading] >= least
    ]
    print_table(["block", "instances", *map(_title, figures), "own ns"], lines)


def _print_features(report: dict[str, Any]) -> None:
    """Per cent of the whole."""
    shares = {name: feature["percent"] for name, feature in report["features"].items()}
    figures = next(iter(shares.values()))
    lines = [(name, *(f"{share[key]:.2f}" for key in figures)) for name, share in shares.items()]
    print_table(["per cent of the whole", *map(_title, figures)], lines)


def _title(figure: str) -> str:
    return figure.replace("_", " ").replace("um2", "um^2")
