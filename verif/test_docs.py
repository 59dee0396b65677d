"""The documents: code in them works, links lead somewhere, and no file of the design is left out."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.register_files import register_files
from sliceforge.gen.registers import COUNTERS, DESCRIPTOR_BYTES, register_map
from sliceforge.sim.descriptor import decode_descriptor
from sliceforge.sim.driver import Placement, place
from sliceforge.sim.layer_image import LayerImage
from sliceforge.sim.rtl import Simulator
from sliceforge.verif.header_values import C_COMPILER, C_FLAGS
from sliceforge.verif.test_driver import MEMORY, FakeAccelerator, layer

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

# The registers are Python's: the platform's part of the C example.
PLATFORM = """
static uint32_t (*reads)(uint32_t);
static void (*writes)(uint32_t, uint32_t);
void attach(uint32_t (*reader)(uint32_t), void (*writer)(uint32_t, uint32_t))
{
    reads = reader;
    writes = writer;
}
uint32_t read_register(uint32_t offset) { return reads(offset); }
void write_register(uint32_t offset, uint32_t value) { writes(offset, value); }
"""


class Layer(ctypes.Structure):
    """``struct layer`` of the example."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("m", "n", "k", "lo_bits", "weight_slices", "frequent")),
        *((name, ctypes.c_uint32) for name in ("dataflow", "block", "k_chunk", "k_tile")),
        *((name, ctypes.c_uint32) for name in ("psum_group", "exponent_words")),
        *((name, ctypes.c_bool) for name in ("weights_resident", "activations_resident")),
        *((name, ctypes.c_bool) for name in ("blocks_share", "psums_resident")),
        *((name, ctypes.c_uint32) for name in ("weights_length", "activations_length", "activations_span")),
        *((name, ctypes.c_uint64) for name in ("weights", "activations", "parameters", "psums", "output")),
        ("output_stride", ctypes.c_uint32),
    ]


def compiled(config: AcceleratorConfig, folder: Path) -> Any:
    """The C example of docs/integration.md for ``config``, as a shared library."""
    (example,) = re.findall(r"```c\n(.*?)```", (ROOT / "docs" / "integration.md").read_text("utf-8"), re.S)
    example = example.replace("panacea", config.name).replace("PANACEA", config.name.upper())
    header = f"{config.name}.h"
    (folder / header).write_bytes(register_files(config)[header])
    (folder / "driver.c").write_text(example + PLATFORM, encoding="utf-8")
    library = folder / "driver.so"
    subprocess.run(
        [*C_COMPILER, *C_FLAGS, "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True
    )
    driver = ctypes.CDLL(str(library))
    for name in ("is_ours", "is_over", "settles", "stop"):
        getattr(driver, f"accelerator_{name}").restype = ctypes.c_bool
    driver.accelerator_counter.restype = ctypes.c_uint64
    driver.accelerator_start.argtypes = [ctypes.c_uint64]
    driver.accelerator_describe.argtypes = [
        ctypes.c_char_p, ctypes.POINTER(Layer), ctypes.c_bool, ctypes.c_uint64
    ]  # fmt: skip
    return driver


@pytest.fixture(scope="module", params=[32, 40])
def driver_c(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[AcceleratorConfig, Any]:
    config = AcceleratorConfig.preset("panacea", address_bits=request.param)
    return config, compiled(config, tmp_path_factory.mktemp("integration"))


def attach(driver: Any, machine: FakeAccelerator | Simulator) -> None:
    """Gives the example the registers of ``machine``. An exception there is printed, and reads as 0."""
    reads = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)(machine.read_register)
    writes = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32)(machine.write_register)
    driver.kept = reads, writes  # as long as C may call them
    driver.attach(reads, writes)


