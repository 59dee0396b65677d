"""The host's side of the host link, on a modelled board behind a pseudo-terminal, and the engine ``uart://``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.host_link import MEMORY_BASE, Operation, Status
from sliceforge.gen.registers import register_map
from sliceforge.sim import MismatchError, gemm, uart_port
from sliceforge.sim.driver import BusError, Driver, place
from sliceforge.sim.layer_image import LayerImage, pack_layer
from sliceforge.sim.link_frames import FrameParser, encode_frame
from sliceforge.sim.parts import Pack, split_layer
from sliceforge.sim.pseudo_terminal import LineErrors, PseudoTerminal
from sliceforge.sim.uart_engine import Board
from sliceforge.sim.uart_port import ATTEMPTS, UartPort
from sliceforge.verif.board_model import BoardModel
from sliceforge.verif.test_driver import MEMORY, FakeAccelerator, layer

TINY = AcceleratorConfig.preset("tiny")
OFFSETS = {register.name: register.offset for register in register_map(TINY)}
BODIES = st.binary(min_size=1, max_size=80)
CRAMMED = st.lists(st.sampled_from([0x7D, 0x7E, 0x5D, 0x5E, 0x20]), min_size=1, max_size=80).map(bytes)
# Garbage without a flag of its own: two would enclose a frame.
GARBAGE = st.binary(max_size=40).map(lambda data: data.replace(b"\x7e", b"\x7d"))


class TestFrames:
    def test_by_hand(self) -> None:
        # The CRC's published check value is 0xcbf43926.
        assert encode_frame(b"123456789") == b"\x7e123456789\x26\x39\xf4\xcb\x7e"
        body = b"\x7d\x7e\x5e"
        crc = crc32(body).to_bytes(4, "little")
        assert not {0x7D, 0x7E} & set(crc)
        assert encode_frame(body) == b"\x7e\x7d\x5d\x7d\x5e\x5e" + crc + b"\x7e"

    @given(st.lists(BODIES | CRAMMED, max_size=5), st.data())
    def test_bodies_come_back(self, bodies: list[bytes], data: st.DataObject) -> None:
        """From a line with garbage before, between and behind, cut into pieces anywhere."""
        line = b"".join(data.draw(GARBAGE) + encode_frame(body) for body in bodies) + data.draw(GARBAGE)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(line)), max_size=6)))
        parser = FrameParser(80)
        found = [parser.feed(line[a:b]) for a, b in pairwise([0, *cuts, len(line)])]
        assert list(chain(*found)) == bodies

    @given(st.lists(BODIES, min_size=1, max_size=4))
    def test_one_flag_between_frames(self, bodies: list[bytes]) -> None:
        line = b"\x7e" + b"".join(encode_frame(body)[1:] for body in bodies)
        assert FrameParser(80).feed(line) == bodies

    @given(BODIES | CRAMMED, st.data())
    def test_a_spoilt_frame_is_dropped(self, body: bytes, data: st.DataObject) -> None:
        """One of its bytes is altered, lost or doubled; the frame behind it is found."""
        frame = bytearray(encode_frame(body))
        at = data.draw(st.integers(0, len(frame) - 1))
        other = data.draw(st.sampled_from([b"", bytes(frame[at : at + 1]) * 2, bytes([frame[at] ^ 1])]))
        frame[at : at + 1] = other
        assert FrameParser(80).feed(bytes(frame) + encode_frame(b"next")) in ([b"next"], [body, b"next"])

    def test_what_is_no_frame(self) -> None:
        good = encode_frame(b"good")
        crc = crc32(b"good").to_bytes(4, "little")
        for content in (b"", b"\0\0\0\0", crc, b"good" + crc + b"\x7d", b"good" + crc[::-1], b"goo" + crc):
            assert FrameParser(80).feed(b"\x7e" + content + good) == [b"good"], content

    @pytest.mark.parametrize("octet", [b"a", b"\x7e"])
    def test_lengths(self, octet: bytes) -> None:
        parser = FrameParser(80)
        for length in (1, 79, 80, 81, 200, 100_000):
            body = octet * length
            expected = [body] if length <= 80 else []
            assert parser.feed(encode_frame(body)) == expected
            line = encode_frame(body)
            assert list(chain(*(parser.feed(line[i : i + 1]) for i in range(len(line))))) == expected


class TestErrorsOnTheLine:
    def test_rate_and_kinds(self) -> None:
        data = bytes(range(256)) * 400
        assert LineErrors(0.0, 1).apply(data) == data
        spoilt = LineErrors(0.01, 1).apply(data)
        assert spoilt == LineErrors(0.01, 1).apply(data) != LineErrors(0.01, 2).apply(data)
        kinds = {LineErrors(1.0, seed).apply(b"\x55") for seed in range(200)}
        flipped = {bytes([0x55 ^ 1 << i]) for i in range(8)}
        assert flipped | {b"", b"\x55\x55"} <= kinds
        others = kinds - flipped - {b"", b"\x55\x55"}
        assert others and all(len(other) == 2 and other[1:] == b"\x55" for other in others)
        count = sum(LineErrors(0.01, seed).apply(b"\x55") != b"\x55" for seed in range(10_000))
        assert 50 < count < 200


class TestPseudoTerminal:
    def test_a_machine_that_fails(self) -> None:
        class Broken:
            def exchange(self, data: bytes) -> bytes:
                if data:
                    raise RuntimeError(f"broken by {data!r}")
                return b""

        with PseudoTerminal(Broken()) as terminal, open(terminal.device, "wb", buffering=0) as line:
            line.write(b"\n")
            with pytest.raises(RuntimeError, match=r"broken by b'\\n'"):
                terminal.wait()

    def test_what_nobody_reads_is_lost(self) -> None:
        class Talker:
            told, heard = 0, b""

            def exchange(self, data: bytes) -> bytes:
                self.heard += data
                self.told += 1
                return bytes(1000) if self.told < 100 else b""

        talker = Talker()
        with PseudoTerminal(talker) as terminal, open(terminal.device, "r+b", buffering=0) as line:
            line.write(bytes(range(256)))
            deadline = time.monotonic() + 5
            while (talker.told < 100 or len(talker.heard) < 256) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert talker.heard == bytes(range(256)), "raw, and nothing is echoed"
            assert talker.told >= 100
            assert set(line.read(100_000)) == {0}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs for a bridge that answers at once."""
    monkeypatch.setattr(uart_port, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(uart_port, "STILL_TIMEOUT", 0.3)


@contextmanager
def board(bridge: BoardModel | None = None, **line: Any) -> Iterator[tuple[str, BoardModel]]:
    """The device of a modelled board, and its bridge."""
    bridge = bridge or BoardModel(FakeAccelerator(TINY, origin=MEMORY_BASE))
    with PseudoTerminal(bridge, **line) as terminal:
        yield terminal.device, bridge


class TestPort:
    def test_opening(self) -> None:
        with board() as (device, bridge), UartPort(device, TINY) as port:
            assert [operation for operation, _, _ in bridge.executed] == [Operation.HELLO, Operation.RESET]
            assert (port.memory_base, port.memory_bytes) == (MEMORY_BASE, MEMORY)

    def test_memory_at_any_address(self) -> None:
        rng = np.random.default_rng(1)
        with board() as (device, bridge), UartPort(device, TINY) as port:
            memory = bytearray(rng.bytes(MEMORY))
            bridge.accelerator.memory[:] = memory
            for start in range(4):
                for size in (0, 1, 2, 3, 4, 5, 8, 1023, 1024, 1025, 2050):
                    at = 64 + start
                    data = rng.bytes(size)
                    memory[at : at + size] = data
                    port.write_memory(MEMORY_BASE + at, data)
                    assert bridge.accelerator.memory == memory
                    assert port.read_memory(MEMORY_BASE + at - 2, size + 3) == memory[at - 2 : at + size + 1]
            port.write_memory(MEMORY_BASE + MEMORY - 1, b"\x11")
            assert port.read_memory(MEMORY_BASE + MEMORY - 2, 2) == bytes([memory[-2], 0x11])
            for address, size in ((MEMORY_BASE - 1, 2), (MEMORY_BASE + MEMORY - 1, 2), (0, 4)):
                with pytest.raises(ValueError, match="must stay within the memory, not be"):
                    port.read_memory(address, size)
                with pytest.raises(ValueError, match="must stay within the memory, not be"):
                    port.write_memory(address, bytes(size))
            assert bridge.accelerator.memory[:-1] == memory[:-1]

    def test_a_line_that_spoils_long_frames(self, quick: None) -> None:
        """Memory goes over in shorter ones, and in long ones again when the line is better."""

        class Short(BoardModel):
            most = 100

            def _answer(self, body: bytes) -> bytes:
                words = max(body[2] + 256 * body[3], (len(body) - 8) // 4)
                return super()._answer(body) if words <= self.most else b"lost"

        bridge = Short(FakeAccelerator(TINY, origin=MEMORY_BASE))
        data = np.random.default_rng(1).bytes(3000)
        with board(bridge) as (device, _), UartPort(device, TINY) as port:
            port.write_memory(MEMORY_BASE, data)
            assert bridge.accelerator.memory[: len(data)] == data
            bridge.most = 8
            assert port.read_memory(MEMORY_BASE, 100) == data[:100]
            bridge.most = 256
            assert port.read_memory(MEMORY_BASE, len(data)) == data
            bridge.executed.clear()
            assert port.read_memory(MEMORY_BASE, len(data)) == data
            assert len(bridge.executed) == 3
            bridge.most = 7
            with pytest.raises(TimeoutError, match="answered the READ of 8 words at 0x80000000"):
                port.read_memory(MEMORY_BASE, len(data))

    def test_registers_that_refuse(self) -> None:
        with board() as (device, _), UartPort(device, TINY) as port:
            with pytest.raises(BusError, match=r"the WRITE of 1 words at 0x0 was answered with an error"):
                port.write_register(OFFSETS["ID"], 1)
            with pytest.raises(BusError, match="the READ of 1 words at 0x3fc was answered with an error"):
                port.read_register(0x3FC)
            assert port.read_register(OFFSETS["MAX_K"]) == TINY.max_k

    @pytest.mark.parametrize(
        ("status", "sentence"),
        [
            (Status.BUS_TIMEOUT, "the READ of 1 words at 0x0 got no answer from the bus"),
            (Status.BAD_REQUEST, "the READ of 1 words at 0x0 was refused by the bridge"),
        ],
    )
    def test_other_statuses(self, status: Status, sentence: str) -> None:
        with board() as (device, bridge), UartPort(device, TINY) as port:
            bridge.statuses.append(status)
            with pytest.raises(RuntimeError, match=sentence):
                port.read_register(0)
            assert port.read_register(OFFSETS["LANES"]) == TINY.lanes

    @pytest.mark.parametrize(
        ("word", "value", "sentence"),
        [
            (0, 0x12345678, "must say MAGIC 0x53464c4b for this release of sliceforge, not 0x12345678"),
            (1, 2, "must say LINK_VERSION 0x1 for this release of sliceforge, not 0x2"),
        ],
    )
    def test_another_link(self, word: int, value: int, sentence: str) -> None:
        bridge = BoardModel(FakeAccelerator(TINY, origin=MEMORY_BASE))
        bridge.words[word] = value
        with board(bridge) as (device, _), pytest.raises(RuntimeError, match=sentence):
            UartPort(device, TINY)
        assert [operation for operation, _, _ in bridge.executed] == [Operation.HELLO]

    @pytest.mark.parametrize("lost", [1, 3])
    def test_lost_answers(self, lost: int, quick: None) -> None:
        """The request is sent again, and a write is not done twice."""
        with board() as (device, bridge), UartPort(device, TINY) as port:
            bridge.executed.clear()
            bridge.lost = lost
            port.write_register(OFFSETS["INTERRUPT_ENABLE"], 3)
            assert bridge.executed == [(Operation.WRITE, OFFSETS["INTERRUPT_ENABLE"], 1)]
            bridge.lost = lost
            assert port.read_register(OFFSETS["INTERRUPT_ENABLE"]) == 3
            assert len(bridge.executed) == 2 + lost  # a read has no effect

    def test_a_board_that_falls_silent(self, quick: None) -> None:
        with board() as (device, bridge), UartPort(device, TINY) as port:
            bridge.lost = 1000
            sentence = (
                f"nobody at {device} answered the READ of 1 words at 0x0, sent {ATTEMPTS} times: check the "
                r"cable, the baud rate \(here 1,000,000\), and that the board is on and has its bitstream"
            )
            with pytest.raises(TimeoutError, match=sentence):
                port.read_register(0)

    def test_a_line_that_takes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A write to it must not wait for ever."""
        monkeypatch.setattr(uart_port, "_WRITE_TIMEOUT", 0.1)
        end, other_end = os.openpty()
        device = os.ttyname(other_end)
        try:
            os.set_blocking(other_end, False)
            with pytest.raises(BlockingIOError):
                while True:
                    os.write(other_end, b"filling")
            with pytest.raises(RuntimeError, match=f"the connection to {device} broke off: Write timeout"):
                UartPort(device, TINY)
        finally:
            os.close(end)
            os.close(other_end)

    def test_a_board_that_goes_away(self) -> None:
        with board() as (device, _):
            port = UartPort(device, TINY)
        with port, pytest.raises(RuntimeError, match=f"the connection to {device} broke off"):
            port.read_register(0)

    def test_answers_that_are_not_meant(self) -> None:
        """They have another tag or operation, or words that do not fit."""

        class Chatty(BoardModel):
            def exchange(self, data: bytes) -> bytes:
                answer = super().exchange(data)
                for body in FrameParser(2000).feed(answer):
                    tag, answered = body[:2]
                    heads = ([tag ^ 1, answered, 0, 0], [tag, answered & 15, 0, 0], [tag, answered ^ 3, 0, 0])
                    others = ([tag, answered, 1, 0, 1, 2, 3, 4], [tag, answered, 9, 0], [tag, answered, 0])
                    wrong = [bytes(head) + b"\xee" * (len(body) - 4) for head in heads]
                    wrong += [bytes(other) for other in others] + [body + b"\xee" * 4]
                    answer = b"".join(map(encode_frame, wrong)) + answer
                return answer

        with board(Chatty(FakeAccelerator(TINY, origin=MEMORY_BASE))) as (device, _):
            with UartPort(device, TINY) as port:
                port.write_register(OFFSETS["INTERRUPT_ENABLE"], 2)
                assert port.read_register(OFFSETS["INTERRUPT_ENABLE"]) == 2
                assert port.read_register(OFFSETS["VECTOR"]) == TINY.vector

    def test_a_port_is_for_one(self) -> None:
        sentence = "engine's device '{}' cannot be opened: .*: another program has it open"
        with board() as (device, _), UartPort(device, TINY):
            with pytest.raises(ValueError, match=sentence.format(device)):
                UartPort(device, TINY)

    def test_wait(self, quick: None) -> None:
        """The interrupt, a machine that hangs, and one that works for longer than the limit."""
        machine = FakeAccelerator(TINY, origin=MEMORY_BASE)
        with board(BoardModel(machine)) as (device, _), UartPort(device, TINY) as port:
            calls: list[float] = []
            began = time.monotonic()

            def works(name: str) -> None:
                calls.append(time.monotonic())
                machine.values[name] += calls[-1] - began < 0.7

            for name in ("OUTER_PRODUCTS", "BYTES_READ", "BYTES_WRITTEN"):
                began = time.monotonic()
                with pytest.raises(
                    TimeoutError, match=r"nothing has moved on its bus or in its array for 0\.3 s"
                ):
                    port.wait_interrupt(lambda name=name: works(name))
                assert 1.0 <= time.monotonic() - began < 3.0, name
            assert max(b - a for a, b in pairwise(calls)) < 0.5

            machine.values |= {"INTERRUPT_PENDING": 1, "INTERRUPT_ENABLE": 1}
            calls.clear()
            port.wait_interrupt(lambda: calls.append(0.0))
            assert calls == [0.0]
            port.wait_interrupt(None)


class TestDriver:
    def test_a_run_in_few_requests(self) -> None:
        image, golden = layer(TINY, (19, 40, 21))
        with board() as (device, bridge), UartPort(device, TINY) as port:
            driver = Driver(port, TINY)
            bridge.executed.clear()
            result = driver.run([image], base=MEMORY_BASE, memory_bytes=MEMORY)
            np.testing.assert_array_equal(result.outputs[0], golden)
            pieces = [words for _, address, words in bridge.executed if address >= MEMORY_BASE]
        words = len(place([image], base=MEMORY_BASE, memory_bytes=MEMORY).data) // 4, image.output_bytes // 4
        assert pieces == [size for count in words for size in (*[256] * (count // 256), count % 256) if size]

    @pytest.mark.parametrize("seed", range(4))
    def test_on_a_bad_line(self, seed: int, quick: None) -> None:
        """Errors in both directions; no register is written more often than on a good line."""
        images, goldens = zip(*(layer(TINY, shape, seed) for shape in ((9, 40, 11), (5, 7, 3))), strict=True)
        written = []
        for rate in (0.0, 1e-3):
            machine = FakeAccelerator(TINY, origin=MEMORY_BASE)
            with board(BoardModel(machine), error_rate=rate, seed=seed) as (device, _):
                with UartPort(device, TINY) as port:
                    driver = Driver(port, TINY)
                    for _ in range(3):
                        result = driver.run(images, base=MEMORY_BASE, memory_bytes=MEMORY)
                        for output, golden in zip(result.outputs, goldens, strict=True):
                            np.testing.assert_array_equal(output, golden)
            written.append([call for call in machine.calls if call[0] == "write"])
        assert written[0] == written[1]


class Timed(FakeAccelerator):
    """Its runs take a time that is not 0."""

    def _work(self) -> None:
        super()._work()
        self.values["CYCLES"] = 10_000


class TestEngine:
    @staticmethod
    def given(m: int = 13, k: int = 40, n: int = 11) -> dict[str, Any]:
        rng = np.random.default_rng([m, k, n])
        w, x = rng.integers(-64, 64, (m, k)), rng.integers(0, 256, (k, n))
        return {"weights": w, "activations": x, "bias": rng.integers(-99, 99, m), "zero_point": 77}

    @pytest.mark.parametrize(
        "options", [{}, {"dataflow": "auto", "psum_group": 2, "psum_chunk": 16, "psum_exponents": 5}]
    )
    def test_result_and_report(self, options: dict[str, Any]) -> None:
        operands, shares = self.given(), []
        with board(BoardModel(Timed(TINY, origin=MEMORY_BASE))) as (device, _):
            result = gemm(
                **operands,
                config=TINY,
                engine=f"uart://{device}?baud=115200",
                progress=shares.append,
                **options,
            )
        golden = gemm(**operands, config=TINY, **options)
        np.testing.assert_array_equal(result.output, golden.output)
        assert shares == sorted(shares) and shares[-1] == 1.0
        report = result.report
        assert set(report) == set(golden.report)
        same = {key for key, value in golden.report.items() if value is not None} - {"engine"}
        assert all(report[key] == golden.report[key] for key in same)
        assert (report["engine"], report["parts"]) == (f"uart://{device}?baud=115200", 1)
        # The model's counters say 7 i + i * 2^32.
        assert report["total_cycles"] == 10_000 and report["dram_bytes_read"] == 13 * (7 + (1 << 32))
        assert report["utilization_total"] == report["cycle_bound"] / 10_000
        unknown = {"cycles", "utilization", "speedup_over_dense", "memory_latency", "memory_bandwidth"}
        assert all(report[key] is None for key in unknown)

    def test_a_layer_in_parts(self) -> None:
        operands = self.given(41, 40, 37)
        bridge = BoardModel(Timed(TINY, origin=MEMORY_BASE), memory_bytes=4096)
        with board(bridge) as (device, _):
            result = gemm(**operands, config=TINY, engine=f"uart://{device}")
        np.testing.assert_array_equal(result.output, gemm(**operands, config=TINY).output)
        parts = result.report["parts"]
        assert parts > 3
        assert result.report["counters"]["ARRAY_BUSY"] == parts * 2 * (7 + (1 << 32))
        assert result.report["schedule"] is None
        assert bridge.accelerator.memory[4096:] == b"\xa5" * (MEMORY - 4096)

    def test_a_memory_for_no_tile(self) -> None:
        bridge = BoardModel(FakeAccelerator(TINY, origin=MEMORY_BASE), memory_bytes=1024)
        sentence = (
            r"weights must have fewer columns for a memory of 1,024 bytes: with K = 400 a tile of results "
            r"takes \d,\d+"
        )
        with board(bridge) as (device, _), pytest.raises(ValueError, match=sentence):
            gemm(**self.given(41, 400, 37), config=TINY, engine=f"uart://{device}")
        assert not [address for _, address, _ in bridge.executed if address >= MEMORY_BASE]

    def test_mismatch(self) -> None:
        machine = FakeAccelerator(TINY, origin=MEMORY_BASE)
        machine.read_memory = lambda address, size: b"\1" + b"\0" * (size - 1)  # type: ignore[method-assign]
        with board(BoardModel(machine)) as (device, _):
            with pytest.raises(MismatchError, match=r"first in Y\[0, 0\]: RTL 1, golden -?\d+"):
                gemm(**self.given(), config=TINY, engine=f"uart://{device}")

    def test_another_configuration(self) -> None:
        other = AcceleratorConfig.preset("tiny", tile_k=8)
        with board() as (device, _), pytest.raises(RuntimeError, match="register TILE_K must be 8"):
            gemm(**self.given(), config=other, engine=f"uart://{device}")

    def test_nobody_answers(self, quick: None) -> None:
        end, other_end = os.openpty()
        device = os.ttyname(other_end)
        try:
            with pytest.raises(
                RuntimeError, match=f"nobody at {device} answered the HELLO, sent {ATTEMPTS} times"
            ):
                gemm(**self.given(), config=TINY, engine=f"uart://{device}")
        finally:
            os.close(end)
            os.close(other_end)

    def test_no_device(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        for name, reason in (
            ("missing", "No such file or directory"),
            ("file", "it is no serial port"),
        ):
            sentence = f"engine's device '{tmp_path}/{name}' cannot be opened: {reason}"
            with pytest.raises(ValueError, match=sentence):
                gemm(**self.given(), config=TINY, engine=f"uart://{tmp_path}/{name}")
        assert (tmp_path / "file").read_bytes() == b""

    def test_urls(self) -> None:
        assert Board.parse("uart:///dev/ttyUSB0") == Board("/dev/ttyUSB0", 1_000_000)
        assert Board.parse("uart:///dev/ttyUSB0?baud=2000000") == Board("/dev/ttyUSB0", 2_000_000)
        assert Board.parse("uart://COM3?baud=9600") == Board("COM3", 9600)

    @pytest.mark.parametrize(
        ("engine", "sentence"),
        [
            ("uart:", "engine must be uart://DEVICE[?baud=BAUD], such as "),
            ("uart://", "engine must be uart://DEVICE"),
            ("uart:/dev/ttyUSB0", "engine must be uart://DEVICE"),
            ("uart:///dev/ttyUSB0?speed=1", "engine must be uart://DEVICE"),
            ("uart:///dev/ttyUSB0?baud=fast", "engine's baud must be an integer"),
            ("uart:///dev/ttyUSB0?baud=", "engine's baud must be an integer"),
            ("uart:///dev/ttyUSB0?baud=-1", "engine's baud must be an integer"),
            ("uart:///dev/ttyUSB0?baud=0", "engine's baud must be 1..16777216, not 0"),
        ],
    )
    def test_urls_that_are_none(self, engine: str, sentence: str) -> None:
        with pytest.raises(ValueError) as error:
            gemm(**self.given(), config=TINY, engine=engine)
        assert str(error.value).startswith(sentence)

    def test_options_of_simulation_are_refused(self) -> None:
        with pytest.raises(ValueError, match="memory_latency needs engine rtl, not 'uart:///dev/null'"):
            gemm(**self.given(), config=TINY, engine="uart:///dev/null", memory_latency=5)


class TestParts:
    @staticmethod
    def pack(shape: tuple[int, int]) -> Pack:
        """Packs parts of a layer with these results."""
        rng = np.random.default_rng(shape)
        w, x = rng.integers(-64, 64, (shape[0], 30)), rng.integers(0, 256, (30, shape[1]))

        def pack(rows: slice, columns: slice) -> LayerImage:
            return pack_layer(
                w[rows], x[:, columns], np.zeros(len(w[rows]), np.int64), zero_point=77, weight_bits=7,
                lo_bits=4, config=TINY,
            )  # fmt: skip

        return pack

    @pytest.mark.parametrize("shape", [(1, 1), (8, 8), (9, 70), (70, 9), (41, 37)])
    @pytest.mark.parametrize("memory", [2048, 6000, 1 << 20])
    def test_every_element_once_and_within_memory(self, shape: tuple[int, int], memory: int) -> None:
        parts = split_layer(*shape, self.pack(shape), base=MEMORY_BASE, memory_bytes=memory)
        covered = np.zeros(shape, np.int64)
        for part in parts:
            covered[part.rows, part.columns] += 1
            assert part.rows.start % TINY.tile_m == part.columns.start % TINY.tile_n == 0
            placement = place([part.image], base=MEMORY_BASE, memory_bytes=memory)
            assert part.traffic == len(placement.data) + 4 * covered[part.rows, part.columns].size
        assert (covered == 1).all()

    def test_only_where_it_must_be(self) -> None:
        shape = 41, 37
        pack = self.pack(shape)
        whole = place([pack(slice(None), slice(None))], base=MEMORY_BASE, memory_bytes=1 << 20)
        size = whole.end - MEMORY_BASE
        for memory, count in ((size, 1), (size - 1, 2)):
            assert len(split_layer(*shape, pack, base=MEMORY_BASE, memory_bytes=memory)) == count
