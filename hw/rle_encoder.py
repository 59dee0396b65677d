"""Run-length encoder: from a vector at every position to the entries of one tile."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.rle_decoder import entry_layout

__all__ = ["RLEEncoder"]


class RLEEncoder(wiring.Component):
    """Run-length codes HO vectors (arithmetic.md section 6; Panacea, HPCA 2025).

    A vector whose slices all equal ``frequent`` is compressed: it is counted, not stored. A kept vector
    after more than ``2^run_bits - 1`` compressed ones is preceded by filler entries that store the
    frequent vector. Compressed vectors at the end of a tile leave nothing.

    Parameters
    ----------
    vector, run_bits : slices in a vector; width of the skip field.
    tile_k : largest number of vectors in a tile.

    Members
    -------
    frequent : in; the frequent slice, constant during a tile.
    vectors : stream in; ``data`` and ``last`` (the tile's last position).
    entries : stream out; ``skip`` and ``data``.
    counts : stream out; the number of entries of a tile, after its last vector.

    Latency: 0 (combinational). Throughput: a vector a cycle, and a cycle more for each filler.
    Flow control: valid/ready on all streams; a tile's last vector waits for ``counts`` to be taken.
    ``counts.valid`` may depend on ``entries.ready``: a count comes no earlier than its last entry.
    Tested range: vector 2, 4, 8; run_bits 1..8; tile_k 4..128.
    """

    def __init__(self, *, vector, run_bits, tile_k):
        self.parameters = {"vector": vector, "run_bits": run_bits, "tile_k": tile_k}
        super().__init__(
            {
                "frequent": In(4),
                "vectors": In(stream.Signature(data.StructLayout({"data": 4 * vector, "last": 1}))),
                "entries": Out(stream.Signature(entry_layout(vector, run_bits))),
                "counts": Out(stream.Signature(range(tile_k + 1))),
            }
        )
        self._vector = vector
        self._longest = (1 << run_bits) - 1
        self._tile_k = tile_k

    def elaborate(self, platform):
        m = Module()
        frequent = self.frequent.replicate(self._vector)
        run = Signal(range(max(self._tile_k, self._longest + 1) + 1))
        count = Signal(range(self._tile_k + 1))
        kept, filler, ends = Signal(), Signal(), Signal()
        entry_sent = Signal()  # the entry of this vector has left, its count has not
        entry_done = Signal()
        m.d.comb += [
            kept.eq(self.vectors.valid & (self.vectors.p.data != frequent)),
            filler.eq(kept & (run > self._longest)),
            self.entries.p.skip.eq(Mux(filler, self._longest, run)),
            self.entries.p.data.eq(Mux(filler, frequent, self.vectors.p.data)),
            self.entries.valid.eq(kept & ~entry_sent),
            entry_done.eq(~kept | entry_sent | self.entries.ready),
            # The last vector leaves with its count, which waits for its entry, if any.
            ends.eq(self.vectors.valid & self.vectors.p.last & ~filler),
            self.counts.payload.eq(count + (kept & ~entry_sent)),
            self.counts.valid.eq(ends & entry_done),
            self.vectors.ready.eq(~filler & entry_done & (~self.vectors.p.last | self.counts.ready)),
        ]
        with m.If(self.entries.valid & self.entries.ready):
            m.d.sync += count.eq(count + 1)
            with m.If(filler):
                m.d.sync += run.eq(run - (self._longest + 1))
            with m.Else():
                m.d.sync += entry_sent.eq(1)
        with m.If(self.vectors.valid & self.vectors.ready):
            m.d.sync += [run.eq(Mux(kept, 0, run + 1)), entry_sent.eq(0)]
            with m.If(self.vectors.p.last):
                m.d.sync += [run.eq(0), count.eq(0)]
        return m
