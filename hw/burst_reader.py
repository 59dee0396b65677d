"""Burst reader: turns jobs, spans of memory, into bursts, and their answers into one stream of beats."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.axi import window_beats
from sliceforge.hw.payloads import bus_beat_layout, read_answer_layout, read_job_layout, read_request_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["BurstReader"]


class BurstReader(wiring.Component):
    """Reads jobs (``beats`` beats of the bus from ``address`` on) in order; prefetches into its buffer.

    A burst is asked for only when the buffer has room for all of it, so that its answer is never held up
    and one reader cannot block another. Bursts end where an aligned block of ``burst`` beats ends (less
    where the bus's largest burst or 4 KiB demand it): none crosses 4 KiB.

    Parameters
    ----------
    bus_bits, address_bits : of the bus. ``buffer`` : beats of the buffer, 4 or more.
    burst : beats of the largest burst, a power of 2, ``buffer`` or less.

    Members
    -------
    jobs : stream in; a beat's address and a number of beats, 1 or more.
    requests : stream out; bursts for the `ReadArbiter`.
    answer : in; a beat for this reader, when its ``valid`` is high. Always taken.
    beats : stream out; ``last`` on the last beat of a job.
    failed : out; high, until reset, after an answer with an error or a job past the address space.
        What comes after that is not to be trusted.

    Latency: 3 cycles from job to request, 3 from answer to beat. Throughput: a beat a cycle, if bursts have
    two or more; a burst every other cycle, and a job's first one 3 cycles after the last one before.
    Flow control: valid/ready. Reset while answers are owed: the `ReadArbiter` must drop them.
    """

    def __init__(self, *, bus_bits, address_bits, buffer, burst):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "buffer": buffer, "burst": burst
        }  # fmt: skip
        self._shift = (bus_bits // 8).bit_length() - 1  # bits of an address inside a beat
        self._burst = min(burst, window_beats(bus_bits))
        super().__init__(
            {
                "jobs": In(stream.Signature(read_job_layout(address_bits))),
                "requests": Out(stream.Signature(read_request_layout(address_bits))),
                "answer": In(read_answer_layout(bus_bits)),
                "beats": Out(stream.Signature(bus_beat_layout(bus_bits))),
                "failed": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p, burst = self.parameters, self._burst

        # The job on its way: the next beat's number in memory, with a bit more for the end of the space.
        active = Signal()
        beat = Signal(p["address_bits"] - self._shift + 1)
        left = Signal.like(self.jobs.p.beats)
        block_left = Signal(range(burst + 1))  # beats up to the end of the aligned block
        count = Signal(range(burst + 1))  # of the next burst, and whether it is known
        counted = Signal()
        room = Signal(range(p["buffer"] + 1), init=p["buffer"])
        request, hands_over = self.requests, Signal()
        past_space = Signal()
        m.d.comb += [
            block_left.eq(burst - beat[: (burst - 1).bit_length()]),
            past_space.eq(active & beat[-1]),
            hands_over.eq(active & counted & ~past_space & (room >= count) & ~request.valid),
        ]
        m.d.sync += [count.eq(Mux(left < block_left, left, block_left)), counted.eq(active & ~hands_over)]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(hands_over):
            m.d.sync += [
                request.valid.eq(1),
                request.p.address.eq(beat[:-1] << self._shift),
                request.p.last_beat.eq(count - 1),
                beat.eq(beat + count),
                left.eq(left - count),
                active.eq(left != count),
            ]
        with m.If(self.jobs.valid & self.jobs.ready):
            m.d.sync += [
                active.eq(1), beat.eq(self.jobs.p.address >> self._shift), left.eq(self.jobs.p.beats)
            ]  # fmt: skip

        # Lengths of the jobs under way, so that each one's last beat is known when it comes.
        length = data.StructLayout({"beats": self.jobs.p.beats.shape(), "single": 1})
        m.submodules.lengths = lengths = StreamFIFO(length, depth=4)
        m.d.comb += [
            lengths.i.p.beats.eq(self.jobs.p.beats),
            lengths.i.p.single.eq(self.jobs.p.beats == 1),
            lengths.i.valid.eq(self.jobs.valid & ~active),
            self.jobs.ready.eq(lengths.i.ready & ~active),
        ]
        m.submodules.buffer = fifo = StreamFIFO(p["bus_bits"], depth=p["buffer"], buffered=True)
        taken, free, ends = Signal(), Signal(), Signal()
        passed = Signal.like(left)  # beats of the job that have left the buffer
        begins, last = Signal(init=1), Signal()  # the next beat is the first, or the last, of its job
        m.d.comb += [
            fifo.i.payload.eq(self.answer.data),
            fifo.i.valid.eq(self.answer.valid),
            free.eq(~self.beats.valid | self.beats.ready),
            ends.eq(Mux(begins, lengths.o.p.single, last)),
            taken.eq(free & fifo.o.valid & lengths.o.valid),
            fifo.o.ready.eq(free & lengths.o.valid),
            lengths.o.ready.eq(taken & ends),
        ]
        # Block RAM is slow: its output goes into a register first.
        with m.If(free):
            m.d.sync += [
                self.beats.valid.eq(taken), self.beats.p.data.eq(fifo.o.payload), self.beats.p.last.eq(ends)
            ]  # fmt: skip
        m.d.sync += room.eq(room + taken - Mux(hands_over, count, 0))
        with m.If(taken):
            m.d.sync += [
                begins.eq(ends),
                last.eq(passed + 2 == lengths.o.p.beats),
                passed.eq(Mux(ends, 0, passed + 1)),
            ]
        with m.If((self.answer.valid & self.answer.error) | past_space):
            m.d.sync += self.failed.eq(1)
        return m
