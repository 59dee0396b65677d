# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Post-processing unit: 32-bit results become the next layer's activations, as that layer loads them."""

from amaranth import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.hierarchy import place
from sliceforge.hw.image_writer import ImageWriter, most_image_beats
from sliceforge.hw.output_regions import OutputRegions
from sliceforge.hw.payloads import (
    DIM_BITS,
    K_TILE_BITS,
    nest_layout,
    result_layout,
    word_layout,
    write_beat_layout,
    write_job_layout,
)
from sliceforge.hw.requantize_unit import RequantizeUnit

__all__ = ["PostProcessing"]


class PostProcessing(wiring.Component):
    """Requantizes results (`RequantizeUnit`, arithmetic.md section 9), slices and run-length codes them for
    the next layer (`ImageWriter`), and says where they go (`OutputRegions`). Wiring only.

    Parameters
    ----------
    bus_bits, address_bits : of the bus. ``tile_m``, ``tile_n``, ``k_bits`` : of the `TileNest`.
    layout, banks, ways : of the activations' tile images. ``sums`` : results in a beat.

    Members
    -------
    start : in; a pulse. All settings are constant from then until reset.
    loops : in; the layer's. zero_point, relu, use_table : in; of the `RequantizeUnit`.
    lo_bits, frequent, k_tile : in; the next layer's. With a table, the table does the rounding for its
        lo_bits.
    address, length_address, stride, group, tile_rows, tile_columns : in; of `OutputRegions`.
    scales, table : stream in; of the `RequantizeUnit`. results : stream in; results, no partial sums.
    jobs, beats : stream out; for the `BurstWriter`.
    done : out; high, until reset, when the layer's last beat is handed over. bad_scale : out; high, until
        reset.
    """

    def __init__(
        self, *, bus_bits, address_bits, tile_m, tile_n, k_bits, layout, banks, ways, sums
    ):  # fmt: skip
        self._requantize = {"sums": sums, "tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits}
        self._writer = {
            "layout": layout, "banks": banks, "ways": ways, "sums": sums, "tile_m": tile_m,
            "bus_bits": bus_bits, "address_bits": address_bits,
        }  # fmt: skip
        self._regions = {
            "address_bits": address_bits, "tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits
        }  # fmt: skip
        self.parameters = {**self._writer, **self._regions}
        most_beats = most_image_beats(layout, banks, ways, bus_bits)
        super().__init__(
            {
                "start": In(1),
                "loops": In(nest_layout()),
                "zero_point": In(8),
                "relu": In(1),
                "use_table": In(1),
                "lo_bits": In(3),
                "frequent": In(4),
                "k_tile": In(K_TILE_BITS),
                "address": In(address_bits),
                "length_address": In(address_bits),
                "stride": In(32),
                "group": In(DIM_BITS),
                "tile_rows": In(DIM_BITS),
                "tile_columns": In(DIM_BITS),
                "scales": In(stream.Signature(word_layout())),
                "table": In(stream.Signature(word_layout())),
                "results": In(stream.Signature(result_layout(sums))),
                "jobs": Out(stream.Signature(write_job_layout(address_bits, most_beats))),
                "beats": Out(stream.Signature(write_beat_layout(bus_bits))),
                "done": Out(1),
                "bad_scale": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        requantize = RequantizeUnit(**self._requantize)
        regions = OutputRegions(**self._regions)
        writer = ImageWriter(**self._writer)
        m.submodules.requantize_unit = place(platform, requantize, "requantize_unit")
        m.submodules.output_regions = regions
        m.submodules.image_writer = place(platform, writer, "image_writer")
        wiring.connect(m, wiring.flipped(self.scales), requantize.scales)
        wiring.connect(m, wiring.flipped(self.table), requantize.table)
        wiring.connect(m, wiring.flipped(self.results), requantize.results)
        wiring.connect(m, requantize.values, writer.values)
        wiring.connect(m, regions.tiles, writer.tiles)
        wiring.connect(m, writer.jobs, wiring.flipped(self.jobs))
        wiring.connect(m, writer.beats, wiring.flipped(self.beats))
        m.d.comb += [
            requantize.loops.eq(self.loops),
            requantize.zero_out.eq(self.zero_point),
            requantize.relu.eq(self.relu),
            requantize.use_table.eq(self.use_table),
            # 2^(lo_bits - 5), so that slicing rounds: 0, 1, 2 for 4, 5, 6.
            requantize.rounding.eq(Mux(self.use_table, 0, self.lo_bits - 4)),
            writer.lo_bits.eq(self.lo_bits),
            writer.frequent.eq(self.frequent),
            writer.k_tile.eq(self.k_tile),
            regions.start.eq(self.start),
            regions.loops.eq(self.loops),
            self.done.eq(writer.done),
            self.bad_scale.eq(requantize.bad_scale),
        ]
        for name in ("address", "length_address", "stride", "group", "tile_rows", "tile_columns"):
            m.d.comb += getattr(regions, name).eq(getattr(self, name))
        return m
