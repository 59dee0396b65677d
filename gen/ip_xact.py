"""IP-XACT description of an accelerator, which makes its folder an entry of Vivado's IP catalog.

IEEE 1685-2009, the version that Vivado reads, with Vivado's own definitions of AXI, clock, reset and
interrupt. Registers are PeakRDL's work; the rest follows from the ports.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from peakrdl_ipxact import IPXACTExporter
from peakrdl_ipxact.exporter import Standard
from systemrdl.node import AddrmapNode

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.registers import REGISTER_SPACE
from sliceforge.gen.verilog import top_ports

__all__ = ["ip_xact"]

_SPIRIT = "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"
_XILINX = "http://www.xilinx.com"
_VIEWS = {
    "xilinx_anylanguagesynthesis": ":vivado.xilinx.com:synthesis",
    "xilinx_anylanguagebehavioralsimulation": ":vivado.xilinx.com:simulation",
}
_FAMILIES = (
    "artix7", "kintex7", "spartan7", "virtex7", "zynq", "artixuplus", "kintexu", "kintexuplus", "virtexu",
    "virtexuplus", "zynquplus", "versal",
)  # fmt: skip


def ip_xact(config: AcceleratorConfig, registers: AddrmapNode, folder: Path) -> bytes:
    """The component ``sliceforge:ip:<module>`` as XML, for a file beside ``<name>.v``.

    registers: the address map of ``<name>.rdl``. folder: for PeakRDL's file.
    """
    for prefix, namespace in (("spirit", _SPIRIT), ("xilinx", _XILINX)):
        ElementTree.register_namespace(prefix, namespace)
    release = ".".join(version("sliceforge").split(".")[:2])  # of two numbers, as Vivado wants them
    path = folder / "registers.xml"
    exporter = IPXACTExporter(
        vendor="sliceforge", library="ip", version=release, standard=Standard.IEEE_1685_2009
    )
    exporter.export(registers, str(path))
    component = ElementTree.parse(path).getroot()
    memory_maps = _memory_maps(component)
    component.remove(memory_maps)  # the order of elements is fixed
    ports = top_ports(config)
    component.extend(
        [
            _bus_interfaces([port["name"] for port in ports]),
            _address_spaces(config),
            memory_maps,
            _model(config, ports),
            _file_sets(config),
        ]
    )
    _add(component, "description", "Quantized GEMM accelerator")
    component.append(_vendor_extensions(config))
    ElementTree.indent(component)
    return bytes(ElementTree.tostring(component, encoding="utf-8", xml_declaration=True)) + b"\n"


def _spirit(name: str) -> str:
    return f"{{{_SPIRIT}}}{name}"


def _add(parent: Element, path: str, text: str | None = None, **attributes: str) -> Element:
    """Elements within each other, as in "physicalPort/name"; the last one's text and attributes."""
    for name in path.split("/"):
        parent = SubElement(parent, _spirit(name))
    parent.text = text
    parent.attrib.update({_spirit(name): value for name, value in attributes.items()})
    return parent


def _child(parent: Element, name: str) -> Element:
    found = parent.find(_spirit(name))
    assert found is not None
    return found


def _memory_maps(component: Element) -> Element:
    """PeakRDL's, under the name of the bus, with the whole of its address space."""
    maps = _child(component, "memoryMaps")
    memory_map = _child(maps, "memoryMap")
    block = _child(memory_map, "addressBlock")
    _child(memory_map, "name").text = "s_axi"
    _child(block, "range").text = f"{REGISTER_SPACE:#x}"
    usage = Element(_spirit("usage"))
    usage.text = "register"
    block.insert(list(block).index(_child(block, "width")) + 1, usage)
    return maps


