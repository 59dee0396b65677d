# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Load unit: fetches the tile images of one operand from memory and streams them into a tile memory."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.burst_reader import BurstReader
from sliceforge.hw.hierarchy import place
from sliceforge.hw.loop_counter import LoopCounter
from sliceforge.hw.payloads import (
    DIM_BITS,
    LENGTH_BITS,
    beat_layout,
    bus_beat_layout,
    read_answer_layout,
    read_request_layout,
)

__all__ = ["LoadUnit"]


class LoadUnit(wiring.Component):
    """Reads each region of memory as often as the loops say, one region after the other.

    A region is a header beat, then tile images (docs/memory-format.md). The header holds the length of the
    next region; it is stripped, and ``last`` marks the end of each pass over a region.

    Parameters
    ----------
    bus_bits, address_bits, buffer : of the `BurstReader`.
    granule_bits, ways : of a load beat. Where a granule is wider than the bus, bus beats are put together.
    region_step, pass_step : how many positions of ``regions`` and ``passes`` a region and a pass stand for.

    Members
    -------
    start : in; a pulse. What follows is constant from then until reset.
    address, length : in; of the first region; in bytes, aligned to a load beat; in load beats.
    regions, passes : in; there are ``ceil(regions / region_step)`` regions, each is read
        ``ceil(passes / pass_step)`` times.
    requests, answer, failed : the reader's.
    bad_length : out; high, until reset: a header's length is 0 or 1 before the last region, or not 0 there.
    beats : stream out; tile images.

    Latency: that of the `BurstReader`. Throughput: a bus beat a cycle; a pass costs a beat more.
    Flow control: valid/ready on ``beats``, credits towards memory. Reset: drops everything.
    """

    def __init__(self, *, bus_bits, address_bits, buffer, granule_bits, ways, region_step, pass_step):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "buffer": buffer,
            "granule_bits": granule_bits, "ways": ways, "region_step": region_step, "pass_step": pass_step,
        }  # fmt: skip
        self._beat_bits = granule_bits * ways
        super().__init__(
            {
                "start": In(1),
                "address": In(address_bits),
                "length": In(LENGTH_BITS),
                "regions": In(DIM_BITS),
                "passes": In(DIM_BITS),
                "requests": Out(stream.Signature(read_request_layout(address_bits))),
                "answer": In(read_answer_layout(bus_bits)),
                "failed": Out(1),
                "bad_length": Out(1),
                "beats": Out(stream.Signature(beat_layout(granule_bits, ways))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        parts = self._beat_bits // p["bus_bits"]  # bus beats of a load beat
        # Four bursts may be on their way: one arrives while others cover the memory's latency.
        reader = BurstReader(
            bus_bits=p["bus_bits"], address_bits=p["address_bits"], buffer=p["buffer"], burst=p["buffer"] // 4
        )
        m.submodules.reader = place(platform, reader, "load_reader")
        m.submodules.region_loop = regions = LoopCounter(width=DIM_BITS, step=p["region_step"])
        m.submodules.pass_loop = passes = LoopCounter(width=DIM_BITS, step=p["pass_step"])
        m.submodules.arriving_loop = arriving = LoopCounter(width=DIM_BITS, step=p["pass_step"])
        wiring.connect(m, reader.requests, wiring.flipped(self.requests))

        # Jobs: a pass over a region each.
        address, length = Signal(p["address_bits"] + 1), Signal.like(self.length)
        following, known = Signal.like(self.length), Signal()  # length of the next region
        asked = Signal()
        m.d.comb += [
            reader.answer.eq(self.answer),
            self.failed.eq(reader.failed),
            reader.jobs.p.address.eq(address),
            reader.jobs.p.beats.eq(length << (parts - 1).bit_length()),
            asked.eq(reader.jobs.valid & reader.jobs.ready),
            regions.total.eq(self.regions),
            passes.total.eq(self.passes),
            arriving.total.eq(self.passes),
            passes.next.eq(asked),
        ]
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.sync += [address.eq(self.address), length.eq(self.length)]
                with m.If(self.start):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += reader.jobs.valid.eq(1)
                with m.If(asked & passes.last):
                    m.next = "NEXT"
            with m.State("NEXT"):  # stays here after the last region
                with m.If(known & (following > 1) & ~regions.last):
                    m.d.comb += regions.next.eq(1)
                    m.d.sync += [
                        known.eq(0),
                        length.eq(following),
                        address.eq(address + (length << (self._beat_bits // 8 - 1).bit_length())),
                    ]
                    m.next = "ASK"

        # Beats: put together, the first of each pass taken out.
        whole, last = self._assemble(m, reader.beats, parts)
        is_header = Signal(init=1)
        m.d.comb += [
            self.beats.p.granules.eq(whole.p.data),
            self.beats.p.last.eq(last),
            self.beats.valid.eq(whole.valid & ~is_header),
            whole.ready.eq(self.beats.ready | is_header),
            arriving.next.eq(whole.valid & whole.ready & last),
        ]
        with m.If(whole.valid & whole.ready):
            m.d.sync += is_header.eq(last)
            with m.If(is_header & arriving.first):
                m.d.sync += [following.eq(whole.p.data[:LENGTH_BITS]), known.eq(1)]
        # The loop cannot leave a region before that region's header is here.
        with m.If(known & Mux(regions.last, following != 0, following < 2)):
            m.d.sync += self.bad_length.eq(1)
        return m

    def _assemble(self, m, beats, parts):
        """A stream of load beats from ``parts`` bus beats each, lowest first; and its ``last``."""
        if parts == 1:
            return beats, beats.p.last
        bus_bits = self.parameters["bus_bits"]
        whole = stream.Signature(bus_beat_layout(self._beat_bits)).create()
        earlier = Signal(self._beat_bits - bus_bits)
        part = Signal(range(parts))
        ends = part == parts - 1
        m.d.comb += [
            whole.p.data.eq(Cat(earlier, beats.p.data)),
            whole.valid.eq(beats.valid & ends),
            beats.ready.eq(whole.ready | ~ends),
        ]
        with m.If(beats.valid & beats.ready):
            m.d.sync += [
                part.eq(part + 1),
                earlier.eq(Cat(earlier, beats.p.data)[bus_bits:]),
            ]
        return whole, beats.p.last
