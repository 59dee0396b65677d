"""Generated Verilog as a shared library: compiled by Verilator with a C++ harness, for ctypes; built once."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.verilog import generator_identity
from sliceforge.sim.toolchain import ToolError, build_identity, cached_build, verilator_env

__all__ = ["Progress", "build_library", "load_library"]

Progress = Callable[[float], None]

# Measured on panacea's core, simulated cycles a second on one processor core: 27,000 where the PEAs share
# their code (below), else 10,500; -O2 is much faster than Verilator's default, -Os. Without its DFG passes
# Verilator takes a third less time, and the simulation no more.
_FLAGS = [
    "-O3", "-fno-dfg", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
    "--output-split", "5000", "--output-split-cfuncs", "500",
    "-Wno-fatal",  # a finding of lint, which is for `make lint`, must not keep a machine from running
]  # fmt: skip
_COMPILER_FLAGS = {False: "-O2", True: "-O1"}  # traced: most of the code writes the waveform

# Verilator would flatten the design, and give each PEA code of its own: more than the processor's caches
# hold. For a module that is kept it makes functions that all instances share. Smaller ones (a lane) are no
# better: their functions refer to the signals around them, and so differ.
_SHARED_BLOCK = "pea"

# Code that writes waveforms is not shared, and panacea's lanes alone would take half an hour to compile. On
# machines with more operators than this, only the lanes of the first PEA are traced.
_TRACED_OPERATORS = 32


def build_library(
    config: AcceleratorConfig,
    kind: str,
    verilog: Callable[[], str],
    harness: tuple[str, ...],
    *,
    top: str | None = None,
    parameters: Mapping[str, int] | None = None,
    traced: bool = False,
) -> Path:
    """The library of ``verilog()``, now or in an earlier call.

    kind: name of the block; the Verilated class is ``V<kind>``. It and ``parameters`` must say all about
        ``verilog`` that ``config`` does not. top: the top module, ``config.module`` by default.
    harness: files of this package, the C++ source first. traced: with FST waveforms.
    Raises ToolError if a tool or a library of the system is missing.
    """
    texts = {name: files("sliceforge.sim").joinpath(name).read_text(encoding="utf-8") for name in harness}
    flags = [*_FLAGS, *(["--trace-fst"] if traced else [])]
    blocks = [f'no_inline -module "{config.module}_{_SHARED_BLOCK}"']
    if traced and config.operators > _TRACED_OPERATORS:
        blocks += [f'tracing_off -scope "*.pea_{p}.lane_*"' for p in range(1, config.pea_count)]
    env = verilator_env()
    make_variables = [f"OPT_FAST={_COMPILER_FLAGS[traced]}"]
    compiler_flags = "-fPIC -I.."
    if traced and "VERILATOR_ROOT" in env and (Path(env["VERILATOR_ROOT"]) / "include" / "fstcpp").is_dir():
        compression = files("sliceforge.sim").joinpath("fst_compression.h").read_text(encoding="utf-8")
        texts |= {"lz4.h": compression, "zlib.h": compression}
        # The digest is for the kept objects (objcache.sh), which know the command line, not our headers.
        compiler_flags += f" -DSLICEFORGE_FST=0x{sha256(compression.encode()).hexdigest()[:8]}"
        make_variables.append(r"LDLIBS=-shared\ -pthread")  # all of it, so without -lz and -llz4

    def build(folder: Path) -> None:
        sources = texts | {
            f"{kind}.v": verilog(),
            "blocks.vlt": "\n".join(["`verilator_config", *blocks, ""]),
        }
        for name, text in sources.items():
            (folder / name).write_text(text, encoding="utf-8")
        command = [
            "verilator", "--cc", "--exe", "--build", "-j", "2", "--prefix", f"V{kind}",
            "--top-module", top or config.module, *flags, "-CFLAGS", compiler_flags, "-LDFLAGS", "-shared",
            "-o", f"lib{kind}.so", "--Mdir", "obj", "blocks.vlt", f"{kind}.v", f"../{harness[0]}",
        ]  # fmt: skip
        here = env | {"MAKEFLAGS": " ".join([env.get("MAKEFLAGS", ""), *make_variables]).strip()}
        done = subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, check=False)
        if (
            done.returncode
            and traced
            and any(f"{name}.h: No such" in done.stderr for name in ("zlib", "lz4"))
        ):
            raise ToolError(
                "this Verilator writes waveforms with zlib and lz4: install them, on Debian with "
                "`apt install zlib1g-dev liblz4-dev`"
            )
        if done.returncode:
            raise RuntimeError(f"Verilator failed on the {kind} of {config.name}:\n{done.stderr[-4000:]}")

    # Not the Verilog itself: making it takes longer than looking the library up.
    key = [
        kind, repr(config), repr(parameters), *generator_identity(), *texts.values(), *flags, *blocks,
        compiler_flags, *make_variables, *build_identity(),
    ]  # fmt: skip
    name = f"{kind}-{config.name}{'-traced' if traced else ''}"
    return cached_build(key, build, name) / "obj" / f"lib{kind}.so"


@lru_cache(maxsize=16)
def load_library(path: Path) -> ctypes.CDLL:
    """The library, loaded once; calls into it release Python's lock."""
    return ctypes.CDLL(str(path))
