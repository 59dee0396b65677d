"""The command line and the driver on the SoC's RTL, through a pseudo-terminal: real bytes, bit by bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serial

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.host_link import MEMORY_BASE, RESPONSE, Operation, Status
from sliceforge.gen.registers import DESCRIPTOR_BYTES, register_map
from sliceforge.sim import gemm
from sliceforge.sim.board import BoardSimulation
from sliceforge.sim.descriptor import decode_descriptor, encode_descriptor
from sliceforge.sim.driver import BusError, Driver, place
from sliceforge.sim.link_frames import FrameParser
from sliceforge.sim.pseudo_terminal import LineErrors
from sliceforge.sim.uart_port import ATTEMPTS, UartPort
from sliceforge.verif.link import frame, request
from sliceforge.verif.test_driver import layer

SLICEFORGE = Path(sys.executable).with_name("sliceforge")
TINY = AcceleratorConfig.preset("tiny")
MEMORY_KIB = 8  # small, so that layers run in parts
OFFSETS = {register.name: register.offset for register in register_map(TINY)}
START = 1


def operands(m: int, k: int, n: int) -> dict[str, Any]:
    rng = np.random.default_rng([m, k, n])
    return {
        "weights": rng.integers(-64, 64, (m, k)).astype(np.int8),
        "activations": np.clip(np.rint(rng.normal(100, 20, (k, n))), 0, 255).astype(np.uint8),
        "bias": rng.integers(-1000, 1000, m).astype(np.int32),
    }


def exact(given: dict[str, Any]) -> Any:
    w, x = given["weights"].astype(np.int64), given["activations"].astype(np.int64)
    return w @ (x - 100) + given["bias"][:, None]


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    """A board on a good line, for tests that leave it usable: opening it resets it."""
    with BoardSimulation(TINY, memory_kib=MEMORY_KIB) as board:
        yield board.device


class Line:
    """Requests of one's own making."""

    def __init__(self, device: str) -> None:
        self.serial = serial.Serial(device, timeout=0.05)
        self.parser = FrameParser(2000)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.serial.close()

    def answers(self, seconds: float) -> list[bytes]:
        found, end = [], time.monotonic() + seconds
        while time.monotonic() < end and not found:
            found = self.parser.feed(self.serial.read(1000))
        return found

    def ask(self, tag: int, operation: int, address: int = 0, *words: int, count: int | None = None) -> bytes:
        """Status, flags and words of the answer."""
        self.serial.write(frame(request(tag, operation, address, words, count)))
        (answer,) = self.answers(10)
        assert tuple(answer[:2]) == (tag, operation | RESPONSE)
        return answer[2:]


