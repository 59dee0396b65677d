# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Array: the PEAs, fed by both tile memories under the tile controller, and the way out of the results.

All that a layer runs through, from load streams to result stream. It is held in reset between layers.
"""

from amaranth import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.hw.bias_buffer import BiasBuffer
from sliceforge.hw.hierarchy import place
from sliceforge.hw.output_bank import OutputBank, output_words
from sliceforge.hw.payloads import (
    beat_layout,
    bias_layout,
    layer_layout,
    psum_fill_layout,
    result_layout,
    word_layout,
)
from sliceforge.hw.pea import PEA
from sliceforge.hw.result_unit import ResultUnit
from sliceforge.hw.stream_fifo import StreamFIFO
from sliceforge.hw.tile_controller import TileController
from sliceforge.hw.tile_memory import TileMemory

__all__ = ["Array"]


class Array(wiring.Component):
    """Computes one layer, ``Y = W @ (x_hat - zp) + bias``; wiring only, and the choice of an error code.

    Parameters
    ----------
    pea_count, lanes, vector, weight_slices, fifo_depth, accumulator_bits, packing, packed_products,
        table_products, max_k :
        of the array.
    weight_layout, weight_slots, activation_layout, activation_slots, load_ways : of WMEM and AMEM.
    output_slots, psum_slots, result_lanes, drain_lanes : of OMEM, the result stream and the way to it.

    Members
    -------
    layer : in; a legal layer, constant while ``run`` is high.
    run : in; high while the layer runs.
    weights, activations, biases, exponents : stream in; in the order of the `TileNest`, see
        docs/memory-format.md.
    fills : stream in; partial sums that come back from memory.
    results : stream out; results, and partial sums that go to memory.
    weights_complete, activations_complete : out; all images of the layer are loaded.
    weights_eager, activations_eager : out; the operand has no more tiles ahead of the array than the other.
    products : out; outer products issued in the cycle before the last.
    error : out; the first error seen; NONE while all is well.
    """

    def __init__(
        self, *, pea_count, lanes, vector, weight_slices, fifo_depth, accumulator_bits, packing,
        packed_products, table_products, max_k,
        weight_layout, weight_slots, activation_layout, activation_slots, load_ways,
        output_slots, psum_slots, result_lanes, drain_lanes,
    ):  # fmt: skip
        self._pea = {
            "lanes": lanes, "vector": vector, "weight_slices": weight_slices,
            "accumulator_bits": accumulator_bits, "packing": packing, "packed_products": packed_products,
            "table_products": table_products,
            "fifo_depth": fifo_depth,
            "drain_lanes": drain_lanes, "output_slots": output_slots,
        }  # fmt: skip
        self._k_bits = max_k.bit_length()
        memory = {
            "ways": load_ways, "k_bits": self._k_bits, "tile_m": pea_count * vector, "tile_n": lanes * vector
        }  # fmt: skip
        self._weight_memory = {
            "name": "weight", "layout": weight_layout, "banks": pea_count, "slots": weight_slots,
            "reuse": "columns", **memory,
        }  # fmt: skip
        self._activation_memory = {
            "name": "activation", "layout": activation_layout, "banks": lanes, "slots": activation_slots,
            "reuse": "rows", **memory,
        }  # fmt: skip
        self._output = {
            "lanes": lanes, "vector": vector, "slots": output_slots, "result_lanes": result_lanes
        }  # fmt: skip
        self._result = {"pea_count": pea_count, "psum_slots": psum_slots, "max_k": max_k, **self._output}
        self._pea_count = pea_count
        self._tile = {"tile_m": pea_count * vector, "tile_n": lanes * vector, "tile_k": weight_layout.tile_k}
        self.parameters = {
            "pea": self._pea, "weight_memory": self._weight_memory,
            "activation_memory": self._activation_memory, "result": self._result,
        }  # fmt: skip
        beats = stream.Signature(beat_layout(weight_layout.granule_bits, load_ways))
        super().__init__(
            {
                "layer": In(layer_layout(weight_slices)),
                "run": In(1),
                "weights": In(beats),
                "activations": In(beats),
                "biases": In(stream.Signature(bias_layout())),
                "exponents": In(stream.Signature(word_layout())),
                "fills": In(
                    stream.Signature(
                        psum_fill_layout(
                            vector * result_lanes, pea_count * output_words(lanes, vector, result_lanes)
                        )
                    )
                ),
                "results": Out(stream.Signature(result_layout(vector * result_lanes))),
                "weights_complete": Out(1),
                "activations_complete": Out(1),
                "weights_eager": Out(1),
                "activations_eager": Out(1),
                "products": Out(range(pea_count * lanes + 1)),
                "error": Out(ErrorCode),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layer = self.layer

        weights = TileMemory(**self._weight_memory)
        activations = TileMemory(**self._activation_memory)
        controller = self._controller()
        m.submodules.weight_memory = place(platform, weights, "weight_memory")
        m.submodules.activation_memory = place(platform, activations, "activation_memory")
        m.submodules.tile_controller = place(platform, controller, "tile_controller")
        wiring.connect(m, wiring.flipped(self.weights), weights.beats)
        wiring.connect(m, wiring.flipped(self.activations), activations.beats)
        wiring.connect(m, controller.weight_tiles, weights.tiles)
        wiring.connect(m, controller.activation_tiles, activations.tiles)
        m.d.comb += [
            weights.loops.eq(layer.loops),
            weights.resident.eq(layer.weights_resident),
            weights.blocks_share.eq(
                layer.blocks_share & (layer.loops.dataflow == Dataflow.WEIGHT_STATIONARY)
            ),
            weights.span.eq(~0),  # a region of weights holds all up to the next column
            self.weights_complete.eq(weights.complete),
            activations.loops.eq(layer.loops),
            activations.resident.eq(layer.activations_resident),
            activations.blocks_share.eq(
                layer.blocks_share & (layer.loops.dataflow == Dataflow.INPUT_STATIONARY)
            ),
            activations.span.eq(layer.activations_span),
            self.activations_complete.eq(activations.complete),
            weights.dense.eq(layer.weight_slices - (layer.weight_slices > 1)),
            weights.compressed.eq(layer.weight_slices > 1),
            weights.fresh.eq(controller.weight_fresh),
            activations.dense.eq(1),
            activations.compressed.eq(1),
            # An HO activation slice has 8 - lo_bits bits; a weight slice may be anything.
            weights.forbidden.eq(0),
            activations.forbidden.eq(Cat(0, 0, layer.lo_bits > 5, layer.lo_bits > 4)),
            activations.fresh.eq(controller.activation_fresh),
            controller.run.eq(self.run),
            controller.loops.eq(layer.loops),
            controller.blocks_share.eq(layer.blocks_share),
            controller.weights_resident.eq(layer.weights_resident),
            controller.activations_resident.eq(layer.activations_resident),
        ]
        m.d.sync += [
            self.weights_eager.eq(weights.arrived <= activations.arrived),
            self.activations_eager.eq(activations.arrived <= weights.arrived),
        ]
        peas = self._build_peas(m, platform, weights, activations)
        results = self._build_outputs(m, platform, controller, peas)
        self._report_errors(m, controller, weights, activations, results)
        return m

    def _controller(self):
        def pointer(memory):
            granules, slots = memory["layout"].slot_granules, memory["slots"]
            bits = (slots * granules - 1).bit_length()
            return {"slots": slots, "slot_granules": granules, "address_bits": bits}

        return TileController(
            **self._tile,
            k_bits=self._k_bits,
            weight_memory=pointer(self._weight_memory),
            activation_memory=pointer(self._activation_memory),
        )

    def _build_peas(self, m, platform, weights, activations):
        """A PEA for each bank of weights; each bank of activations goes to the same lane of all PEAs."""
        peas = [PEA(**self._pea) for _ in range(self._pea_count)]
        for p, pea in enumerate(peas):
            m.submodules[f"pea_{p}"] = place(platform, pea, "pea")
            wiring.connect(m, getattr(weights, f"records_{p}"), pea.weights)
            m.d.comb += [
                pea.layer_slices.eq(self.layer.weight_slices),
                pea.frequent.eq(self.layer.frequent),
                pea.lo_bits.eq(self.layer.lo_bits),
            ]
        for j in range(self._pea["lanes"]):
            source = getattr(activations, f"records_{j}")
            sinks = [getattr(pea, f"activations_{j}") for pea in peas]
            m.d.comb += source.ready.eq(Cat(sink.ready for sink in sinks).all())
            for sink in sinks:
                m.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(source.valid & source.ready)]
        m.d.sync += self.products.eq(sum(pea.products for pea in peas))
        return peas

    def _build_outputs(self, m, platform, controller, peas):
        biases = BiasBuffer(tile_m=self._tile["tile_m"], tile_n=self._tile["tile_n"], k_bits=self._k_bits)
        results = ResultUnit(**self._result)
        m.submodules.bias_buffer = place(platform, biases, "bias_buffer")
        m.submodules.result_unit = place(platform, results, "result_unit")
        wiring.connect(m, wiring.flipped(self.biases), biases.biases)
        wiring.connect(m, results.results, wiring.flipped(self.results))
        wiring.connect(m, wiring.flipped(self.exponents), results.exponents)
        wiring.connect(m, wiring.flipped(self.fills), results.fills)
        m.d.comb += [
            results.psum_group.eq(self.layer.psum_group),
            results.psums_resident.eq(self.layer.psums_resident),
            biases.loops.eq(self.layer.loops),
            biases.row.eq(results.bias_row),
            biases.slot_freed.eq(results.bias_release),
            results.bias.eq(biases.bias),
            results.bias_available.eq(biases.available),
        ]
        # The controller runs ahead of the results by as many tiles as the feeders let it.
        m.submodules.output_tiles = tiles = StreamFIFO(results.tiles.payload.shape(), depth=4)
        wiring.connect(m, controller.output_tiles, tiles.i)
        wiring.connect(m, tiles.o, results.tiles)
        for p, pea in enumerate(peas):
            bank = OutputBank(**self._output, drain_lanes=self._pea["drain_lanes"])
            m.submodules[f"output_bank_{p}"] = place(platform, bank, "output_bank")
            m.d.comb += [
                bank.sums.eq(pea.sums),
                bank.sums_valid.eq(pea.sums_valid),
                bank.tile_done.eq(pea.tile_done),
                bank.address.eq(results.address),
                bank.slot_freed.eq(results.slot_freed),
                pea.slot_freed.eq(results.slot_freed),
                results.words[p].eq(bank.word),
                results.available[p].eq(bank.available),
            ]
        return results

    def _report_errors(self, m, controller, weights, activations, results):
        causes = [
            (weights.bad_count, ErrorCode.WEIGHT_COUNT),
            (weights.bad_length, ErrorCode.WEIGHT_LENGTH),
            (weights.bad_position, ErrorCode.WEIGHT_POSITION),
            (controller.weight_overflow, ErrorCode.WEIGHT_RESIDENCY),
            (activations.bad_count, ErrorCode.ACTIVATION_COUNT),
            (activations.bad_length, ErrorCode.ACTIVATION_LENGTH),
            (activations.bad_position, ErrorCode.ACTIVATION_POSITION),
            (activations.bad_slice, ErrorCode.ACTIVATION_SLICE),
            (controller.activation_overflow, ErrorCode.ACTIVATION_RESIDENCY),
            (results.psum_overflow, ErrorCode.PSUM_RESIDENCY),
            (results.bad_steps, ErrorCode.PSUM_EXPONENTS),
        ]
        with m.If(self.error == ErrorCode.NONE):
            for cause, code in reversed(causes):
                with m.If(cause):
                    m.d.sync += self.error.eq(code)
