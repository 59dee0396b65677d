"""The driver on a modelled accelerator: results against the golden model, and all that can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ERROR_TEXTS, ErrorCode
from sliceforge.gen.registers import (
    COUNTERS,
    DESCRIPTOR_BYTES,
    PSUM_ALIGNMENT,
    Access,
    Register,
    register_map,
)
from sliceforge.sim import gemm
from sliceforge.sim.apsq import apsq, apsq_gemm
from sliceforge.sim.descriptor import decode_descriptor
from sliceforge.sim.driver import AcceleratorError, BusError, Driver, place
from sliceforge.sim.gemm import folded_bias
from sliceforge.sim.layer_image import LayerImage, pack_layer
from sliceforge.sim.layer_memory import unpack_layer
from sliceforge.sim.plans import plans
from sliceforge.sim.schedule import Schedule

TINY = AcceleratorConfig.preset("tiny")
WIDE = AcceleratorConfig.preset("tiny", address_bits=48, bus_bits=512, weight_slices=3)
NARROW = AcceleratorConfig.preset("tiny", vector=8, bus_bits=32, omem_kib=3)
MEMORY = 1 << 16


class FakeAccelerator:
    """A `Port` with the machine behind it: register map, memory, and layers done with numpy.

    It works while `wait_interrupt` waits. origin: address of its memory. drain: how many reads of STATUS see
    BUSY after a layer has failed. silent: it never finishes.
    """

    def __init__(
        self, config: AcceleratorConfig, *, origin: int = 0, drain: int = 3, silent: bool = False
    ) -> None:
        self.config = config
        self.origin = origin
        self.drain = drain
        self.silent = silent
        self.memory = bytearray(b"\xa5" * MEMORY)
        self.by_offset = {register.offset: register for register in register_map(config)}
        self.values = {
            register.name: sum(field.reset << field.lsb for field in register.fields)
            for register in register_map(config)
        }
        self.draining = 0
        self.calls: list[tuple[Any, ...]] = []

    # The port.

    def read_register(self, offset: int) -> int:
        register = self._register(offset)
        self.calls.append(("read", register.name))
        value = self.values[register.name]
        if register.name == "STATUS" and self.draining:
            self.draining -= 1
            value |= 1
        return value

    def write_register(self, offset: int, value: int) -> None:
        register = self._register(offset)
        self.calls.append(("write", register.name, value))
        assert 0 <= value < 1 << 32
        assert not value & ~sum(field.mask for field in register.fields), "reserved bits are written 0"
        busy = self.values["STATUS"] & 1 or self.draining
        access = {field.access for field in register.fields}
        if not access & {Access.CONTROL, Access.PULSE, Access.STICKY} or (
            register.name == "CONTROL" and value & 1 and busy
        ):
            raise BusError(f"SLVERR for a write to {offset:#x}")
        if access == {Access.STICKY}:
            self.values[register.name] &= ~value
        elif access == {Access.CONTROL}:
            self.values[register.name] = value
        elif value & register.field("SOFT_RESET").mask:
            self.values["STATUS"] &= ~1
            self.draining = self.drain
        elif value & register.field("START").mask:
            self.values["STATUS"] = 1
            self.values["LAYERS_DONE"] = 0

    def read_memory(self, address: int, size: int) -> memoryview:
        self.calls.append(("load", address, size))
        return memoryview(self._bytes(address, size))

    def write_memory(self, address: int, data: bytes) -> None:
        self.calls.append(("store", address, len(data)))
        self._put(address, data)

    def wait_interrupt(self, progress: Callable[[], None] | None) -> None:
        if progress is not None:
            progress()
        if self.values["STATUS"] & 1 and not self.silent:
            self._work()
        if not self.values["INTERRUPT_PENDING"] & self.values["INTERRUPT_ENABLE"]:
            raise TimeoutError("nothing within 1,000 cycles")

    # The machine.

    def _register(self, offset: int) -> Register:
        if offset not in self.by_offset:
            raise BusError(f"SLVERR for {offset:#x}")
        return self.by_offset[offset]

    def _bytes(self, address: int, size: int) -> bytes:
        start = address - self.origin
        assert 0 <= start <= start + size <= len(self.memory), "outside of the memory"
        return bytes(self.memory[start : start + size])

    def _put(self, address: int, data: bytes) -> None:
        self._bytes(address, len(data))  # checks the bounds
        self.memory[address - self.origin : address - self.origin + len(data)] = data

    def _work(self) -> None:
        address = self.values["QUEUE_ADDRESS"] | self.values.get("QUEUE_ADDRESS_HIGH", 0) << 32
        code = ErrorCode.NONE
        while code is ErrorCode.NONE:
            code, following = self._layer(address)
            if code is ErrorCode.NONE:
                self.values["LAYERS_DONE"] += 1
                if following is None:
                    break
                address = following
        for i, name in enumerate(COUNTERS):
            self.values[name], self.values[f"{name}_HIGH"] = 7 * i, i
        self.values["STATUS"] = code.value << 8
        failed = code is not ErrorCode.NONE
        self.values["INTERRUPT_PENDING"] |= 1 << failed
        self.draining = self.drain if failed else 0

    def _layer(self, address: int) -> tuple[ErrorCode, int | None]:
        """The error code of the layer described at ``address``, and the next descriptor's address."""
        d = decode_descriptor(self._bytes(address, DESCRIPTOR_BYTES))
        beat = self.config.load_beat_bytes
        illegal = {
            ErrorCode.ILLEGAL_QUEUE_ADDRESS: address % DESCRIPTOR_BYTES,
            ErrorCode.ILLEGAL_LO_BITS: d["LO_BITS"] not in (4, 5, 6),
            ErrorCode.ILLEGAL_STRIDE: d["OUTPUT_STRIDE"] % 4 or d["OUTPUT_STRIDE"] < 4 * d["N"],
            ErrorCode.ILLEGAL_LENGTH: d["WEIGHTS_LENGTH"] < 2 or d["ACTIVATIONS_LENGTH"] < 2,
            ErrorCode.ILLEGAL_WEIGHTS_ADDRESS: d["WEIGHTS_ADDRESS"] % beat,
            ErrorCode.ILLEGAL_ACTIVATIONS_ADDRESS: d["ACTIVATIONS_ADDRESS"] % beat,
            ErrorCode.ILLEGAL_PARAMETERS_ADDRESS: d["PARAMETERS_ADDRESS"] % 4,
            ErrorCode.ILLEGAL_OUTPUT_ADDRESS: d["OUTPUT_ADDRESS"] % 4,
            ErrorCode.ILLEGAL_PSUM_ADDRESS: d["PSUM_ADDRESS"] % PSUM_ALIGNMENT,
            ErrorCode.ILLEGAL_NEXT_ADDRESS: d["NEXT_ADDRESS"] and not d["NEXT"],
        }
        for code, wrong in illegal.items():
            if wrong:
                return code, None
        layer = unpack_layer(self._bytes, address, self.config)
        w = layer.weights.astype(np.int64)
        x = layer.x_hat.astype(np.int64) - (d["FREQUENT"] << d["LO_BITS"])
        s = layer.schedule
        y = w @ x
        if s.psum_group:
            steps = range(0, s.k, s.chunk)
            tiles = [w[:, at : at + s.chunk] @ x[at : at + s.chunk] for at in steps]
            y = apsq(np.stack(tiles), layer.exponents, s.psum_group)
        for i, row in enumerate(y + layer.bias[:, None]):
            self._put(d["OUTPUT_ADDRESS"] + i * d["OUTPUT_STRIDE"], row.astype("<i4").tobytes())
        return ErrorCode.NONE, d["NEXT_ADDRESS"] if d["NEXT"] else None


