"""Tile controller: the loop nest of a layer, and which tile each memory is to read next."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.loop_counter import LoopCounter
from sliceforge.hw.payloads import DIM_BITS, output_tile_layout, tile_layout

__all__ = ["SlotPointer", "TileController"]


class SlotPointer(wiring.Component):
    """Walks the ring of slots of one tile memory; goes back to the start of the window to read it again.

    A window is the tiles that are read in a row before the same ones may be read again.

    Members
    -------
    resident : in; the window stays in the memory until its last pass. Else each pass is loaded anew.
    next : in; the present tile is issued.
    window_ends : in; the present tile is the last of the window.
    first_pass, last_pass : in; of this window.
    base : out; address of the present tile's slot.
    fresh : out; the tile is read for the first time since it was loaded.
    last_use : out; the tile is not needed again.
    overflow : out; a resident window has more tiles than there are slots.
    """

    def __init__(self, *, slots, slot_granules, address_bits):
        self.parameters = {
            "slots": slots, "slot_granules": slot_granules, "address_bits": address_bits
        }  # fmt: skip
        super().__init__(
            {
                "resident": In(1),
                "next": In(1),
                "window_ends": In(1),
                "first_pass": In(1),
                "last_pass": In(1),
                "base": Out(address_bits),
                "fresh": Out(1),
                "last_use": Out(1),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        slots, granules = self.parameters["slots"], self.parameters["slot_granules"]
        window, following = Signal.like(self.base), Signal.like(self.base)
        tiles = Signal(range(slots + 1))  # of the window, before this one
        m.d.comb += [
            following.eq(Mux(self.base == (slots - 1) * granules, 0, self.base + granules)),
            self.fresh.eq(~self.resident | self.first_pass),
            self.last_use.eq(~self.resident | self.last_pass),
            self.overflow.eq(self.resident & self.fresh & (tiles == slots)),
        ]
        with m.If(self.next):
            m.d.sync += [self.base.eq(following), tiles.eq(tiles + self.resident)]
            with m.If(self.window_ends):
                m.d.sync += tiles.eq(0)
                with m.If(self.last_use):
                    m.d.sync += window.eq(following)
                with m.Else():
                    m.d.sync += self.base.eq(window)
        return m


class TileController(wiring.Component):
    """Output-stationary order: for each row of tiles, for each column of tiles, for each k-tile.

    A tile of outputs stays in the accumulators over all of K. The weights of a row of tiles are read
    once for each column of tiles; the activations once for each row of tiles. What is ``resident`` is
    loaded once and read again from its memory (source: Panacea, HPCA 2025, tile reuse).

    Parameters
    ----------
    tile_m, tile_n, tile_k : rows, columns and positions along K of a tile.
    k_bits : width of K.
    weight_memory, activation_memory : dicts of `SlotPointer`'s parameters.

    Members
    -------
    m, n, k, weights_resident, activations_resident : in; the layer, constant while ``run`` is high.
    run : in; high while the layer runs. Reset between layers.
    weight_tiles, activation_tiles : stream out; always taken in the same cycle. Valid depends on ready.
    weight_fresh, activation_fresh : out; with the tiles: they must have been loaded.
    output_tiles : stream out; each output tile, when its last k-tile is issued.
    weight_overflow, activation_overflow : out; a resident operand does not fit. Issuing has stopped.

    Latency: 0. Throughput: a k-tile a cycle. Tested range: M and N of 1 to 5 tiles, K of 1 to 8
    and more than a memory has slots; slots 2..102.
    """

    def __init__(self, *, tile_m, tile_n, tile_k, k_bits, weight_memory, activation_memory):
        self.parameters = {
            "tile_m": tile_m, "tile_n": tile_n, "tile_k": tile_k, "k_bits": k_bits,
            "weight_memory": weight_memory, "activation_memory": activation_memory,
        }  # fmt: skip
        super().__init__(
            {
                "m": In(DIM_BITS),
                "n": In(DIM_BITS),
                "k": In(k_bits),
                "weights_resident": In(1),
                "activations_resident": In(1),
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
        m.submodules.row_loop = rows = LoopCounter(width=DIM_BITS, step=p["tile_m"])
        m.submodules.column_loop = columns = LoopCounter(width=DIM_BITS, step=p["tile_n"])
        m.submodules.k_loop = positions = LoopCounter(width=p["k_bits"], step=p["tile_k"])
        m.submodules.weight_pointer = weights = SlotPointer(**p["weight_memory"])
        m.submodules.activation_pointer = activations = SlotPointer(**p["activation_memory"])

        issues = Signal()  # all that take part are ready: the present k-tile is issued
        ended = Signal()
        may_issue = Signal()
        layer_ends = rows.last & columns.last & positions.last
        m.d.comb += [
            may_issue.eq(self.run & ~ended & ~weights.overflow & ~activations.overflow),
            issues.eq(
                may_issue
                & self.weight_tiles.ready
                & self.activation_tiles.ready
                & (~positions.last | self.output_tiles.ready)
            ),
            rows.total.eq(self.m),
            columns.total.eq(self.n),
            positions.total.eq(self.k),
            positions.next.eq(issues),
            columns.next.eq(positions.next & positions.last),
            rows.next.eq(columns.next & columns.last),
            # A window of weights is a row of tiles; of activations, all columns.
            weights.resident.eq(self.weights_resident),
            weights.window_ends.eq(positions.last),
            weights.first_pass.eq(columns.first),
            weights.last_pass.eq(columns.last),
            activations.resident.eq(self.activations_resident),
            activations.window_ends.eq(positions.last & columns.last),
            activations.first_pass.eq(rows.first),
            activations.last_pass.eq(rows.last),
            self.weight_fresh.eq(weights.fresh),
            self.activation_fresh.eq(activations.fresh),
            self.weight_overflow.eq(self.run & ~ended & weights.overflow),
            self.activation_overflow.eq(self.run & ~ended & activations.overflow),
            self.output_tiles.valid.eq(issues & positions.last),
            self.output_tiles.p.rows.eq(rows.length),
            self.output_tiles.p.columns.eq(columns.length),
            self.output_tiles.p.last_column.eq(columns.last),
            self.output_tiles.p.last.eq(layer_ends),
        ]
        with m.If(issues & layer_ends):
            m.d.sync += ended.eq(1)
        for tiles, pointer in ((self.weight_tiles, weights), (self.activation_tiles, activations)):
            m.d.comb += [
                pointer.next.eq(issues),
                tiles.valid.eq(issues),
                tiles.p.base.eq(pointer.base),
                tiles.p.length.eq(positions.length),
                tiles.p.release.eq(pointer.last_use),
                tiles.p.last.eq(positions.last),
            ]
        return m
