"""What a C compiler finds in a generated header: every offset, mask, position, width, reset, error code."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR, register_map

# The set-up checks for c++ only.
C_COMPILER = ["cc"] if shutil.which("cc") else ["c++", "-x", "c"]
C_FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]

PROGRAM = """\
#include "{header}"
#include "{header}"
#include <stddef.h>
#include <stdio.h>

#define SHOW(name, value) printf("%s %llu\\n", name, (unsigned long long)(value))

int main(void)
{{
{statements}
    return 0;
}}
"""


def header_values(config: AcceleratorConfig, header: bytes, folder: Path) -> dict[str, int]:
    """Compiles a C99 program that includes the header twice and prints all that it defines, and runs it.

    The keys:
    IDENTITY and so on;
    CONTROL (its offset), CONTROL.START.mask, .position, .width, .reset;
    descriptor/LAYER and so on, without resets;
    struct/CONTROL, struct/descriptor/LAYER (offsets in the structures), sizeof, sizeof/descriptor;
    error/STALLED.
    """
    (folder / f"{config.name}.h").write_bytes(header)
    statements = "\n".join(
        f'    SHOW("{key}", {expression});' for key, expression in _expressions(config).items()
    )
    program = folder / "show.c"
    program.write_text(PROGRAM.format(header=f"{config.name}.h", statements=statements))
    subprocess.run([*C_COMPILER, *C_FLAGS, "-o", folder / "show", program], check=True)
    shown = subprocess.run([folder / "show"], check=True, capture_output=True, text=True).stdout
    return {key: int(value) for key, value in (line.split(" ") for line in shown.splitlines())}


def macros(config: AcceleratorConfig) -> set[str]:
    """Names of all macros that a header has to define."""
    prefix = config.module.upper()
    names = {name for name in _expressions(config).values() if name.startswith(f"{prefix}_")}
    return {name for name in names if not name.startswith(f"{prefix}_ERROR_")}


def _expressions(config: AcceleratorConfig) -> dict[str, str]:
    module, prefix = config.module, config.module.upper()
    constants = ("IDENTITY", "REGISTER_SPACE", "DESCRIPTOR_BYTES", "DESCRIPTOR_FORMAT", "LOAD_BEAT_BYTES")
    return {
        **{name: f"{prefix}_{name}" for name in constants},
        **dict(_words(config, "", module)),
        **dict(_words(config, "descriptor/", f"{module}_descriptor")),
        **{f"error/{code.name}": f"{prefix}_ERROR_{code.name}" for code in ErrorCode},
    }


def _words(config: AcceleratorConfig, kind: str, structure: str) -> Iterator[tuple[str, str]]:
    yield f"sizeof{kind and '/descriptor'}", f"sizeof({structure}_t)"
    for word in DESCRIPTOR if kind else register_map(config):
        macro = f"{structure.upper()}__{word.name}"
        yield f"{kind}{word.name}", f"{macro}_offset"
        yield f"struct/{kind}{word.name}", f"offsetof({structure}_t, {word.name})"
        suffixes = {"mask": "bm", "position": "bp", "width": "bw"} | ({} if kind else {"reset": "reset"})
        for field in word.fields:
            for what, suffix in suffixes.items():
                yield f"{kind}{word.name}.{field.name}.{what}", f"{macro}__{field.name}_{suffix}"
