"""APSQ engine: adds stored partial sums to those that leave the array, and quantizes them to 8 bits."""

from amaranth import Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import PSUM_BANKS

__all__ = ["EXPONENT_BITS", "APSQEngine", "group_layout"]

EXPONENT_BITS = 5


def group_layout():
    """What becomes of the sums of a tile (arithmetic.md section 8); constant while a tile passes."""
    return data.StructLayout(
        {
            "full": 1,  # partial sums of 32 bits: no quantizing
            "head": 1,  # what is stored is added before quantizing, else after
            "adds": PSUM_BANKS,  # positions of the group whose stored sums count; position 0 if full
            "first_bank": range(PSUM_BANKS),  # bank of position 0
            "exponent": EXPONENT_BITS,  # of this step
            "exponents": data.ArrayLayout(EXPONENT_BITS, PSUM_BANKS),  # of what is stored
        }
    )


class APSQEngine(wiring.Component):
    """For each column, with ``G = sum over the group of stored[j] << exponents[j]`` (APSQ, DAC 2025;
    arithmetic.md section 8):

        full        result = T + stored + bias
        head        narrow = Q(T + G)    result = D(narrow) + bias
        not head    narrow = Q(T)        result = D(narrow) + G + bias

    ``Q(t) = clip((t + (2^e >> 1)) >> e, -128, 127)``, ``D(q) = q << e``. Everything that is added up must fit
    32 bits: the host refuses other layers.

    Parameters
    ----------
    sums : columns side by side.

    Members
    -------
    group : in; constant from a beat's input to its output.
    sums, stored : in; T, and the word of the `PsumMemory`.
    bias : in; BIAS_DELAY cycles after the sums.
    narrow, result : out; LATENCY cycles after the sums.

    Latency: LATENCY cycles. No flow control: a beat every cycle.
    Tested range: 2 and 8 columns; group sizes 1 to 4, exponents 0 to 31, sums at both ends of 32 bits.
    """

    LATENCY = 5
    BIAS_DELAY = 2

    def __init__(self, *, sums):
        self.parameters = {"sums": sums}
        super().__init__(
            {
                "group": In(group_layout()),
                "sums": In(data.ArrayLayout(32, sums)),
                "stored": In(data.ArrayLayout(32, sums)),
                "bias": In(32),
                "narrow": Out(data.ArrayLayout(signed(8), sums)),
                "result": Out(data.ArrayLayout(32, sums)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        group = self.group
        half = Signal(32)  # 2^e >> 1
        above = Signal(32)  # the bits above those that are left when a sum is shifted and clipped
        m.d.sync += [
            half.eq((Const(1) << group.exponent) >> 1),
            above.eq(Const(-128, signed(32)) << group.exponent),
        ]
        for column in range(self.parameters["sums"]):
            self._column(m, group, half, above, column)
        return m

    def _column(self, m, group, half, above, column):
        def register(name, bits=32):
            return Signal(signed(bits), name=f"{name}_{column}")

        # Cycle 0: dequantize what is stored, two positions at a time.
        stored = self.stored[column]
        pairs = [register("pair_0"), register("pair_1")]
        dequantized = []
        for position in range(PSUM_BANKS):
            # Groups of one begin in any bank, groups of two in bank 0 or 2.
            bank = (group.first_bank + position)[:2] if position < 2 else position
            narrow = stored.word_select(bank, 8).as_signed()
            dequantized.append(Mux(group.adds[position], narrow << group.exponents[position], 0)[:32])
        m.d.sync += [
            pairs[0].eq(Mux(group.full, Mux(group.adds[0], stored, 0), dequantized[0] + dequantized[1])),
            pairs[1].eq(Mux(group.full, 0, dequantized[2] + dequantized[3])),
        ]
        fresh = register("fresh")
        m.d.sync += fresh.eq(self.sums[column])

        # Cycle 1: what is quantized, and what is added after that.
        before, after, total = register("before"), register("after"), register("stored_total")
        m.d.comb += total.eq(pairs[0] + pairs[1])
        m.d.sync += [
            before.eq(fresh + Mux(group.head, total, 0)),
            after.eq(Mux(group.head, 0, total)),
        ]

        # Cycle 2: round.
        rounded, rest = register("rounded", 33), register("rest")
        m.d.sync += [
            rounded.eq(before + half.as_signed()),
            rest.eq(Mux(group.full, before, after) + self.bias.as_signed()),
        ]

        # Cycle 3: shift and clip. What has a bit above that is not its sign is clipped.
        clipped, late_rest = register("clipped", 8), register("late")
        sign = rounded[-1]
        clips = ((rounded[:32] ^ sign.replicate(32)) & above).any()
        shifted = (rounded >> group.exponent)[:8].as_signed()
        m.d.sync += [
            clipped.eq(Mux(clips, Mux(sign, -128, 127), shifted)),
            late_rest.eq(rest),
        ]

        # Cycle 4: dequantize.
        wide = (clipped << group.exponent)[:32].as_signed()
        m.d.sync += [
            self.narrow[column].eq(clipped),
            self.result[column].eq(late_rest + Mux(group.full, 0, wide)),
        ]
