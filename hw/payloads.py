"""What travels between the blocks: payloads of the streams."""

from amaranth import Mux
from amaranth.lib import data

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode

__all__ = [
    "COUNTER_BITS", "DIM_BITS", "K_TILE_BITS", "LENGTH_BITS", "PSUM_BANKS", "beat_layout", "bias_layout",
    "bus_beat_layout", "image_tile_layout", "index",
    "layer_layout", "lo_granules", "nest_layout", "output_row_layout", "output_tile_layout",
    "psum_fill_layout", "read_answer_layout", "read_job_layout", "read_request_layout", "record_layout",
    "result_layout", "status_layout", "sum_layout",
    "tile_layout", "value_layout", "word_layout", "write_beat_layout", "write_job_layout",
]  # fmt: skip


def index(count):
    """Shape of an index below ``count``: at least one bit, as Verilog has no signal of none."""
    return range(max(2, count))


DIM_BITS = 24
"""Width of M, N and K in a layer descriptor."""
LENGTH_BITS = 32
"""Width of a region's length in load beats."""
K_TILE_BITS = 8
"""Width of the length of a k-tile."""
PSUM_BANKS = 4
"""Banks of 8 bits of partial sums: the largest group size of APSQ."""
COUNTER_BITS = 40
"""Width of the counters in a layer's status: at least an hour at 300 MHz."""


def nest_layout():
    """What the `TileNest` of a layer needs to know; ``block`` is in tiles, the rest in positions.

    A K-chunk is at most K.
    """
    return data.StructLayout(
        {
            "m": DIM_BITS,
            "n": DIM_BITS,
            "k": DIM_BITS,
            "dataflow": Dataflow,
            "block": DIM_BITS,
            "chunk": DIM_BITS,
            "k_tile": K_TILE_BITS,
        }
    )


def layer_layout(weight_slices):
    """Layer descriptor: ``Y = W @ (x_hat - zp) + bias``, with zp folded into the bias by the host."""
    return data.StructLayout(
        {
            "loops": nest_layout(),
            "weight_slices": range(weight_slices + 2),  # one code more than legal, so that it can be refused
            "lo_bits": 3,
            "frequent": 4,
            "weights_resident": 1,
            "activations_resident": 1,
            "blocks_share": 1,  # the stationary operand stays on chip over all blocks
            "activations_span": DIM_BITS,  # positions along K of a region of activations
            "psum_group": 3,  # 0: partial sums of 32 bits
            "psums_resident": 1,
        }
    )


def status_layout():
    """What became of a layer: its error code and its counters."""
    return data.StructLayout(
        {
            "error": ErrorCode,
            "cycles": COUNTER_BITS,  # first outer product issued .. last accumulation
            "total_cycles": COUNTER_BITS,  # descriptor accepted .. last result accepted
            "products": COUNTER_BITS,  # outer products issued by all operators
        }
    )


def lo_granules(length, dense, most):
    """Granules of ``length`` positions with ``dense`` slices each, ``ceil(length * dense / 4)``, as a value.

    ``most`` is the largest ``dense`` of the machine, 1 or 2.
    """
    return ((length if most == 1 else Mux(dense == 2, length << 1, length)) + 3) >> 2


def beat_layout(granule_bits, ways):
    """A beat of a load stream: ``ways`` granules side by side; ``last`` ends a region (`TileLoader`)."""
    return data.StructLayout({"granules": data.ArrayLayout(granule_bits, ways), "last": 1})


def bias_layout():
    """A folded bias: one 32-bit signed word a row."""
    return data.StructLayout({"bias": 32})


def word_layout():
    """A word of a layer's parameters; ``last`` on the last of its kind."""
    return data.StructLayout({"word": 32, "last": 1})


def record_layout(vector, dense):
    """All slices of one operand at one k: ``dense`` LO vectors and, where it is ``kept``, the HO vector.

    ``last`` marks the last k of an output tile.
    """
    return data.StructLayout(
        {"lo": data.ArrayLayout(4 * vector, dense), "hi": 4 * vector, "kept": 1, "last": 1}
    )


def tile_layout(tile_k, address_bits):
    """A k-tile that a feeder is to read: where its slot starts and how many positions it has.

    ``release``: nobody needs the slot after this. ``last``: the tile ends an output tile.
    """
    return data.StructLayout({"base": address_bits, "length": range(tile_k + 1), "release": 1, "last": 1})


