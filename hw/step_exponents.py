"""Step exponents: where in its group the present K-chunk stands, and the exponents of its partial sums."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.apsq_engine import EXPONENT_BITS
from sliceforge.hw.payloads import PSUM_BANKS, index, word_layout
from sliceforge.hw.ram import add_ram

__all__ = ["StepExponents"]


class StepExponents(wiring.Component):
    """Keeps an exponent for each step of a layer, and gives those of what is stored (APSQ, DAC 2025).

    Parameters
    ----------
    max_k : the largest number of steps.

    Members
    -------
    psum_group : in; group size 1 to 4, or 0: no exponents. Constant during a layer.
    words : stream in; four exponents a word, a byte each, that of step 0 lowest; ``last`` on the last word.
    step_ends, last_step : in; go on to the next step, or from the last one to the first.
    position : out; of the step in its group. ``exponent`` : out; of this step. ``exponents`` : out; of the
        last step before this one at each position.
    valid : out; the above belong to the present step. Low for some cycles after step_ends.
    bad_steps : out; high, until reset: there are fewer words than steps, or more than there is room for.

    Latency: 3 cycles from step_ends to valid. Tested range: 1 to 20 steps, groups 1 to 4.
    """

    def __init__(self, *, max_k):
        self.parameters = {"max_k": max_k}
        super().__init__(
            {
                "psum_group": In(3),
                "words": In(stream.Signature(word_layout())),
                "step_ends": In(1),
                "last_step": In(1),
                "position": Out(range(PSUM_BANKS)),
                "exponent": Out(EXPONENT_BITS),
                "exponents": Out(data.ArrayLayout(EXPONENT_BITS, PSUM_BANKS)),
                "valid": Out(1),
                "bad_steps": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = max(2, -(-self.parameters["max_k"] // PSUM_BANKS))
        shape = data.ArrayLayout(EXPONENT_BITS, PSUM_BANKS)
        ram = add_ram(m, platform, "ram", shape=shape, depth=depth)
        arrived, ended = Signal(range(depth + 1)), Signal()
        step = Signal(index(PSUM_BANKS * depth))
        m.d.comb += [
            self.words.ready.eq(1),
            ram.write_address.eq(arrived),
            ram.write.eq(self.words.valid & (arrived != depth)),
            ram.read_address.eq(step >> 2),
        ]
        for place in range(PSUM_BANKS):
            m.d.comb += ram.write_data[place].eq(self.words.p.word.word_select(place, 8))
        with m.If(self.words.valid):
            m.d.sync += [arrived.eq(arrived + (arrived != depth)), ended.eq(self.words.p.last)]

        here, fetched = Signal(), Signal()
        m.d.comb += here.eq(arrived > (step >> 2))
        m.d.sync += [
            fetched.eq(here),
            self.valid.eq(fetched & here | (self.psum_group == 0)),
            self.exponent.eq(ram.read_data[step[:2]]),
        ]
        with m.If((self.words.valid & (arrived == depth)) | (ended & ~here & (self.psum_group != 0))):
            m.d.sync += self.bad_steps.eq(1)
        with m.If(self.step_ends):
            m.d.sync += [fetched.eq(0), self.valid.eq(0), step.eq(Mux(self.last_step, 0, step + 1))]
            m.d.sync += self.exponents[self.position].eq(self.exponent)
            m.d.sync += self.position.eq(
                Mux(self.last_step | (self.position + 1 >= self.psum_group), 0, self.position + 1)
            )
        return m
