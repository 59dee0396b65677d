"""The engine ``uart://`` on a modelled board, and layers in parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.host_link import MEMORY_BASE
from sliceforge.gen.registers import register_map
from sliceforge.sim import MismatchError, gemm, uart_port
from sliceforge.sim.driver import place
from sliceforge.sim.layer_image import LayerImage, pack_layer
from sliceforge.sim.parts import Pack, split_layer
from sliceforge.sim.uart_engine import Board
from sliceforge.sim.uart_port import ATTEMPTS
from sliceforge.verif.board_model import BoardModel, board
from sliceforge.verif.test_driver import MEMORY, FakeAccelerator

TINY = AcceleratorConfig.preset("tiny")
OFFSETS = {register.name: register.offset for register in register_map(TINY)}


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

    def test_nobody_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uart_port, "ANSWER_TIMEOUT", 0.1)
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
            ("uart:///dev/ttyUSB0?baud=9600&baud=115200", "engine must be uart://DEVICE[?baud=BAUD]"),
            ("uart:///dev/ttyUSB0?baud=-1", "engine's baud must be an integer"),
            ("uart:///dev/ttyUSB0?baud=0", "engine's baud must be 1200..16777216, not 0"),
            ("uart:///dev/ttyUSB0?baud=1199", "engine's baud must be 1200..16777216, not 1199"),
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
