"""Operator: one outer product of v weight slices and v activation slices a cycle."""

from typing import NamedTuple

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.accumulator import add_column
from sliceforge.hw.payloads import index
from sliceforge.hw.slice_product import (
    logic_product,
    packed_pair,
    packed_products,
    product_table,
    weighed_bits,
)

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


class _Product(NamedTuple):
    """``value + carry``, and whether it is weighed already, by ``16^high 8^slice_index``."""

    value: Signal
    carry: Signal
    weighed: bool


class Operator(wiring.Component):
    """Accumulates outer products: ``acc[r][c] += (W_i[r] * X[c]) << (3 i + 4 high)``.

    All products of a layer share the factor ``2^(lo_bits - 4)`` (arithmetic.md section 5), so it is left
    out here and applied when the sums leave. Source: Panacea, HPCA 2025, workload operator.

    Parameters
    ----------
    vector : v; the operator has v * v multipliers, signed 4-bit by unsigned 4-bit.
    weight_slices : S, the machine's weight slices; slice_index is below S.
    accumulator_bits : signed width. Final sums must fit; what wraps on the way there is harmless.
    packing, packed_products, table_products : of the v * v products, `packed_products` come from wide
        multipliers (a DSP block each), `packing` (2 or 4) from one, and `table_products` from tables (a block
        RAM each), two from one; the others are made in logic.

    Members
    -------
    step, step_valid : in; an outer product, issued in the cycle in which step_valid is high.
    sums : out; the v accumulators of the first row. Complete LATENCY cycles after the last step.
    shift : in; the next row takes the first one's place, and so on up to the last, which becomes 0: at the
        earliest LATENCY cycles after a step. v times leave all accumulators 0.

    Latency: LATENCY cycles from step to accumulator. No flow control: a step is taken every cycle.
    Tested range: vector 2, 4, 8; weight_slices 1, 2, 3; accumulator_bits 16..32; none, some and all
    products packed or from tables; every pair of slice values.
    """

    LATENCY = 3  # operand registers, product registers, accumulators

    def __init__(self, *, vector, weight_slices, accumulator_bits, packing, packed_products, table_products):
        self.parameters = {
            "vector": vector, "weight_slices": weight_slices, "accumulator_bits": accumulator_bits,
            "packing": packing, "packed_products": packed_products, "table_products": table_products,
        }  # fmt: skip
        self._packing = packing
        self._packed = packed_products
        self._from_tables = table_products
        self._vector = vector
        self._slices = weight_slices
        self._bits = accumulator_bits
        super().__init__(
            {
                "step": In(step_layout(vector, weight_slices)),
                "step_valid": In(1),
                "shift": In(1),
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
        products = self._products(m, step)

        # Cycle 2: weigh and accumulate. The bits that a shift brings in are the product's carry, and so is
        # the adder's: (value << s) + (2^s - 1) carry + carry = (value + carry) << s.
        bits = weighed_bits(self._slices)
        addends = {}
        for place, product in products.items():
            weighed = product.value
            if not product.weighed:
                for i in range(1, self._slices):
                    shifted = Cat(product.carry.replicate(3 * i), product.value).as_signed()
                    weighed = Mux(slice_index == i, shifted, weighed)
                weighed = Mux(high, Cat(product.carry.replicate(4), weighed).as_signed(), weighed)
            addend = Signal(signed(bits), name="addend_{}_{}".format(*place))
            m.d.comb += addend.eq(weighed)
            addends[place] = addend, product.carry
        # A table has no reset: what it held before must not be added.
        after_reset = Signal(init=1)
        m.d.sync += after_reset.eq(0)
        for c in range(v):
            first = add_column(
                m, platform, f"column_{c}", [addends[r, c] for r in range(v)],
                bits=self._bits, addend_bits=bits, shift=self.shift | after_reset,
            )  # fmt: skip
            m.d.comb += self.sums[c].eq(first)
        return m

    def _products(self, m, step):
        """The registered `_Product` in each row and column."""
        v, wide = self._vector, self._packing // 2
        places = [
            (row + i, column + j)
            for row in range(0, v, 2) for column in range(0, v, wide) for j in range(wide) for i in range(2)
        ]  # fmt: skip
        tables = self._packed + self._from_tables
        products = {}
        for first in range(0, self._packed, self._packing):
            products |= self._packed_block(m, step, places[first : first + self._packing])
        for first in range(self._packed, tables, 2):
            products |= self._table_pair(m, step, places[first : first + 2])
        for r, c in places[tables:]:
            weight, activation = step.weights.word_select(r, 4), step.activations.word_select(c, 4)
            pair = logic_product(m, weight, activation, f"product_{r}_{c}")
            products[r, c] = self._registered(m, f"product_{r}_{c}", *pair, weighed=False)
        return products

    def _packed_block(self, m, step, places):
        """Products of one wide multiplier. One that takes a single activation has the bits to take it
        weighed."""
        rows, columns = sorted({r for r, _ in places}), sorted({c for _, c in places})
        name = "products_{}_{}".format(*places[0])
        weights = [step.weights.word_select(r, 4) for r in rows]
        single = len(columns) == 1
        if single:
            # Registers of cycle 0.
            fresh = self.step.activations.word_select(columns[0], 4)
            weighed = Signal(weighed_bits(self._slices) - 4, name=f"{name}_weighed")
            for i in range(self._slices):
                with m.If(self.step.slice_index == i):
                    m.d.sync += weighed.eq(Mux(self.step.high, fresh << 3 * i + 4, fresh << 3 * i))
            pairs = packed_pair(m, weights, weighed, step.slice_index, step.high, self._slices, name)
        else:
            pairs = packed_products(m, weights, [step.activations.word_select(c, 4) for c in columns], name)
        return {
            place: self._registered(m, "product_{}_{}".format(*place), *pair, weighed=single)
            for place, pair in zip(places, pairs, strict=True)
        }

    def _table_pair(self, m, step, places):
        """Two products of one table, which has the register."""
        table = product_table(self._slices)
        m.submodules["products_{}_{}".format(*places[0])] = table
        products = {}
        for r, c in places:
            port = table.read_port()
            factors = step.weights.word_select(r, 4), step.activations.word_select(c, 4)
            m.d.comb += port.addr.eq(Cat(*factors, step.high, step.slice_index))
            products[r, c] = _Product(port.data, Const(0, 1), weighed=True)
        return products

    def _registered(self, m, name, value, carry, *, weighed):
        product = _Product(Signal.like(value, name=name), Signal(name=f"{name}_carry"), weighed)
        m.d.sync += [product.value.eq(value), product.carry.eq(carry)]
        return product