def layer(
    config: AcceleratorConfig,
    shape: tuple[int, int, int],
    seed: int = 0,
    lo_bits: int = 4,
    zero_point: int = 140,
    **packing: Any,
) -> tuple[LayerImage, np.ndarray]:
    """A random layer's images and its golden results. packing: more arguments of `pack_layer`."""
    rng = np.random.default_rng(seed)
    m, k, n = shape
    bits = config.max_weight_bits
    top = 1 << (bits - 1)
    w, x = rng.integers(-top, top, (m, k)), rng.integers(0, 256, (k, n))
    bias = rng.integers(-1000, 1000, m)
    operands: dict[str, Any] = {
        "zero_point": zero_point, "weight_bits": bits, "lo_bits": lo_bits, "config": config
    }  # fmt: skip
    image = pack_layer(w, x, folded_bias(w, bias, zero_point, lo_bits), **operands, **packing)
    return image, gemm(w, x, bias=bias, **operands).output


def names(machine: FakeAccelerator, *kinds: str) -> list[Any]:
    return [call[1] for call in machine.calls if call[0] in kinds]


@pytest.mark.parametrize("config", [TINY, WIDE, NARROW], ids=["tiny", "wide", "narrow"])
def test_a_chain_of_three_layers(config: AcceleratorConfig) -> None:
    layers = [
        layer(config, (19, 40, 21), 1),
        layer(config, (1, 1, 1), 2, lo_bits=5, zero_point=255),
        layer(config, (8, 33, 9), 3, lo_bits=6, zero_point=0),
    ]
    base = (1 << config.address_bits) - MEMORY  # up to the last address
    machine = FakeAccelerator(config, origin=base)
    driver = Driver(machine, config)
    calls: list[None] = []
    images = [image for image, _ in layers]
    machine.calls.clear()
    result = driver.run(images, base=base, memory_bytes=MEMORY, progress=lambda: calls.append(None))
    for output, (_, golden) in zip(result.outputs, layers, strict=True):
        assert output.dtype == np.int64
        np.testing.assert_array_equal(output, golden)
    assert result.layers_done == 3
    assert result.counters == {name: 7 * i + (i << 32) for i, name in enumerate(COUNTERS)}
    assert list(result.counters) == list(COUNTERS)
    assert calls, "progress went to the port"

    # One transfer in, one out a layer, and nothing but the results: fit for a slow port.
    assert len(names(machine, "store")) == 1
    loads = [size for kind, _, size in (call for call in machine.calls if call[0] == "load")]
    assert loads == [4 * image.schedule.m * image.schedule.n for image in images]
    registers = names(machine, "read", "write")
    assert len(registers) - 2 * len(COUNTERS) <= 14
    assert machine.values["INTERRUPT_PENDING"] == 0

    again = driver.run(images[2:], base=base, memory_bytes=MEMORY)
    np.testing.assert_array_equal(again.outputs[0], layers[2][1])


