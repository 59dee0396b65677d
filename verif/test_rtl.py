"""The engine `rtl`: the whole accelerator with its memory, run through the driver. Its results over all sizes
and parameters are in test_gemm.py; here is what only the engine itself can show."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR_BYTES, register_map
from sliceforge.sim.apsq import apsq_gemm
from sliceforge.sim.core_engine import run_core
from sliceforge.sim.descriptor import decode_descriptor, encode_descriptor
from sliceforge.sim.driver import AcceleratorError, BusError, Driver, place
from sliceforge.sim.gemm import folded_bias
from sliceforge.sim.layer_image import LayerImage, least_bytes, pack_layer
from sliceforge.sim.plans import plans
from sliceforge.sim.rtl import Memory, Simulator, Trace, run_layer, run_layers

RTL = import_module("sliceforge.sim.rtl")

TINY = AcceleratorConfig.preset("tiny")
NARROW = AcceleratorConfig.preset("tiny", vector=8, bus_bits=32, omem_kib=3, name="narrow")
WIDE = AcceleratorConfig.preset(
    "tiny", bus_bits=512, address_bits=64, weight_slices=3, pea_count=1, lanes=4, wmem_kib=8, name="wide"
)
BASE, SIZE = 0x4_0000, 0x4_0000
ZERO_POINT = 128

Array = npt.NDArray[Any]


def layer(
    m: int, k: int, n: int, *, resident: bool = True, config: AcceleratorConfig = TINY
) -> tuple[LayerImage, Array]:
    """A random layer, and its result by definition."""
    rng = np.random.default_rng([m, k, n])
    weights = np.clip(np.rint(rng.normal(0, 5, (m, k))), -64, 63).astype(np.int64)
    activations = np.clip(np.rint(rng.normal(ZERO_POINT, 6, (k, n))), 0, 255).astype(np.int64)
    bias = rng.integers(-100_000, 100_000, m)
    image = pack_layer(
        weights, activations, folded_bias(weights, bias, ZERO_POINT, 4),
        zero_point=ZERO_POINT, weight_bits=7, lo_bits=4, config=config, resident=resident,
    )  # fmt: skip
    return image, weights @ (activations - ZERO_POINT) + bias[:, None]


def total(memory: Memory, shape: tuple[int, int, int] = (20, 90, 18)) -> dict[str, int]:
    """Counters of a run whose results are right."""
    image, expected = layer(*shape)
    result = run_layers([image], memory=memory)
    np.testing.assert_array_equal(result.outputs[0], expected)
    return result.counters


class TestLayers:
    def test_a_chain(self) -> None:
        layers = [layer(9, 33, 5), layer(1, 1, 1), layer(16, 64, 24, resident=False), layer(7, 130, 10)]
        images = [image for image, _ in layers]
        result = run_layers(images)
        assert result.layers_done == 4
        for output, (_, expected) in zip(result.outputs, layers, strict=True):
            np.testing.assert_array_equal(output, expected)
        alone = [run_layers([image]).counters for image in images]
        for name in ("OUTER_PRODUCTS", "BYTES_READ", "BYTES_WRITTEN", "WEIGHTS_BUSY"):
            assert result.counters[name] == sum(counters[name] for counters in alone)
        assert result.counters["CYCLES"] <= sum(counters["CYCLES"] for counters in alone)

    @pytest.mark.parametrize("config", [NARROW, WIDE], ids=lambda config: config.name)
    def test_other_buses(self, config: AcceleratorConfig) -> None:
        """Ports of other C++ types, the upper half of 64-bit addresses, beats that are parts of results."""
        layers = [layer(9, 33, 5, config=config), layer(3, 7, 19, config=config, resident=False)]
        for memory in (Memory(), Memory(2, 0.3)):
            result = run_layers([image for image, _ in layers], memory=memory)
            for output, (_, expected) in zip(result.outputs, layers, strict=True):
                np.testing.assert_array_equal(output, expected)

    @pytest.mark.parametrize("dataflow", Dataflow)
    @pytest.mark.parametrize("group", range(5))
    def test_partial_sums_in_memory(self, dataflow: Dataflow, group: int) -> None:
        """All schedules that keep them there, in one chain; a slow memory must not be overtaken."""
        rng = np.random.default_rng(group)
        w, x, bias = (
            rng.integers(-64, 64, (17, 45)),
            rng.integers(0, 256, (45, 18)),
            rng.integers(-99, 99, 17),
        )
        exponents = [4, 3, 6, 5, 2]
        golden = w @ (x - 77) + bias[:, None]
        if group:
            golden = apsq_gemm(
                w, x, zero_point=77, psum_exponents=exponents, psum_group=group, psum_chunk=9, bias=bias
            ).output
        found = plans(TINY, 17, 45, 18, dataflow=dataflow, chunk=9, psum_group=group)
        images = [
            pack_layer(
                w, x, folded_bias(w, bias, 77, 4), zero_point=77, weight_bits=7, lo_bits=4, config=TINY,
                schedule=schedule, psum_exponents=exponents,
            )
            for schedule in found
            if not schedule.psums_resident
        ]  # fmt: skip
        assert images
        for memory in (Memory(), Memory(3, 0.4)):
            for output in run_layers(images, memory=memory).outputs:
                np.testing.assert_array_equal(output, golden)

    def test_counters_agree_with_the_core_alone(self) -> None:
        image, _ = layer(20, 90, 18)
        run = run_layer(image)
        counters = run.system.counters
        np.testing.assert_array_equal(run.system.outputs[0], run.core.output)
        assert counters["OUTER_PRODUCTS"] == run.core.products
        assert run.core.cycles <= counters["ARRAY_CYCLES"] < counters["CYCLES"]
        assert (counters["BYTES_READ"], counters["BYTES_WRITTEN"]) == least_bytes(image)

    def test_the_core_reads_again_what_is_not_resident(self) -> None:
        once, again = (layer(20, 90, 18, resident=resident) for resident in (True, False))
        np.testing.assert_array_equal(run_core(once[0]).output, once[1])
        np.testing.assert_array_equal(run_core(again[0]).output, again[1])
        assert run_core(once[0]).products == run_core(again[0]).products

    def test_progress_rises_to_one(self) -> None:
        shares: list[float] = []
        run_layers([layer(64, 400, 48)[0]], progress=shares.append)
        assert len(shares) > 3
        assert shares == sorted(shares)
        assert shares[-1] == 1.0

    def test_the_failure_of_one_part_stops_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        image, _ = layer(5, 20, 6)
        stopped: list[float] = []

        def fails(*_: Any, **__: Any) -> None:
            raise RuntimeError("this part failed")

        def waits(*_: Any, progress: Callable[[float], None], **__: Any) -> None:
            while len(stopped) < 1000:
                stopped.append(time.monotonic())
                progress(0.5)
                time.sleep(0.01)

        for failing, waiting in (("run_core", "run_layers"), ("run_layers", "run_core")):
            stopped.clear()
            monkeypatch.setattr(RTL, failing, fails)
            monkeypatch.setattr(RTL, waiting, waits)
            with pytest.raises(RuntimeError, match="this part failed"):
                run_layer(image)
            assert len(stopped) < 1000


class TestMemory:
    @pytest.mark.parametrize("bandwidth", [1, 0.5, 0.1])
    def test_latency(self, bandwidth: float) -> None:
        """Slower and slower, by no more than each access that waits for one before."""
        runs = [total(Memory(latency, bandwidth)) for latency in (0, 1, 100, 500)]
        cycles = [counters["CYCLES"] for counters in runs]
        assert cycles == sorted(cycles)
        assert cycles[3] >= cycles[0] + 3 * 500  # descriptor, then operands, then the last answer
        assert [counters["BYTES_READ"] for counters in runs] == [runs[0]["BYTES_READ"]] * 4
        fetching = [counters["DESCRIPTOR_BUSY"] for counters in runs]
        assert [after - fetching[0] for after in fetching] == [0, 1, 100, 500]

    @pytest.mark.parametrize("latency", [0, 100])
    def test_bandwidth(self, latency: int) -> None:
        runs = [total(Memory(latency, bandwidth)) for bandwidth in (1, 0.5, 0.1, 0.01)]
        cycles = [counters["CYCLES"] for counters in runs]
        assert cycles == sorted(cycles)
        beats = runs[0]["BYTES_READ"] * 8 // TINY.bus_bits
        assert cycles[3] > beats / 0.01

    def test_is_shared_without_a_copy(self) -> None:
        with Simulator(TINY, memory_bytes=256, base=BASE) as simulator:
            simulator.write_memory(BASE + 3, b"abc")
            assert simulator.memory[3:6].tobytes() == b"abc"
            simulator.memory[4] = ord("X")
            assert simulator.read_memory(BASE + 2, 5) == b"\xa5aXc\xa5"
            assert simulator.memory.shape == (256,)

    @pytest.mark.parametrize(("address", "size"), [(BASE - 1, 1), (BASE + 256, 1), (BASE + 250, 7), (0, 256)])
    def test_the_host_stays_within(self, address: int, size: int) -> None:
        with Simulator(TINY, memory_bytes=256, base=BASE) as simulator:
            with pytest.raises(ValueError, match="must stay within the memory"):
                simulator.read_memory(address, size)
            with pytest.raises(ValueError, match="must stay within the memory"):
                simulator.write_memory(address, bytes(size))


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(TINY, memory_bytes=SIZE, base=BASE, memory=Memory(latency=5)) as made:
        yield made


class TestPastTheMemory:
    """A layer that reaches past it gets the bus's error; the machine then takes the next layer."""

    @pytest.mark.parametrize(
        ("field", "code"),
        [
            ("WEIGHTS_ADDRESS", ErrorCode.WEIGHTS_READ),
            ("ACTIVATIONS_ADDRESS", ErrorCode.ACTIVATIONS_READ),
            ("PARAMETERS_ADDRESS", ErrorCode.PARAMETERS_READ),
            ("OUTPUT_ADDRESS", ErrorCode.OUTPUT_WRITE),
        ],
    )
    @pytest.mark.parametrize("address", [0, BASE + SIZE], ids=["below", "behind"])
    def test_a_layer(self, field: str, code: ErrorCode, address: int, simulator: Simulator) -> None:
        image, expected = layer(20, 90, 18)
        placement = place([image], base=BASE, memory_bytes=SIZE)
        descriptor = decode_descriptor(placement.data[:DESCRIPTOR_BYTES])
        wrong = encode_descriptor({**descriptor, field: address})
        simulator.write_memory(placement.address, wrong + placement.data[DESCRIPTOR_BYTES:])
        driver = Driver(simulator, TINY)
        with pytest.raises(AcceleratorError) as found:
            driver.execute(placement.address, layers=1)
        assert (found.value.code, found.value.layer) == (code, 0)
        assert simulator.refused > 0
        result = driver.run([image], base=BASE, memory_bytes=SIZE)
        np.testing.assert_array_equal(result.outputs[0], expected)

    def test_the_queue(self, simulator: Simulator) -> None:
        driver = Driver(simulator, TINY)
        with pytest.raises(AcceleratorError) as found:
            driver.execute(BASE + SIZE, layers=1)
        assert found.value.code is ErrorCode.DESCRIPTOR_READ
        assert simulator.refused > 0

    def test_an_access_that_the_rtl_does_not_report_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Simulator, "refused", 2)
        with pytest.raises(RuntimeError, match="reached past the memory in 2 bursts"):
            run_layers([layer(1, 1, 1)[0]])


