"""What the core's bench has around the core: streams, a memory for partial sums, and all that is compared."""

from __future__ import annotations

from collections import deque
from typing import Any
from zlib import crc32

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.verilog import core
from sliceforge.hw.core import Core
from sliceforge.verif.core_coverage import sample_errors
from sliceforge.verif.layers import Layer
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Sink, Source, quiet

__all__ = ["Bench", "component", "rng", "sizes", "weight_bits_of"]


def config(p: dict[str, Any]) -> AcceleratorConfig:
    return AcceleratorConfig(**{key: value for key, value in p.items() if key != "coverage"})


def component(p: dict[str, Any]) -> Core:
    return core(config(p))


class Bench:
    def __init__(self, dut: Any, stalls: dict[str, float] | float = 0.0) -> None:
        self.dut = dut
        self.config = config(parameters())
        block = component(parameters())

        def driver(kind: Any, name: str) -> Any:
            stall = stalls if isinstance(stalls, float) else stalls.get(name, 0.0)
            return kind(dut, name, getattr(block, name).payload.shape(), stall=stall)

        self.sources = {
            name: driver(Source, name)
            for name in ("layers", "weights", "activations", "biases", "exponents", "fills")
        }
        self.results: Sink = driver(Sink, "results")
        self.status: Sink = driver(Sink, "status")
        self.rng = rng("loop", stalls)
        self.spilled: deque[tuple[int, Layer]] = deque()  # layers that send partial sums to memory
        self.looked = 0  # results that were looked at for partial sums
        self.layers = self.closed = 0  # sent; those of them whose status was looked at
        self.exponents: deque[tuple[int, list[Any]]] = deque()  # of layers whose turn has not come
        self.loop = cocotb.start_soon(self._loop_back())

    def send(self, layer: Layer, **replace: Any) -> None:
        """Queues all that belongs to a layer; ``replace`` exchanges the payloads of a stream."""
        payloads: dict[str, Any] = {
            "layers": [layer.descriptor],
            "weights": layer.weight_beats(),
            "activations": layer.activation_beats(),
            "biases": [{"bias": bias} for bias in layer.biases],
            "exponents": layer.exponent_words,
        }
        payloads |= replace
        self.exponents.append((self.layers, payloads.pop("exponents")))
        self.layers += 1
        for name, queued in payloads.items():
            self.sources[name].send(queued)
        if not layer.schedule.psums_resident:
            self.spilled.append((self.layers, layer))

    async def _loop_back(self) -> None:
        """What is around the core: a layer's exponents come when the layer before is closed; partial sums
        that come out go in again, for the K-chunks that add them."""
        memory: dict[tuple[int, int, int, int], list[int]] = {}  # tiles by layer, row, column, K-chunk
        writes: deque[tuple[int, int, int, int]] = deque()
        reads: deque[tuple[Layer, int, int, int, int]] = deque()
        words: list[int] = []
        while True:
            await FallingEdge(self.dut.clk)
            while self.exponents and self.exponents[0][0] <= self.closed + len(self.status.received):
                self.sources["exponents"].send(self.exponents.popleft()[1])
            while self.spilled:
                number, layer = self.spilled.popleft()
                tiles = list(layer.schedule.tiles())
                writes.extend((number, *tile) for tile in tiles if tile[2] < layer.schedule.steps - 1)
                reads.extend((layer, number, *tile) for tile in tiles if layer.steps_added(tile[2]))
            for beat in self.results.received[self.looked :]:
                if beat["is_psum"]:
                    words += beat["sums"][: beat["count"]]
                    if beat["last_of_tile"]:
                        memory[writes.popleft()], words = words, []
            self.looked = len(self.results.received)
            if reads and self.rng.random() < 0.05:
                layer, number, i, j, c = reads[0]
                if (number, i, j, c - 1) in memory:
                    reads.popleft()
                    stored = {step: memory[number, i, j, step] for step in layer.steps_added(c)}
                    self.sources["fills"].send(self._pieces(layer, stored))

    def _pieces(self, layer: Layer, stored: dict[int, list[int]]) -> list[dict[str, Any]]:
        """Words of the partial sum memory, whole or in halves, in any order."""
        group, sums = layer.schedule.psum_group, self.config.result_sums
        width = max(1, sums // 4) if group else sums  # in words of 32 bits
        pieces = []
        half = (1 << sums // 2) - 1
        for step, words in stored.items():
            for word in range(len(words) // width):
                here = words[word * width : (word + 1) * width]
                if group:
                    narrow = b"".join(value.to_bytes(4, "little") for value in here)[:sums]
                    piece = {"word": word, "position": step % group, "narrow": list(narrow)}
                else:
                    piece = {"word": word, "full_sums": here}
                masks = [half, ~half] if self.rng.random() < 0.2 else [-1]
                pieces += [{**piece, "columns": mask} for mask in masks]
        order = self.rng.permutation(len(pieces)) if self.rng.random() < 0.5 else range(len(pieces))
        return [{**pieces[at], "last": int(i == len(pieces) - 1)} for i, at in enumerate(order)]

    async def receive(self, *layers: Layer) -> list[dict[str, Any]]:
        """Waits for the layers, compares every result; returns their status."""
        beats = [beat for layer in layers for beat in layer.result_beats()]
        work = sum(layer.products() for layer in layers)
        await quiet(
            self.dut, self.results, self.status, expected=[len(beats), len(layers)],
            limit=100_000 + 40 * work,
        )  # fmt: skip
        for got, want in zip(self.results.received, beats, strict=True):
            assert {**got, "sums": got["sums"][: want["count"]]} == want
        assert all(source.idle for source in self.sources.values())
        statuses = list(self.status.received)
        for layer, status in zip(layers, statuses, strict=True):
            assert status["error"] is ErrorCode.NONE
            assert status["products"] == layer.products()
            bound = -(-layer.products() // self.config.operators)
            assert bound <= status["cycles"] <= status["total_cycles"]
        self._clear()
        return statuses

    def _clear(self) -> None:
        self.closed += len(self.status.received)
        self.results.received.clear()
        self.status.received.clear()
        self.looked = 0

    async def fail(self, layer: Layer, code: ErrorCode, **replace: Any) -> None:
        """Sends a layer that must end with ``code``; takes the status when all that was sent is drained."""
        self.status.stall = 1.0
        self.send(layer, **replace)
        for _ in range(100_000 + 40 * layer.products()):
            await RisingEdge(self.dut.clk)
            if self.dut.status__valid.value and all(source.idle for source in self.sources.values()):
                break
        self.status.stall = 0.0
        await ClockCycles(self.dut.clk, 50)
        assert [status["error"] for status in self.status.received] == [code]
        sample_errors(code)
        self._clear()

    def stop(self) -> None:
        self.loop.cancel()
        for driver in (*self.sources.values(), self.results, self.status):
            driver.stop()


def rng(*salt: Any) -> np.random.Generator:
    return np.random.default_rng([cocotb.RANDOM_SEED, *(crc32(str(s).encode()) for s in salt)])


def weight_bits_of(machine: AcceleratorConfig) -> list[int]:
    return [bits for bits in (4, 7, 10) if bits <= machine.max_weight_bits]


def sizes(tile: int) -> list[int]:
    return [1, max(1, tile - 1), tile, tile + 1, 2 * tile + 3]
