"""Lists of an accelerator's sources for tools that read them: a filelist, and a core file for FuseSoC."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files

from sliceforge.gen.config import AcceleratorConfig

__all__ = ["source_lists"]

# The constraints are for the accelerator as the top, so target default, which other cores get, has none.
_CORE = """\
CAPI=2:

name: sliceforge:ip:{module}:{version}
description: Quantized GEMM accelerator, configuration {name}

filesets:
  rtl:
    files: [{name}.v]
    file_type: verilogSource-2005
  waivers:
    files: [{name}.vlt]
    file_type: vlt
  sdc:
    files: [{name}.sdc]
    file_type: SDC
  xdc:
    files: [{name}.xdc]
    file_type: xdc

targets:
  default:
    filesets: [rtl]

  lint:
    description: Verilator with all warnings
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
    filesets: [rtl, waivers]
    toplevel: {module}

  synth:
    description: Yosys, for ECP5 unless --arch names another
    flow: generic
    flow_options:
      tool: yosys
      arch: ecp5
      output_format: json
    filesets: [rtl, sdc]
    toplevel: {module}

  vivado:
    description: Vivado's synthesis, for the largest Artix-7 unless --part names another
    flow: vivado
    flow_options:
      part: xc7a200tfbg676-1
      pnr: none
    filesets: [rtl, xdc]
    toplevel: {module}
"""


def source_lists(config: AcceleratorConfig) -> dict[str, bytes]:
    """Contents of ``<name>.f`` (a filelist, for -F), ``<name>.core`` (FuseSoC, CAPI2) and ``<name>.vlt``
    (Verilator's waivers). Names of files in them are relative to the folder that they are in."""
    core = _CORE.format(name=config.name, module=config.module, version=version("sliceforge"))
    return {
        f"{config.name}.f": f"{config.name}.v\n".encode(),
        f"{config.name}.core": core.encode(),
        f"{config.name}.vlt": files("sliceforge.gen").joinpath("verilator.vlt").read_bytes(),
    }
