"""Tile loader: takes tile images from a load stream and writes them into the banks of a tile memory."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.config import COUNT_BITS
from sliceforge.hw.payloads import DIM_BITS, beat_layout, index, lo_granules, nest_layout
from sliceforge.hw.tile_nest import TileNest

__all__ = ["TileLoader"]


class TileLoader(wiring.Component):
    """Writes tile images into slots as long as there is space, up to the last one of the layer.

    The images come in the order of the `TileNest`. What depends on ``reuse`` alone, the loop that does not
    choose the image, is loaded once if ``resident``. A region is what ``beats`` marks with one ``last``: all
    images up to the next iteration of that loop, or less where ``span`` says so.

    A beat has `ways` granules side by side; way w serves banks w, w + ways, w + 2 ways and so on. An image is
    1. header: 8-bit counts of HO entries, a way's banks in order from the lowest byte up;
    2. LO: for each bank of a way in turn, ``ceil(length * dense / 4)`` granules;
    3. HO: for each bank of a way in turn, ``ceil(count / entries_per_granule)`` granules. Ways are
       packed independently; the longest decides how many beats the section has.

    Parameters
    ----------
    layout : TileLayout of a slot.
    banks, ways, slots : banks of the memory; granules in a beat; slots of a bank.
    tile_m, tile_n, k_bits : rows and columns of an output tile; width of K.
    reuse : "columns" for weights, "rows" for activations.

    Members
    -------
    loops, dense : in; the layer's nest and LO slices a position, constant from one reset to the next.
    resident, blocks_share : in; the images stay in the memory over that loop; and over all blocks of it.
    span : in; positions along K after which a region ends at the latest, as it does with K; all ones:
        neither.
    compressed : in; the layer has HO slices. Without them every count must be 0.
    beats : stream in; ``last`` must be set on the last beat of a region and on no other.
    space : in; a slot is free for the next image. Looked at before each image.
    loaded : out; high for a cycle when an image is complete. ``complete`` : out; all of the layer are.
    write_address_{w}, write_granule_{w} : out; address and granule of way w.
    write : out; a bit a bank: it is written in this cycle.
    write_header, write_counts : out; each bank is to write its own count instead.
    bad_count, bad_length : out; high, until reset, after a malformed image or region. Loading has stopped.

    Latency: 0 (writes in the cycle in which a beat is taken); TileNest.SETTLES + 1 from reset to the first.
    Throughput: a beat a cycle; an image of b beats takes b + 1 cycles, TileNest.SETTLES + 1 at least.
    Flow control: valid/ready on ``beats``; ``ready`` does not depend on valid.
    Tested range: banks 2..16, ways 1, 2, 4, more than banks too; M and N of 1 to 3 tiles,
    1 or 2 chunks of 1 or 2 k-tiles.
    """

    def __init__(self, *, layout, banks, ways, slots, tile_m, tile_n, k_bits, reuse):
        self.parameters = {
            "layout": layout, "banks": banks, "ways": ways, "slots": slots,
            "tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits, "reuse": reuse,
        }  # fmt: skip
        self._layout = layout
        self._banks = banks
        self._ways = ways
        self._slots = slots
        self._counts_a_beat = layout.granule_bits // COUNT_BITS  # of one way
        # Entries that each bank still has to receive; the lowest bank of a way with some is served.
        self._left = [Signal(COUNT_BITS, name=f"left_{b}") for b in range(banks)]
        address_bits = (slots * layout.slot_granules - 1).bit_length()
        super().__init__(
            {
                "loops": In(nest_layout()),
                "resident": In(1),
                "blocks_share": In(1),
                "span": In(DIM_BITS),
                "dense": In(range(layout.dense + 1)),
                "compressed": In(1),
                "beats": In(stream.Signature(beat_layout(layout.granule_bits, ways))),
                "space": In(1),
                "loaded": Out(1),
                "complete": Out(1),
                **{f"write_address_{w}": Out(address_bits) for w in range(ways)},
                **{f"write_granule_{w}": Out(layout.granule_bits) for w in range(ways)},
                "write": Out(banks),
                "write_header": Out(1),
                "write_counts": Out(data.ArrayLayout(COUNT_BITS, banks)),
                "bad_count": Out(1),
                "bad_length": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout, ways = self._layout, self._ways
        depth = -(-self._banks // ways)  # banks of a way
        header_beats = layout.header_beats(self._banks, ways)
        nest, region_ends = self._count_images(m)
        length = nest.positions.length

        taken = Signal()
        ends = Signal()  # this beat completes the image
        granules = Signal(range(layout.ho_base))  # of a bank's LO section
        m.d.comb += [
            taken.eq(self.beats.valid & self.beats.ready),
            granules.eq(lo_granules(length, self.dense, layout.dense)),
        ]

        part = Signal(index(header_beats))  # beat of the header
        bank = Signal(index(depth))  # of each way, in the LO section
        granule = Signal(range(layout.ho_base))  # of the bank, in the LO section
        way_ends = Signal(ways)  # at most one more HO granule for this way
        way_empty = Signal(ways)  # none
        last_lo = Signal()
        m.d.comb += last_lo.eq((bank == depth - 1) & (granule + 1 == granules))
        with m.FSM(name="section") as section:
            with m.State("HEADER"):
                m.d.comb += [
                    self.beats.ready.eq(self.space & nest.valid & ~self.complete),
                    self.write_header.eq(1),
                ]
                with m.If(taken):
                    m.d.sync += part.eq(part + 1)
                    with m.If(part == header_beats - 1):
                        m.d.sync += part.eq(0)
                        m.next = "LO"
            with m.State("LO"):
                m.d.comb += [self.beats.ready.eq(1), ends.eq(last_lo & way_empty.all())]
                with m.If(taken):
                    m.d.sync += granule.eq(granule + 1)
                    with m.If(granule + 1 == granules):
                        m.d.sync += [granule.eq(0), bank.eq(bank + 1)]
                    with m.If(last_lo):
                        m.d.sync += bank.eq(0)
                        m.next = "HO"
                    with m.If(ends):
                        m.next = "HEADER"
            with m.State("HO"):
                m.d.comb += [self.beats.ready.eq(1), ends.eq((way_ends | way_empty).all())]
                with m.If(taken & ends):
                    m.next = "HEADER"

        # A malformed image stops the loader until reset.
        bad_counts = Signal(self._banks)
        with m.If(taken & (self.beats.p.last != (ends & region_ends))):
            m.d.sync += self.bad_length.eq(1)
        with m.If(taken & bad_counts.any()):
            m.d.sync += self.bad_count.eq(1)
        with m.If(self.bad_count | self.bad_length):
            m.d.comb += self.beats.ready.eq(0)

        base = Signal.like(self.write_address_0)  # of the slot that the image goes to
        m.d.comb += self.loaded.eq(taken & ends & (self.beats.p.last == region_ends))
        with m.If(self.loaded):
            m.d.sync += base.eq(base + layout.slot_granules)
            with m.If(base == (self._slots - 1) * layout.slot_granules):
                m.d.sync += base.eq(0)

        in_lo, in_ho = section.ongoing("LO"), section.ongoing("HO")
        for way in range(ways):
            offset, served = self._serve_way(m, way, taken & in_ho, way_ends[way], way_empty[way])
            m.d.comb += [
                getattr(self, f"write_granule_{way}").eq(self.beats.p.granules[way]),
                getattr(self, f"write_address_{way}").eq(
                    base + Mux(section.ongoing("HEADER"), 0, Mux(in_lo, granule + 1, offset))
                ),
            ]
            for t, b in enumerate(range(way, self._banks, ways)):
                header_here = section.ongoing("HEADER") & (part == t // self._counts_a_beat)
                count = self.beats.p.granules[way].word_select(t % self._counts_a_beat, COUNT_BITS)
                m.d.comb += [
                    self.write_counts[b].eq(count),
                    self.write[b].eq(taken & (header_here | (in_lo & (bank == t)) | (in_ho & served[t]))),
                    bad_counts[b].eq(header_here & (count > Mux(self.compressed, length, 0))),
                ]
                with m.If(taken & header_here):
                    m.d.sync += self._left[b].eq(count)
        return m

    def _count_images(self, m):
        """The loop nest, a step of which is an image, and whether the present image ends a region."""
        p = self.parameters
        m.submodules.nest = nest = TileNest(
            tile_m=p["tile_m"], tile_n=p["tile_n"], tile_k=self._layout.tile_k, k_bits=p["k_bits"]
        )
        once, window_ends = (
            (nest.once_columns, nest.columns_end)
            if p["reuse"] == "columns"
            else (nest.once_rows, nest.rows_end)
        )
        spanned, reached = Signal(DIM_BITS), Signal(DIM_BITS + 1)  # positions of the region
        region_ends = Signal()
        in_parts = ~self.span.all()
        m.d.comb += [
            nest.loops.eq(self.loops),
            once.eq(self.resident),
            nest.once_blocks.eq(self.blocks_share),
            nest.next.eq(self.loaded),
            reached.eq(spanned + nest.positions.length),
            region_ends.eq(
                window_ends | (in_parts & ((reached >= self.span) | (nest.tile_ends & nest.chunks.last)))
            ),
        ]
        with m.If(self.loaded):
            m.d.sync += [spanned.eq(Mux(region_ends, 0, reached)), self.complete.eq(nest.ends)]
        return nest, region_ends

    def _serve_way(self, m, way, takes, ends, empty):
        """HO section of one way: its banks are served one after another, those without entries skipped.

        Returns the granule's offset in the slot, and a flag for each bank: it is served.
        """
        layout = self._layout
        banks = range(way, self._banks, self._ways)
        busy = Cat(self._left[b] != 0 for b in banks)
        last = Cat(self._left[b] <= layout.entries_per_granule for b in banks)
        served = [busy[t] & ~busy[:t].any() for t in range(len(banks))]
        granule = Signal(range(layout.slot_granules), name=f"granule_{way}")
        m.d.comb += [
            empty.eq(~busy.any()),
            # The served bank gets its last granule, and no bank after it waits for any.
            ends.eq(Cat(served[t] & last[t] & ~busy[t + 1 :].any() for t in range(len(banks))).any()),
        ]
        with m.If(takes):
            for t, b in enumerate(banks):
                with m.If(served[t]):
                    left = self._left[b] - layout.entries_per_granule
                    m.d.sync += [self._left[b].eq(Mux(last[t], 0, left)), granule.eq(granule + 1)]
                    with m.If(last[t]):
                        m.d.sync += granule.eq(0)
        return granule + layout.ho_base, served