def spilling(dataflow: Dataflow, group: int) -> Schedule:
    """A schedule whose partial sums go to memory."""
    found = plans(TINY, 20, 40, 21, dataflow=dataflow, chunk=16, psum_group=group)
    return next(schedule for schedule in found if not schedule.psums_resident)


@pytest.mark.parametrize("dataflow", Dataflow)
@pytest.mark.parametrize("group", range(5))
def test_dataflows_and_partial_sums(dataflow: Dataflow, group: int) -> None:
    """Their memory is aligned, large enough for a block's groups, behind all else, and is the layers' own."""
    rng = np.random.default_rng(group)
    w, x = rng.integers(-64, 64, (20, 40)), rng.integers(0, 256, (40, 21))
    schedule = spilling(dataflow, group)
    image = pack_layer(
        w, x, folded_bias(w, np.arange(20), 140, 4), zero_point=140, weight_bits=7, lo_bits=4, config=TINY,
        schedule=schedule, psum_exponents=[3, 5, 4],
    )  # fmt: skip
    other, other_golden = layer(TINY, (9, 20, 5))
    golden = w @ (x - 140) + np.arange(20)[:, None]
    if group:
        golden = apsq_gemm(
            w,
            x,
            zero_point=140,
            psum_exponents=[3, 5, 4],
            psum_group=group,
            psum_chunk=16,
            bias=np.arange(20),
        ).output
    result = Driver(FakeAccelerator(TINY), TINY).run([image, other], memory_bytes=MEMORY)
    np.testing.assert_array_equal(result.outputs[0], golden)
    np.testing.assert_array_equal(result.outputs[1], other_golden)

    placement = place([image, other], base=0, memory_bytes=MEMORY)
    d = decode_descriptor(placement.data[:DESCRIPTOR_BYTES])
    waiting = {Dataflow.OUTPUT_STATIONARY: 1}.get(dataflow, min(schedule.block, 3))
    stored = 64 if group else 4 * 64  # bytes of a tile of 8 x 8, of 8 bits or of 32
    assert d["PSUM_ADDRESS"] % PSUM_ALIGNMENT == 0
    assert d["PSUM_ADDRESS"] >= placement.outputs[1] + 4 * 9 * 5
    assert placement.end >= d["PSUM_ADDRESS"] + waiting * max(1, group) * stored


