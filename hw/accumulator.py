# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Accumulator: a sum that is added to, or handed down a column of accumulators on its way out."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.hierarchy import place

__all__ = ["Accumulator", "add_column"]


class Accumulator(wiring.Component):
    """``sum = above if shift else sum + addend + carry``, at every clock edge.

    A module of its own, since FPGAs have cells that do both in the LUT in front of their carry chain, where
    synthesis takes a LUT a bit more (gen/ecp5_cells.py).

    Parameters
    ----------
    bits, addend_bits : signed widths.

    Members
    -------
    addend, carry, shift, above : in; as in the formula.
    sum : out; wraps. 0 after reset.

    Latency: 1 cycle. No flow control. Tested range: bits 8..32, addend_bits 4..22.
    """

    def __init__(self, *, bits, addend_bits):
        self.parameters = {"bits": bits, "addend_bits": addend_bits}
        super().__init__(
            {
                "addend": In(signed(addend_bits)),
                "carry": In(1),
                "shift": In(1),
                "above": In(signed(bits)),
                "sum": Out(signed(bits)),
            }
        )

    @property
    def block(self):
        """Name of the module below the prefix of the design."""
        return f"accumulator_{self.parameters['bits']}x{self.parameters['addend_bits']}"

    def elaborate(self, platform):
        m = Module()
        # One adder: a bit below both numbers carries into them.
        augend, addend = Signal(signed(len(self.sum) + 1)), Signal(signed(len(self.sum) + 1))
        total = Signal(len(self.sum) + 1)
        m.d.comb += [
            augend.eq(Cat(1, self.sum)),
            addend.eq(Cat(self.carry, self.addend).as_signed()),
            total.eq(augend + addend),
        ]
        m.d.sync += self.sum.eq(total[1:])
        with m.If(self.shift):
            m.d.sync += self.sum.eq(self.above)
        return m


def add_column(m, platform, name, addends, *, bits, addend_bits, shift):
    """A column of accumulators as submodules of ``m``, one for each (addend, carry) of ``addends``.

    What leaves is the sum of the first: with ``shift`` each takes over the sum of the one behind it, and the
    last a 0. So shifting them all out leaves the column empty. Returns the first sum.
    """
    column = []
    for row, (addend, carry) in enumerate(addends):
        accumulator = Accumulator(bits=bits, addend_bits=addend_bits)
        m.submodules[f"{name}_{row}"] = place(platform, accumulator, accumulator.block)
        m.d.comb += [accumulator.addend.eq(addend), accumulator.carry.eq(carry), accumulator.shift.eq(shift)]
        if column:
            m.d.comb += column[-1].above.eq(accumulator.sum)
        column.append(accumulator)
    return column[0].sum
