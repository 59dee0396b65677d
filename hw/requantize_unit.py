# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Requantize unit: 32-bit results to 8-bit activations, with ReLU and a table of an activation function."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.hierarchy import place
from sliceforge.hw.payloads import nest_layout, result_layout, value_layout, word_layout
from sliceforge.hw.requantize_column import ENTRIES, RequantizeColumn, entry_layout
from sliceforge.hw.scale_buffer import ScaleBuffer
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["RequantizeUnit"]

BYTES = 4  # of a word


class RequantizeUnit(wiring.Component):
    """``value = clip(((sum * m + 2^(sh-1)) >> sh) + zero_out + rounding, relu ? zero_out : 0, 255)``, exact.

    With ``use_table``, what leaves is ``table[value]``. m and sh are the row's. Source: arithmetic.md
    section 9 (TFLite's single-rounding rule).

    Parameters
    ----------
    sums : E, columns of a beat. ``tile_m``, ``tile_n``, ``k_bits`` : of the `RowNest`.

    Members
    -------
    loops : in; of the layer. All settings are constant during a layer; the unit is reset between layers.
    zero_out, relu, use_table : in.
    rounding : in; 0, 1 or 2 for the next layer's lo_bits 4, 5 or 6.
    scales : stream in; m (31 bits) and sh (6 bits, 1..62) of each row, a word each, of the layer's rows in
        order. Any number of passes over all rows: a tile's rows are dropped at ``frees_rows``, and who needs
        them again sends them again.
    table : stream in; where ``use_table``, 64 words: entry 4 i + b is byte b of word i. Else nothing.
    results : stream in; tile after tile, row after row. None is taken before the scales of all rows of its
        tile are here, and the table.
    bad_scale : out; high, until reset: a scale is out of range.
    values : stream out; a beat for each of results. What is beyond ``count`` means nothing.

    Latency: LATENCY cycles from results to the output FIFO, 1 through it. Throughput: a beat a cycle; the
    table takes 256 cycles.
    Flow control: valid/ready; the pipeline has no stall, so results are only taken while the output FIFO
    has a place for them.
    Tested range: sums 2..32; tile_m 2..12; both ends of sum, m, sh and zero_out; every pair of relu and
    use_table with each rounding.
    """

    LATENCY = RequantizeColumn.LATENCY

    def __init__(self, *, sums, tile_m, tile_n, k_bits):
        self._rows = {"tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits}
        self.parameters = {"sums": sums, **self._rows}
        self._sums = sums
        self._tile_m = tile_m
        super().__init__(
            {
                "loops": In(nest_layout()),
                "zero_out": In(8),
                "rounding": In(2),
                "relu": In(1),
                "use_table": In(1),
                "scales": In(stream.Signature(word_layout())),
                "table": In(stream.Signature(word_layout())),
                "results": In(stream.Signature(result_layout(sums))),
                "values": Out(stream.Signature(value_layout(sums))),
                "bad_scale": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.LATENCY + 2
        m.submodules.fifo = fifo = StreamFIFO(value_layout(self._sums), depth=depth)
        wiring.connect(m, fifo.o, wiring.flipped(self.values))
        room = Signal(range(depth + 1), init=depth)  # places in the FIFO that no beat has claimed
        taken = Signal()
        m.d.sync += room.eq(room - taken + (fifo.o.valid & fifo.o.ready))

        # Cycle 0: take a beat; the buffer reads its row's scale.
        m.submodules.scale_buffer = scales = ScaleBuffer(**self._rows)
        result = self.results.p
        row = Signal(range(self._tile_m))  # in its tile
        entry, table_full = self._load_table(m)
        m.d.comb += [
            self.results.ready.eq((room != 0) & scales.available & (table_full | ~self.use_table)),
            taken.eq(self.results.valid & self.results.ready),
            scales.loops.eq(self.loops),
            self.bad_scale.eq(scales.bad_scale),
            scales.scales.payload.eq(self.scales.payload),
            scales.scales.valid.eq(self.scales.valid),
            self.scales.ready.eq(scales.scales.ready),
            scales.row.eq(row),
            scales.slot_freed.eq(taken & result.frees_rows),
        ]
        with m.If(taken & result.last_of_row):
            m.d.sync += row.eq(Mux(result.last_of_tile, 0, row + 1))

        # What goes beside the sums.
        fields = ("count", "last_of_row", "last_of_tile", "last")
        tag_layout = data.StructLayout({name: result.shape()[name].shape for name in fields})
        tags = [Signal(tag_layout, name=f"tag_{i}") for i in range(self.LATENCY)]
        valid = Signal(self.LATENCY)
        m.d.sync += valid.eq(Cat(taken, valid))
        m.d.sync += [tags[0][name].eq(result[name]) for name in fields]
        m.d.sync += [tag.eq(before) for before, tag in pairwise(tags)]
        m.d.comb += fifo.i.valid.eq(valid[-1])
        m.d.comb += [fifo.i.p[name].eq(tags[-1][name]) for name in fields]

        # Cycle 1: the row's scale is here.
        multiplier, amount = Signal(31), Signal(6)
        m.d.sync += [multiplier.eq(scales.scale.multiplier), amount.eq(scales.scale.shift - 1)]

        # The layer's settings stand long before the first beat comes to where they are used.
        addend, lowest = Signal(10), Signal(8)
        m.d.sync += [
            addend.eq(Cat(1, self.zero_out + self.rounding)),
            lowest.eq(Mux(self.relu, self.zero_out, 0)),
        ]
        for c in range(self._sums):
            column = RequantizeColumn()
            m.submodules[f"column_{c}"] = place(platform, column, "requantize_column")
            m.d.comb += [
                column.result.eq(result.sums[c]),
                column.multiplier.eq(multiplier),
                column.amount.eq(amount),
                column.addend.eq(addend),
                column.lowest.eq(lowest),
                column.use_table.eq(self.use_table),
                column.entry.eq(entry),
                fifo.i.p["values"][c].eq(column.value),
            ]
        return m

    def _load_table(self, m):
        """What to write into the table of every column, and whether they are full."""
        count = Signal(range(ENTRIES + 1))
        full, entry = Signal(), Signal(entry_layout())
        m.d.comb += [
            full.eq(count == ENTRIES),
            entry.valid.eq(self.table.valid & self.use_table & ~full),
            entry.address.eq(count),
            entry.value.eq(self.table.p.word.word_select(count[:2], 8)),
            self.table.ready.eq(self.use_table & ~full & (count[:2] == BYTES - 1)),
        ]
        m.d.sync += count.eq(count + entry.valid)
        return entry, full
