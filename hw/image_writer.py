# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Image writer: lays a layer's outputs into memory as the tile images that the next layer loads."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.hierarchy import place
from sliceforge.hw.image_way import ImageWay
from sliceforge.hw.payloads import (
    K_TILE_BITS,
    image_tile_layout,
    index,
    lo_granules,
    value_layout,
    write_beat_layout,
    write_job_layout,
)
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["ImageWriter", "most_image_beats"]


def most_image_beats(layout, banks, ways, bus_bits):
    """Beats of the bus that the largest image has."""
    load_beats = layout.most_image_beats(banks, ways, layout.tile_k)
    return load_beats * (ways * layout.granule_bits // bus_bits)


class ImageWriter(wiring.Component):
    """Makes a region of tile images (docs/memory-format.md) of each output tile, for the `BurstWriter`.

    A tile's rows are positions along K of the next layer, its columns are columns of the next layer; it is
    cut into images of ``k_tile`` rows. A value x is sliced into ``x >> lo_bits`` and the four bits below
    (arithmetic.md sections 3, 9). Columns of padding have the value ``frequent << lo_bits``.

    Parameters
    ----------
    layout : TileLayout of activations. ``banks``, ``ways`` : lanes; granules in a load beat.
    sums : values in a beat: `vector` of each of a power of two of banks, which divides `banks` and `ways`.
    tile_m : rows of an output tile. ``bus_bits``, ``address_bits`` : of the bus.

    Members
    -------
    lo_bits, frequent, k_tile : in; slicing (4, 5, 6) and r of the next layer, positions of an image
        (1..tile_k); constant during a layer.
    tiles : stream in; the output tiles to come; a tile must not wait until its values are taken.
    values : stream in; the rows of the tiles in order, ``ceil(columns / sums)`` beats each.
    jobs, beats : stream out. A region begins at ``address`` with a load beat that is left out; then a job
        for each image, on offer when the image is complete and before its beats; then one of a single word,
        at ``length_address``: the region's length in load beats.
    done : out; high, until reset, when the tile with ``last`` is written.

    Latency: 4 + ceil(banks / ways) cycles from an image's last value to its job, a cycle more to its beats.
    Throughput: a beat of values a cycle, as long as images leave as fast as they come; an image takes a cycle
    for each of its bus beats, without a pause, and 4 + ceil(banks / ways) more; a tile's length takes 2.
    Flow control: valid/ready; there is room for two images. Reset: drops everything.
    Tested range: vector 2, 4, 8; banks 2, 3, 6; ways 1, 2, 4, more than banks too; bus_bits 32..256.
    """

    def __init__(self, *, layout, banks, ways, sums, tile_m, bus_bits, address_bits):
        self.parameters = {
            "layout": layout, "banks": banks, "ways": ways, "sums": sums, "tile_m": tile_m,
            "bus_bits": bus_bits, "address_bits": address_bits,
        }  # fmt: skip
        self._layout = layout
        self._depth = -(-banks // ways)  # banks of a way
        most_beats = most_image_beats(layout, banks, ways, bus_bits)
        tile = image_tile_layout(address_bits, tile_m, banks * layout.vector)
        super().__init__(
            {
                "lo_bits": In(3),
                "frequent": In(4),
                "k_tile": In(K_TILE_BITS),
                "tiles": In(stream.Signature(tile)),
                "values": In(stream.Signature(value_layout(sums))),
                "jobs": Out(stream.Signature(write_job_layout(address_bits, most_beats))),
                "beats": Out(stream.Signature(write_beat_layout(bus_bits))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        ways = [ImageWay(layout=self._layout, banks=self._depth) for _ in range(min(p["ways"], p["banks"]))]
        for w, way in enumerate(ways):
            m.submodules[f"way_{w}"] = place(platform, way, "image_way")
            m.d.comb += way.frequent.eq(self.frequent)
        # Room for two: the values of the next tile may come while this tile's are written.
        m.submodules.tiles = tiles = StreamFIFO(self.tiles.payload.shape(), depth=2)
        wiring.connect(m, wiring.flipped(self.tiles), tiles.i)

        full = Signal(range(3))  # halves that hold an image, or whose last values are on their way
        complete, completes = Signal(range(3)), Signal()  # halves that hold all of one
        ended = Signal()  # the layer's last value is here
        fills, freed = Signal(), Signal()
        self._take_values(m, ways, full, fills)
        idle = self._write_images(m, ways, tiles.o, complete, freed)
        m.d.sync += [
            full.eq(full + fills - freed),
            completes.eq(fills),
            complete.eq(complete + completes - freed),
        ]
        with m.If(fills & self.values.p.last):
            m.d.sync += ended.eq(1)
        m.d.comb += self.done.eq(ended & (full == 0) & idle)
        return m

    def _take_values(self, m, ways, full, fills):
        """Slices the values, gives each bank its vector a cycle later; ``fills`` at the end of an image."""
        p, vector, values = self.parameters, self._layout.vector, self.values
        lanes = p["sums"] // vector  # side by side in a beat
        spread_bits = (p["ways"] // lanes - 1).bit_length()  # so many beats go to one bank after another
        half, position = Signal(), Signal(range(self._layout.tile_k))
        group = Signal(index(p["banks"] // lanes))  # beat of the row
        takes, row_ends = Signal(), Signal()
        m.d.comb += [
            values.ready.eq(full != 2),
            takes.eq(values.valid & values.ready),
            row_ends.eq(takes & values.p.last_of_row),
            fills.eq(row_ends & (values.p.last_of_tile | (position + 1 == self.k_tile))),
        ]
        with m.If(takes):
            m.d.sync += group.eq(Mux(row_ends, 0, group + 1))
        with m.If(row_ends):
            m.d.sync += position.eq(Mux(fills, 0, position + 1))
        with m.If(fills):
            m.d.sync += half.eq(~half)

        hi = Signal(data.ArrayLayout(4, p["sums"]))
        lo = Signal(data.ArrayLayout(4, p["sums"]))
        for e, value in enumerate(values.p.values):
            with m.If(values.p.count <= e):
                m.d.comb += [hi[e].eq(self.frequent), lo[e].eq(0)]
            with m.Else():
                with m.Switch(self.lo_bits):
                    for lo_bits in (5, 6):
                        with m.Case(lo_bits):
                            m.d.comb += [hi[e].eq(value[lo_bits:]), lo[e].eq(value[lo_bits - 4 : lo_bits])]
                    with m.Default():
                        m.d.comb += [hi[e].eq(value[4:]), lo[e].eq(value[:4])]
        for w, way in enumerate(ways):
            here = group[:spread_bits] == w // lanes if spread_bits else 1
            m.d.sync += [
                way.write.eq(takes & here),
                way.write_half.eq(half),
                way.bank.eq(group >> spread_bits),
                way.position.eq(position),
                way.hi.eq(hi.as_value().word_select(w % lanes, 4 * vector)),
                way.lo.eq(lo.as_value().word_select(w % lanes, 4 * vector)),
            ]

    def _write_images(self, m, ways, tiles, complete, freed):
        """Jobs and beats of each image, and of the lengths; returns whether nothing is on its way."""
        p, layout, tile = self.parameters, self._layout, tiles.p
        load_bits = p["ways"] * layout.granule_bits
        parts = load_bits // p["bus_bits"]  # bus beats of a load beat
        header = layout.header_beats(p["banks"], p["ways"])

        # The image: its rows of the tile, its length.
        half = Signal()
        rows_done, left, last = Signal.like(tile.rows), Signal.like(tile.rows), Signal()
        granules, following = Signal.like(ways[0].lo_granules), Signal.like(ways[0].lo_granules)
        length = Signal(range(header + self._depth * layout.slot_granules + 1))  # load beats
        most_ho = ways[0].ho_granules
        for way in ways[1:]:
            most_ho = Mux(way.ho_granules > most_ho, way.ho_granules, most_ho)
        # Load beats of the region so far, its header included; an image of r rows has at most 2 r of a bank.
        region = Signal(range(2 + p["tile_m"] * (header + 2 * self._depth)), init=1)
        m.d.comb += [
            left.eq(tile.rows - rows_done),
            following.eq(lo_granules(Mux(left <= self.k_tile, left, self.k_tile), 1, 1)),
            length.eq(header + self._depth * granules + most_ho),
        ]
        used = (tile.columns + (layout.vector - 1)) >> _log2(layout.vector)  # banks
        starts, takes_granules = Signal(), Signal()
        for w, way in enumerate(ways):
            m.d.comb += [
                way.start.eq(starts),
                way.read_half.eq(half),
                way.lo_granules.eq(granules),
                way.used.eq((used + (p["ways"] - 1 - w)) >> _log2(p["ways"])),
                way.granules.ready.eq(takes_granules),
            ]

        offers, leaves, last_part = Signal(), Signal(), Signal()
        load_beat = Signal(load_bits)
        address, job_beats = Signal.like(self.jobs.p.address), Signal.like(self.jobs.p.beats)
        all_ended = Signal()
        m.d.comb += [
            all_ended.eq(Cat(way.ended for way in ways).all()),
            load_beat.eq(Cat(Mux(way.granules.valid, way.granules.payload, 0) for way in ways)),
            leaves.eq(self.beats.valid & self.beats.ready),
            address.eq(tile.address + (region << _log2(load_bits // 8))),
            job_beats.eq(length << _log2(parts)),
            self.jobs.payload.eq(Cat(address, job_beats, 0)),  # whole: a constant bit alone is never assigned
            self.beats.p.strobes.eq(-1),
        ]
        if parts == 1:
            m.d.comb += [last_part.eq(1), self.beats.p.data.eq(load_beat)]
        else:
            part = Signal(range(parts))
            m.d.comb += [
                last_part.eq(part == parts - 1),
                self.beats.p.data.eq(load_beat.word_select(part, p["bus_bits"])),
            ]
            with m.If(offers & leaves):
                m.d.sync += part.eq(part + 1)

        with m.FSM(name="state") as state:
            with m.State("IDLE"):
                m.d.sync += [last.eq(left <= self.k_tile), granules.eq(following)]
                with m.If(tiles.valid & (complete != 0)):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += starts.eq(1)
                m.next = "JOB"
            with m.State("JOB"):
                m.d.comb += self.jobs.valid.eq(ways[0].granules.valid)  # all ways count as long
                with m.If(self.jobs.valid & self.jobs.ready):
                    m.d.sync += region.eq(region + length)
                    m.next = "IMAGE"
            with m.State("IMAGE"):
                m.d.comb += [
                    offers.eq(~all_ended),
                    self.beats.valid.eq(offers),
                    takes_granules.eq(leaves & last_part),
                    freed.eq(all_ended),
                ]
                with m.If(all_ended):
                    m.d.sync += [half.eq(~half), rows_done.eq(Mux(last, 0, rows_done + self.k_tile))]
                    m.next = "IDLE"
                    with m.If(last):
                        m.next = "LENGTH_JOB"
            with m.State("LENGTH_JOB"):
                m.d.comb += [self.jobs.valid.eq(1), address.eq(tile.length_address), job_beats.eq(1)]
                with m.If(self.jobs.ready):
                    m.next = "LENGTH"
            with m.State("LENGTH"):
                words = p["bus_bits"] // 32
                lane = tile.length_address[2 : 2 + _log2(words)]
                word = Signal(32)
                m.d.comb += [
                    word.eq(region),
                    self.beats.valid.eq(1),
                    self.beats.p.data.eq(word.replicate(words)),
                    self.beats.p.strobes.eq(1 << lane if words > 1 else 1),
                    tiles.ready.eq(leaves),
                ]
                with m.If(leaves):
                    m.d.sync += region.eq(1)
                    m.next = "IDLE"
        return state.ongoing("IDLE")


def _log2(power):
    return power.bit_length() - 1
