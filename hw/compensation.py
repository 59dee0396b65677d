"""Compensation unit: keeps the result exact although the frequent activation slice r is skipped.

`KeptWeightSum` stands beside each operator and adds up the weights that meet kept HO activations;
`CompensationSubtract` stands where the sums of a PEA leave, and serves its lanes one after another.
Source: arithmetic.md section 5; Panacea, HPCA 2025, compensator.
"""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.accumulator import add_column
from sliceforge.hw.operator import step_layout
from sliceforge.hw.payloads import sum_layout

__all__ = ["CompensationSubtract", "KeptWeightSum", "kept_weight_bits"]


def kept_weight_bits(accumulator_bits):
    """Signed width of a sum of weights, where sums of weight * (0..255) need ``accumulator_bits``."""
    return accumulator_bits - 8


class KeptWeightSum(wiring.Component):
    """``sums[r] = sum over kept k of W[r, k]``, from the weight slices that the operator uses anyway.

    Each step with ``high`` set adds ``W_i[r] << 3 i``: over the slices of one k that is ``W[r, k]``.

    Parameters
    ----------
    vector, weight_slices, accumulator_bits : as the operator's.

    Members
    -------
    step, step_valid : in; as the operator's, in the same cycle.
    kept_weights : out; the first row's sum, signed.
    shift : in; the next row takes the first one's place, and so on up to the last, which becomes 0: at the
        earliest LATENCY cycles after a step. v times leave all sums 0.

    Latency: LATENCY cycles. No flow control. Tested range: vector 2, 4, 8; weight_slices 1, 2, 3.
    """

    LATENCY = 2  # operand register, sum; below the operator's, whose end of tile it shares

    def __init__(self, *, vector, weight_slices, accumulator_bits):
        self.parameters = {
            "vector": vector, "weight_slices": weight_slices, "accumulator_bits": accumulator_bits
        }  # fmt: skip
        self._vector = vector
        self._slices = weight_slices
        self._bits = kept_weight_bits(accumulator_bits)
        super().__init__(
            {
                "step": In(step_layout(vector, weight_slices)),
                "step_valid": In(1),
                "shift": In(1),
                "kept_weights": Out(signed(self._bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        addends = []
        for r in range(self._vector):
            weight = self.step.weights.word_select(r, 4).as_signed()
            weighed = Signal(signed(4 + 3 * (self._slices - 1)), name=f"weighed_{r}")
            by_slice = weight
            for i in range(1, self._slices):
                by_slice = Mux(self.step.slice_index == i, weight << 3 * i, by_slice)
            m.d.sync += weighed.eq(Mux(self.step_valid & self.step.high, by_slice, 0))
            addends.append((weighed, 0))
        first = add_column(
            m, platform, "row", addends, bits=self._bits, addend_bits=len(weighed), shift=self.shift
        )
        m.d.comb += self.kept_weights.eq(first)
        return m


class CompensationSubtract(wiring.Component):
    """``sums[c] = (accumulators[c] - 16 r kept_weights) << (lo_bits - 4)``: one row of a tile a cycle.

    The operators leave out the factor ``2^(lo_bits - 4)``; with it, the subtrahend is
    ``2^lo_bits * r * sum over kept k of W[:, k]``, as arithmetic.md section 5 has it.

    Parameters
    ----------
    vector, accumulator_bits : as the operator's.

    Members
    -------
    frequent, lo_bits : in; r and l of the layer, constant while sums pass.
    i : in; a row of accumulators with its sum of kept weights.
    sums : out; v sums, signed 32 bits, LATENCY cycles after the input.

    Latency: LATENCY cycles. No flow control: a row every cycle.
    Tested range: vector 2, 4, 8; every r and lo_bits; sums at both ends of their range.
    """

    LATENCY = 3  # operand registers, r * kept_weights, difference

    def __init__(self, *, vector, accumulator_bits):
        self.parameters = {"vector": vector, "accumulator_bits": accumulator_bits}
        self._vector = vector
        self._bits = accumulator_bits
        self._kept_bits = kept_weight_bits(accumulator_bits)
        super().__init__(
            {
                "frequent": In(4),
                "lo_bits": In(3),
                "i": In(sum_layout(vector, accumulator_bits, self._kept_bits)),
                "sums": Out(data.ArrayLayout(32, vector)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Cycle 0: register the operands.
        row = Signal.like(self.i)
        m.d.sync += row.eq(self.i)

        # Cycle 1: r times the kept weights; 16 of them weigh as much as the operator's X_H.
        accumulators = Signal.like(row.accumulators)
        subtrahend = Signal(signed(self._kept_bits + 8))
        # A sum of multiples: on FPGAs a `*` would take a DSP block, which is for wider products.
        multiples = (Mux(bit, row.kept_weights.as_signed(), 0) << b for b, bit in enumerate(self.frequent))
        m.d.sync += [accumulators.eq(row.accumulators), subtrahend.eq(sum(multiples) << 4)]

        # Cycle 2: subtract, and apply the factor that all products share. The result fits the
        # accumulator's width, the difference too: what wraps on the way is harmless.
        for c in range(self._vector):
            difference = Signal(signed(self._bits), name=f"difference_{c}")
            m.d.comb += difference.eq(accumulators[c].as_signed() - subtrahend)
            with m.Switch(self.lo_bits):
                with m.Case(5):
                    m.d.sync += self.sums[c].eq(difference << 1)
                with m.Case(6):
                    m.d.sync += self.sums[c].eq(difference << 2)
                with m.Default():
                    m.d.sync += self.sums[c].eq(difference)
        return m