def sum_layout(vector, accumulator_bits, kept_bits):
    """One row of an operator's accumulators and the sum of the weights that met kept HO activations."""
    return data.StructLayout(
        {"accumulators": data.ArrayLayout(accumulator_bits, vector), "kept_weights": kept_bits}
    )


def output_tile_layout(tile_m, tile_n):
    """A tile that leaves the array after a K-chunk: how many of its rows and columns count, and where it
    stands in the layer.
    """
    return data.StructLayout(
        {
            "rows": range(tile_m + 1),
            "columns": range(tile_n + 1),
            "first_chunk": 1,  # there are no partial sums of it yet
            "last_chunk": 1,  # its sums are results
            "chunk_ends": 1,  # the next tile belongs to another K-chunk
            "frees_rows": 1,  # its row of tiles does not come again: their biases are used up
            "last": 1,  # the last tile of the layer
        }
    )


def result_layout(sums):
    """A beat of ``sums`` words: 32-bit results of one row, neighbouring columns, of which the first ``count``
    count; or, with ``is_psum``, partial sums on their way to memory: ``count`` words of all of a tile.
    """
    return data.StructLayout(
        {
            "sums": data.ArrayLayout(32, sums),
            "count": range(sums + 1),
            "is_psum": 1,
            "last_of_row": 1,  # of partial sums: of the tile
            "last_of_tile": 1,
            "frees_rows": 1,  # with last_of_tile: as of `output_tile_layout`
            "last": 1,
        }
    )


def value_layout(values):
    """``values`` 8-bit activations of one row, neighbouring columns; the first ``count`` of them count."""
    return data.StructLayout(
        {
            "values": data.ArrayLayout(8, values),
            "count": range(values + 1),
            "last_of_row": 1,
            "last_of_tile": 1,
            "last": 1,  # of the layer
        }
    )


def image_tile_layout(address_bits, tile_m, tile_n):
    """An output tile of ``rows`` x ``columns`` values; where its region and the region's length go.

    The addresses have a bit more than the bus: set, they lie past the address space.
    """
    return data.StructLayout(
        {
            "rows": range(tile_m + 1),
            "columns": range(tile_n + 1),
            "address": address_bits + 1,
            "length_address": address_bits + 1,
        }
    )


def psum_fill_layout(sums, words):
    """Partial sums that come back from memory: for the ``columns`` of a tile's ``word``, at full width, or
    those of one ``position`` of its group. ``last`` on the tile's last.
    """
    return data.StructLayout(
        {
            "word": index(words),
            "columns": sums,
            "position": range(PSUM_BANKS),
            "full_sums": data.ArrayLayout(32, sums),
            "narrow": data.ArrayLayout(8, sums),
            "last": 1,
        }
    )


def read_job_layout(address_bits):
    """A span of memory to read: ``beats`` beats of the bus, 1 or more, from the beat with ``address`` on.

    The address has a bit more than the bus: set, the span lies past the address space.
    """
    # A load beat has up to four beats of the bus.
    return data.StructLayout({"address": address_bits + 1, "beats": LENGTH_BITS + 2})


def read_request_layout(address_bits):
    """A burst to read: ``last_beat`` is the number of its beats less 1."""
    return data.StructLayout({"address": address_bits, "last_beat": 8})


def read_answer_layout(bus_bits):
    """A beat that arrives in this cycle if ``valid``; ``error``: the memory says so."""
    return data.StructLayout({"data": bus_bits, "error": 1, "valid": 1})


def bus_beat_layout(bus_bits):
    """A beat read from memory; ``last`` ends its job."""
    return data.StructLayout({"data": bus_bits, "last": 1})


def output_row_layout(address_bits, most_words):
    """Where a row of an output tile, or a tile of partial sums, lies in memory: ``words`` words of 32 bits
    from ``address`` on.

    The address has a bit more than the bus: set, the row lies past the address space.
    """
    return data.StructLayout(
        {"address": address_bits + 1, "words": range(most_words + 1), "first_of_tile": 1, "is_psum": 1}
    )


def write_job_layout(address_bits, most_beats):
    """A span of memory to write, as `read_job_layout`'s; ``is_psum``: what it holds will be read again."""
    return data.StructLayout({"address": address_bits + 1, "beats": range(most_beats + 1), "is_psum": 1})


def write_beat_layout(bus_bits):
    """A beat to write, with a strobe for each word of 32 bits."""
    return data.StructLayout({"data": bus_bits, "strobes": bus_bits // 32})
