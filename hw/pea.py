# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Processing element array (PEA): the lanes that share v rows of weights, and the way out for their sums."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.compensation import CompensationSubtract
from sliceforge.hw.hierarchy import place
from sliceforge.hw.lane import Lane
from sliceforge.hw.payloads import index, record_layout

__all__ = ["PEA"]


class PEA(wiring.Component):
    """`lanes` operators that share a stream of weights; lane j takes its own stream of activations.

    A weight record goes to all lanes at once; each lane works through it at its own pace. Sums leave in
    order of lanes, `drain_lanes` of them side by side, a row a cycle: ``vector`` rows of the first lanes,
    then of the next, and so on, after the compensation: ``sum over k of W[:, k] * (x_hat[k, :] - 2^l * r)``,
    less than what the host folds into the bias. Source: Panacea, HPCA 2025 (PEA); what is inside is our
    choice.

    Parameters
    ----------
    lanes, vector, weight_slices, accumulator_bits, packing, packed_products, table_products, fifo_depth.
    drain_lanes : lanes whose sums leave at a time; divides lanes.
    output_slots : tiles that the output bank holds.

    Members
    -------
    layer_slices, frequent, lo_bits : in; constant during a layer.
    weights : stream in; weight records.
    activations_{j} : stream in; activation records of lane j. A broadcast: it is taken in the cycle
        in which valid and ready are both high, and valid may depend on ready.
    slot_freed : in; high for a cycle when the output bank has a free slot more. At first it has all.
    sums, sums_valid : out; v sums of 32 bits for each of the lanes. No flow control.
    tile_done : out; high with a tile's last sums.
    products : out; outer products issued in the cycle before.

    Latency: the lane's, then the compensation's. Throughput: a row of sums a cycle.
    Tested range: lanes 1..6 alone, 16 in the core; vector 2, 4, 8; weight_slices 1, 2, 3;
    output_slots 1..7; drain_lanes 1, 2.
    """

    def __init__(
        self, *, lanes, vector, weight_slices, accumulator_bits, packing, packed_products, table_products,
        fifo_depth, drain_lanes, output_slots,
    ):  # fmt: skip
        self.parameters = {
            "lanes": lanes, "vector": vector, "weight_slices": weight_slices,
            "accumulator_bits": accumulator_bits, "packing": packing, "packed_products": packed_products,
            "table_products": table_products,
            "fifo_depth": fifo_depth,
            "drain_lanes": drain_lanes, "output_slots": output_slots,
        }  # fmt: skip
        activations = stream.Signature(record_layout(vector, 1))
        super().__init__(
            {
                "layer_slices": In(range(weight_slices + 1)),
                "frequent": In(4),
                "lo_bits": In(3),
                "weights": In(stream.Signature(record_layout(vector, max(1, weight_slices - 1)))),
                **{f"activations_{j}": In(activations) for j in range(lanes)},
                "slot_freed": In(1),
                "sums": Out(data.ArrayLayout(32, drain_lanes * vector)),
                "sums_valid": Out(1),
                "tile_done": Out(1),
                "products": Out(range(lanes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = dict(self.parameters)
        count, output_slots, vector = p.pop("lanes"), p.pop("output_slots"), p["vector"]
        side_by_side = p.pop("drain_lanes")

        lanes = [Lane(**p) for _ in range(count)]
        for j, lane in enumerate(lanes):
            m.submodules[f"lane_{j}"] = place(platform, lane, "lane")
            activations = getattr(self, f"activations_{j}")
            m.d.comb += [
                lane.layer_slices.eq(self.layer_slices),
                lane.weights.payload.eq(self.weights.payload),
                lane.weights.valid.eq(self.weights.valid & self.weights.ready),
                lane.activations.payload.eq(activations.payload),
                lane.activations.valid.eq(activations.valid),
                activations.ready.eq(lane.activations.ready),
            ]
        # Ready of a lane is a register, so the broadcast makes no combinational loop.
        m.d.comb += self.weights.ready.eq(Cat(lane.weights.ready for lane in lanes).all())
        m.d.sync += self.products.eq(sum(lane.busy for lane in lanes))

        # Sums leave by groups of lanes. A tile takes its slot in the output bank with its first row.
        groups = [lanes[first : first + side_by_side] for first in range(0, count, side_by_side)]
        free_slots = Signal(range(output_slots + 1), init=output_slots)
        may_drain = Signal()
        turn = Signal(index(len(groups)))
        row = Signal(range(vector))
        draining = Signal()
        taken, last = Signal(), Signal()
        complete = Array(Cat(lane.sums.valid for lane in group).all() for group in groups)[turn]
        m.d.comb += [
            may_drain.eq(draining | (free_slots != 0)),
            taken.eq(complete & may_drain),
            last.eq((turn == len(groups) - 1) & (row == vector - 1)),
        ]
        for number, group in enumerate(groups):
            for lane in group:
                m.d.comb += lane.sums.ready.eq((turn == number) & taken)
        m.d.sync += free_slots.eq(free_slots + self.slot_freed - (taken & ~draining))
        with m.If(taken):
            m.d.sync += [draining.eq(~last), row.eq(row + 1)]
            with m.If(row == vector - 1):
                m.d.sync += [row.eq(0), turn.eq(Mux(last, 0, turn + 1))]

        latency = CompensationSubtract.LATENCY
        for side in range(side_by_side):
            subtract = CompensationSubtract(vector=vector, accumulator_bits=p["accumulator_bits"])
            m.submodules[f"compensation_subtract_{side}"] = subtract
            m.d.comb += [
                subtract.frequent.eq(self.frequent),
                subtract.lo_bits.eq(self.lo_bits),
                subtract.i.eq(Array(group[side].sums.payload.as_value() for group in groups)[turn]),
                Cat(self.sums[side * vector + column] for column in range(vector)).eq(subtract.sums),
            ]
        valid_pipe, done_pipe = Signal(latency), Signal(latency)
        m.d.comb += [
            self.sums_valid.eq(valid_pipe[-1]),
            self.tile_done.eq(done_pipe[-1]),
        ]
        m.d.sync += [
            valid_pipe.eq(Cat(taken, valid_pipe)),
            done_pipe.eq(Cat(taken & last, done_pipe)),
        ]
        return m
