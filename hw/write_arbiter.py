"""Write arbiter: the jobs of several writers, one after the other, and the beats of each in its turn."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import index, write_beat_layout, write_job_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["WriteArbiter"]


class WriteArbiter(wiring.Component):
    """Passes jobs and beats of two writers to the `BurstWriter`; the second goes first.

    Parameters
    ----------
    bus_bits, address_bits, most_beats : of the jobs and beats.

    Members
    -------
    jobs_{i}, beats_{i} : stream in. A job's beats must follow it without waiting for the other writer.
    jobs, beats : stream out.

    Latency: 1 for jobs, and 1 from taking a job to its beats. Throughput: a beat a cycle. Flow control:
    valid/ready; ready for jobs does not depend on ``jobs``. Four jobs go ahead of their beats.
    Tested range: bus_bits 32, 128; address_bits 32, 64; jobs of 1 to 17 beats.
    """

    def __init__(self, *, bus_bits, address_bits, most_beats):
        self.parameters = {"bus_bits": bus_bits, "address_bits": address_bits, "most_beats": most_beats}
        jobs = stream.Signature(write_job_layout(address_bits, most_beats))
        beats = stream.Signature(write_beat_layout(bus_bits))
        super().__init__(
            {
                **{f"jobs_{i}": In(jobs) for i in range(2)},
                **{f"beats_{i}": In(beats) for i in range(2)},
                "jobs": Out(jobs),
                "beats": Out(beats),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = self.jobs.p
        owner_layout = data.StructLayout({"writer": index(2), "beats": job.beats.shape()})
        m.submodules.owners = owners = StreamFIFO(owner_layout, depth=4)
        # What was chosen waits here for the bus: no path leads from there back through the writers.
        m.submodules.chosen = chosen = StreamFIFO(job.shape(), depth=2)
        wiring.connect(m, chosen.o, wiring.flipped(self.jobs))
        second, takes = self.jobs_1.valid, chosen.i.ready & owners.i.ready
        m.d.comb += [
            chosen.i.payload.eq(Mux(second, self.jobs_1.payload, self.jobs_0.payload)),
            chosen.i.valid.eq((second | self.jobs_0.valid) & owners.i.ready),
            self.jobs_0.ready.eq(~second & takes),
            self.jobs_1.ready.eq(takes),
            owners.i.valid.eq((second | self.jobs_0.valid) & chosen.i.ready),
            owners.i.p.writer.eq(second),
            owners.i.p.beats.eq(chosen.i.p.beats),
        ]

        passed, taken, ends = Signal.like(job.beats), Signal(), Signal()
        writer, beats = owners.o.p.writer, self.beats
        m.d.comb += [
            beats.payload.eq(Mux(writer, self.beats_1.payload, self.beats_0.payload)),
            beats.valid.eq(owners.o.valid & Mux(writer, self.beats_1.valid, self.beats_0.valid)),
            self.beats_0.ready.eq(owners.o.valid & ~writer & beats.ready),
            self.beats_1.ready.eq(owners.o.valid & writer & beats.ready),
            taken.eq(beats.valid & beats.ready),
            ends.eq(passed + 1 == owners.o.p.beats),
            owners.o.ready.eq(taken & ends),
        ]
        with m.If(taken):
            m.d.sync += passed.eq(Mux(ends, 0, passed + 1))
        return m