def _bus_interfaces(names: list[str]) -> Element:
    """names: of the ports."""
    interfaces = Element(_spirit("busInterfaces"))
    buses = {
        bus: {name.removeprefix(f"{bus}_").upper(): name for name in names if name.startswith(f"{bus}_")}
        for bus in ("s_axi", "m_axi")
    }
    for bus, mode, reference, parameters in (
        ("s_axi", "slave", "memoryMapRef", {"PROTOCOL": "AXI4LITE"}),
        ("m_axi", "master", "addressSpaceRef", {"PROTOCOL": "AXI4", "SUPPORTS_NARROW_BURST": "0"}),
    ):
        role = _interface(interfaces, bus, ("interface", "aximm"), mode, buses[bus], parameters)
        _add(role, reference, **{reference: bus})
    associated = {"ASSOCIATED_BUSIF": ":".join(buses), "ASSOCIATED_RESET": "rst"}
    _interface(interfaces, "clk", ("signal", "clock"), "slave", {"CLK": "clk"}, associated)
    active = {"POLARITY": "ACTIVE_HIGH"}
    _interface(interfaces, "rst", ("signal", "reset"), "slave", {"RST": "rst"}, active)
    level = {"SENSITIVITY": "LEVEL_HIGH"}
    _interface(interfaces, "irq", ("signal", "interrupt"), "master", {"INTERRUPT": "irq"}, level)
    return interfaces


def _interface(
    interfaces: Element,
    name: str,
    definition: tuple[str, str],
    mode: str,
    ports: dict[str, str],
    parameters: dict[str, str],
) -> Element:
    """An interface of Vivado's ``definition`` (library, name), with its ports by logical names.

    Returns the element of its mode.
    """
    library, kind = definition
    interface = _add(interfaces, "busInterface")
    _add(interface, "name", name)
    for element, suffix in (("busType", ""), ("abstractionType", "_rtl")):
        _add(interface, element, vendor="xilinx.com", library=library, name=f"{kind}{suffix}", version="1.0")
    role = _add(interface, mode)
    maps = _add(interface, "portMaps")
    for logical, physical in ports.items():
        port_map = _add(maps, "portMap")
        _add(port_map, "logicalPort/name", logical)
        _add(port_map, "physicalPort/name", physical)
    listed = _add(interface, "parameters")
    for key, value in parameters.items():
        parameter = _add(listed, "parameter")
        _add(parameter, "name", key)
        _add(parameter, "value", value, id=f"BUSIFPARAM_VALUE.{name.upper()}.{key}")
    return role


def _address_spaces(config: AcceleratorConfig) -> Element:
    spaces = Element(_spirit("addressSpaces"))
    space = _add(spaces, "addressSpace")
    _add(space, "name", "m_axi")
    _add(space, "range", f"{1 << config.address_bits:#x}")
    _add(space, "width", str(config.bus_bits))
    return spaces


def _model(config: AcceleratorConfig, ports: list[dict[str, Any]]) -> Element:
    model = Element(_spirit("model"))
    views = _add(model, "views")
    for name, environment in _VIEWS.items():
        view = _add(views, "view")
        _add(view, "name", name)
        _add(view, "envIdentifier", environment)
        _add(view, "language", "verilog")
        _add(view, "modelName", config.module)
        _add(view, "fileSetRef/localName", "rtl")
    listed = _add(model, "ports")
    for port in ports:
        element = _add(listed, "port")
        _add(element, "name", port["name"])
        wire = _add(element, "wire")
        _add(wire, "direction", port["direction"].removesuffix("put"))
        if port["width"] > 1:
            vector = _add(wire, "vector")
            _add(vector, "left", str(port["width"] - 1))
            _add(vector, "right", "0")
    return model


def _file_sets(config: AcceleratorConfig) -> Element:
    sets = Element(_spirit("fileSets"))
    file_set = _add(sets, "fileSet")
    _add(file_set, "name", "rtl")
    file = _add(file_set, "file")
    _add(file, "name", f"{config.name}.v")
    _add(file, "fileType", "verilogSource")
    return sets


def _vendor_extensions(config: AcceleratorConfig) -> Element:
    """What Vivado's catalog asks for. Nothing was run on a device of these families."""
    extensions = Element(_spirit("vendorExtensions"))
    core = SubElement(extensions, f"{{{_XILINX}}}coreExtensions")
    families = SubElement(core, f"{{{_XILINX}}}supportedFamilies")
    for name in _FAMILIES:
        family = SubElement(families, f"{{{_XILINX}}}family", {f"{{{_XILINX}}}lifeCycle": "Beta"})
        family.text = name
    taxonomies = SubElement(core, f"{{{_XILINX}}}taxonomies")
    SubElement(taxonomies, f"{{{_XILINX}}}taxonomy").text = "/UserIP"
    SubElement(core, f"{{{_XILINX}}}displayName").text = f"Quantized GEMM accelerator {config.name}"
    return extensions
