"""Products of a signed 4-bit weight slice and an unsigned 4-bit activation slice, three ways to make them.

Where that is cheaper, a product is left as a pair: ``value + carry``, a signed number and one bit. The adder
that takes the product has a free carry input, so that completing the product costs nothing.
"""

from amaranth import Cat, Const, Mux, Signal, signed
from amaranth.lib.memory import Memory

__all__ = ["logic_product", "packed_pair", "packed_products", "product_table", "weighed_bits"]


def weighed_bits(weight_slices):
    """Signed width of ``(w * x) << (3 i + 4 high)``."""
    return 8 + 3 * (weight_slices - 1) + 4


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
    """The products of two ``weights`` with two ``activations`` from one wide multiplier, both weights with
    the first activation first: ``[(value, carry)]``; combinational.

    ``(w0 + w1 2^8) * (x0 + x1 2^16)`` has four products of 8 bits side by side, each less 1 where what lies
    below it is negative: that is the top bit of the field below, and the carry. It fits a multiplier of 13 x
    21 bits, as in Xilinx's DSP48E1 of 25 x 18.
    """
    right = Signal(20, name=f"{name}_activations")
    m.d.comb += right.eq(Cat(activations[0], Const(0, 12), activations[1]))
    product = _wide_product(m, weights, 8, right, 32, name)
    fields = [product.word_select(field, 8).as_signed() for field in range(4)]
    return [(field, below[-1]) for field, below in zip(fields, [Const(0, 1), *fields], strict=False)]


def packed_pair(m, weights, weighed, slice_index, high, weight_slices, name):
    """The products of two ``weights`` with one activation that is weighed already, ``x << s`` with ``s = 3
    slice_index + 4 high``, from one wide multiplier: ``[(value, carry)]``; combinational.

    ``(w0 + w1 2^13) * (x << s)``: both products are shifted by the same s and so never meet, although each
    may reach 2^13. Above the first's 8 bits lies its sign up to where the second begins, 13 + s; that sign is
    the second's carry, and it already stands in the s bits below the second. Only where the first reaches
    bit 13 itself are its upper bits and the second's lower ones to be told apart. It fits a multiplier of 18
    x 18 bits signed, as in ECP5's MULT18X18D, with up to three slices.
    """
    bits, base = weighed_bits(weight_slices), 13
    product = _wide_product(m, weights, base, weighed, base + bits, name)
    low, upper = product[:base], product[base:]
    if bits <= base:
        return [(low[:bits].as_signed(), Const(0, 1)), (upper.as_signed(), low[-1])]
    over = bits - base  # bits of the first product that lie where the second may begin
    reaches = Signal(name=f"{name}_reaches")
    far = [(i, h) for i in range(weight_slices) for h in (0, 1) if 8 + 3 * i + 4 * h > base]
    m.d.comb += reaches.eq(Cat((slice_index == i) & (high == h) for i, h in far).any())
    sign = Mux(reaches, upper[over - 1], low[-1])
    first = Cat(low, Mux(reaches, upper[:over], sign.replicate(over)))
    second = Cat(Mux(reaches, sign.replicate(over), upper[:over]), upper[over:])
    return [(first.as_signed(), Const(0, 1)), (second.as_signed(), sign)]


def _wide_product(m, weights, base, right, bits, name):
    """``(w0 + w1 2^base) * right``, the low ``bits``."""
    left = Signal(signed(base + 5), name=f"{name}_weights")
    product = Signal(signed(bits), name=f"{name}_packed", attrs={"use_dsp": "yes"})
    low, upper = (weight.as_signed() for weight in weights)
    m.d.comb += [left.eq(low + (upper << base)), product.eq(left * right)]
    return product


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
    return Memory(shape=signed(weighed_bits(weight_slices)), depth=depth, init=products)


def _add_with_carry(a, b, carry, bits):
    """The low ``bits`` of ``a + b + carry`` from one adder, which synthesis would take two for."""
    return (Cat(1, a.as_signed()[:bits]) + Cat(carry, b.as_signed()[:bits]))[1 : bits + 1]
