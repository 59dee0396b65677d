"""The host's side of the host link, on a modelled board behind a pseudo-terminal."""

from __future__ import annotations

import os
import time
from itertools import pairwise

import numpy as np
import pytest

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.host_link import MEMORY_BASE, Operation, Status
from sliceforge.gen.registers import register_map
from sliceforge.sim import uart_port
from sliceforge.sim.driver import BusError, Driver, place
from sliceforge.sim.link_frames import FrameParser, encode_frame
from sliceforge.sim.uart_port import ATTEMPTS, UartPort
from sliceforge.verif.board_model import BoardModel, board
from sliceforge.verif.test_driver import MEMORY, FakeAccelerator, layer

TINY = AcceleratorConfig.preset("tiny")
OFFSETS = {register.name: register.offset for register in register_map(TINY)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs for a bridge that answers at once."""
    monkeypatch.setattr(uart_port, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(uart_port, "STILL_TIMEOUT", 0.3)


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
            refused = 0
            while refused < 5:  # in a row: the kernel moves what it holds to the other end, a while later
                try:
                    os.write(other_end, b"filling")
                    refused = 0
                except BlockingIOError:
                    refused += 1
                    time.sleep(0.05)
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
