"""Register map and descriptor: sound by themselves, and the same in SystemRDL, C and the documentation."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from systemrdl import RDLCompiler, warnings
from systemrdl.node import AddrmapNode, FieldNode, MemNode, RegNode
from systemrdl.rdltypes import AccessType, OnWriteType

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.errors import ERROR_TEXTS, ErrorCode
from sliceforge.gen.register_files import register_files
from sliceforge.gen.register_page import register_page
from sliceforge.gen.registers import (
    COUNTERS,
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    DESCRIPTOR_FORMAT,
    IDENTITY,
    REGISTER_SPACE,
    Access,
    Register,
    register_map,
)
from sliceforge.verif.header_values import C_COMPILER, C_FLAGS, header_values, macros

ROOT = Path(__file__).resolve().parent.parent
LARGEST = {
    "pea_count": 64, "lanes": 64, "vector": 8, "run_bits": 8, "tile_k": 128, "fifo_depth": 64,
    "wmem_kib": 65536, "amem_kib": 65536, "omem_kib": 10240, "bus_bits": 512, "address_bits": 64,
    "load_buffer": 512, "weight_slices": 1, "max_k": 1 << 20,
}  # fmt: skip
CONFIGS = [
    *(AcceleratorConfig.preset(name) for name in AcceleratorConfig.presets()),
    AcceleratorConfig.preset("tiny", name="wide33", address_bits=33),
    AcceleratorConfig.preset("tiny", name="narrow", bus_bits=32, weight_slices=3),
    AcceleratorConfig(name="largest", **LARGEST),
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)


def check_words(words: tuple[Register, ...], size: int) -> None:
    """Words of 32 bits that lie side by side, with fields that do."""
    offsets = [word.offset for word in words]
    assert offsets == sorted(set(offsets))
    assert all(offset % 4 == 0 and 0 <= offset <= size - 4 for offset in offsets)
    assert len({word.name for word in words}) == len(words)
    for word in words:
        assert re.fullmatch(r"[A-Z][A-Z0-9_]*", word.name)
        assert word.fields
        taken = 0
        for field in word.fields:
            assert re.fullmatch(r"[A-Z][A-Z0-9_]*", field.name)
            assert field.width >= 1 and field.lsb >= 0 and field.lsb + field.width <= 32
            assert field.mask == sum(1 << (field.lsb + i) for i in range(field.width))
            assert not taken & field.mask
            taken |= field.mask
            assert 0 <= field.reset < 1 << field.width
        assert len({field.name for field in word.fields}) == len(word.fields)
        # One line of plain text each, which needs no escapes in a Markdown table or in a comment in C.
        for text in (word.text, *(field.text for field in word.fields)):
            assert re.fullmatch(r"[ -~]+\.", text)
            assert not re.search(r"\*|\||<|&|\\|//|`|\[/?(\w|\*)+\]", text.replace("Y[0, 0]", ""))


class TestMap:
    @each_config
    def test_registers_and_fields_lie_side_by_side(self, config: AcceleratorConfig) -> None:
        check_words(register_map(config), REGISTER_SPACE)

    def test_so_do_the_descriptors(self) -> None:
        check_words(DESCRIPTOR, DESCRIPTOR_BYTES)
        assert DESCRIPTOR_BYTES % 4 == 0
        assert all(field.access is Access.CONTROL for word in DESCRIPTOR for field in word.fields)

    @each_config
    def test_constants_are_the_configuration(self, config: AcceleratorConfig) -> None:
        registers = {register.name: register for register in register_map(config)}
        assert registers["ID"].fields[0].reset == IDENTITY == int.from_bytes(b"SLFG", "big")
        release = {field.name: field.reset for field in registers["VERSION"].fields}
        assert "{MAJOR}.{MINOR}.{PATCH}".format(**release) == version("sliceforge")
        for name, value in config.parameters().items():
            if name not in ("name", "packed_products", "packing", "table_products"):
                assert registers[name.upper()].fields[0].reset == value
        for name in ("weight_slots", "activation_slots", "psum_slots"):
            assert registers[name.upper()].fields[0].reset == getattr(config, name)

    @pytest.mark.parametrize(("bits", "high"), [(32, 0), (33, 1), (40, 8), (64, 32)])
    def test_the_queues_address_has_the_bits_of_the_bus(self, bits: int, high: int) -> None:
        config = AcceleratorConfig.preset("tiny", address_bits=bits)
        widths = {
            r.name: r.fields[0].width for r in register_map(config) if r.name.startswith("QUEUE_ADDRESS")
        }
        assert widths == {"QUEUE_ADDRESS": 32} | ({"QUEUE_ADDRESS_HIGH": high} if high else {})

    def test_a_counter_is_two_words(self) -> None:
        offsets = {register.name: register.offset for register in register_map(CONFIGS[0])}
        for name in COUNTERS:
            assert offsets[f"{name}_HIGH"] == offsets[name] + 4
            assert offsets[name] % 8 == 0

    def test_every_error_code_has_its_text(self) -> None:
        assert list(ERROR_TEXTS) == list(ErrorCode)
        assert len(set(ERROR_TEXTS.values())) == len(ERROR_TEXTS)
        for text in ERROR_TEXTS.values():
            assert re.fullmatch(r"[^|*<&\\`]+\.", text)
        status = next(register for register in register_map(CONFIGS[0]) if register.name == "STATUS")
        assert status.field("ERROR_CODE").width == ErrorCode.as_shape().width


def compiled(config: AcceleratorConfig, rdl: bytes, folder: Path) -> tuple[AddrmapNode, MemNode]:
    """Register map and descriptor, from the text alone; a warning is an error."""
    compiler = RDLCompiler(error_flags=warnings.ALL)
    (folder / "map.rdl").write_bytes(rdl)
    compiler.compile_file(str(folder / "map.rdl"))
    top = compiler.elaborate().top
    assert top.inst_name == config.module
    memory = f"addrmap memory {{ external {config.module}_descriptor descriptor @ 0x80; }};\n"
    (folder / "memory.rdl").write_text(memory)
    compiler.compile_file(str(folder / "memory.rdl"))
    descriptor = compiler.elaborate("memory").top.get_child_by_name("descriptor")
    assert isinstance(descriptor, MemNode)
    return top, descriptor


def software(field: FieldNode) -> str:
    """The access that the field's properties say, as registers.py calls it."""
    sw, onwrite = field.get_property("sw"), field.get_property("onwrite")
    if field.get_property("singlepulse"):
        assert (sw, onwrite) == (AccessType.w, None)
        return "w1"
    if onwrite is OnWriteType.woclr:
        assert sw is AccessType.rw and field.get_property("hwset")
        return "w1c"
    assert onwrite is None
    return {AccessType.r: "ro", AccessType.rw: "rw"}[sw]


