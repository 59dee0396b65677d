"""Output regions: where in memory the tile images of each output tile go."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import DIM_BITS, image_tile_layout, nest_layout
from sliceforge.hw.tile_nest import TileNest
from sliceforge.hw.tile_walk import TileWalk

__all__ = ["OutputRegions"]


class OutputRegions(wiring.Component):
    """For each output tile, in the order of the layer's dataflow: its region, in the order of the next layer.

    Tile (i, j), a row and a column of tiles, makes region ``first * columns + j * height + i - first``, where
    ``first`` is the first row of tiles of i's group and ``height`` the rows of tiles of that group: the next
    layer, for which rows are positions along K, loads all columns of a group before the next group. Region s
    lies at ``address + s * stride``; its length goes to the header of the region before, that of the first to
    ``length_address``.

    Parameters
    ----------
    address_bits : of the bus. ``tile_m``, ``tile_n``, ``k_bits`` : of the `TileNest`.

    Members
    -------
    start : in; a pulse. What follows is constant from then until reset.
    loops : in; the layer's. address, length_address, stride : in; bytes.
    group : in; rows of tiles in a group. tile_rows, tile_columns : in; rows and columns of tiles of the
        layer.
    tiles : stream out; up to the last tile of the layer.

    Latency: 9 cycles from a tile to the next. Less than 2^DIM_BITS tiles.
    Tested range: up to 5 tiles each way; groups of 1 row of tiles to more than all; address_bits 32, 64; any
    stride; regions at the end of the space and past it, whose addresses are its end.
    """

    def __init__(self, *, address_bits, tile_m, tile_n, k_bits):
        self.parameters = {
            "address_bits": address_bits, "tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits
        }  # fmt: skip
        super().__init__(
            {
                "start": In(1),
                "loops": In(nest_layout()),
                "address": In(address_bits),
                "length_address": In(address_bits),
                "stride": In(32),
                "group": In(DIM_BITS),
                "tile_rows": In(DIM_BITS),
                "tile_columns": In(DIM_BITS),
                "tiles": Out(stream.Signature(image_tile_layout(address_bits, tile_m, tile_n))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        m.submodules.nest = nest = TileNest(
            tile_m=p["tile_m"], tile_n=p["tile_n"], tile_k=1, k_bits=p["k_bits"]
        )
        m.submodules.walk = walk = TileWalk(row_bits=2 * DIM_BITS, column_bits=DIM_BITS)
        # A row is i - first, below the group's first row of tiles.
        first, inside = walk.row[DIM_BITS:], walk.row[:DIM_BITS]
        taken, ends, runs = Signal(), Signal(), Signal()
        m.d.comb += [
            nest.loops.eq(self.loops),
            nest.whole_chunks.eq(1),
            nest.loops.k.eq(1),
            nest.loops.chunk.eq(1),
            nest.loops.k_tile.eq(1),
            nest.run.eq(runs),
            nest.next.eq(taken),
            taken.eq(self.tiles.valid & self.tiles.ready),
            walk.dataflow.eq(self.loops.dataflow),
            walk.rows_last.eq(nest.rows.last),
            walk.columns_last.eq(nest.columns.last),
            walk.block_ends.eq(nest.block_ends),
            walk.start.eq(self.start),
            walk.next.eq(taken),
            walk.next_column.eq(walk.column + 1),
        ]
        # There are more cycles than these from a tile to the next.
        m.d.sync += [
            ends.eq(inside + 1 == self.group),
            walk.next_row[:DIM_BITS].eq(Mux(ends, 0, inside + 1)),
            walk.next_row[DIM_BITS:].eq(first + Mux(ends, self.group, 0)),
        ]

        # One multiplier in turn, between registers: first * columns, column * height, region * stride.
        left, height = Signal(DIM_BITS), Signal(DIM_BITS)
        one, other, product = Signal(DIM_BITS), Signal(32), Signal(DIM_BITS + 32)
        region = Signal(DIM_BITS)
        offset = Signal.like(product)
        tile, bits = self.tiles.p, p["address_bits"]
        place = Signal(max(bits, len(product)) + 1)
        m.d.comb += [
            left.eq(self.tile_rows - first),
            height.eq(Mux(left < self.group, left, self.group)),
            tile.rows.eq(nest.rows.length),
            tile.columns.eq(nest.columns.length),
            place.eq(self.address + offset),
        ]
        m.d.sync += product.eq(one * other)
        with m.FSM(name="state") as state:
            m.d.comb += runs.eq(~state.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(self.start):
                    m.next = "GROUP"
            with m.State("GROUP"):
                m.d.sync += [one.eq(first), other.eq(self.tile_columns)]
                m.next = "COLUMN"
            with m.State("COLUMN"):
                m.d.sync += [one.eq(height), other.eq(walk.column)]
                m.next = "FIRST"
            with m.State("FIRST"):
                m.d.sync += region.eq(product + inside)
                m.next = "REGION"
            with m.State("REGION"):
                m.d.sync += region.eq(region + product)
                m.next = "STRIDE"
            with m.State("STRIDE"):
                m.d.sync += [one.eq(region), other.eq(self.stride)]
                m.next = "PRODUCT"
            with m.State("PRODUCT"):
                m.next = "OFFSET"
            with m.State("OFFSET"):
                m.d.sync += offset.eq(product)
                m.next = "ADDRESS"
            with m.State("ADDRESS"):
                before = Mux(region == 0, self.length_address, _in_space(place - self.stride, bits))
                m.d.sync += [tile.address.eq(_in_space(place, bits)), tile.length_address.eq(before)]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.tiles.valid.eq(nest.valid)
                with m.If(taken):
                    m.next = "GROUP"
                    with m.If(nest.ends):
                        m.next = "IDLE"
        return m


def _in_space(place, bits):
    """An address of ``bits`` and one more; what is past the space, however far, is at its end."""
    return Mux(place >> bits != 0, 1 << bits, place)[: bits + 1]