class TestErrors:
    def test_of_registers(self, simulator: Simulator) -> None:
        unmapped = max(register.offset for register in register_map(TINY)) + 4
        with pytest.raises(BusError, match=f"the read of register {unmapped:#x} was answered with error 2"):
            simulator.read_register(unmapped)
        with pytest.raises(BusError, match="the write of register 0x0 was answered with error 2"):
            simulator.write_register(0, 1)
        assert simulator.read_register(0) == 0x534C_4647

    def test_a_machine_that_does_nothing_is_given_up(self, simulator: Simulator) -> None:
        with pytest.raises(TimeoutError, match="nothing has moved on the bus for 52,768 cycles"):
            simulator.wait_interrupt(None)

    def test_a_machine_that_hangs_in_a_layer_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The interrupt stays off, as if the RTL had lost it."""
        write = Simulator.write_register

        def without_interrupt(self: Simulator, offset: int, value: int) -> None:
            enable = next(r.offset for r in register_map(TINY) if r.name == "INTERRUPT_ENABLE")
            write(self, offset, 0 if offset == enable else value)

        monkeypatch.setattr(Simulator, "write_register", without_interrupt)
        with pytest.raises(
            RuntimeError, match=r"no interrupt came.* idle after 1 of 1 layers: nothing has moved"
        ):
            run_layers([layer(5, 20, 6)[0]])

    def test_a_layer_that_fails(self) -> None:
        image, _ = layer(5, 20, 6)
        with pytest.raises(AcceleratorError, match="layer 1 failed with ACTIVATION_LENGTH"):
            run_layers([image, replace(image, activations_length=image.activations_length - 1)])

    def test_a_broken_rule_of_the_bus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Simulator, "_broken_rule", "m_axi_w: last is 0 on beat 3 of 3, cycle 17")
        with pytest.raises(RuntimeError, match="broke a rule of its bus: m_axi_w: last is 0 on beat 3 of 3"):
            run_layers([layer(1, 1, 1)[0]])

    def test_close_may_come_twice(self) -> None:
        simulator = Simulator(TINY, memory_bytes=256)
        simulator.close()
        simulator.close()


def blocks(path: Path) -> dict[int, bytes]:
    """The blocks of an FST file by their type; of several of a type, the last."""
    data, found = path.read_bytes(), {}
    while data:
        length = int.from_bytes(data[1:9], "big")
        found[data[0]] = data[9 : 1 + length]
        data = data[1 + length :]
    return found


def times(path: Path) -> tuple[int, int]:
    """First and last time of an FST file, in tenths of cycles."""
    header = blocks(path)[0]
    return int.from_bytes(header[:8], "big"), int.from_bytes(header[8:16], "big")


def lz4_decoded(data: bytes) -> bytes:
    """An LZ4 block, by the format's description."""
    at, out = 0, bytearray()

    def length(nibble: int) -> int:
        nonlocal at
        found = nibble
        while nibble == 15:
            found, more, at = found + data[at], data[at], at + 1
            if more != 255:
                break
        return found

    while True:
        token, at = data[at], at + 1
        literals = length(token >> 4)
        out += data[at : at + literals]
        at += literals
        if at == len(data):
            return bytes(out)
        distance, at = int.from_bytes(data[at : at + 2], "little"), at + 2
        for _ in range(length(token & 15) + 4):
            out.append(out[-distance])