class TestSystemRDL:
    @each_config
    def test_is_the_map(self, config: AcceleratorConfig, tmp_path: Path) -> None:
        rdl = register_files(config)[f"{config.name}.rdl"]
        registers, descriptor = compiled(config, rdl, tmp_path)
        assert descriptor.size == DESCRIPTOR_BYTES
        for node, words in ((registers, register_map(config)), (descriptor, DESCRIPTOR)):
            found = list(node.registers())
            assert [(reg.inst_name, reg.address_offset) for reg in found] == [
                (word.name, word.offset) for word in words
            ]
            for reg, word in zip(found, words, strict=True):
                self.compare(reg, word, has_reset=node is registers)

    def compare(self, reg: RegNode, word: Register, *, has_reset: bool) -> None:
        assert reg.get_property("regwidth") == 32
        assert reg.get_property("desc", default=None) in (None, word.text)
        assert word.text.startswith(reg.get_property("name"))
        found = {field.inst_name: field for field in reg.fields()}
        assert set(found) == {field.name for field in word.fields}
        for field in word.fields:
            node = found[field.name]
            assert (node.lsb, node.width) == (field.lsb, field.width)
            assert software(node) == field.access.software
            assert node.get_property("reset") == (field.reset if has_reset else None)
            # The name is the text, or its first sentence where the text is in desc.
            name, text = node.get_property("name"), node.get_property("desc")
            assert name == field.text if text is None else text == field.text and text.startswith(name)
            if has_reset:
                stored = field.access not in (Access.CONSTANT, Access.STATUS)
                assert node.implements_storage == stored
                assert stored or node.is_hw_writable == (field.access is Access.STATUS)
            encode = node.get_property("encode")
            assert (encode is not None) == (field.name == "ERROR_CODE")
            if encode is not None:
                codes = {member.name: (member.value, member.rdl_desc) for member in encode}
                assert codes == {code.name: (code.value, text) for code, text in ERROR_TEXTS.items()}


