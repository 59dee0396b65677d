"""Tile controller: walks the loop nest of a layer, and says which tile each memory is to read next."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import nest_layout, output_tile_layout, tile_layout
from sliceforge.hw.tile_nest import TileNest

__all__ = ["SlotPointer", "TileController"]


class SlotPointer(wiring.Component):
    """Walks the ring of slots of one tile memory; goes back to where a window began to read it again.

    A window is the tiles that are read in a row before the same ones may be read again; an outer window is
    all windows before they, in turn, may be read again.

    Members
    -------
    resident, outer_resident : in; the window, the outer window, stays in the memory until its last pass. Else
        each pass is loaded anew.
    next : in; the present tile is issued.
    window_ends, outer_ends : in; the present tile is the last of the window, of the outer window.
    first_pass, last_pass, outer_first, outer_last : in; of this window, and of the outer one.
    base : out; address of the present tile's slot.
    fresh : out; the tile is read for the first time since it was loaded.
    last_use : out; the tile is not needed again.
    overflow : out; what is to stay has more tiles than there are slots.
    """

    def __init__(self, *, slots, slot_granules, address_bits):
        self.parameters = {
            "slots": slots, "slot_granules": slot_granules, "address_bits": address_bits
        }  # fmt: skip
        inputs = (
            "resident", "outer_resident", "next", "window_ends", "outer_ends", "first_pass", "last_pass",
            "outer_first", "outer_last",
        )  # fmt: skip
        super().__init__(
            {
                **{name: In(1) for name in inputs},
                "base": Out(address_bits),
                "fresh": Out(1),
                "last_use": Out(1),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        slots, granules = self.parameters["slots"], self.parameters["slot_granules"]
        following = Signal.like(self.base)
        window, outer = Signal.like(self.base), Signal.like(self.base)  # where they begin
        tiles = Signal(range(slots + 1))  # that stay, before this one
        first, last = Signal(), Signal()  # pass of the window in this pass of the outer one
        outer_first, outer_last = Signal(), Signal()
        m.d.comb += [
            following.eq(Mux(self.base == (slots - 1) * granules, 0, self.base + granules)),
            first.eq(~self.resident | self.first_pass),
            last.eq(~self.resident | self.last_pass),
            outer_first.eq(~self.outer_resident | self.outer_first),
            outer_last.eq(~self.outer_resident | self.outer_last),
            self.fresh.eq(first & outer_first),
            self.last_use.eq(last & outer_last),
            self.overflow.eq((self.resident | self.outer_resident) & self.fresh & (tiles == slots)),
        ]
        with m.If(self.next):
            m.d.sync += self.base.eq(following)
            with m.If(self.fresh):
                m.d.sync += tiles.eq(tiles + (self.resident | self.outer_resident))
            with m.If(self.window_ends):
                with m.If(last):
                    m.d.sync += window.eq(following)
                    with m.If(~self.outer_resident):
                        m.d.sync += tiles.eq(0)
                with m.Else():
                    m.d.sync += self.base.eq(window)
            with m.If(self.outer_ends):
                with m.If(outer_last):
                    m.d.sync += [outer.eq(following), tiles.eq(0)]
                with m.Else():
                    m.d.sync += [self.base.eq(outer), window.eq(outer)]
        return m


class TileController(wiring.Component):
    """Issues the k-tiles of a layer in the order of its `TileNest`.

    A tile's sums stay in the accumulators over a K-chunk and leave with its last k-tile. Weights are read
    again for each column of tiles, activations for each row; what is ``resident`` is loaded once and read
    again from its memory (source: Panacea, HPCA 2025, tile reuse).

    Parameters
    ----------
    tile_m, tile_n, tile_k, k_bits : of the `TileNest`.
    weight_memory, activation_memory : dicts of `SlotPointer`'s parameters.

    Members
    -------
    loops, weights_resident, activations_resident : in; the layer, constant while ``run`` is high.
    blocks_share : in; the stationary operand stays over all blocks; it must be resident.
    run : in; high from a layer's begin until reset.
    weight_tiles, activation_tiles : stream out; always taken in the same cycle. Valid depends on ready.
    weight_fresh, activation_fresh : out; with the tiles: they must have been loaded.
    output_tiles : stream out; each tile that leaves the array, when its last k-tile is issued.
    weight_overflow, activation_overflow : out; a resident operand does not fit. Issuing has stopped.

    Latency: TileNest.SETTLES + 1 cycles from ``run`` to the first k-tile. Throughput: a k-tile every
    TileNest.SETTLES + 1 cycles, and 2 cycles after one that had to wait, if that is later.
    Tested range: M and N of 1 to 4 tiles, 1 to 3 chunks of 1 to 3 k-tiles, more than a memory has slots too;
    slots 2..18.
    """

    def __init__(self, *, tile_m, tile_n, tile_k, k_bits, weight_memory, activation_memory):
        self._nest = {"tile_m": tile_m, "tile_n": tile_n, "tile_k": tile_k, "k_bits": k_bits}
        self.parameters = {
            **self._nest, "weight_memory": weight_memory, "activation_memory": activation_memory
        }  # fmt: skip
        super().__init__(
            {
                "loops": In(nest_layout()),
                "weights_resident": In(1),
                "activations_resident": In(1),
                "blocks_share": In(1),
                "run": In(1),
                "weight_tiles": Out(stream.Signature(tile_layout(tile_k, weight_memory["address_bits"]))),
                "weight_fresh": Out(1),
                "activation_tiles": Out(
                    stream.Signature(tile_layout(tile_k, activation_memory["address_bits"]))
                ),
                "activation_fresh": Out(1),
                "output_tiles": Out(stream.Signature(output_tile_layout(tile_m, tile_n))),
                "weight_overflow": Out(1),
                "activation_overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        m.submodules.nest = nest = TileNest(**self._nest)
        m.submodules.weight_pointer = weights = SlotPointer(**p["weight_memory"])
        m.submodules.activation_pointer = activations = SlotPointer(**p["activation_memory"])

        issues = Signal()  # all that take part are ready: the present k-tile is issued
        ended = Signal()
        walks, may_issue = Signal(), Signal()
        dataflow = self.loops.dataflow
        m.d.comb += [
            nest.loops.eq(self.loops),
            nest.run.eq(self.run),
            nest.next.eq(issues),
            walks.eq(self.run & nest.valid & ~ended),
            may_issue.eq(walks & ~weights.overflow & ~activations.overflow),
            issues.eq(
                may_issue
                & self.weight_tiles.ready
                & self.activation_tiles.ready
                & (~nest.tile_ends | self.output_tiles.ready)
            ),
            # Weights do not depend on the column, activations not on the row: those loops are their passes.
            weights.resident.eq(self.weights_resident),
            weights.window_ends.eq(nest.columns_end),
            weights.first_pass.eq(nest.columns.first),
            weights.last_pass.eq(nest.columns.last),
            weights.outer_resident.eq(self.blocks_share & (dataflow == Dataflow.WEIGHT_STATIONARY)),
            activations.resident.eq(self.activations_resident),
            activations.window_ends.eq(nest.rows_end),
            activations.first_pass.eq(nest.rows.first),
            activations.last_pass.eq(nest.rows.last),
            activations.outer_resident.eq(self.blocks_share & (dataflow == Dataflow.INPUT_STATIONARY)),
            self.weight_fresh.eq(weights.fresh),
            self.activation_fresh.eq(activations.fresh),
            self.weight_overflow.eq(walks & weights.overflow),
            self.activation_overflow.eq(walks & activations.overflow),
            self.output_tiles.valid.eq(issues & nest.tile_ends),
            self.output_tiles.p.rows.eq(nest.rows.length),
            self.output_tiles.p.columns.eq(nest.columns.length),
            self.output_tiles.p.first_chunk.eq(nest.chunks.first),
            self.output_tiles.p.last_chunk.eq(nest.chunks.last),
            self.output_tiles.p.chunk_ends.eq(nest.chunk_ends),
            self.output_tiles.p.frees_rows.eq(nest.chunks.last & nest.rows_end),
            self.output_tiles.p.last.eq(nest.ends),
        ]
        with m.If(issues & nest.ends):
            m.d.sync += ended.eq(1)
        for tiles, pointer in ((self.weight_tiles, weights), (self.activation_tiles, activations)):
            m.d.comb += [
                pointer.next.eq(issues),
                pointer.outer_ends.eq(nest.block_ends),
                pointer.outer_first.eq(nest.blocks.first),
                pointer.outer_last.eq(nest.blocks.last),
                tiles.valid.eq(issues),
                tiles.p.base.eq(pointer.base),
                tiles.p.length.eq(nest.positions.length),
                tiles.p.release.eq(pointer.last_use),
                tiles.p.last.eq(nest.tile_ends),
            ]
        return m