def described(driver: Any, images: list[LayerImage], placement: Placement) -> bytes:
    """The placement's data with descriptors made by the example, from Python's as the layers' addresses."""
    data = bytearray(placement.data)
    for i, image in enumerate(images):
        at, s = i * DESCRIPTOR_BYTES, image.schedule
        made = decode_descriptor(data[at : at + DESCRIPTOR_BYTES])
        given = Layer(
            s.m, s.n, s.k, image.lo_bits, image.weight_slices, image.frequent,
            s.dataflow.value, s.block, s.chunk, s.k_tile, s.psum_group, len(image.exponent_words),
            s.weights_resident, s.activations_resident, s.blocks_share, s.psums_resident,
            image.weights_length, image.activations_length, made["ACTIVATIONS_SPAN"],
            made["WEIGHTS_ADDRESS"], made["ACTIVATIONS_ADDRESS"], made["PARAMETERS_ADDRESS"],
            made["PSUM_ADDRESS"], made["OUTPUT_ADDRESS"], made["OUTPUT_STRIDE"],
        )  # fmt: skip
        descriptor = ctypes.create_string_buffer(b"\xff" * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
        driver.accelerator_describe(descriptor, given, made["NEXT"], made["NEXT_ADDRESS"])
        assert descriptor.raw == data[at : at + DESCRIPTOR_BYTES]
        data[at : at + DESCRIPTOR_BYTES] = descriptor.raw
    return bytes(data)


def test_the_c_example_runs_layers(driver_c: tuple[AcceleratorConfig, Any]) -> None:
    config, driver = driver_c
    origin = (1 << config.address_bits) - MEMORY
    counters = run_layers(config, driver, FakeAccelerator(config, origin=origin), origin)
    assert counters == {name: 7 * i + (i << 32) for i, name in enumerate(COUNTERS)}


def test_the_c_example_runs_layers_on_the_rtl(tmp_path: Path) -> None:
    config = AcceleratorConfig.preset("tiny")
    with Simulator(config, memory_bytes=MEMORY) as machine:
        counters = run_layers(config, compiled(config, tmp_path), machine, 0)
    assert counters["BYTES_WRITTEN"] == 4 * (5 * 3 + 2 * 9)


def run_layers(
    config: AcceleratorConfig, driver: Any, machine: FakeAccelerator | Simulator, origin: int
) -> dict[str, int]:
    """Runs a chain of two layers twice by the example, in memory from ``origin``; returns the counters."""
    attach(driver, machine)
    assert driver.accelerator_is_ours()
    chunks: dict[str, Any] = {"dataflow": Dataflow.WEIGHT_STATIONARY, "chunk": 16}
    layers = [layer(config, (5, 40, 3), 1, **chunks), layer(config, (2, 7, 9), 2, lo_bits=6)]
    images = [image for image, _ in layers]
    placement = place(images, base=origin, memory_bytes=MEMORY)
    machine.write_memory(placement.address, described(driver, images, placement))
    for _ in range(2):  # what the first run leaves does not disturb the second
        driver.accelerator_start(placement.address)
        assert not driver.accelerator_is_over()
        machine.wait_interrupt(None)
        assert driver.accelerator_is_over()
        assert not driver.accelerator_is_over()
        done = ctypes.c_uint32()
        assert driver.accelerator_outcome(ctypes.byref(done)) == 0
        assert done.value == 2
        for address, (_, golden) in zip(placement.outputs, layers, strict=True):
            found = np.frombuffer(machine.read_memory(address, golden.size * 4), "<i4")
            np.testing.assert_array_equal(found.reshape(golden.shape), golden)
    offsets = {register.name: register.offset for register in register_map(config)}
    return {name: driver.accelerator_counter(offsets[name]) for name in COUNTERS}


def test_the_c_example_meets_an_error(driver_c: tuple[AcceleratorConfig, Any]) -> None:
    config, driver = driver_c
    machine = FakeAccelerator(config)
    attach(driver, machine)
    images = [layer(config, (1, 1, 1))[0], layer(config, (1, 1, 1))[0]]
    placement = place(images, base=0, memory_bytes=MEMORY)
    data = bytearray(placement.data)
    data[DESCRIPTOR_BYTES + 0x40] += 2  # the second layer's stride
    machine.write_memory(placement.address, bytes(data))
    driver.accelerator_start(placement.address)
    machine.wait_interrupt(None)
    assert driver.accelerator_is_over()
    assert driver.accelerator_settles()
    failed = ctypes.c_uint32()
    assert driver.accelerator_outcome(ctypes.byref(failed)) == ErrorCode.ILLEGAL_STRIDE.value
    assert failed.value == 1


def test_the_c_example_stops_a_run(driver_c: tuple[AcceleratorConfig, Any]) -> None:
    config, driver = driver_c
    machine = FakeAccelerator(config, silent=True)
    attach(driver, machine)
    driver.accelerator_start(0)
    assert not driver.accelerator_is_over()
    assert driver.accelerator_stop()
    assert driver.accelerator_settles()


def test_the_c_example_refuses_another_machine(driver_c: tuple[AcceleratorConfig, Any]) -> None:
    _, driver = driver_c
    attach(driver, FakeAccelerator(AcceleratorConfig.preset("edge")))
    assert not driver.accelerator_is_ours()


def test_the_readmes_python_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, {})
        comments = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.M)
        printed = re.sub(r"\[ +", "[", output.getvalue())  # numpy's columns
        assert printed.split() == " ".join(comments).split()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    for name in re.findall(
        r"`((?:hw|gen|sim|verif|scripts|docs)/[\w/.]+\.\w+)`", document.read_text("utf-8")
    ):
        assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_the_readme_names_every_block() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for path in sorted((ROOT / "hw").glob("*.py")):
        assert path.name == "__init__.py" or f"`{path.name}`" in text, path.name


def test_every_test_is_described() -> None:
    text = (ROOT / "docs" / "verification.md").read_text("utf-8")
    for path in sorted((ROOT / "verif").glob("*.py")):
        if path.name.startswith(("test_", "bench_")):
            assert f"`{path.name}`" in text, path.name
