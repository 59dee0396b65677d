"""Psum nest: the tiles that leave the array, in order, and where in memory each one's partial sums lie."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import PSUM_BANKS, nest_layout
from sliceforge.hw.tile_nest import TileNest

__all__ = ["PsumNest", "psum_stride"]


def psum_stride(words, bus_bits):
    """Bytes from one tile of partial sums of ``words`` words to the next: whole beats of the bus."""
    return -(-words * 32 // bus_bits) * (bus_bits // 8)


class PsumNest(wiring.Component):
    """The `TileNest` a tile at a time, with what the partial sums of arithmetic.md section 8 need.

    Tile t of a K-chunk whose step stands at position g of its group is stored at
    ``address + (t * group + g) * stride``, at full width at ``address + t * stride``: what a group's head
    adds is one span.

    Parameters
    ----------
    bus_bits, address_bits : of the bus. ``tile_m``, ``tile_n``, ``k_bits`` : of the `TileNest`.
    full_words, narrow_words : words of 32 bits of a stored tile, at full width and in 8 bits.

    Members
    -------
    loops, psum_group, psum_address : in; of the layer, constant while the nest is walked.
    run, valid, next : in, out, in; of the `TileNest`, a tile at a time.
    rows, columns, chunks, chunk_ends, block_ends, ends : out; of the `TileNest`.
    keeps : out; the tile's sums are partial sums that are needed again.
    adds : out; how many stored tiles are added to it, from position 0 on.
    group_address, stored_address : out; of position 0 of the tile's group, and where the tile itself is
        stored. A bit more than the bus.

    Tested range: all dataflows, group sizes 0 to 4, up to 3 tiles each way and 7 K-chunks.
    """

    def __init__(self, *, bus_bits, address_bits, tile_m, tile_n, k_bits, full_words, narrow_words):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "tile_m": tile_m, "tile_n": tile_n,
            "k_bits": k_bits, "full_words": full_words, "narrow_words": narrow_words,
        }  # fmt: skip
        self._nest = TileNest(tile_m=tile_m, tile_n=tile_n, tile_k=1, k_bits=k_bits)
        loops = {name: self._nest.signature.members[name] for name in ("rows", "columns", "chunks")}
        super().__init__(
            {
                "loops": In(nest_layout()),
                "psum_group": In(3),
                "psum_address": In(address_bits),
                "run": In(1, init=1),
                "valid": Out(1),
                "next": In(1),
                **loops,
                "chunk_ends": Out(1),
                "block_ends": Out(1),
                "ends": Out(1),
                "keeps": Out(1),
                "adds": Out(range(PSUM_BANKS + 1)),
                "group_address": Out(address_bits + 1),
                "stored_address": Out(address_bits + 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        m.submodules.nest = nest = self._nest
        m.d.comb += [
            nest.loops.eq(self.loops),
            nest.whole_chunks.eq(1),
            nest.loops.k_tile.eq(1),
            nest.run.eq(self.run),
            self.valid.eq(nest.valid),
            nest.next.eq(self.next),
        ]
        for name in ("rows", "columns", "chunks", "chunk_ends", "block_ends", "ends"):
            m.d.comb += getattr(self, name).eq(getattr(nest, name))

        full, head, position = Signal(), Signal(), Signal(range(PSUM_BANKS))
        narrow_stride = psum_stride(p["narrow_words"], p["bus_bits"])
        full_stride = psum_stride(p["full_words"], p["bus_bits"])
        step = Array([full_stride, *(narrow_stride * group for group in range(1, PSUM_BANKS + 1))])
        first, last = nest.chunks.first, nest.chunks.last
        m.d.comb += [
            full.eq(self.psum_group == 0),
            head.eq(full | (position == 0)),
            self.keeps.eq(~last),
            self.adds.eq(
                Mux(
                    head,
                    Mux(first, 0, Mux(full, 1, self.psum_group)),
                    Mux(last, position, 0),
                )
            ),
            self.stored_address.eq(self.group_address + position * narrow_stride),
        ]
        tile = Signal(p["address_bits"] + 1)  # address of the tile's group, less that of the first one's
        m.d.comb += self.group_address.eq(self.psum_address + tile)
        with m.If(self.next):
            m.d.sync += tile.eq(tile + step[self.psum_group])
            with m.If(nest.chunk_ends):
                m.d.sync += [
                    tile.eq(0),
                    position.eq(Mux(last | (position + 1 >= self.psum_group), 0, position + 1)),
                ]
        return m
