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
    """Reads a chain of regions: each as often as ``passes`` says, and the chain as often as ``rounds`` says.

    A region is a header beat, then tile images (docs/memory-format.md). The header holds the length of the
    next region, 0 in the last one; it is stripped, and ``last`` marks the end of each pass over a region.

    Parameters
    ----------
    bus_bits, address_bits, buffer : of the `BurstReader`.
    granule_bits, ways : of a load beat. Where a granule is wider than the bus, bus beats are put together.
    pass_step : how many positions of ``passes`` and of ``rounds`` a tile stands for.

    Members
    -------
    start : in; a pulse. What follows is constant from then until reset.
    address, length : in; of the first region; in bytes, aligned to a load beat; in load beats.
    stride : in; bytes from a region's begin to the next one's; 0: they lie one behind the other.
    passes : in; each region is read ``ceil(passes / pass_step)`` times.
    rounds, block : in; the chain is walked ``ceil(rounds / (block * pass_step))`` times.
    requests, answer, failed : the reader's.
    bad_length : out; high, until reset: a header's length is 1.
    ended : out; high, until reset, when the last beat is handed over.
    beats : stream out; tile images.

    Latency: that of the `BurstReader`; LoopCounter.SETTLES + 1 cycles from start to the first job.
    Throughput: a bus beat a cycle; a pass costs a beat more, and takes LoopCounter.SETTLES + 1 at least.
    Flow control: valid/ready on ``beats``, credits towards memory. Reset: drops everything.
    Tested range: bus 32..512 bits, 1 to 4 of its beats a load beat; 1 to 5 regions, 9 passes, 3 rounds.
    """

    def __init__(self, *, bus_bits, address_bits, buffer, granule_bits, ways, pass_step):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "buffer": buffer,
            "granule_bits": granule_bits, "ways": ways, "pass_step": pass_step,
        }  # fmt: skip
        self._beat_bits = granule_bits * ways
        super().__init__(
            {
                "start": In(1),
                "address": In(address_bits),
                "length": In(LENGTH_BITS),
                "stride": In(32),
                "passes": In(DIM_BITS),
                "rounds": In(DIM_BITS),
                "block": In(DIM_BITS),
                "requests": Out(stream.Signature(read_request_layout(address_bits))),
                "answer": In(read_answer_layout(bus_bits)),
                "failed": Out(1),
                "bad_length": Out(1),
                "ended": Out(1),
                "beats": Out(stream.Signature(beat_layout(granule_bits, ways))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        parts = self._beat_bits // p["bus_bits"]  # bus beats of a load beat
        beat_shift = (self._beat_bits // 8 - 1).bit_length()
        # Four bursts may be on their way: one arrives while others cover the memory's latency.
        reader = BurstReader(
            bus_bits=p["bus_bits"], address_bits=p["address_bits"], buffer=p["buffer"], burst=p["buffer"] // 4
        )
        m.submodules.reader = place(platform, reader, "load_reader")
        most_step = ((1 << DIM_BITS) - 1) * p["pass_step"]
        m.submodules.pass_loop = passes = LoopCounter(width=DIM_BITS, most=p["pass_step"])
        m.submodules.round_loop = rounds = LoopCounter(width=DIM_BITS, most=most_step)
        m.submodules.arriving_loop = arriving = LoopCounter(width=DIM_BITS, most=p["pass_step"])
        wiring.connect(m, reader.requests, wiring.flipped(self.requests))

        # Jobs: a pass over a region each.
        address, length = Signal(p["address_bits"] + 1), Signal.like(self.length)
        behind = Signal.like(address)
        following, known = Signal.like(self.length), Signal()  # length of the next region
        asked, walked = Signal(), Signal()
        m.d.comb += [
            reader.answer.eq(self.answer),
            self.failed.eq(reader.failed),
            reader.jobs.p.address.eq(address),
            reader.jobs.p.beats.eq(length << (parts - 1).bit_length()),
            asked.eq(reader.jobs.valid & reader.jobs.ready),
            passes.total.eq(self.passes),
            arriving.total.eq(self.passes),
            passes.next.eq(asked),
            rounds.total.eq(self.rounds),
            rounds.step.eq(self.block * p["pass_step"]),
            rounds.next.eq(walked),
            behind.eq(address + Mux(self.stride == 0, length << beat_shift, self.stride)),
        ]
        # After each step of the loops they take a moment, as do their inputs after start.
        waits_for_last, unsettled = Signal(), Signal(range(LoopCounter.SETTLES + 1))
        with m.If(self.start | asked):
            m.d.sync += unsettled.eq(LoopCounter.SETTLES)
        with m.Elif(unsettled != 0):
            m.d.sync += unsettled.eq(unsettled - 1)
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.sync += [address.eq(self.address), length.eq(self.length)]
                with m.If(self.start):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += reader.jobs.valid.eq(unsettled == 0)
                with m.If(asked & passes.last):
                    m.next = "NEXT"
            with m.State("NEXT"):
                with m.If(known & (following != 1)):
                    m.d.sync += [known.eq(0), length.eq(following), address.eq(behind)]
                    m.next = "ASK"
                    with m.If(following == 0):
                        m.d.comb += walked.eq(1)
                        m.d.sync += [length.eq(self.length), address.eq(self.address)]
                        with m.If(rounds.last):
                            m.next = "LAST"
            with m.State("LAST"):  # all is asked for
                m.d.comb += waits_for_last.eq(1)

        # Beats: put together, the first of each pass taken out.
        whole, last = self._assemble(m, reader.beats, parts)
        is_header = Signal(init=1)
        ends_early, arrived = Signal(), Signal(LoopCounter.SETTLES)  # a pass in the cycles before
        m.d.sync += arrived.eq(Cat(arriving.next, arrived))
        m.d.comb += [
            self.beats.p.granules.eq(whole.p.data),
            self.beats.p.last.eq(last),
            self.beats.valid.eq(whole.valid & ~is_header & ~ends_early),
            ends_early.eq(last & arrived.any()),
            whole.ready.eq((self.beats.ready | is_header) & ~ends_early),
            arriving.next.eq(whole.valid & whole.ready & last),
        ]
        to_come = Signal(3)  # passes asked for that have not arrived
        m.d.sync += to_come.eq(to_come + asked - arriving.next)
        with m.If(whole.valid & whole.ready):
            m.d.sync += is_header.eq(last)
            with m.If(is_header & arriving.first):
                m.d.sync += [following.eq(whole.p.data[:LENGTH_BITS]), known.eq(1)]
        with m.If(waits_for_last & (to_come == 0)):
            m.d.sync += self.ended.eq(1)
        # The loop cannot leave a region before that region's header is here.
        with m.If(known & (following == 1)):
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