def test_memory_that_is_too_small() -> None:
    image, golden = layer(TINY, (10, 20, 12))
    machine = FakeAccelerator(TINY, origin=256)
    driver = Driver(machine, TINY)
    before = bytes(machine.memory)
    with pytest.raises(
        ValueError, match=r"memory_bytes must be \d+ or more for these layers, not 100"
    ) as error:
        driver.run([image], base=260, memory_bytes=100)
    assert bytes(machine.memory) == before
    needed = int(str(error.value).split()[3])
    with pytest.raises(ValueError, match="memory_bytes must be"):
        driver.run([image], base=260, memory_bytes=needed - 1)
    result = driver.run([image], base=260, memory_bytes=needed)
    np.testing.assert_array_equal(result.outputs[0], golden)
    used = machine.memory[260 - 256 + needed :]
    assert machine.memory[:4] == b"\xa5" * 4 and not used.strip(b"\xa5"), "nothing else is touched"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"images": []}, "images must have at least one layer"),
        ({"images": [layer(WIDE, (1, 1, 1))[0]]}, "images must be packed for config 'tiny'"),
        ({"base": 0xFFFF_8000}, "stay within 32 address bits, not reach from 0xffff8000 to 0x100008000"),
        ({"base": -128}, "stay within 32 address bits"),
    ],
)
def test_runs_that_cannot_be(arguments: dict[str, Any], sentence: str) -> None:
    machine = FakeAccelerator(TINY)
    with pytest.raises(ValueError, match=sentence):
        Driver(machine, TINY).run(
            **{"images": [layer(TINY, (1, 1, 1))[0]], "memory_bytes": MEMORY, **arguments}
        )
    assert not names(machine, "write", "store")


CONSTANTS = [
    register.name for register in register_map(TINY)
    if {field.access for field in register.fields} == {Access.CONSTANT}
]  # fmt: skip


@pytest.mark.parametrize("name", CONSTANTS)
def test_another_machine_is_refused(name: str) -> None:
    machine = FakeAccelerator(TINY)
    value = machine.values[name]
    machine.values[name] = value + 1
    sentence = f"register {name} must be {value} .* for config 'tiny' .*, not {value + 1} "
    with pytest.raises(RuntimeError, match=sentence):
        Driver(machine, TINY)
    assert not names(machine, "write", "store")


def test_all_of_the_configuration_is_compared() -> None:
    """But for how products are made, which changes nothing that a host could see."""
    products = {"PACKED_PRODUCTS", "PACKING", "TABLE_PRODUCTS"}
    parameters = {name.upper() for name in TINY.parameters()} - {"NAME"} - products
    assert parameters | {"ID", "VERSION"} <= set(CONSTANTS)


BROKEN: list[tuple[dict[str, Any], ErrorCode]] = [
    ({"lo_bits": 7}, ErrorCode.ILLEGAL_LO_BITS),
    ({"weights_length": 1}, ErrorCode.ILLEGAL_LENGTH),
    ({"activations_length": 0}, ErrorCode.ILLEGAL_LENGTH),
]


@pytest.mark.parametrize(("changes", "code"), BROKEN)
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_layer_that_fails(changes: dict[str, Any], code: ErrorCode, failing: int) -> None:
    machine = FakeAccelerator(TINY)
    driver = Driver(machine, TINY)
    good, golden = layer(TINY, (9, 20, 5))
    images = [good, good, good]
    images[failing] = replace(good, **changes)
    with pytest.raises(AcceleratorError) as error:
        driver.run(images, memory_bytes=MEMORY)
    assert (error.value.code, error.value.layer) == (code, failing)
    assert str(error.value) == f"layer {failing} failed with {code.name} ({code.value}): {ERROR_TEXTS[code]}"
    assert machine.values["INTERRUPT_PENDING"] == 0 and not machine.draining
    result = driver.run([good], memory_bytes=MEMORY)  # ready again
    np.testing.assert_array_equal(result.outputs[0], golden)


