"""Requantize unit: 32-bit results to 8-bit activations, with ReLU and a table of an activation function."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import DIM_BITS
from sliceforge.hw.scale_buffer import ScaleBuffer, word_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["RequantizeUnit", "result_layout", "value_layout"]

ENTRIES = 256  # of the table
BYTES = 4  # of a word
KEPT = 11  # bits of what is rounded, with a bit after the point: beyond -512..511 no zero_out brings it back


def result_layout(sums):
    """``sums`` 32-bit results of one row, neighbouring columns; the first ``count`` of them count.

    ``frees_rows`` comes with a tile's last beat: what belongs to the rows of this tile is not needed again.
    """
    return data.StructLayout(
        {
            "sums": data.ArrayLayout(32, sums),
            "count": range(sums + 1),
            "last_of_row": 1,
            "last_of_tile": 1,
            "frees_rows": 1,
            "last": 1,  # of the layer
        }
    )


def value_layout(sums):
    """``sums`` 8-bit activations of one row, neighbouring columns; the first ``count`` of them count."""
    return data.StructLayout(
        {
            "values": data.ArrayLayout(8, sums),
            "count": range(sums + 1),
            "last_of_row": 1,
            "last_of_tile": 1,
            "last": 1,  # of the layer
        }
    )


class RequantizeUnit(wiring.Component):
    """``value = clip(((sum * m + 2^(sh-1)) >> sh) + zero_out + rounding, relu ? zero_out : 0, 255)``, exact.

    With ``use_table``, what leaves is ``table[value]``. m and sh are the row's. Source: arithmetic.md
    section 9 (TFLite's single-rounding rule).

    Parameters
    ----------
    sums : E, columns of a beat. ``tile_m`` : rows of a tile.

    Members
    -------
    m : in; rows of the layer. All settings are constant during a layer; the unit is reset between layers.
    zero_out, relu, use_table : in.
    rounding : in; 0, 1 or 2 for the next layer's lo_bits 4, 5 or 6.
    scales : stream in; m (31 bits) and sh (6 bits, 1..62) of each row, a word each, of the layer's rows in
        order and over again, as `ScaleBuffer` takes them.
    table : stream in; where ``use_table``, 64 words: entry 4 i + b is byte b of word i. Else nothing.
    results : stream in; tile after tile, row after row. None is taken before the scales of all rows of its
        tile are here, and the table.
    values : stream out; a beat for each of results. What is beyond ``count`` means nothing.

    Latency: LATENCY cycles from results to the output FIFO, 1 through it. Throughput: a beat a cycle; the
    table takes 256 cycles.
    Flow control: valid/ready; the pipeline has no stall, so results are only taken while the output FIFO
    has a place for them.
    Tested range: sums 2..32; tile_m 2..12; both ends of sum, m, sh and zero_out; every pair of relu and
    use_table with each rounding.
    """

    LATENCY = 10

    def __init__(self, *, sums, tile_m):
        self.parameters = {"sums": sums, "tile_m": tile_m}
        self._sums = sums
        self._tile_m = tile_m
        super().__init__(
            {
                "m": In(DIM_BITS),
                "zero_out": In(8),
                "rounding": In(2),
                "relu": In(1),
                "use_table": In(1),
                "scales": In(stream.Signature(word_layout())),
                "table": In(stream.Signature(word_layout())),
                "results": In(stream.Signature(result_layout(sums))),
                "values": Out(stream.Signature(value_layout(sums))),
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
        m.submodules.scale_buffer = scales = ScaleBuffer(tile_m=self._tile_m)
        result = self.results.p
        row = Signal(range(self._tile_m))  # in its tile
        tables, table_full = self._load_tables(m)
        m.d.comb += [
            self.results.ready.eq((room != 0) & scales.available & (table_full | ~self.use_table)),
            taken.eq(self.results.valid & self.results.ready),
            scales.m.eq(self.m),
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

        # Cycle 1: the row's scale is here. All but the last bit of the shift is done before rounding.
        multiplier = Signal(31)
        amounts = [Signal(6, name=f"amount_{i}") for i in range(5)]  # of the shift, in cycles 2 to 6
        m.d.sync += [multiplier.eq(scales.scale.multiplier), amounts[0].eq(scales.scale.shift - 1)]
        m.d.sync += [amount.eq(before) for before, amount in pairwise(amounts)]

        # The layer's settings stand long before the first beat comes to where they are used.
        addend, lowest = Signal(10), Signal(8)
        m.d.sync += [
            addend.eq(Cat(1, self.zero_out + self.rounding)),
            lowest.eq(Mux(self.relu, self.zero_out, 0)),
        ]
        for c in range(self._sums):
            product = self._multiply(m, c, result.sums[c], multiplier)
            shifted = self._shift(m, c, product, amounts[2:])
            value = self._round(m, c, shifted, addend, lowest)
            # Cycle 9: look the value up.
            direct = Signal(8, name=f"direct_{c}")
            m.d.sync += direct.eq(value)
            m.d.comb += [
                tables[c].addr.eq(value),
                fifo.i.p["values"][c].eq(Mux(self.use_table, tables[c].data, direct)),
            ]
        return m

    def _load_tables(self, m):
        """A table for each column, all written together: their read ports, and whether they are full."""
        entry = Signal(range(ENTRIES + 1))
        full, writes = Signal(), Signal()
        m.d.comb += [
            full.eq(entry == ENTRIES),
            writes.eq(self.table.valid & self.use_table & ~full),
            self.table.ready.eq(self.use_table & ~full & (entry[:2] == BYTES - 1)),
        ]
        m.d.sync += entry.eq(entry + writes)
        reads = []
        for c in range(self._sums):
            m.submodules[f"table_{c}"] = ram = Memory(shape=8, depth=ENTRIES, init=[])
            write = ram.write_port()
            m.d.comb += [
                write.en.eq(writes),
                write.addr.eq(entry[:8]),
                write.data.eq(self.table.p.word.word_select(entry[:2], 8)),
            ]
            reads.append(ram.read_port())
        return reads, full

    def _multiply(self, m, c, result, multiplier):
        """Cycles 1 to 3: the product, 63 bits signed.

        Four products of 16 bits: any FPGA's multiplier takes one, with registers on either side, whatever
        its tools know about moving registers into a wide product.
        """
        sums = [Signal(signed(32), name=f"sum_{c}_{i}") for i in range(2)]
        m.d.sync += [sums[0].eq(result), sums[1].eq(sums[0])]
        sum_low, sum_high = sums[1][:16], sums[1][16:].as_signed()
        low, high = multiplier[:16], multiplier[16:]

        # Cycle 2: partial products.
        low_low = Signal(32, name=f"low_low_{c}")
        low_high = Signal(31, name=f"low_high_{c}")
        high_low = Signal(signed(32), name=f"high_low_{c}")
        high_high = Signal(signed(31), name=f"high_high_{c}")
        m.d.sync += [
            low_low.eq(sum_low * low),
            low_high.eq(sum_low * high),
            high_low.eq(sum_high * low),
            high_high.eq(sum_high * high),
        ]

        # Cycle 3: their sum.
        product = Signal(signed(63), name=f"product_{c}")
        m.d.sync += product.eq(Cat(low_low, high_high).as_signed() + ((low_high + high_low) << 16))
        return product

    def _shift(self, m, c, product, amounts):
        """Cycles 4 to 6: ``product >> amount``, clipped to KEPT bits.

        What clips there is clipped to a byte in the end. So after each step only the bits remain that the
        next ones may bring down.
        """
        for low, amount in zip((4, 2, 0), amounts, strict=True):  # two bits of the amount a cycle
            step = 1 << low
            width = KEPT + step - 1  # the amount that is left is below step
            kept, fits = Signal(width, name=f"kept_{low}_{c}"), Signal(name=f"fits_{low}_{c}")
            with m.Switch(amount[low : low + 2]):
                for i in range(4):
                    with m.Case(i):
                        above = product[step * i + width - 1 :]
                        m.d.comb += kept.eq(product.shift_right(step * i))
                        m.d.comb += fits.eq(above.all() | ~above.any() if len(above) > 1 else 1)
            shifted = Signal(signed(width), name=f"shifted_{low}_{c}")
            sign = product[-1]
            m.d.sync += shifted.eq(Mux(fits, kept, Cat((~sign).replicate(width - 1), sign)))
            product = shifted
        return product

    def _round(self, m, c, shifted, addend, lowest):
        """Cycles 7 and 8: add zero_out, round, clip. The addend has both: a half in its lowest bit."""
        total = Signal(signed(KEPT + 1), name=f"total_{c}")
        m.d.sync += total.eq(shifted + addend)
        rounded, value = total.shift_right(1), Signal(8, name=f"value_{c}")
        m.d.sync += value.eq(Mux(rounded < lowest, lowest, Mux(rounded > 255, 255, rounded)))
        return value
