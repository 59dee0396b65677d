"""Files about an accelerator's registers: SystemRDL, C header, IP-XACT, and documentation by PeakRDL."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

from peakrdl_html import HTMLExporter
from peakrdl_markdown import MarkdownExporter
from systemrdl.compiler import RDLCompiler
from systemrdl.node import AddrmapNode, MemNode

from sliceforge.gen.c_header import c_header
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.ip_xact import ip_xact
from sliceforge.gen.register_page import error_table
from sliceforge.gen.system_rdl import system_rdl

__all__ = ["register_files"]


def register_files(config: AcceleratorConfig, html: bool = False) -> dict[str, bytes]:
    """Contents of the files by their names relative to the output folder: ``<name>.rdl``, ``<name>.h``,
    ``component.xml``, ``<name>_registers.md`` and, with ``html``, what is below ``<name>_registers/``."""
    rdl = system_rdl(config)
    with tempfile.TemporaryDirectory(prefix="sliceforge-") as temporary:
        folder = Path(temporary)
        registers, memory, descriptor = _elaborate(config, rdl, folder)
        files = {
            f"{config.name}.rdl": rdl.encode(),
            f"{config.name}.h": c_header(config, registers, memory, folder).encode(),
            "component.xml": ip_xact(config, registers, folder),
            f"{config.name}_registers.md": _markdown(config, registers, descriptor, folder).encode(),
        }
        if html:
            pages = _html(config, rdl, registers, memory, folder / "html")
            files |= {f"{config.name}_registers/{name}": content for name, content in pages.items()}
    return files


def _elaborate(config: AcceleratorConfig, rdl: str, folder: Path) -> tuple[AddrmapNode, AddrmapNode, MemNode]:
    """The register map; an address map that has the descriptor alone; and that descriptor."""
    alone = f"{config.module}_memory"
    instance = f"external {config.module}_descriptor descriptor @ 0x0;"
    sources = {"registers": rdl, "memory": f'addrmap {alone} {{ name = "Memory"; {instance} }};\n'}
    compiler = RDLCompiler()
    for name, text in sources.items():
        path = folder / f"{name}.rdl"
        path.write_text(text, encoding="utf-8")
        compiler.compile_file(str(path))
    registers, memory = (compiler.elaborate(top).top for top in (config.module, alone))
    descriptor = memory.get_child_by_name("descriptor")
    assert isinstance(descriptor, MemNode)
    return registers, memory, descriptor


def _markdown(config: AcceleratorConfig, registers: AddrmapNode, descriptor: MemNode, folder: Path) -> str:
    texts = [f"# Registers and layer descriptor of {config.module}\n"]
    for node in (registers, descriptor):
        path = folder / f"{node.inst_name}.md"
        MarkdownExporter().export(node, str(path))
        # Begins with a comment on the file as a whole.
        text = re.sub(r"\A<!--.*?-->\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        texts.append(re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n")
    texts.append(f"## Error codes\n\nValues of STATUS.ERROR_CODE.\n\n{error_table()}")
    return "\n".join(texts)


def _html(
    config: AcceleratorConfig, rdl: str, registers: AddrmapNode, memory: AddrmapNode, folder: Path
) -> dict[str, bytes]:
    # PeakRDL puts the time here, to tell browsers a new page from an old one. A hash of the content does too.
    stamp = int(hashlib.sha256(rdl.encode()).hexdigest()[:8], 16)
    exporter = HTMLExporter(user_context={"build_ts": stamp}, generate_source_links=False)
    exporter.export([registers, memory], str(folder), title=config.module)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