class TestTrace:
    @pytest.mark.parametrize(("first", "last"), [(0, 50), (200, 200), (300, 450)])
    def test_has_the_cycles_asked_for(self, first: int, last: int, tmp_path: Path) -> None:
        image, expected = layer(9, 33, 5)
        path = tmp_path / "wave.fst"
        path.write_text("of an earlier run")
        result = run_layers([image], trace=Trace(path, first, last))
        np.testing.assert_array_equal(result.outputs[0], expected)
        assert times(path) == (10 * first, 10 * last + 5)
        assert list(tmp_path.iterdir()) == [path]

    def test_of_everything(self, tmp_path: Path) -> None:
        """To the end of the run; every port of the machine is in it, and names of the blocks inside."""
        image, _ = layer(9, 33, 5)
        path = tmp_path / "wave"
        cycles = run_layers([image], trace=Trace(path)).counters["CYCLES"]
        first, last = times(path)
        assert first == 0
        assert 10 * cycles <= last < 10 * cycles + 1000  # registers are read at the end
        hierarchy = blocks(path)[6]  # its length, then LZ4
        names = lz4_decoded(hierarchy[8:])
        assert len(names) == int.from_bytes(hierarchy[:8], "big")
        for name in (
            b"clk",
            b"irq",
            b"m_axi_araddr",
            b"s_axi_wdata",
            b"pea_1",
            b"lane_0",
            b"kept_weight_sum",
        ):
            assert b"\0" + name + b"\0" in names or name in names, name

    def test_runs_as_without(self, tmp_path: Path) -> None:
        image, _ = layer(9, 33, 5)
        traced = run_layers([image], trace=Trace(tmp_path / "wave.fst", 5, 6))
        assert traced.counters == run_layers([image]).counters

    def test_is_there_when_the_run_fails(self, tmp_path: Path) -> None:
        image, _ = layer(5, 20, 6)
        path = tmp_path / "wave.fst"
        with pytest.raises(AcceleratorError):
            run_layers([replace(image, weights_length=1)], trace=Trace(path))
        assert times(path)[0] == 0

    def test_past_the_end(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"trace_from must be in the run, 0\.\.\d+, not 100000"):
            run_layers([layer(5, 20, 6)[0]], trace=Trace(tmp_path / "wave.fst", 100_000))
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_left_where_nothing_ran(self, tmp_path: Path) -> None:
        with Simulator(TINY, memory_bytes=256, trace=Trace(tmp_path / "wave.fst")) as simulator:
            simulator.read_register(0)
        assert list(tmp_path.iterdir()) == []

    def test_in_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"trace '/proc/wave\.fst' cannot be written"):
            run_layers([layer(5, 20, 6)[0]], trace=Trace(Path("/proc/wave.fst")))
