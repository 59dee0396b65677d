"""The pseudo-terminal of simulated boards, and its errors on the line."""

from __future__ import annotations

import time

import pytest

from sliceforge.sim.pseudo_terminal import LineErrors, PseudoTerminal


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
