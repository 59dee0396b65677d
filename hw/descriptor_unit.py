"""Descriptor unit: fetches a layer descriptor from memory, and refuses an illegal one."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR, DESCRIPTOR_BYTES, DESCRIPTOR_FORMAT, PSUM_ALIGNMENT
from sliceforge.hw.burst_reader import BurstReader
from sliceforge.hw.payloads import index, read_answer_layout, read_request_layout

__all__ = ["DescriptorUnit", "descriptor_layout"]


def descriptor_layout():
    """All fields of a descriptor; a word of one field has the word's name."""
    return data.StructLayout(
        {
            (word.name if field.name == "VALUE" else field.name).lower(): field.width
            for word in DESCRIPTOR
            for field in word.fields
        }
    )


class DescriptorUnit(wiring.Component):
    """Fetches one descriptor (gen/registers.py, `DESCRIPTOR`) after each reset.

    It checks what the bus needs, and what becomes of results: format, reserved bits, addresses, lengths,
    strides, the next layer's lo_bits, r and k-tile, exponents. The layer's own shape, slices, lo_bits and r
    are checked by the core.

    Parameters
    ----------
    bus_bits, address_bits : of the bus. ``load_beat_bytes`` : alignment of weights, activations and
    requantized results, a power of 2.
    tile_k : the longest k-tile.

    Members
    -------
    start : in; a pulse. address : in; of the descriptor, aligned; constant from then until reset.
    requests, answer, failed : as of the `BurstReader`.
    descriptor : out; its fields. done : out; high when they are complete, until reset.
    illegal : out; with ``done``: what is wrong with it, or NONE.

    Latency: that of the memory, a cycle a beat, and two to check. Tested range: bus 32..512 bits, load beats
    of 8 to 64 bytes, longest k-tiles of 4 to 128.
    """

    def __init__(self, *, bus_bits, address_bits, load_beat_bytes, tile_k):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "load_beat_bytes": load_beat_bytes,
            "tile_k": tile_k,
        }  # fmt: skip
        super().__init__(
            {
                "start": In(1),
                "address": In(address_bits),
                "requests": Out(stream.Signature(read_request_layout(address_bits))),
                "answer": In(read_answer_layout(bus_bits)),
                "failed": Out(1),
                "descriptor": Out(descriptor_layout()),
                "done": Out(1),
                "illegal": Out(ErrorCode),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus_bits, address_bits = self.parameters["bus_bits"], self.parameters["address_bits"]
        beats = DESCRIPTOR_BYTES * 8 // bus_bits
        m.submodules.reader = reader = BurstReader(
            bus_bits=bus_bits, address_bits=address_bits, buffer=max(4, beats), burst=beats
        )
        wiring.connect(m, reader.requests, wiring.flipped(self.requests))
        pending = Signal()
        m.d.comb += [
            reader.answer.eq(self.answer),
            self.failed.eq(reader.failed),
            reader.jobs.valid.eq(pending),
            reader.jobs.p.address.eq(self.address),
            reader.jobs.p.beats.eq(beats),
            reader.beats.ready.eq(1),
        ]
        with m.If(reader.jobs.ready):
            m.d.sync += pending.eq(0)
        with m.If(self.start):
            m.d.sync += pending.eq(1)

        beat, reserved, complete, checked = Signal(index(beats)), Signal(), Signal(), Signal()
        m.d.sync += [checked.eq(complete), self.done.eq(checked)]
        with m.If(reader.beats.valid):
            m.d.sync += [beat.eq(beat + 1), complete.eq(reader.beats.p.last)]
            with m.Switch(beat):
                for number in range(beats):
                    with m.Case(number):
                        self._store_beat(m, number, reader.beats.p.data, reserved)
        self._check(m, reserved)
        return m

    def _store_beat(self, m, number, bits, reserved):
        """Keeps the fields of beat ``number``; what no field covers must be 0."""
        words = {word.offset // 4: word for word in DESCRIPTOR}
        count = self.parameters["bus_bits"] // 32
        for lane in range(count):
            here, used = bits.word_select(lane, 32), 0
            word = words.get(number * count + lane)
            for field in word.fields if word else ():
                name = word.name if field.name == "VALUE" else field.name
                used |= field.mask
                m.d.sync += self.descriptor[name.lower()].eq(here[field.lsb : field.lsb + field.width])
            unused = Cat(here[bit] for bit in range(32) if not used >> bit & 1)
            if len(unused):
                with m.If(unused.any()):
                    m.d.sync += reserved.eq(1)

    def _check(self, m, reserved):
        d, address_bits = self.descriptor, self.parameters["address_bits"]
        load_bits = (self.parameters["load_beat_bytes"] - 1).bit_length()
        descriptor_bits = (DESCRIPTOR_BYTES - 1).bit_length()

        def bad_address(name, aligned_bits):
            """Not aligned, or past the address space."""
            low, high = d[f"{name}_address"], d[f"{name}_address_high"]
            return low[:aligned_bits].any() | high[address_bits - 32 :].any()

        next_here = Cat(d.next_address, d.next_address_high).any()
        checks = {
            "ILLEGAL_FORMAT": (d.format != DESCRIPTOR_FORMAT) | reserved,
            "ILLEGAL_WEIGHTS_ADDRESS": bad_address("weights", load_bits),
            "ILLEGAL_ACTIVATIONS_ADDRESS": bad_address("activations", load_bits),
            "ILLEGAL_PARAMETERS_ADDRESS": bad_address("parameters", 2),
            "ILLEGAL_OUTPUT_ADDRESS": bad_address("output", 2)
            | (d.requantize & d.output_address[:load_bits].any()),
            "ILLEGAL_PSUM_ADDRESS": bad_address("psum", (PSUM_ALIGNMENT - 1).bit_length()),
            "ILLEGAL_NEXT_ADDRESS": bad_address("next", descriptor_bits) | (next_here & ~d.next),
            "ILLEGAL_LENGTH": (d.weights_length < 2) | (d.activations_length < 2),
            # Regions of images begin on a load beat.
            "ILLEGAL_STRIDE": Mux(
                d.requantize,
                d.output_stride[:load_bits].any() | (d.output_stride == 0),
                d.output_stride[:2].any() | (d.output_stride[2:] < d.n),
            )
            | d.activations_stride[:load_bits].any(),
            "ILLEGAL_REQUANTIZATION": d.requantize
            & (
                (d.next_lo_bits < 4)
                | (d.next_lo_bits > 6)
                | ((d.next_frequent << d.next_lo_bits) > 255)
                | (d.next_k_tile == 0)
                | (d.next_k_tile > self.parameters["tile_k"])
                | (d.output_group == 0)
                | bad_address("length", 2)
            ),
            # The core would wait for the first word for ever.
            "PSUM_EXPONENTS": (d.psum_group != 0) & (d.exponent_words == 0),
        }
        m.d.sync += self.illegal.eq(ErrorCode.NONE)
        for code, check in reversed(checks.items()):
            refused = Signal(name=f"refused_{code.lower()}")
            m.d.sync += refused.eq(check)
            with m.If(refused):
                m.d.sync += self.illegal.eq(ErrorCode[code])
