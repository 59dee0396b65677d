"""What the commands share: options, and the form of their output."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.files import write_all

__all__ = [
    "config_option",
    "json_option",
    "operand_options",
    "print_rows",
    "print_table",
    "progress_bar",
    "report_options",
    "set_option",
    "write_results",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_PRESETS = ", ".join(AcceleratorConfig.presets())

config_option = click.option(
    "--config",
    "source",
    required=True,
    metavar="PRESET|FILE.toml",
    help=f"A preset ({_PRESETS}) or a TOML file.",
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a field; may be repeated."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def operand_options(command: Command) -> Command:
    """The operands of a GEMM and their format."""
    options = (
        click.option("--weights", required=True, metavar="W.npy", help="Integers (M, K) of weight-bits."),
        click.option("--activations", required=True, metavar="X.npy", help="Integers (K, N), 0..255."),
        click.option(
            "--zero-point", required=True, type=int, metavar="Z", help="Of the activations, 0..255."
        ),
        click.option("--weight-bits", type=int, default=7, show_default=True, help="4, 7 or 10."),
        click.option(
            "--lo-bits", type=int, default=4, show_default=True, help="l of the activations: 4, 5 or 6."
        ),
    )
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


def report_options(command: Command) -> Command:
    """Where the report goes: a file, standard output, or a table instead of it."""
    file = click.option(
        "--report", type=click.Path(path_type=Path), metavar="R.json", help="Write the report."
    )
    return file(json_option(command))


def write_results(outputs: Mapping[str, Path], array: npt.NDArray[Any], report: Mapping[str, Any]) -> str:
    """Writes ``array`` to ``outputs["output"]`` and ``report`` to ``outputs["report"]``, if they are given.

    Returns the report as JSON.
    """
    file, text = io.BytesIO(), json.dumps(report, indent=2)
    np.save(file, array)
    data = {"output": file.getvalue(), "report": f"{text}\n".encode()}
    write_all({path: data[name] for name, path in outputs.items() if name in data})
    return text


def print_rows(rows: Mapping[str, str]) -> None:
    """A table of titles and figures."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for title, figure in rows.items():
        table.add_row(title, figure)
    Console().print(table)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], justify: JustifyMethod = "right"
) -> None:
    """A table with a header, as wide as it is: names in the first column are not cut off.

    justify: of the other columns.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify=justify)
    for row in rows:
        table.add_row(*row)
    Console(width=Console(width=1000).measure(table).maximum).print(table)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    """A progress bar on a terminal's standard error; yields the function that takes the share done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)
