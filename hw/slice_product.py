"""Products of a signed 4-bit weight slice and an unsigned 4-bit activation slice, three ways to make them.

Where that is cheaper, a product is left as a pair: ``value + carry``, a signed number and one bit. The adder
that takes the product has a free carry input, so that completing the product costs nothing.
"""

from amaranth import Cat, Mux, Signal, signed
from amaranth.lib.memory import Memory

__all__ = ["logic_product", "packed_products", "product_table"]


def logic_product(m, weight, activation, name):
    """``value + carry = weight * activation`` in logic: (value, carry), combinational.

    Radix-4 Booth recoding, ``w = d0 + 4 d1`` with ``d0 = w0 - 2 w1``, ``d1 = w1 + w2 - 2 w3``: the multiples
    of the activation (0, 1 or 2, negated by inverting and adding 1) need no adder, so one adder of 6 bits is
    all. The 1 of a negated ``d0`` is the carry. Yosys makes 23 LUT4s and carry slots of it on ECP5 where
    ``*`` takes 60.
    """
    w = weight
    partial = []
    for index, (one, two, negative) in enumerate(
        (
            (w[0], w[1] & ~w[0], w[1]),
            (w[1] ^ w[2], Mux(w[3], ~(w[1] | w[2]), w[1] & w[2]), w[3]),
        )
    ):
        multiple = Signal(signed(6), name=f"{name}_d{index}")
        magnitude = Mux(one, activation, 0) | Mux(two, activation << 1, 0)
        m.d.comb += multiple.eq(Cat(magnitude[:5] ^ negative.replicate(5), negative))
        partial.append(multiple)
    low, high = partial
    # The two lowest bits are those of d0's multiple; above them both multiples meet, with d1's 1.
    upper = _add_with_carry(low >> 2, high, w[3], 6)
    return Cat(low[:2], upper).as_signed(), w[1]


def packed_products(m, weights, activations, bits, name):
    """The products of each of ``weights`` (4 bits) with each of ``activations`` from one wide multiplier:
    ``[(value, carry)]``, all weights with the first activation first; combinational. bits: of a product.

    ``(sum_i w[i] 2^(b i)) * (sum_j x[j] 2^(b n j))`` with n weights and b bits has product (i, j) at bit
    ``b (i + n j)``, less 1 where what lies below it is negative: that is the top bit of the field below, and
    the carry. Two weights and one activation of 8 bits (b = 12) fit a multiplier of 17 x 9 bits signed, as in
    ECP5's MULT18X18D; two and two of 4 bits (b = 8) one of 13 x 21, as in Xilinx's DSP48E1 of 25 x 18.
    """
    count, total = len(weights), len(weights) * len(activations)
    left = Signal(signed(bits * (count - 1) + 5), name=f"{name}_weights")
    right = Signal(bits * count * (len(activations) - 1) + len(activations[0]), name=f"{name}_activations")
    product = Signal(signed(bits * total), name=f"{name}_packed", attrs={"use_dsp": "yes"})
    m.d.comb += [
        left.eq(sum(weight.as_signed() << bits * i for i, weight in enumerate(weights))),
        right.eq(sum(activation << bits * count * j for j, activation in enumerate(activations))),
        product.eq(left * right),
    ]
    carries = [0, *(product[bits * field - 1] for field in range(1, total))]
    return [(product.word_select(field, bits).as_signed(), carries[field]) for field in range(total)]


def product_table(weight_slices):
    """A ROM of all products, each with all it can weigh: ``(w * x) << (3 i + 4 high)`` at ``w + 16 x + 256
    high + 512 i``. With up to two slices and two read ports it is a block RAM of 16 or 18 Kibit.
    """
    products = [
        ((address & 7) - (address & 8)) * (address >> 4 & 15) << 4 * (address >> 8 & 1) + 3 * (address >> 9)
        for address in range(512 * weight_slices)
    ]
    # A power of two: without a step, the index may be one that no slice has.
    depth = 1 << (len(products) - 1).bit_length()
    return Memory(shape=signed(12 + 3 * (weight_slices - 1)), depth=depth, init=products)


def _add_with_carry(a, b, carry, bits):
    """The low ``bits`` of ``a + b + carry`` from one adder, which synthesis would take two for."""
    return (Cat(1, a.as_signed()[:bits]) + Cat(carry, b.as_signed()[:bits]))[1 : bits + 1]
