# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Core: takes a layer descriptor, runs the array on the load streams, and says what became of the layer."""

from amaranth import ClockDomain, ClockSignal, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.hw.array import Array
from sliceforge.hw.hierarchy import place
from sliceforge.hw.operator import Operator
from sliceforge.hw.payloads import (
    PSUM_BANKS,
    beat_layout,
    bias_layout,
    layer_layout,
    psum_fill_layout,
    result_layout,
    status_layout,
    word_layout,
)

__all__ = ["Core"]


class Core(wiring.Component):
    """The accelerator without its bus: streams in, streams out, one layer at a time.

    ``Y = W @ (x_hat - zp) + bias`` for any M, N >= 1 and 1 <= K <= max_k, exact (arithmetic.md sections 1
    to 6; Panacea, HPCA 2025). A layer is: its descriptor, then tile images on the load streams in the
    order of `TileController` and a folded bias for each row, then results; its status closes it.

    Parameters
    ----------
    As `Array`'s; ``max_k`` bounds K.

    Members
    -------
    layers : stream in; a descriptor. Taken when the layer before is closed.
    weights, activations : stream in; beats of tile images.
    biases : stream in; folded biases, in the order of the `BiasBuffer`. exponents : stream in; of the
        `StepExponents`, if ``psum_group`` is not 0.
    fills : stream in; partial sums that come back from memory.
    results : stream out; the results, tile by tile, row by row, ``last`` on the layer's last beat; in
        between, partial sums for memory.
    weights_complete, activations_complete : out; all images of the layer are loaded.
    weights_eager, activations_eager : out; the `Array`'s: which operand is wanted first.
    products : out; outer products that were issued two cycles before.
    status : stream out; error code and counters. Offered when the last result was taken or the layer
        was stopped by an error.

    After an error nothing more comes out on ``results``, and the load streams are drained (taken and
    dropped) until the status is taken: the host takes it when it has stopped sending the layer.

    Flow control: valid/ready on all streams. Reset in the middle of a layer forgets the layer.
    Tested range: see docs/verification.md.
    """

    def __init__(self, *, max_k, **array):
        self._max_k = max_k
        self._array = {"max_k": max_k, **array}
        self.parameters = self._array
        beats = stream.Signature(beat_layout(array["weight_layout"].granule_bits, array["load_ways"]))
        sums = array["vector"] * array["result_lanes"]
        tile_m, tile_n = array["pea_count"] * array["vector"], array["lanes"] * array["vector"]
        self._tile_n = tile_n
        self._tile_m = tile_m
        super().__init__(
            {
                "layers": In(stream.Signature(layer_layout(array["weight_slices"]))),
                "weights": In(beats),
                "activations": In(beats),
                "biases": In(stream.Signature(bias_layout())),
                "exponents": In(stream.Signature(word_layout())),
                "fills": In(stream.Signature(psum_fill_layout(sums, tile_m * tile_n // sums))),
                "results": Out(stream.Signature(result_layout(sums))),
                "weights_complete": Out(1),
                "activations_complete": Out(1),
                "status": Out(stream.Signature(status_layout())),
                "weights_eager": Out(1),
                "activations_eager": Out(1),
                "products": Out(range(array["pea_count"] * array["lanes"] + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layer = Signal.like(self.layers.payload)
        illegal = Signal(ErrorCode)
        self._check(m, layer, illegal)

        # The array is held in reset whenever it does not run: every layer starts from the same state.
        m.domains.run = run_domain = ClockDomain(local=True)
        array = Array(**self._array)
        m.submodules.array = place(platform, array, "array", domain="run")
        m.d.comb += [ClockSignal("run").eq(ClockSignal()), array.layer.eq(layer)]

        # Its reset is a register that the core's own reset sets: free of glitches, and of a long net from
        # the port (which would also make simulators evaluate the whole array for each change of a port).
        held = Signal(init=1)
        m.d.comb += run_domain.rst.eq(held)

        status = self.status.p
        running, drain = Signal(), Signal()
        for outer, inner in (
            (self.weights, array.weights),
            (self.activations, array.activations),
            (self.biases, array.biases),
            (self.exponents, array.exponents),
            (self.fills, array.fills),
        ):
            m.d.comb += [
                inner.payload.eq(outer.payload),
                inner.valid.eq(outer.valid & running),
                outer.ready.eq(Mux(running, inner.ready, drain)),
            ]
        m.d.comb += [
            self.results.payload.eq(array.results.payload),
            self.results.valid.eq(array.results.valid & running),
            array.results.ready.eq(self.results.ready & running),
            array.run.eq(running),
            self.weights_eager.eq(array.weights_eager),
            self.activations_eager.eq(array.activations_eager),
            self.weights_complete.eq(array.weights_complete & running),
            self.activations_complete.eq(array.activations_complete & running),
            self.products.eq(Mux(running, array.products, 0)),
        ]
        with m.FSM(name="state") as state:
            with m.State("IDLE"):
                m.d.comb += self.layers.ready.eq(1)
                m.d.sync += status.eq(0)
                with m.If(self.layers.valid):
                    m.d.sync += layer.eq(self.layers.payload)
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [status.error.eq(illegal), held.eq(illegal != ErrorCode.NONE)]
                m.next = "RUN"
                with m.If(illegal != ErrorCode.NONE):
                    m.next = "STATUS"
            with m.State("RUN"):
                # A result that is on offer stays on offer; an error closes the layer behind it.
                m.d.comb += running.eq(~held)
                with m.If(self.results.valid & self.results.ready & self.results.p.last):
                    m.d.sync += held.eq(1)
                    m.next = "STATUS"
                with m.Elif((array.error != ErrorCode.NONE) & (~self.results.valid | self.results.ready)):
                    m.d.sync += [held.eq(1), status.error.eq(array.error)]
                    m.next = "STATUS"
            with m.State("STATUS"):
                m.d.comb += [self.status.valid.eq(1), drain.eq(status.error != ErrorCode.NONE)]
                with m.If(self.status.ready):
                    m.next = "IDLE"

        self._count(m, status, array, running, state.ongoing("CHECK") | state.ongoing("RUN"))
        return m

    def _check(self, m, layer, illegal):
        loops = layer.loops
        weight, inputs = (
            loops.dataflow == flow for flow in (Dataflow.WEIGHT_STATIONARY, Dataflow.INPUT_STATIONARY)
        )
        tile_k = self._array["weight_layout"].tile_k
        # The stationary operand is read from memory once for all of a block's tiles, or, if there is one
        # block, again and again.
        stays = Mux(weight, layer.weights_resident, layer.activations_resident)
        blocks = Mux(weight, loops.block * self._tile_n < loops.n, loops.block * self._tile_m < loops.m)
        in_parts = ~layer.activations_span.all()  # several regions between two passes
        checks = [
            ((loops.m == 0) | (loops.n == 0) | (loops.k == 0) | (loops.k > self._max_k), "ILLEGAL_SHAPE"),
            (
                (layer.weight_slices == 0) | (layer.weight_slices > self._array["weight_slices"]),
                "ILLEGAL_WEIGHT_SLICES",
            ),
            ((layer.lo_bits < 4) | (layer.lo_bits > 6), "ILLEGAL_LO_BITS"),
            ((layer.frequent << layer.lo_bits) > 255, "ILLEGAL_FREQUENT"),
            (
                (loops.dataflow.as_value() > Dataflow.INPUT_STATIONARY.value)
                | (loops.block == 0)
                | (loops.chunk == 0)
                | (loops.chunk > loops.k)
                | (loops.k_tile == 0)
                | (loops.k_tile > tile_k)
                | (layer.activations_span == 0)
                | (layer.psum_group > PSUM_BANKS),
                "ILLEGAL_DATAFLOW",
            ),
            (
                (weight | inputs)
                & ((~stays & (blocks | layer.blocks_share)) | (~layer.activations_resident & in_parts)),
                "ILLEGAL_REUSE",
            ),
        ]
        for refused, code in reversed(checks):
            with m.If(refused):
                m.d.comb += illegal.eq(ErrorCode[code])

    def _count(self, m, status, array, running, busy):
        """Counters of the layer that runs; they stand still while the status is on offer."""
        # Products are counted two cycles after they are issued: registers in the PEA and in the array.
        clock = Signal.like(status.cycles)  # since the first product, that one included
        with m.If(busy):
            m.d.sync += status.total_cycles.eq(status.total_cycles + 1)
        with m.If(running):
            m.d.sync += status.products.eq(status.products + array.products)
            with m.If((array.products != 0) | (clock != 0)):
                m.d.sync += clock.eq(clock + 1)
            with m.If(array.products != 0):
                m.d.sync += status.cycles.eq(clock + 1 + Operator.LATENCY)
        with m.Else():
            m.d.sync += clock.eq(0)
