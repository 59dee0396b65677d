"""Rows of Y and tiles of partial sums on their way to memory, for the bench of the store unit."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.hw.store_unit import StoreUnit
from sliceforge.hw.tile_nest import TileNest
from sliceforge.verif.psum_layers import Layer, output_rows
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Sink, Source, quiet, reset, to_int

__all__ = ["StoreBench", "words"]


def words() -> int:
    """32-bit words in a beat of the bus."""
    return int(parameters()["bus_bits"]) // 32


class Row:
    """A row of an output tile, or a tile of partial sums: ``values`` go to memory from word ``first`` on.

    size : words of a beat of results that count, but in a row's last one.
    """

    def __init__(self, row: dict[str, int], size: int, values: list[int]) -> None:
        self.tile, self.is_psum, self.first = row["tile"], row["is_psum"], row["address"] // 4
        self.size, self.values = size, values
        first = self.first
        self.beats = [*range(first // words(), (first + len(values) - 1) // words() + 1)]
        self.memory = {first + i: value for i, value in enumerate(values)}

    def results(self, sums: int, last: bool, rng: random.Random) -> list[dict[str, Any]]:
        """As beats of results; of Y, what does not count is noise, of partial sums 0."""
        parts = [self.values[i : i + self.size] for i in range(0, len(self.values), self.size)]
        return [
            {
                "sums": part + [0 if self.is_psum else rng.getrandbits(32) for _ in range(sums - len(part))],
                "count": len(part),
                "is_psum": self.is_psum,
                "last_of_row": int(part is parts[-1]),
                "last": int(last and part is parts[-1]),
            }
            for part in parts
        ]

    def pieces(self) -> int:
        """Cycles at the rate of the narrower of results and bus; one more if it ends with a spilt beat.

        It does if the last piece belongs to two beats.
        """
        size = min(self.size, words())
        cycles = -(-len(self.values) // size)
        last = self.first + (cycles - 1) * size
        return cycles + int(last // words() != (self.first + len(self.values) - 1) // words())


class StoreBench:
    """Y from word ``first`` of the memory on, its rows ``stride`` words apart; partial sums, or None, from
    ``psums`` on, at the start of a beat of the bus.
    """

    def __init__(
        self,
        dut: Any,
        layer: Layer,
        first: int,
        stride: int,
        *,
        psums: int | None = None,
        stall: float = 0.0,
        jobs: float = 0.0,
        beats: float = 0.0,
    ) -> None:
        self.dut, self.p = dut, parameters()
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {layer} {first} {stride}")
        block = StoreUnit(**self.p)
        self.results = Source(dut, "results", block.results.payload.shape(), stall=stall)
        self.jobs = Sink(dut, "jobs", block.jobs.payload.shape(), stall=jobs)
        self.beats = Sink(dut, "beats", block.beats.payload.shape(), stall=beats)
        psum_address = None if psums is None else 4 * psums
        self.inputs = {
            "loops": to_int(block.loops.shape(), layer.loops()),
            "psum_group": layer.group,
            "psum_address": psum_address or 0,
            "psums_resident": int(psums is None),
            "results_stored": 1,
            "address": 4 * first,
            "stride": 4 * stride,
        }
        sums = self.p["sums"]
        self.rows = [
            Row(
                row,
                max(1, sums // 4) if row["is_psum"] and layer.group else sums,
                [rng.getrandbits(32) for _ in range(row["words"])],
            )
            for row in output_rows(layer, self.p, 4 * first, 4 * stride, psum_address)
        ]
        self.tiles: list[int] = []  # of each beat of results
        for row in self.rows:
            results = row.results(sums, row is self.rows[-1], rng)
            self.results.send(results)
            self.tiles += [row.tile] * len(results)
        self.most_beats = sum(len(row.beats) for row in self.rows)
        self.task = cocotb.start_soon(self.watch())

    async def begin(self) -> None:
        await FallingEdge(self.dut.clk)
        for name, value in self.inputs.items():
            getattr(self.dut, name).value = value
        self.dut.start.value = 1
        await FallingEdge(self.dut.clk)
        self.dut.start.value = 0

    async def watch(self) -> None:
        """In every cycle: a job is on offer only if its tile has begun; a beat, only if its job was taken."""
        dut, results, jobs, beats = self.dut, 0, 0, 0
        begun = -1  # the tile whose results are on offer, or were
        promised = 0  # beats of the jobs that were taken
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            if dut.results__valid.value == 1:
                begun = self.tiles[results]
                results += int(dut.results__ready.value)
            assert dut.done.value == (beats == self.most_beats)
            if dut.beats__valid.value == 1:
                assert beats < promised
                beats += int(dut.beats__ready.value)
            if dut.jobs__valid.value == 1:
                assert self.rows[jobs].tile <= begun, f"job {jobs} is early"
                if dut.jobs__ready.value == 1:
                    promised += len(self.rows[jobs].beats)
                    jobs += 1

    def stop(self) -> None:
        self.task.cancel()
        self.results.stop()
        self.jobs.stop()
        self.beats.stop()

    def cycles(self) -> int:
        """Until the last beat, where nothing stalls and all tiles have rows: a job goes a cycle ahead of its
        first piece, and up to four do; a tile's first one when it stands and its results are here."""
        settles = TileNest.SETTLES + 1
        stands, ends = settles, 0  # the tile; the last piece of the rows so far, and a cycle
        jobs: list[int] = []
        begins: list[int] = []  # of each row's pieces
        for i, row in enumerate(self.rows):
            job = max(jobs[-1], begins[i - 4] if i >= 4 else 0) + 1 if i else stands
            if i and row.tile != self.rows[i - 1].tile:
                stands = max(jobs[-1] + 2, stands + settles)
                job = max(job, stands, ends)
            jobs.append(job)
            begins.append(max(job + 1, ends))
            ends = begins[-1] + row.pieces()
        return ends

    def written(self) -> list[dict[int, int]]:
        """What each job writes with its beats, by word of the memory."""
        memory: list[dict[int, int]] = []
        beats = iter(self.beats.received)
        for job in self.jobs.received:
            first = job["address"] // 4 // words() * words()
            memory.append({})
            for beat in range(job["beats"]):
                payload = next(beats, {"strobes": 0})
                for word in range(words()):
                    if payload["strobes"] >> word & 1:
                        place = first + beat * words() + word
                        memory[-1][place] = payload["data"] >> 32 * word & (1 << 32) - 1
        return memory

    async def finish(self, limit: int = 20_000) -> None:
        counts = len(self.rows), self.most_beats
        await quiet(self.dut, self.jobs, self.beats, expected=counts, limit=1 + limit, after=8)
        bus_bytes = 4 * words()
        jobs = [(job["address"] // bus_bytes, job["beats"], job["is_psum"]) for job in self.jobs.received]
        assert jobs == [(row.beats[0], len(row.beats), row.is_psum) for row in self.rows]
        assert self.written() == [row.memory for row in self.rows]
        assert self.results.idle and self.dut.done.value == 1
        self.stop()
        await reset(self.dut)
