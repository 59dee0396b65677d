"""Run-length decoder: from the entries of one tile back to a vector at every position."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RLEDecoder", "entry_layout"]


def entry_layout(vector, run_bits):
    """A run-length coded entry: ``skip`` compressed vectors, then the vector ``data``."""
    return data.StructLayout({"skip": run_bits, "data": 4 * vector})


class RLEDecoder(wiring.Component):
    """Decodes run-length coded HO vectors (arithmetic.md section 6; Panacea, HPCA 2025).

    ``k = previous k + 1 + skip``, the first with previous k = -1; every other position is compressed.

    Parameters
    ----------
    vector, run_bits : slices in a vector; width of the skip field.
    tile_k : largest length of a tile.
    max_count : largest count in a tile's header.

    Members
    -------
    tiles : stream in; ``length`` (1..tile_k positions) and ``count`` of entries. Held during the tile.
    entries : stream in; ``count`` entries a tile.
    vectors : stream out; one a position: ``kept``, ``data`` (0 where not kept), ``last``.
    malformed : out; high, until reset, after an entry that lies past its tile. Decoding has stopped.

    Latency: 0 (combinational from ``entries`` to ``vectors``). Throughput: a position a cycle.
    Flow control: valid/ready on all streams; ``vectors.valid`` waits for an entry only where one is due.
    Tested range: vector 2, 4, 8; run_bits 1..8; tile_k 4..128.
    """

    def __init__(self, *, vector, run_bits, tile_k, max_count):
        self.parameters = {
            "vector": vector, "run_bits": run_bits, "tile_k": tile_k, "max_count": max_count
        }  # fmt: skip
        super().__init__(
            {
                "tiles": In(
                    stream.Signature(
                        data.StructLayout({"length": range(tile_k + 1), "count": range(max_count + 1)})
                    )
                ),
                "entries": In(stream.Signature(entry_layout(vector, run_bits))),
                "vectors": Out(
                    stream.Signature(data.StructLayout({"data": 4 * vector, "kept": 1, "last": 1}))
                ),
                "malformed": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tile, entry, vector = self.tiles.p, self.entries.p, self.vectors.p

        position = Signal.like(tile.length)
        run = Signal.like(tile.length)  # compressed vectors since the previous entry
        used = Signal.like(tile.count)  # entries taken from this tile's stream
        due = Signal()  # entries remain, so the next one decides whether this position is kept
        # Signals of their own: a payload that depends on its own bits looks like a loop to simulators.
        kept, last, taken, stops = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            due.eq(used != tile.count),
            kept.eq(due & (run == entry.skip)),
            last.eq(position + 1 == tile.length),
            vector.kept.eq(kept),
            vector.data.eq(Mux(kept, entry.data, 0)),  # an offer stays as it is while the next entry arrives
            vector.last.eq(last),
            self.vectors.valid.eq(self.tiles.valid & (~due | self.entries.valid) & ~stops),
            taken.eq(self.vectors.valid & self.vectors.ready),
            self.entries.ready.eq(taken & kept),
            self.tiles.ready.eq(taken & last),
        ]
        # Known in the cycle after the tile's last vector; nothing more is offered from then on.
        ended, misses = Signal(), Signal()
        m.d.sync += [ended.eq(taken & last), misses.eq(Mux(kept, used + 1 != tile.count, due))]
        m.d.comb += stops.eq(self.malformed | (ended & misses))
        m.d.sync += self.malformed.eq(stops)
        with m.If(taken):
            m.d.sync += [position.eq(position + 1), run.eq(run + 1)]
            with m.If(kept):
                m.d.sync += [run.eq(0), used.eq(used + 1)]
            with m.If(last):
                m.d.sync += [position.eq(0), run.eq(0), used.eq(0)]
        return m
