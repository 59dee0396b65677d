"""The engine's memory (sim/axi_memory.h) on its own: timing, bounds, and each rule of the bus it checks."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BASE, SIZE, BEAT = 0x1000, 0x3F80, 8
FULL = 1 << 32
FRESH = 0xA5
OKAY, DECERR = 0, 3

_WIDE = {"m_axi_rdata": ctypes.c_uint64, "m_axi_wdata": ctypes.c_uint64}
_ADDRESSES = {"m_axi_araddr": ctypes.c_uint32, "m_axi_awaddr": ctypes.c_uint32}
_BYTES = [
    "arlen", "arsize", "arburst", "arvalid", "arready", "rresp", "rlast", "rvalid", "rready",
    "awlen", "awsize", "awburst", "awvalid", "awready", "wstrb", "wlast", "wvalid", "wready",
    "bresp", "bvalid", "bready",
]  # fmt: skip


class Ports(ctypes.Structure):
    """The struct of axi_memory_model.cpp."""

    _fields_ = [
        *_ADDRESSES.items(), *_WIDE.items(), *((f"m_axi_{name}", ctypes.c_uint8) for name in _BYTES)
    ]  # fmt: skip


class Bench:
    """A memory, and a master that always takes answers unless ``ready`` says otherwise.

    What has moved is noted as (cycle, ...) in ``reads`` and ``answers``.
    """

    def __init__(self, library: Any, *, latency: int = 3, bandwidth: float = 1.0) -> None:
        self.library = library
        self.model = library.model_new(BASE, SIZE, latency, int(bandwidth * FULL))
        self.ports = Ports(m_axi_rready=1, m_axi_bready=1)
        self.cycle = 0
        self.reads: list[tuple[int, int, int, bool]] = []
        self.answers: list[tuple[int, int]] = []
        self.data = np.ctypeslib.as_array(library.model_data(self.model), shape=(SIZE,))

    def put(self, **signals: int) -> None:
        """Signals of the master, from this cycle on."""
        for name, value in signals.items():
            setattr(self.ports, f"m_axi_{name}", value)

    def see(self, name: str) -> int:
        return int(getattr(self.ports, f"m_axi_{name}"))

    def step(self, cycles: int = 1) -> None:
        for _ in range(cycles):
            self.library.model_drive(self.model, ctypes.byref(self.ports), self.cycle)
            self.library.model_sample(self.model, ctypes.byref(self.ports), self.cycle)
            if self.see("rvalid") and self.see("rready"):
                self.reads.append((self.cycle, self.see("rdata"), self.see("rresp"), bool(self.see("rlast"))))
            if self.see("bvalid") and self.see("bready"):
                self.answers.append((self.cycle, self.see("bresp")))
            self.cycle += 1

    def address(self, channel: str, address: int, beats: int, *, size: int = 3, burst: int = 1) -> None:
        """Offers an address for the next cycle alone; the memory takes it."""
        names = {"addr": address, "len": beats - 1, "size": size, "burst": burst, "valid": 1}
        self.put(**{f"a{channel}{name}": value for name, value in names.items()})
        self.step()
        assert self.see(f"a{channel}ready") == 1
        self.put(**{f"a{channel}valid": 0})

    def write(self, *beats: int, strobes: int = 0xFF, last: bool = True) -> None:
        """Data, a beat after the other as the memory takes them."""
        for i, beat in enumerate(beats):
            self.put(wvalid=1, wdata=beat, wstrb=strobes, wlast=last and i + 1 == len(beats))
            self.step()
            while not self.see("wready"):
                self.step()
        self.put(wvalid=0)

    @property
    def broken_rule(self) -> str:
        return str(self.library.model_broken_rule(self.model).decode())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    target = tmp_path_factory.mktemp("model") / "libmodel.so"
    source = Path(__file__).with_name("axi_memory_model.cpp")
    folder = str(files("sliceforge.sim"))
    warnings = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
    subprocess.run(
        ["c++", "-std=c++17", "-O1", "-fPIC", "-shared", *warnings, "-I", folder, source, "-o", target],
        check=True,
    )
    library = ctypes.CDLL(str(target))
    model, long = ctypes.c_void_p, ctypes.c_uint64
    library.model_new.restype, library.model_new.argtypes = model, [long] * 4
    library.model_drive.argtypes = library.model_sample.argtypes = [model, ctypes.POINTER(Ports), long]
    for name, result in {
        "free": None, "data": ctypes.POINTER(ctypes.c_uint8), "broken_rule": ctypes.c_char_p,
        "refused": long, "last_moved": long, "bytes_written": long,
    }.items():  # fmt: skip
        function = getattr(library, f"model_{name}")
        function.restype, function.argtypes = result, [model]
    return library


@pytest.fixture
def bench(library: Any) -> Iterator[Bench]:
    made = Bench(library)
    yield made
    library.model_free(made.model)


class TestReads:
    @pytest.mark.parametrize("latency", [0, 1, 100])
    def test_latency(self, latency: int, library: Any) -> None:
        bench = Bench(library, latency=latency)
        bench.data[:24] = np.arange(24)
        bench.address("r", BASE, 3)
        bench.step(latency + 10)
        assert [cycle for cycle, *_ in bench.reads] == [latency + 1 + i for i in range(3)]
        data = np.array([word for _, word, *_ in bench.reads], np.uint64).tobytes()
        assert list(data) == list(range(24))
        assert [(response, last) for *_, response, last in bench.reads] == [
            (OKAY, False), (OKAY, False), (OKAY, True)
        ]  # fmt: skip

    def test_many_on_their_way_come_back_to_back(self, bench: Bench) -> None:
        bench.data[:] = np.arange(SIZE) % 251
        for i in range(20):
            bench.address("r", BASE + 512 * i, 2)
        bench.step(60)
        cycles = [cycle for cycle, *_ in bench.reads]
        assert cycles == list(range(4, 4 + 40))
        for i, (_, word, _, last) in enumerate(bench.reads):
            at = 512 * (i // 2) + BEAT * (i % 2)
            assert word == int.from_bytes(bench.data[at : at + BEAT].tobytes(), "little")
            assert last == (i % 2 == 1)

    @pytest.mark.parametrize("bandwidth", [0.75, 0.5, 0.3])
    def test_bandwidth(self, bandwidth: float, library: Any) -> None:
        bench = Bench(library, bandwidth=bandwidth)
        for i in range(4):
            bench.address("r", BASE + 4096 * (i % 2), 256)
        bench.step(int(1024 / bandwidth) + 20)
        cycles = [cycle for cycle, *_ in bench.reads]
        assert len(cycles) == 1024
        assert abs((cycles[-1] - cycles[0]) * bandwidth - 1023) < 2
        assert max(np.diff(cycles)) == -(-1 // bandwidth)  # evenly

    def test_a_beat_waits_for_ready(self, bench: Bench) -> None:
        bench.data[:16] = range(16)
        bench.address("r", BASE, 2)
        bench.put(rready=0)
        bench.step(20)
        assert bench.reads == []
        assert (bench.see("rvalid"), bench.see("rdata") & 255) == (1, 0)
        bench.put(rready=1)
        bench.step(2)
        assert [word & 255 for _, word, *_ in bench.reads] == [0, 8]

    @pytest.mark.parametrize(
        ("address", "beats"),
        [(BASE - 8, 1), (BASE + SIZE - 8, 2), (BASE + SIZE, 1), (0, 4), (0xFFFF_F000, 256)],
    )
    def test_past_the_memory(self, address: int, beats: int, bench: Bench) -> None:
        bench.address("r", address, beats)
        bench.address("r", BASE, 1)
        bench.step(300)
        *wrong, right = bench.reads
        assert all((word, response) == (0, DECERR) for _, word, response, _ in wrong)
        assert right[2] == OKAY
        assert bench.library.model_refused(bench.model) == 1

    def test_the_last_beat_of_the_memory(self, bench: Bench) -> None:
        bench.address("r", BASE + SIZE - 8, 1)
        bench.step(6)
        assert [response for *_, response, _ in bench.reads] == [OKAY]


class TestWrites:
    def test_strobes_and_answer(self, bench: Bench) -> None:
        bench.address("w", BASE + 16, 2)
        bench.write(0x0706050403020100, 0x1716151413121110, strobes=0xF0)
        bench.step(10)
        assert list(bench.data[:16]) == [FRESH] * 16
        assert list(bench.data[16:32]) == [FRESH] * 4 + [4, 5, 6, 7] + [FRESH] * 4 + [20, 21, 22, 23]
        assert bench.answers == [(2 + 3 + 1, OKAY)]  # latency cycles after the one with the last beat
        assert bench.library.model_bytes_written(bench.model) == 8

    def test_data_before_its_address(self, bench: Bench) -> None:
        bench.write(1, 2)
        bench.write(3)
        bench.address("w", BASE, 2)
        bench.address("w", BASE + 64, 1)
        bench.step(10)
        assert [bench.data[0], bench.data[8], bench.data[64]] == [1, 2, 3]
        assert [response for _, response in bench.answers] == [OKAY, OKAY]
        assert bench.broken_rule == ""

    def test_bandwidth(self, library: Any) -> None:
        bench = Bench(library, bandwidth=0.25)
        bench.address("w", BASE, 100)
        bench.write(*range(100))
        assert abs(bench.cycle - 400) < 6
        assert bench.broken_rule == ""

    def test_past_the_memory(self, bench: Bench) -> None:
        before = bench.data.copy()
        bench.address("w", BASE + SIZE - 8, 2)
        bench.write(1, 2)
        bench.step(10)
        assert [response for _, response in bench.answers] == [DECERR]
        np.testing.assert_array_equal(bench.data, before)
        assert bench.library.model_refused(bench.model) == 1

    def test_an_answer_waits_for_ready(self, bench: Bench) -> None:
        bench.put(bready=0)
        bench.address("w", BASE, 1)
        bench.write(1)
        bench.step(20)
        assert (bench.answers, bench.see("bvalid")) == ([], 1)
        bench.put(bready=1)
        bench.step(2)
        assert len(bench.answers) == 1


class TestRules:
    @pytest.mark.parametrize("channel", ["r", "w"])
    @pytest.mark.parametrize(
        ("address", "beats", "options", "rule"),
        [
            (BASE + 4096 - 16, 3, {}, "3 beats at 0x1ff0 cross 4 KiB"),
            (
                BASE + 8,
                256,
                {"size": 2},
                "size 2, burst 1, where whole beats of incrementing bursts were due",
            ),
            (BASE, 1, {"burst": 0}, "size 3, burst 0, where whole beats of incrementing bursts were due"),
            (BASE + 4, 1, {}, "address 0x1004 is not aligned"),
        ],
    )
    def test_addresses(
        self, channel: str, address: int, beats: int, options: dict[str, int], rule: str, bench: Bench
    ) -> None:
        bench.address(channel, address, beats, **options)
        assert bench.broken_rule == f"m_axi_a{channel}: {rule}, cycle 0"

    @pytest.mark.parametrize("channel", ["r", "w"])
    def test_up_to_the_end_of_4_kib(self, channel: str, bench: Bench) -> None:
        bench.address(channel, BASE + 4096 - 256 * 8, 256)
        bench.address(channel, BASE + 4096 - 8, 1)
        assert bench.broken_rule == ""

    @pytest.mark.parametrize("early", [False, True])
    @pytest.mark.parametrize(("beats", "last", "rule"), [(3, False, "0 on beat 3"), (2, True, "1 on beat 2")])
    def test_last(self, beats: int, last: bool, rule: str, early: bool, bench: Bench) -> None:
        if early:
            bench.write(*range(beats), last=last)
        bench.address("w", BASE, 3)
        if not early:
            bench.write(*range(beats), last=last)
        assert bench.broken_rule.startswith(f"m_axi_w: last is {rule} of 3, cycle ")

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ({"wdata": 8}, "the payload changed before ready"),
            ({"wstrb": 1}, "the payload changed before ready"),
            ({"wlast": 1}, "the payload changed before ready"),
            ({"wvalid": 0}, "valid fell before ready"),
        ],
    )
    def test_data_stays_while_it_waits(self, change: dict[str, int], rule: str, library: Any) -> None:
        bench = Bench(library, bandwidth=0.1)
        bench.address("w", BASE, 4)
        bench.put(wvalid=1, wdata=7, wstrb=15)
        bench.step()
        assert bench.see("wready") == 0
        bench.put(**change)
        bench.step()
        assert bench.broken_rule == f"m_axi_w: {rule}, cycle 2"

    def test_the_first_broken_rule_stays(self, bench: Bench) -> None:
        bench.address("r", BASE + 4, 1)
        bench.address("r", BASE + 2, 1)
        assert bench.broken_rule.endswith("address 0x1004 is not aligned, cycle 0")


class TestQuiet:
    """`last_moved`: what tells a machine that hangs from a memory that is slow."""

    def last_moved(self, bench: Bench) -> int:
        return int(bench.library.model_last_moved(bench.model))

    def test_while_the_memory_takes_its_time(self, library: Any) -> None:
        bench = Bench(library, latency=500)
        bench.address("r", BASE, 1)
        bench.step(400)
        assert self.last_moved(bench) == 400
        bench.step(200)
        assert self.last_moved(bench) == 501

    def test_not_while_the_master_holds_an_answer_up(self, bench: Bench) -> None:
        bench.put(rready=0)
        bench.address("r", BASE, 1)
        bench.step(100)
        assert self.last_moved(bench) == 3

    def test_not_while_data_is_missing(self, bench: Bench) -> None:
        bench.address("w", BASE, 2)
        bench.step(100)
        assert self.last_moved(bench) == 0
