"""Result unit: reads output tiles from OMEM, adds the folded bias and sends the results row by row."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.output_bank import output_words
from sliceforge.hw.payloads import index, output_tile_layout, result_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["ResultUnit"]


class ResultUnit(wiring.Component):
    """``Y[row, columns] = sums[row, columns] + bias_folded[row]``, 32 bits each.

    Tiles in the order of ``tiles``; within a tile rows in order, within a row columns in order,
    ``result_lanes * vector`` of them a beat. Padding of the last tiles is not sent.

    Parameters
    ----------
    pea_count, lanes, vector, slots, result_lanes : of the array and its output banks.

    Members
    -------
    tiles : stream in; what to send of each output tile.
    address : out; the read address of all output banks.
    words, available : in; the banks' words, one cycle after the address; a tile is complete in a bank.
    slot_freed : out; to all banks: the oldest tile is read.
    bias_row, bias, bias_available, bias_release : the bias buffer's read side.
    results : stream out.

    Latency: LATENCY cycles from address to the output FIFO, 1 through it. Throughput: a beat a cycle.
    Flow control: valid/ready; the pipeline behind the address has no stall, so an address is only issued
    while the output FIFO has a place for its result.
    Tested range: pea_count 1..3, lanes 1..6, vector 2, 4, 8, slots 2..4, result_lanes 1, 2, 4.
    """

    LATENCY = 3  # bank, selection, sum

    def __init__(self, *, pea_count, lanes, vector, slots, result_lanes):
        self.parameters = {
            "pea_count": pea_count, "lanes": lanes, "vector": vector, "slots": slots,
            "result_lanes": result_lanes,
        }  # fmt: skip
        self._tile_words = output_words(lanes, vector, result_lanes)
        self._sums = vector * result_lanes
        self._result = result_layout(self._sums)
        super().__init__(
            {
                "tiles": In(stream.Signature(output_tile_layout(pea_count * vector, lanes * vector))),
                "address": Out(range(slots * self._tile_words)),
                "words": In(data.ArrayLayout(32 * self._sums, pea_count)),
                "available": In(pea_count),
                "slot_freed": Out(1),
                "bias_row": Out(range(pea_count * vector)),
                "bias": In(32),
                "bias_available": In(1),
                "bias_release": Out(1),
                "results": Out(stream.Signature(self._result)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        tile = self.tiles.p
        groups = p["lanes"] // p["result_lanes"]  # words of a row

        depth = self.LATENCY + 2
        m.submodules.fifo = fifo = StreamFIFO(self._result, depth=depth)
        wiring.connect(m, fifo.o, wiring.flipped(self.results))
        room = Signal(range(depth + 1), init=depth)  # places in the FIFO that no address has claimed
        issues = Signal()
        m.d.sync += room.eq(room - issues + (fifo.o.valid & fifo.o.ready))

        # Cycle 0: address. PEA, row of the PEA and beat are cascaded counters.
        pea = Signal(index(p["pea_count"]))
        row = Signal(range(p["vector"]))
        beat = Signal(index(groups))
        columns = Signal.like(tile.columns)  # before this beat
        left = Signal.like(tile.columns)
        tile_row = Signal.like(self.bias_row)
        base = Signal.like(self.address)
        row_ends, tile_ends = Signal(), Signal()
        m.d.comb += [
            left.eq(tile.columns - columns),
            row_ends.eq(left <= self._sums),
            tile_ends.eq(row_ends & (tile_row + 1 == tile.rows)),
            # All PEAs must have finished the tile before its slot is given back.
            issues.eq(
                self.tiles.valid
                & Mux(tile_ends, self.available.all(), self.available.bit_select(pea, 1))
                & self.bias_available
                & (room != 0)
            ),
            self.address.eq(base + row * groups + beat),
            self.bias_row.eq(tile_row),
            self.slot_freed.eq(issues & tile_ends),
            self.bias_release.eq(self.slot_freed & tile.last_column),
            self.tiles.ready.eq(self.slot_freed),
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

        # What goes with the sums through the pipeline.
        tag = [Signal(self._result, name=f"result_{i}") for i in range(self.LATENCY)]
        m.d.sync += [
            tag[0].count.eq(Mux(row_ends, left, self._sums)),
            tag[0].last_of_row.eq(row_ends),
            tag[0].last.eq(tile_ends & tile.last),
        ]
        valid = Signal(self.LATENCY)
        m.d.sync += valid.eq(Cat(issues, valid))

        # Cycle 1: the banks and the bias answer; select the PEA's word.
        selected_pea = Signal.like(pea)
        bias = Signal(32)
        m.d.sync += [
            selected_pea.eq(pea),
            bias.eq(self.bias),
            tag[1].eq(tag[0]),
            tag[1].sums.eq(self.words[selected_pea]),
        ]

        # Cycle 2: add. The host refuses layers whose results need more than 32 bits.
        m.d.sync += tag[2].eq(tag[1])
        for i in range(self._sums):
            m.d.sync += tag[2].sums[i].eq(tag[1].sums[i] + bias)

        m.d.comb += [
            fifo.i.payload.eq(tag[2]),
            fifo.i.valid.eq(valid[-1]),
        ]
        return m
