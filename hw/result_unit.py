# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Result unit: reads the tiles that leave the array, adds partial sums and bias, sends or keeps the sums."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.apsq_engine import APSQEngine
from sliceforge.hw.hierarchy import place
from sliceforge.hw.output_bank import output_words
from sliceforge.hw.payloads import (
    PSUM_BANKS,
    index,
    output_tile_layout,
    psum_fill_layout,
    result_layout,
    word_layout,
)
from sliceforge.hw.psum_memory import PsumMemory
from sliceforge.hw.step_exponents import StepExponents
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["ResultUnit"]


class ResultUnit(wiring.Component):
    """``Y[row, columns] = sums[row, columns] + partial sums + bias_folded[row]`` after the last K-chunk;
    before it, what the `APSQEngine` makes of the sums is stored for the next one.

    Compensation is in the sums of each chunk already, so that what is quantized is the chunk's partial sum
    proper (arithmetic.md section 8); the folded bias enters once, after the last chunk.

    Tiles in the order of ``tiles``; within a tile rows in order, within a row columns in order,
    ``result_lanes * vector`` of them a beat. Of results padding is not sent. Partial sums, of all of a tile,
    stay in the `PsumMemory` if ``psums_resident``; else they are sent to memory and come back through
    ``fills``.

    Parameters
    ----------
    pea_count, lanes, vector, slots, result_lanes : of the array and its output banks.
    psum_slots : of the `PsumMemory`. ``max_k`` : of `StepExponents`.

    Members
    -------
    psum_group, psums_resident : in; of the layer.
    tiles : stream in; what to do with each tile.
    address : out; the read address of all output banks.
    words, available : in; the banks' words, one cycle after the address; a tile is complete in a bank.
    slot_freed : out; to all banks: the oldest tile is read.
    bias_row, bias, bias_available, bias_release : the bias buffer's read side.
    exponents : stream in; of `StepExponents`. ``fills`` : stream in; of the `PsumMemory`.
    results : stream out.
    psum_overflow, bad_steps : out; high, until reset: of the `PsumMemory` and `StepExponents`.

    Latency: LATENCY cycles from address to the output FIFO, 1 through it. Throughput: a beat a cycle; some
    LATENCY cycles more a tile, as a tile begins when the one before has left the pipeline.
    Flow control: valid/ready; the pipeline behind the address has no stall, so an address is only issued
    while the output FIFO has a place for its result.
    Tested range: 1 to 3 PEAs, 1 to 6 lanes, vector 2, 4, 8, 1 to 4 result_lanes, 1 to 3 psum_slots; group
    sizes 0 to 4 with up to 7 K-chunks, resident and from memory; as many resident tiles as fit and one more.
    """

    LATENCY = 2 + APSQEngine.LATENCY  # bank, selection, engine

    def __init__(self, *, pea_count, lanes, vector, slots, result_lanes, psum_slots, max_k):
        self.parameters = {
            "pea_count": pea_count, "lanes": lanes, "vector": vector, "slots": slots,
            "result_lanes": result_lanes, "psum_slots": psum_slots, "max_k": max_k,
        }  # fmt: skip
        self._tile_m, self._tile_n = pea_count * vector, lanes * vector
        self._groups = lanes // result_lanes  # words of a row
        self._tile_words = output_words(lanes, vector, result_lanes)  # of a PEA
        self._sums = vector * result_lanes
        self._result = result_layout(self._sums)
        self._memory = {"sums": self._sums, "words": self._tile_m * self._groups, "slots": psum_slots}
        super().__init__(
            {
                "psum_group": In(3),
                "psums_resident": In(1),
                "tiles": In(stream.Signature(output_tile_layout(self._tile_m, self._tile_n))),
                "address": Out(range(slots * self._tile_words)),
                "words": In(data.ArrayLayout(32 * self._sums, pea_count)),
                "available": In(pea_count),
                "slot_freed": Out(1),
                "bias_row": Out(range(self._tile_m)),
                "bias": In(32),
                "bias_available": In(1),
                "bias_release": Out(1),
                "exponents": In(stream.Signature(word_layout())),
                "fills": In(stream.Signature(psum_fill_layout(self._sums, self._memory["words"]))),
                "results": Out(stream.Signature(self._result)),
                "psum_overflow": Out(1),
                "bad_steps": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tile = self.tiles.p
        engine = APSQEngine(sums=self._sums)
        steps = StepExponents(max_k=self.parameters["max_k"])
        memory = PsumMemory(**self._memory)
        m.submodules.apsq_engine = place(platform, engine, "apsq_engine")
        m.submodules.step_exponents = place(platform, steps, "step_exponents")
        m.submodules.psum_memory = place(platform, memory, "psum_memory")
        wiring.connect(m, wiring.flipped(self.exponents), steps.words)
        wiring.connect(m, wiring.flipped(self.fills), memory.fills)

        # One tile after the other, so that each finds the partial sums of the one before in their place.
        position = Signal(range(PSUM_BANKS))  # of the tile's step in its group
        rows, columns = (
            Signal.like(tile.rows),
            Signal.like(tile.columns),
        )  # that are read: of partial sums all
        single = tile.first_chunk & tile.last_chunk  # of partial sums there are none
        issues, tile_ends, closes = Signal(), Signal(), Signal()
        moving = Signal(self.LATENCY)  # the pipeline
        m.d.sync += moving.eq(Cat(issues, moving))
        with m.FSM(name="state") as state:
            with m.State("IDLE"):
                m.d.sync += [
                    rows.eq(Mux(tile.last_chunk, tile.rows, self._tile_m)),
                    columns.eq(Mux(tile.last_chunk, tile.columns, self._tile_n)),
                ]
                with m.If(self.tiles.valid & steps.valid & (~memory.overflow | single)):
                    self._choose(m, engine.group, steps, memory)
                    m.d.sync += position.eq(steps.position)
                    m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(memory.filled | self.psums_resident | ~engine.group.adds.any()):
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(issues & tile_ends):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(~moving.any()):
                    m.d.comb += closes.eq(1)
                    m.next = "IDLE"
        with m.If(self.tiles.valid & memory.overflow & ~single):
            m.d.sync += self.psum_overflow.eq(1)
        m.d.comb += [
            self.tiles.ready.eq(closes),
            self.bias_release.eq(closes & tile.frees_rows),
            self.bad_steps.eq(steps.bad_steps),
            steps.psum_group.eq(self.psum_group),
            steps.step_ends.eq(closes & tile.chunk_ends),
            steps.last_step.eq(tile.last_chunk),
            memory.psum_group.eq(self.psum_group),
            memory.resident.eq(self.psums_resident),
            memory.position.eq(position),
            memory.tile_done.eq(closes),
            memory.chunk_ends.eq(tile.chunk_ends),
            memory.used.eq(engine.group.adds.any()),
        ]
        room = Signal(range(self.LATENCY + 3), init=self.LATENCY + 2)  # places that no address has claimed
        may_issue = state.ongoing("RUN") & (room != 0)
        beat = self._walk(m, engine, memory, rows, columns, may_issue, issues, tile_ends)
        self._send(m, engine, memory, issues, beat, moving, room)
        return m

    def _choose(self, m, group, steps, memory):
        """What the engine does with the tile (arithmetic.md section 8)."""
        tile, full, head = self.tiles.p, self.psum_group == 0, steps.position == 0
        group_before = ((1 << self.psum_group) - 1)[:PSUM_BANKS]
        in_group = ((1 << steps.position) - 1)[:PSUM_BANKS]
        m.d.sync += [
            group.full.eq(full),
            group.head.eq(full | head),
            group.adds.eq(
                Mux(
                    full | head,
                    Mux(tile.first_chunk, 0, Mux(full, 1, group_before)),
                    Mux(tile.last_chunk, in_group, 0),
                )
            ),
            group.first_bank.eq(memory.first_bank),
            group.exponent.eq(steps.exponent),
            group.exponents.eq(steps.exponents),
        ]

    def _walk(self, m, engine, memory, rows, all_columns, may_issue, issues, tile_ends):
        """Addresses: PEA, row of the PEA and beat are cascaded counters. The answers go to the engine."""
        p, tile = self.parameters, self.tiles.p
        pea = Signal(index(p["pea_count"]))
        row = Signal(range(p["vector"]))
        beat = Signal(index(self._groups))
        tile_row = Signal.like(self.bias_row)
        columns = Signal(range(p["lanes"] * p["vector"] + 1))  # before this beat
        left = Signal.like(columns)
        base = Signal.like(self.address)
        row_ends, count = Signal(), Signal(range(self._sums + 1))
        m.d.comb += [
            left.eq(all_columns - columns),
            row_ends.eq(left <= self._sums),
            count.eq(Mux(row_ends, left, self._sums)),
            tile_ends.eq(row_ends & (tile_row + 1 == rows)),
            # All PEAs must have finished the tile before its slot is given back.
            issues.eq(
                may_issue
                & Mux(tile_ends, self.available.all(), self.available.bit_select(pea, 1))
                & (self.bias_available | ~tile.last_chunk)
            ),
            self.address.eq(base + row * self._groups + beat),
            memory.word.eq(tile_row * self._groups + beat),
            self.slot_freed.eq(issues & tile_ends),
        ]
        with m.If(issues):
            m.d.sync += [beat.eq(beat + 1), columns.eq(columns + self._sums)]
            with m.If(row_ends):
                m.d.sync += [beat.eq(0), columns.eq(0), row.eq(row + 1), tile_row.eq(tile_row + 1)]
                with m.If(row == p["vector"] - 1):
                    m.d.sync += [row.eq(0), pea.eq(pea + 1)]
            with m.If(tile_ends):
                m.d.sync += [pea.eq(0), row.eq(0), tile_row.eq(0), base.eq(base + self._tile_words)]
                with m.If(base == (p["slots"] - 1) * self._tile_words):
                    m.d.sync += base.eq(0)

        # The banks and the memory answer; select the PEA's word. The bias follows when the engine wants it.
        selected = Signal.like(pea)
        m.d.sync += [
            selected.eq(pea),
            engine.sums.eq(self.words[selected]),
            engine.stored.eq(memory.stored),
        ]
        bias_row = tile_row
        for i in range(1 + engine.BIAS_DELAY):
            later = Signal.like(tile_row, name=f"bias_row_{i}")
            m.d.sync += later.eq(bias_row)
            bias_row = later
        m.d.comb += [self.bias_row.eq(bias_row), engine.bias.eq(Mux(tile.last_chunk, self.bias, 0))]
        return Cat(row_ends, tile_ends, count)

    def _send(self, m, engine, memory, issues, beat, moving, room):
        """Behind the engine: into the memory, or the output FIFO with ``room``. ``beat``: about the sums."""
        tile = self.tiles.p
        m.submodules.fifo = fifo = StreamFIFO(self._result, depth=self.LATENCY + 2)
        wiring.connect(m, fifo.o, wiring.flipped(self.results))
        emits, is_psum = Signal(), Signal()
        m.d.comb += [is_psum.eq(~tile.last_chunk), emits.eq(tile.last_chunk | ~self.psums_resident)]
        m.d.sync += room.eq(room - (issues & emits) + (fifo.o.valid & fifo.o.ready))
        for i in range(self.LATENCY):
            later = Signal(len(beat), name=f"beat_{i}")
            m.d.sync += later.eq(beat)
            beat = later
        row_ends, tile_done, count = beat[0], beat[1], beat[2:]

        arrives = moving[-1]
        written = Signal.like(memory.write_word)
        with m.If(arrives):
            m.d.sync += written.eq(Mux(tile_done, 0, written + 1))
        narrow_words = max(1, self._sums // 4)
        result = fifo.i.p
        m.d.comb += [
            memory.write.eq(arrives & is_psum & self.psums_resident),
            memory.write_word.eq(written),
            memory.full_sums.eq(engine.result),
            memory.narrow.eq(engine.narrow),
            result.is_psum.eq(is_psum),
            result.count.eq(Mux(is_psum, Mux(engine.group.full, self._sums, narrow_words), count)),
            result.last_of_row.eq(Mux(is_psum, tile_done, row_ends)),
            result.last_of_tile.eq(tile_done),
            result.frees_rows.eq(tile_done & tile.frees_rows),
            result.last.eq(tile_done & tile.last),
            result.sums.eq(engine.result),
            fifo.i.valid.eq(arrives & emits),
        ]
        with m.If(is_psum & ~engine.group.full):
            # With zeros beside, as the store unit puts words together.
            m.d.comb += result.sums.as_value().eq(engine.narrow.as_value())
