"""Products of a signed 4-bit weight slice and an unsigned 4-bit activation slice, two ways to make them.

A product is left as a pair: ``value + carry``, a signed 8-bit number and one bit. The adder that takes the
product has a free carry input, so that the pair saves what completing the product would cost.
"""

from amaranth import Cat, Mux, Signal, signed

__all__ = ["logic_product", "packed_products"]


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


def packed_products(m, weights, activations, name):
    """The products of each of ``weights`` with each of ``activations`` from one wide multiplier:
    ``[(value, carry)]``, all weights with the first activation first; combinational.

    ``(sum_i w[i] 2^(8 i)) * (sum_j x[j] 2^(8 n j))`` with n weights has product (i, j) at bit
    ``8 (i + n j)``, less 1 where what lies below it is negative: that is the top bit of the field below,
    and the carry. Two weights and one activation fit a multiplier of 13 x 5 bits signed, as in ECP5's
    MULT18X18D; two and two one of 13 x 21 bits, as in Xilinx's DSP48E1 of 25 x 18.
    """
    count, total = len(weights), len(weights) * len(activations)
    left = Signal(signed(8 * (count - 1) + 5), name=f"{name}_weights")
    right = Signal(8 * count * (len(activations) - 1) + 4, name=f"{name}_activations")
    product = Signal(signed(8 * total), name=f"{name}_packed")
    m.d.comb += [
        left.eq(sum(weight.as_signed() << 8 * i for i, weight in enumerate(weights))),
        right.eq(sum(activation << 8 * count * j for j, activation in enumerate(activations))),
        product.eq(left * right),
    ]
    carries = [0, *(product[8 * field - 1] for field in range(1, total))]
    return [(product.word_select(field, 8).as_signed(), carries[field]) for field in range(total)]


def _add_with_carry(a, b, carry, bits):
    """The low ``bits`` of ``a + b + carry`` from one adder, which synthesis would take two for."""
    return (Cat(1, a.as_signed()[:bits]) + Cat(carry, b.as_signed()[:bits]))[1 : bits + 1]