class TestHeader:
    """The values come from a C program that includes it."""

    @each_config
    def test_is_the_map(self, config: AcceleratorConfig, tmp_path: Path) -> None:
        header = register_files(config)[f"{config.name}.h"]
        registers = register_map(config)
        expected = {
            "IDENTITY": IDENTITY,
            "REGISTER_SPACE": REGISTER_SPACE,
            "DESCRIPTOR_BYTES": DESCRIPTOR_BYTES,
            "DESCRIPTOR_FORMAT": DESCRIPTOR_FORMAT,
            "LOAD_BEAT_BYTES": config.load_beat_bytes,
            "sizeof": registers[-1].offset + 4,
            "sizeof/descriptor": DESCRIPTOR_BYTES,
        }
        for kind, words in (("", registers), ("descriptor/", DESCRIPTOR)):
            for word in words:
                expected[f"{kind}{word.name}"] = expected[f"struct/{kind}{word.name}"] = word.offset
                for field in word.fields:
                    key = f"{kind}{word.name}.{field.name}"
                    expected[f"{key}.mask"] = field.mask
                    expected[f"{key}.position"] = field.lsb
                    expected[f"{key}.width"] = field.width
                    if not kind:
                        expected[f"{key}.reset"] = field.reset
        expected |= {f"error/{code.name}": code.value for code in ErrorCode}
        assert header_values(config, header, tmp_path) == expected
        # And it has nothing else.
        text = header.decode()
        guards = {f"{config.module.upper()}{part}_H" for part in ("", "_REGISTERS", "_DESCRIPTOR")}
        assert set(re.findall(r"^#define (\w+)", text, re.MULTILINE)) == macros(config) | guards
        assert len(re.findall(rf"{config.module.upper()}_ERROR_\w+ =", text)) == len(ErrorCode)

    def test_structures_are_not_packed(self) -> None:
        """So a compiler reads and writes their members as words."""
        text = register_files(CONFIGS[0])["panacea.h"].decode()
        assert text.count("typedef struct {") == text.count("typedef") == 2
        assert "packed" not in text

    @pytest.mark.parametrize("compiler", [[*C_COMPILER, *C_FLAGS], ["c++", "-Wall", "-Wextra", "-Werror"]])
    def test_two_accelerators_in_one_program(self, compiler: list[str], tmp_path: Path) -> None:
        for config in CONFIGS[:3]:
            (tmp_path / f"{config.name}.h").write_bytes(register_files(config)[f"{config.name}.h"])
        includes = "".join(f'#include "{config.name}.h"\n' for config in CONFIGS[:3])
        suffix = "c" if compiler[0] == C_COMPILER[0] else "cpp"
        program = tmp_path / f"all.{suffix}"
        program.write_text(f"{includes}int main(void) {{ return 0; }}\n")
        subprocess.run([*compiler, "-o", tmp_path / "all", program], check=True)