def test_a_bus_that_owes_answers_for_ever_after_an_error() -> None:
    machine = FakeAccelerator(TINY, drain=1 << 40)
    driver = Driver(machine, TINY, idle_polls=20)
    image = replace(layer(TINY, (9, 20, 5))[0], lo_bits=0)
    with pytest.raises(AcceleratorError, match=r"lo_bits.* And the accelerator is still busy after 20 looks"):
        driver.run([image], memory_bytes=MEMORY)
    with pytest.raises(TimeoutError, match="still busy after 20 looks at STATUS"):
        driver.soft_reset()
    with pytest.raises(RuntimeError, match="busy with something else"):
        driver.run([image], memory_bytes=MEMORY)


def test_an_unknown_error_code() -> None:
    machine = FakeAccelerator(TINY)
    driver = Driver(machine, TINY)
    machine._work = lambda: machine.values.update(STATUS=63 << 8, INTERRUPT_PENDING=2)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="layer 0 failed with error code 63, an unknown one"):
        driver.run([layer(TINY, (1, 1, 1))[0]], memory_bytes=MEMORY)


def test_fewer_layers_than_asked_for() -> None:
    machine = FakeAccelerator(TINY)
    driver = Driver(machine, TINY)
    machine._work = lambda: machine.values.update(STATUS=0, LAYERS_DONE=1, INTERRUPT_PENDING=1)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="must have done 2 layers at its interrupt, not 1"):
        driver.run([layer(TINY, (1, 1, 1))[0]] * 2, memory_bytes=MEMORY)


def test_an_interrupt_that_never_comes() -> None:
    machine = FakeAccelerator(TINY, silent=True)
    driver = Driver(machine, TINY)
    image, golden = layer(TINY, (9, 20, 5))
    with pytest.raises(
        TimeoutError,
        match="no interrupt came, and the accelerator is busy after 0 of 1 layers: nothing within",
    ):
        driver.run([image], memory_bytes=MEMORY)
    machine.silent = False  # the driver has reset it
    np.testing.assert_array_equal(driver.run([image], memory_bytes=MEMORY).outputs[0], golden)

    machine.silent, machine.drain = True, 1 << 40
    with pytest.raises(TimeoutError, match=r"nothing within .*; soft reset did not help: .* still busy"):
        driver.run([image], memory_bytes=MEMORY)


def test_soft_reset() -> None:
    machine = FakeAccelerator(TINY)
    driver = Driver(machine, TINY)
    machine.values["STATUS"], machine.values["INTERRUPT_PENDING"] = 1, 7
    with pytest.raises(RuntimeError, match="busy with something else"):
        driver.run([layer(TINY, (1, 1, 1))[0]], memory_bytes=MEMORY)
    driver.soft_reset()
    assert machine.values["INTERRUPT_PENDING"] == 0 and not machine.draining
    driver.run([layer(TINY, (1, 1, 1))[0]], memory_bytes=MEMORY)


def test_what_an_earlier_run_left_pending_does_not_count() -> None:
    machine = FakeAccelerator(TINY)
    driver = Driver(machine, TINY)
    machine.values["INTERRUPT_PENDING"] = 7
    image, golden = layer(TINY, (9, 20, 5))
    np.testing.assert_array_equal(driver.run([image], memory_bytes=MEMORY).outputs[0], golden)


def test_registers() -> None:
    machine = FakeAccelerator(TINY)
    driver = Driver(machine, TINY)
    driver.write("STALL_LIMIT", VALUE=1234)
    assert driver.read("STALL_LIMIT") == 1234
    machine.values["STATUS"] = 0x2800
    assert driver.read("STATUS", "ERROR_CODE") == 40
    with pytest.raises(BusError, match="SLVERR"):
        driver.write("ID", VALUE=1)
    with pytest.raises(ValueError, match=r"INTERRUPT_ENABLE\.DONE must fit 1 bits, not be 2"):
        driver.write("INTERRUPT_ENABLE", DONE=2)
    with pytest.raises(ValueError, match=r"QUEUE_ADDRESS\.VALUE must fit 32 bits"):
        driver.execute(1 << 32, layers=1)


def test_a_port_that_answers_with_errors() -> None:
    machine = FakeAccelerator(TINY)
    driver = Driver(machine, TINY)
    del machine.by_offset[0x110]
    with pytest.raises(BusError, match="SLVERR for 0x110"):
        driver.run([layer(TINY, (1, 1, 1))[0]], memory_bytes=MEMORY)