class TestCommands:
    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Any]:
        """Options of gemm, with the operands."""
        given = operands(13, 40, 11)
        for name, array in given.items():
            np.save(tmp_path / f"{name}.npy", array)
        paths = [text for name in given for text in (f"--{name}", tmp_path / f"{name}.npy")]
        return ["gemm", "--config", "tiny", *paths, "--zero-point", "100"]

    @staticmethod
    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SLICEFORGE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
        )

    @pytest.mark.parametrize("errors", [[], ["--errors", "1e-3", "--seed", "3"]], ids=["good", "bad"])
    def test_a_gemm_on_a_simulated_board(
        self, errors: list[str], files: list[Any], tmp_path: Path, device: str
    ) -> None:
        """``device`` only makes sure that the SoC is built."""
        command = ["simulate-board", "--config", "tiny", "--memory-kib", str(MEMORY_KIB), *errors]
        with subprocess.Popen([SLICEFORGE, *command], stdout=subprocess.PIPE, text=True) as board:
            try:
                title, usage = (board.stdout.readline() for _ in range(2))
                found = re.search(r"--engine (uart://(/dev/\S+))$", usage)
                assert found and f"{MEMORY_KIB} KiB of memory is at {found[2]} until Ctrl-C" in title
                assert usage.startswith("  sliceforge gemm --config tiny --weights W.npy")
                done = self.run(
                    *files, "--engine", found[1], "--output", tmp_path / "Y.npy", "--report",
                    tmp_path / "R.json",
                )  # fmt: skip
            finally:
                board.send_signal(signal.SIGINT)
            assert board.wait(timeout=20) == 0
            assert board.stdout.read() == ""
        assert (done.returncode, done.stderr) == (0, "")
        np.testing.assert_array_equal(np.load(tmp_path / "Y.npy"), exact(operands(13, 40, 11)))
        report = json.loads((tmp_path / "R.json").read_text())
        assert report["engine"] == found[1] and report["cycles"] is None
        assert report["cycle_bound"] < report["total_cycles"] < 2 * report["cycle_bound"]
        assert f"{report['total_cycles']:,}" in done.stdout

    def test_boards_that_are_none(self, files: list[Any], tmp_path: Path, device: str) -> None:
        end, other_end = os.openpty()
        silent = os.ttyname(other_end)
        output = tmp_path / "Y.npy"
        cases = [
            ([f"uart://{tmp_path}/none"], 2, f"engine's device '{tmp_path}/none' cannot be opened: No such"),
            (
                [f"uart://{silent}"],
                1,
                f"nobody at {silent} answered the HELLO, sent {ATTEMPTS} times: check the cable",
            ),
            ([f"uart://{device}", "--set", "fifo_depth=4"], 1, "register FIFO_DEPTH must be 4"),
            ([f"uart://{device}?baud=0"], 2, "engine's baud must be 1200..16777216, not 0"),
            ([f"uart://{device}", "--memory-latency", 5], 2, "memory_latency needs engine rtl"),
        ]
        try:
            for arguments, status, sentence in cases:
                done = self.run(*files, "--engine", *arguments, "--output", output)
                assert (done.returncode, done.stdout) == (status, "")
                assert done.stderr.startswith(f"sliceforge: {sentence}") and done.stderr.count("\n") == 1
                assert not output.exists()
        finally:
            os.close(end)
            os.close(other_end)

    @pytest.mark.parametrize(
        ("arguments", "status", "sentence"),
        [
            (["--memory-kib", "0"], 2, "memory_kib must be 1..4096, not 0"),
            (["--memory-kib", "8", "--sdram"], 2, "memory_kib must not be given with an SDRAM, not 8"),
            (["--errors", "1.5"], 2, "errors must be 0 to 1, not 1.5"),
            (["--errors", "nan"], 2, "errors must be 0 to 1, not nan"),
            (["--seed", "1"], 2, "seed must come with errors, not alone as 1"),
        ],
    )
    def test_wrong_input_of_simulate_board(self, arguments: list[str], status: int, sentence: str) -> None:
        done = self.run("simulate-board", "--config", "tiny", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (status, "", f"sliceforge: {sentence}\n")


class TestEngine:
    @pytest.mark.parametrize(
        "options",
        [{}, {"dataflow": "is", "psum_group": 2, "psum_chunk": 16, "psum_exponents": 6}],
        ids=["plain", "apsq"],
    )
    def test_counters_are_those_of_simulation(self, options: dict[str, Any], device: str) -> None:
        """What does not depend on the memory's speed."""
        given = operands(20, 50, 9)
        settings = {**given, "config": TINY, "zero_point": 100, **options}
        result, simulated = (gemm(**settings, engine=engine) for engine in (f"uart://{device}", "rtl"))
        np.testing.assert_array_equal(result.output, simulated.output)
        for name in ("OUTER_PRODUCTS", "WEIGHTS_BUSY", "STORE_BUSY", "BYTES_READ", "BYTES_WRITTEN"):
            assert result.report["counters"][name] == simulated.report["counters"][name], name
        for name in ("accesses", "schedule", "dram_bytes_least", "cycle_bound", "parts", "dataflow"):
            assert result.report[name] == simulated.report[name], name

    def test_a_layer_in_parts(self, device: str) -> None:
        given = operands(50, 60, 41)
        result = gemm(**given, config=TINY, zero_point=100, engine=f"uart://{device}")
        np.testing.assert_array_equal(result.output, exact(given))
        assert result.report["parts"] > 1

    def test_on_an_sdram(self) -> None:
        """Of 32 MiB, so in one part; its chip sees none of its rules broken."""
        given = operands(50, 60, 41)
        with BoardSimulation(TINY, memory_kib=None) as board:
            result = gemm(**given, config=TINY, zero_point=100, engine=f"uart://{board.device}")
            with UartPort(board.device, TINY) as port:
                assert port.memory_bytes == 32 << 20
        np.testing.assert_array_equal(result.output, exact(given))
        assert result.report["parts"] == 1

    def test_on_a_bad_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spoilt = 0
        apply = LineErrors.apply

        def counted(errors: LineErrors, data: bytes) -> bytes:
            nonlocal spoilt
            arrived = apply(errors, data)
            spoilt += arrived != data
            return arrived

        monkeypatch.setattr(LineErrors, "apply", counted)
        given = operands(20, 50, 9)
        with BoardSimulation(TINY, memory_kib=MEMORY_KIB, error_rate=1e-3, seed=1) as board:
            result = gemm(**given, config=TINY, zero_point=100, engine=f"uart://{board.device}")
        np.testing.assert_array_equal(result.output, exact(given))
        assert spoilt


class TestBridge:
    def test_memory(self, device: str) -> None:
        """All bytes that are stuffed, and unaligned ends; the last word, and what is behind it."""
        rng = np.random.default_rng(2)
        with UartPort(device, TINY) as port:
            assert port.memory_bytes == 1024 * MEMORY_KIB
            for data in (bytes([0x7D, 0x7E]) * 512, bytes([0x7D]) * 3, rng.bytes(1500)):
                port.write_memory(MEMORY_BASE + 5, data)
                assert port.read_memory(MEMORY_BASE + 5, len(data)) == data
            end = MEMORY_BASE + port.memory_bytes
            port.write_memory(end - 2, b"\x12\x34")
            assert port.read_memory(end - 2, 2) == b"\x12\x34"
            for address in (0x3FC, end, MEMORY_BASE - 4, 0x4000_0000):
                with pytest.raises(
                    BusError, match=f"the READ of 1 words at {address:#x} was answered with an"
                ):
                    port.read_register(address)
            assert port.read_register(OFFSETS["LANES"]) == TINY.lanes

    def test_a_start_is_done_once(self, device: str) -> None:
        """Sent again with its tag it is answered as before; with another tag, a start while BUSY is refused.
        Then a port opens while the machine works, and resets it."""
        image, golden = layer(TINY, (9, 40, 11))
        size = 1024 * MEMORY_KIB
        placement = place([image], base=MEMORY_BASE, memory_bytes=size)
        endless = decode_descriptor(placement.data[:DESCRIPTOR_BYTES])
        endless |= {"NEXT": 1, "NEXT_ADDRESS": placement.address}
        with UartPort(device, TINY) as port:
            port.write_memory(placement.address, placement.data)
            port.write_memory(placement.address, encode_descriptor(endless))
            port.write_register(OFFSETS["QUEUE_ADDRESS"], placement.address)
        with Line(device) as line:
            for _ in range(2):
                start = line.ask(7, Operation.WRITE, OFFSETS["CONTROL"], START)
                assert start == bytes([Status.OK, 0])
            assert line.ask(8, Operation.WRITE, OFFSETS["CONTROL"], START) == bytes([Status.SLAVE_ERROR, 0])
            assert line.ask(9, Operation.READ, OFFSETS["STATUS"], count=1)[2] == 1, "still BUSY"
        with UartPort(device, TINY) as port:
            assert port.read_register(OFFSETS["STATUS"]) == 0
            result = Driver(port, TINY).run([image], base=MEMORY_BASE, memory_bytes=size)
            np.testing.assert_array_equal(result.outputs[0], golden)

    def test_requests_that_are_none(self, device: str) -> None:
        with Line(device) as line:
            bad = bytes([Status.BAD_REQUEST, 0])
            assert line.ask(1, 4) == bad
            assert line.ask(2, Operation.READ, 2, count=1) == bad
            assert line.ask(3, Operation.READ, 0, count=257) == bad
            assert line.ask(4, Operation.WRITE, MEMORY_BASE, 1, 2, count=3) == bad
            line.serial.write(frame(b"short") + frame(bytes(2000)))
            good = frame(request(5, Operation.HELLO))
            line.serial.write(good[:-2] + bytes([good[-2] ^ 1, good[-1]]))
            assert line.answers(0.3) == []
            line.serial.write(np.random.default_rng(3).bytes(3000))
            line.answers(0.3)
            assert line.ask(5, Operation.READ, OFFSETS["VECTOR"], count=1)[2] == TINY.vector