@pytest.fixture(scope="module")
def pages() -> dict[str, bytes]:
    """All files of wide33."""
    return register_files(CONFIGS[3], html=True)


class TestDocumentation:
    def test_files(self, pages: dict[str, bytes]) -> None:
        without = register_files(CONFIGS[3])
        assert set(without) == {"wide33.rdl", "wide33.h", "component.xml", "wide33_registers.md"}
        assert {name: pages[name] for name in without} == without
        rest = set(pages) - set(without)
        assert "wide33_registers/index.html" in rest
        assert all(name.startswith("wide33_registers/") for name in rest)

    def test_markdown_names_everything(self, pages: dict[str, bytes]) -> None:
        text = pages["wide33_registers.md"].decode()
        assert text.startswith("# Registers and layer descriptor of sliceforge_wide33\n\n## ")
        assert "<!--" not in text and "\n\n\n" not in text
        for word in (*register_map(CONFIGS[3]), *DESCRIPTOR):
            assert f"\n### {word.name} register\n" in text
            # The table has the first sentence alone where the text is long.
            first = re.escape(word.text.partition(". ")[0].removesuffix("."))
            assert re.search(rf"\| *0x0*{word.offset:X} *\| *{word.name} *\| *{first}\.", text)
            assert word.text in text
            for field in word.fields:
                top = field.lsb + field.width - 1
                bits = f"{top}:{field.lsb}" if field.width > 1 else str(top)
                assert re.search(rf"^\| *{bits} *\| *{field.name} *\|", text, re.MULTILINE)
                assert field.text in text.replace("&gt;", ">")
        for code, meaning in ERROR_TEXTS.items():
            assert f"| {code.value} | `{code.name}` | {meaning} |" in text

    def test_html_has_a_page_for_each_register(self, pages: dict[str, bytes]) -> None:
        folder = "wide33_registers/"
        data = json.loads(pages[f"{folder}data/ral-data-0.json"])
        names = [entry["name"] for entry in data]
        words = [word.name for word in (*register_map(CONFIGS[3]), *DESCRIPTOR)]
        assert sorted(names) == sorted(
            [*words, "sliceforge_wide33", "sliceforge_wide33_memory", "descriptor"]
        )
        contents = [name for name in pages if name.startswith(f"{folder}content/")]
        assert len(contents) == len(names)
        index = pages[f"{folder}index.html"].decode()
        targets = set(re.findall(r'(?:src|href)="([^"?]+)', index))
        assert len(targets) > 10
        assert all(f"{folder}{target}" in pages for target in targets if not target.startswith("https://"))

    def test_the_same_bytes_at_another_time_in_another_process(self, pages: dict[str, bytes]) -> None:
        program = """
import hashlib, json, time
time.time = lambda: 10**9
from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.register_files import register_files
config = AcceleratorConfig.preset("tiny", name="wide33", address_bits=33)
files = register_files(config, html=True)
print(json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}))
"""
        for seed in ("1", "2"):
            environment = os.environ | {"PYTHONHASHSEED": seed}
            done = subprocess.run(
                [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
            )
            hashes = {name: hashlib.sha256(data).hexdigest() for name, data in pages.items()}
            assert json.loads(done.stdout) == hashes

    def test_html_changes_its_stamp_with_the_content(self, pages: dict[str, bytes]) -> None:
        def stamp(index: bytes) -> Any:
            return re.search(rb"BUILD_TS = (\d+)", index)

        other = register_files(CONFIGS[4], html=True)["narrow_registers/index.html"]
        assert stamp(pages["wide33_registers/index.html"])[1] != stamp(other)[1]

    def test_page_of_the_repository_is_up_to_date(self) -> None:
        """Otherwise: `make docs`."""
        assert (ROOT / "docs" / "registers.md").read_text(encoding="utf-8") == register_page()
