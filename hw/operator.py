"""Operator: one outer product of v weight slices and v activation slices a cycle."""

from itertools import product as pairs_of

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import index
from sliceforge.hw.slice_product import logic_product, packed_products

__all__ = ["Operator", "step_layout"]


def step_layout(vector, weight_slices):
    """One outer product: v weight slices, v activation slices, and what the product weighs."""
    return data.StructLayout(
        {
            "weights": 4 * vector,
            "activations": 4 * vector,
            "slice_index": index(weight_slices),  # i of the weight slice W_i
            "high": 1,  # the activation slices are X_H
        }
    )


class Operator(wiring.Component):
    """Accumulates outer products: ``acc[r][c] += (W_i[r] * X[c]) << (3 i + 4 high)``.

    All products of a layer share the factor ``2^(lo_bits - 4)`` (arithmetic.md section 5), so it is left
    out here and applied when the sums leave. Source: Panacea, HPCA 2025, workload operator.

    Parameters
    ----------
    vector : v; the operator has v * v multipliers, signed 4-bit by unsigned 4-bit.
    weight_slices : S, the machine's weight slices; slice_index is below S.
    accumulator_bits : signed width. Final sums must fit; what wraps on the way there is harmless.
    packing, packed_products : of the v * v products, `packed_products` come from wide multipliers (a DSP
        block each), `packing` (2 or 4) from one; the others are made in logic.

    Members
    -------
    step, step_valid : in; an outer product, issued in the cycle in which step_valid is high.
    clear : in; sets all accumulators to 0, at the earliest LATENCY cycles after a step.
    row : in; selects the row of accumulators that stands on ``sums``.
    sums : out; v accumulators of the row. Complete LATENCY cycles after the last step.

    Latency: LATENCY cycles from step to accumulator. No flow control: a step is taken every cycle.
    Tested range: vector 2, 4, 8; weight_slices 1, 2, 3; accumulator_bits 16..32; packing 2, 4 of none, some
    and all products; every pair of slice values.
    """

    LATENCY = 3  # operand registers, product registers, accumulators

    def __init__(self, *, vector, weight_slices, accumulator_bits, packing, packed_products):
        self.parameters = {
            "vector": vector, "weight_slices": weight_slices, "accumulator_bits": accumulator_bits,
            "packing": packing, "packed_products": packed_products,
        }  # fmt: skip
        self._packing = packing
        self._packed = packed_products
        self._vector = vector
        self._slices = weight_slices
        self._bits = accumulator_bits
        super().__init__(
            {
                "step": In(step_layout(vector, weight_slices)),
                "step_valid": In(1),
                "clear": In(1),
                "row": In(range(vector)),
                "sums": Out(data.ArrayLayout(accumulator_bits, vector)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        v = self._vector

        # Cycle 0: register the operands. Without a step the weights are 0, and so are the products:
        # nothing further down needs an enable.
        step = Signal.like(self.step)
        m.d.sync += step.eq(self.step)
        m.d.sync += step.weights.eq(Mux(self.step_valid, self.step.weights, 0))

        # Cycle 1: multiply.
        slice_index = Signal.like(step.slice_index)
        high = Signal()
        m.d.sync += [slice_index.eq(step.slice_index), high.eq(step.high)]
        products = {}
        for place, (value, carry) in self._products(m, step).items():
            r, c = place
            products[place] = product, more = (
                Signal(signed(8), name=f"product_{r}_{c}"),
                Signal(name=f"more_{r}_{c}"),
            )
            m.d.sync += [product.eq(value), more.eq(carry)]

        # Cycle 2: weigh and accumulate. The bits that a shift brings in are the product's carry, and so is
        # the adder's: (product << s) + (2^s - 1) carry + carry = (product + carry) << s.
        accumulators = [[Signal(signed(self._bits), name=f"acc_{r}_{c}") for c in range(v)] for r in range(v)]
        for (r, c), (product, carry) in products.items():
            weighed = Signal(signed(8 + 3 * (self._slices - 1) + 4), name=f"weighed_{r}_{c}")
            by_slice = product
            for i in range(1, self._slices):
                by_slice = Mux(slice_index == i, Cat(carry.replicate(3 * i), product).as_signed(), by_slice)
            m.d.comb += weighed.eq(Mux(high, Cat(carry.replicate(4), by_slice).as_signed(), by_slice))
            m.d.sync += accumulators[r][c].eq(
                (Cat(1, accumulators[r][c]).as_signed() + Cat(carry, weighed).as_signed()) >> 1
            )
            with m.If(self.clear):
                m.d.sync += accumulators[r][c].eq(0)

        with m.Switch(self.row):
            for r in range(v):
                with m.Case(r):
                    m.d.comb += self.sums.eq(Cat(accumulators[r]))
        return m

    def _products(self, m, step):
        """Value and carry of the product in each row and column, combinational."""
        v, products = self._vector, {}
        wide = self._packing // 2
        for block, (row, column) in enumerate(pairs_of(range(0, v, 2), range(0, v, wide))):
            places = [(row + i, column + j) for j in range(wide) for i in range(2)]
            if block * self._packing < self._packed:
                weights = [step.weights.word_select(row + i, 4) for i in range(2)]
                activations = [step.activations.word_select(column + j, 4) for j in range(wide)]
                pairs = packed_products(m, weights, activations, f"products_{row}_{column}")
            else:
                pairs = [
                    logic_product(
                        m,
                        step.weights.word_select(r, 4),
                        step.activations.word_select(c, 4),
                        f"product_{r}_{c}",
                    )
                    for r, c in places
                ]
            products |= dict(zip(places, pairs, strict=True))
        return products
