"""Requantize column: one result after the other to 8 bits, and through the table."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.ram import add_ram

__all__ = ["ENTRIES", "RequantizeColumn", "entry_layout"]

ENTRIES = 256  # of the table
KEPT = 11  # bits of what is rounded, with a bit after the point: beyond -512..511 no zero_out brings it back


def entry_layout():
    """An entry of the table that is written in this cycle if ``valid``."""
    return data.StructLayout({"address": 8, "value": 8, "valid": 1})


class RequantizeColumn(wiring.Component):
    """``value = clip(((result * multiplier >> amount) + addend) >> 1, lowest, 255)``, exact.

    That is arithmetic.md section 9 with ``amount = sh - 1`` and ``addend = 2 * offset + 1``: all but the
    last bit of the shift is done before rounding. With ``use_table``, what leaves is ``table[value]``.

    Members
    -------
    result : in; 32 bits signed.
    multiplier, amount : in; of this result, SCALE_AFTER cycles after it. An amount above 61 gives any value.
    addend, lowest, use_table : in; constant while results pass.
    entry : in; writes the table.
    value : out; LATENCY cycles after the result.

    Throughput: a result a cycle. Flow control: none; the parent says which values count.
    Tested range: both ends of every input; amount 0..61.
    """

    SCALE_AFTER = 2
    LATENCY = 10

    def __init__(self):
        self.parameters = {}
        super().__init__(
            {
                "result": In(32),
                "multiplier": In(31),
                "amount": In(6),
                "addend": In(10),
                "lowest": In(8),
                "use_table": In(1),
                "entry": In(entry_layout()),
                "value": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        value = self._round(m, self._shift(m, self._multiply(m)))

        # Cycle 9: look the value up.
        table = add_ram(m, platform, "table", shape=8, depth=ENTRIES)
        direct = Signal(8)
        m.d.sync += direct.eq(value)
        m.d.comb += [
            table.write.eq(self.entry.valid),
            table.write_address.eq(self.entry.address),
            table.write_data.eq(self.entry.value),
            table.read_address.eq(value),
            self.value.eq(Mux(self.use_table, table.read_data, direct)),
        ]
        return m

    def _multiply(self, m):
        """Cycles 0 to 3: the product, 63 bits signed.

        Four products of 16 bits: any FPGA's multiplier takes one, with registers on either side, whatever
        its tools know about moving registers into a wide product.
        """
        results = [Signal(signed(32), name=f"result_{i}") for i in range(self.SCALE_AFTER)]
        m.d.sync += [after.eq(before) for before, after in pairwise([self.result, *results])]
        result_low, result_high = results[-1][:16], results[-1][16:].as_signed()
        low, high = self.multiplier[:16], self.multiplier[16:]

        # Cycle 2: partial products.
        low_low, low_high = Signal(32), Signal(31)
        high_low, high_high = Signal(signed(32)), Signal(signed(31))
        m.d.sync += [
            low_low.eq(result_low * low),
            low_high.eq(result_low * high),
            high_low.eq(result_high * low),
            high_high.eq(result_high * high),
        ]

        # Cycle 3: their sum.
        product = Signal(signed(63))
        m.d.sync += product.eq(Cat(low_low, high_high).as_signed() + ((low_high + high_low) << 16))
        return product

    def _shift(self, m, product):
        """Cycles 4 to 6: ``product >> amount``, clipped to KEPT bits.

        What clips there is clipped to a byte in the end. So after each step only the bits remain that the
        next ones may bring down.
        """
        amounts = [Signal(6, name=f"amount_{i}") for i in range(3, 7)]  # in cycles 3 to 6
        m.d.sync += [after.eq(before) for before, after in pairwise([self.amount, *amounts])]
        for low, amount in zip((4, 2, 0), amounts[1:], strict=True):  # two bits of the amount a cycle
            step = 1 << low
            width = KEPT + step - 1  # the amount that is left is below step
            kept, fits = Signal(width, name=f"kept_{low}"), Signal(name=f"fits_{low}")
            with m.Switch(amount[low : low + 2]):
                for i in range(4):
                    with m.Case(i):
                        above = product[step * i + width - 1 :]
                        m.d.comb += kept.eq(product.shift_right(step * i))
                        m.d.comb += fits.eq(above.all() | ~above.any() if len(above) > 1 else 1)
            shifted = Signal(signed(width), name=f"shifted_{low}")
            sign = product[-1]
            m.d.sync += shifted.eq(Mux(fits, kept, Cat((~sign).replicate(width - 1), sign)))
            product = shifted
        return product

    def _round(self, m, shifted):
        """Cycles 7 and 8: add the offset and a half, drop the bit after the point, clip."""
        total = Signal(signed(KEPT + 1))
        m.d.sync += total.eq(shifted + self.addend)
        rounded, value = total.shift_right(1), Signal(8)
        m.d.sync += value.eq(Mux(rounded < self.lowest, self.lowest, Mux(rounded > 255, 255, rounded)))
        return value
