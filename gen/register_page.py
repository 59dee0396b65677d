"""docs/registers.md: register map, descriptor and error codes on one page, for people."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.errors import ERROR_TEXTS
from sliceforge.gen.registers import COUNTERS, DESCRIPTOR, Access, Field, Register, register_map
from sliceforge.gen.system_rdl import MAP_TEXT, RUN_STEPS, descriptor_text

__all__ = ["error_table", "register_page"]

_ACCESS = {
    Access.STATUS: "reads what the hardware sets, or a constant",
    Access.CONTROL: "reads what was written",
    Access.PULSE: "writing 1 acts once; reads 0",
    Access.STICKY: "set by the hardware, until 1 is written",
}
_WIDE_ONLY = "QUEUE_ADDRESS_HIGH"
_LARGE = 1 << 16  # numbers from here on are in hexadecimal


def register_page() -> str:
    """The page, in Markdown, with the constants of preset panacea."""
    config = AcceleratorConfig.preset("panacea")
    registers = register_map(config)
    wide = [r for r in register_map(dataclasses.replace(config, address_bits=64)) if r.name == _WIDE_ONLY]
    constants = [r for r in registers if all(field.access is Access.CONSTANT for field in r.fields)]
    low = [r for r in registers if r.name in COUNTERS]
    high = {r.name.removesuffix("_HIGH"): r for r in registers if r.name.removesuffix("_HIGH") in COUNTERS}
    others = [r for r in registers if r not in constants and r not in low and r not in high.values()]
    bits = low[0].fields[0].width + high[low[0].name].fields[0].width
    parts = [
        "# Registers, layer descriptor and error codes",
        "<!-- Made by `make docs` from gen/registers.py and gen/errors.py: to be changed there. -->",
        _prose(
            f"These are the registers of preset `{config.name}`. Other configurations differ in the "
            f"constants only; `{_WIDE_ONLY}`, at {wide[0].offset:#x}, is there if addresses have more than "
            "32 bits. `sliceforge generate` writes all of this for its configuration as a C header, "
            "`<name>.h`, as SystemRDL, `<name>.rdl`, in the manifest, and as documentation by PeakRDL: "
            "`<name>_registers.md` and, with `--html`, `<name>_registers/index.html`."
        ),
        _prose(MAP_TEXT),
        _table(
            ("access", "what software sees"), ((access.software, text) for access, text in _ACCESS.items())
        ),
        "## A run",
        "\n".join(_prose(f"{i}. {step}", "   ") for i, step in enumerate(RUN_STEPS, 1)),
        "## Identity and configuration",
        _words(constants, ("offset", "register", "bits", "access", "value", "meaning")),
        "## Control and status",
        _words(others, ("offset", "register", "bits", "access", "reset", "meaning")),
        "## Performance counters",
        _prose(
            f"Each has {bits} bits in two registers of access ro: the low word at the offset below, and the "
            "rest, `<counter>_HIGH`, in the next word. START clears them."
        ),
        _table(
            ("offset", "counter", "meaning"),
            ((f"{r.offset:#05x}", f"`{r.name}`", COUNTERS[r.name]) for r in low),
        ),
        "## Layer descriptor",
        _prose(descriptor_text(config)),
        _words(DESCRIPTOR, ("offset", "word", "bits", "meaning")),
        "## Error codes",
        "What `STATUS.ERROR_CODE` reads after a layer failed: the first error that was seen.",
        error_table(),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def error_table() -> str:
    """The error codes as a Markdown table."""
    rows = ((str(code.value), f"`{code.name}`", text) for code, text in ERROR_TEXTS.items())
    return _table(("code", "name", "meaning"), rows)


def _prose(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _words(words: Iterable[Register], columns: tuple[str, ...]) -> str:
    """A row for a word, and for each of its fields if it has several."""
    rows = []
    for word in words:
        cells = {"offset": f"{word.offset:#05x}", columns[1]: f"`{word.name}`", "meaning": word.text}
        if len(word.fields) == 1:
            rows.append(_field(word.fields[0]) | cells)
        else:
            rows.append(cells)
            rows += [_field(field) | {columns[1]: f"`.{field.name}`"} for field in word.fields]
    return _table(columns, ([row.get(column, "") for column in columns] for row in rows))


def _field(field: Field) -> dict[str, str]:
    reset = f"{field.reset:#x}" if field.reset >= _LARGE else str(field.reset)
    top = field.lsb + field.width - 1
    return {
        "bits": str(top) if field.width == 1 else f"{top}..{field.lsb}",
        "access": field.access.software,
        "reset": reset,
        "value": reset,
        "meaning": field.text,
    }


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = tuple(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|\n" for line in lines)
