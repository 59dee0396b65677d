"""Lane: the FIFOs, the step sequencer, the operator and the compensation unit of one place in the array."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.compensation import KeptWeightSum, kept_weight_bits
from sliceforge.hw.operator import Operator
from sliceforge.hw.payloads import record_layout, sum_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["Lane"]


class Lane(wiring.Component):
    """Multiplies a stream of weight records with a stream of activation records, k by k.

    At each k it issues one outer product for each pair of a stored weight slice and a stored activation
    slice: ``LO x X_L``, and with the HO slices only where they are kept (arithmetic.md section 5). So an
    operator only does work that counts, whichever side is sparse. After the last k of an output tile it
    holds still until its sums have left, row by row, straight from the accumulators.

    Parameters
    ----------
    vector, weight_slices, accumulator_bits, packing, packed_products, table_products : as the operator's.
    fifo_depth : records that may wait on either side; lets neighbours drift apart.

    Members
    -------
    layer_slices : in; weight slices of this layer (1..weight_slices), constant during a layer.
    weights : stream in; weight records, `weight_slices - 1` (at least one) LO vectors each.
    activations : stream in; activation records. Both streams have one record for each k.
    sums : stream out; `vector` rows of accumulators an output tile.
    busy : out; an outer product is issued in this cycle.

    Latency: 1 cycle from record to step, then the operator's to the first row of sums.
    Throughput: an outer product a cycle; after a tile's last, `Operator.LATENCY + vector - 1` cycles
    without one while its sums leave (and 1 for each cycle in which they are not taken).
    Flow control: valid/ready; ``ready`` of the inputs is a register, independent of their valid.
    Tested range: vector 2, 4, 8; weight_slices 1, 2, 3; fifo_depth 2..64.
    """

    def __init__(
        self, *, vector, weight_slices, accumulator_bits, packing, packed_products, table_products, fifo_depth
    ):
        self._arithmetic = {
            "vector": vector, "weight_slices": weight_slices, "accumulator_bits": accumulator_bits
        }  # fmt: skip
        self._multipliers = {
            "packing": packing,
            "packed_products": packed_products,
            "table_products": table_products,
        }
        self.parameters = {**self._arithmetic, **self._multipliers, "fifo_depth": fifo_depth}
        self._dense = max(1, weight_slices - 1)
        self._weight_record = record_layout(vector, self._dense)
        self._activation_record = record_layout(vector, 1)
        super().__init__(
            {
                "layer_slices": In(range(weight_slices + 1)),
                "weights": In(stream.Signature(self._weight_record)),
                "activations": In(stream.Signature(self._activation_record)),
                "sums": Out(
                    stream.Signature(sum_layout(vector, accumulator_bits, kept_weight_bits(accumulator_bits)))
                ),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.operator = operator = Operator(**self._arithmetic, **self._multipliers)
        m.submodules.kept_weight_sum = kept_weight_sum = KeptWeightSum(**self._arithmetic)

        depth = self.parameters["fifo_depth"]
        m.submodules.weight_fifo = weights = StreamFIFO(self._weight_record, depth=depth)
        m.submodules.activation_fifo = activations = StreamFIFO(self._activation_record, depth=depth)
        wiring.connect(m, wiring.flipped(self.weights), weights.i)
        wiring.connect(m, wiring.flipped(self.activations), activations.i)
        weight, activation = weights.o.p, activations.o.p

        # Step sequencer: weight slices in the outer loop, activation slices in the inner one.
        slice_index = Signal(range(self._dense + 1))
        high = Signal()
        ending = Signal()  # the tile's last step is issued; its sums are on their way out
        step = Signal.like(operator.step)
        last_slice = Signal()
        ho_index = Signal.like(slice_index)  # index of the HO slice: above the LO slices
        m.d.comb += [
            # A layer of one slice is dense: its HO vectors, of index 1, are never kept.
            ho_index.eq(1 if self._dense == 1 else Mux(self.layer_slices == 3, 2, 1)),
            last_slice.eq(Mux(weight.kept, slice_index == ho_index, slice_index + 1 == ho_index)),
            self.busy.eq(weights.o.valid & activations.o.valid & ~ending),
            step.weights.eq(Mux(slice_index == ho_index, weight.hi, weight.lo[slice_index])),
            step.activations.eq(Mux(high, activation.hi, activation.lo[0])),
            step.slice_index.eq(slice_index),
            step.high.eq(high),
        ]
        with m.If(self.busy):
            m.d.sync += high.eq(activation.kept & ~high)
            with m.If(high | ~activation.kept):
                m.d.sync += slice_index.eq(slice_index + 1)
                with m.If(last_slice):
                    m.d.comb += [weights.o.ready.eq(1), activations.o.ready.eq(1)]
                    m.d.sync += [slice_index.eq(0), ending.eq(weight.last)]

        # The sums leave when the last step has reached the accumulators.
        settling = Signal(range(operator.LATENCY))
        row = Signal(range(self.parameters["vector"]))
        last_row = Signal()
        m.d.comb += [
            self.sums.valid.eq(ending & (settling == operator.LATENCY - 1)),
            last_row.eq(row == self.parameters["vector"] - 1),
        ]
        with m.If(ending & ~self.sums.valid):
            m.d.sync += settling.eq(settling + 1)
        with m.If(self.sums.valid & self.sums.ready):
            m.d.sync += row.eq(row + 1)
            with m.If(last_row):
                m.d.sync += [row.eq(0), ending.eq(0), settling.eq(0)]
        for unit in (operator, kept_weight_sum):
            m.d.comb += [
                unit.step.eq(step),
                unit.step_valid.eq(self.busy),
                unit.shift.eq(self.sums.valid & self.sums.ready),
            ]
        m.d.comb += [
            self.sums.p.accumulators.eq(operator.sums),
            self.sums.p.kept_weights.eq(kept_weight_sum.kept_weights),
        ]
        return m
