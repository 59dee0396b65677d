"""Burst writer: the write half of the AXI4 master."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.axi import OKAY, address_constants, axi_write_master, window_beats
from sliceforge.hw.payloads import write_beat_layout, write_job_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["BurstWriter"]


class BurstWriter(wiring.Component):
    """Writes jobs (spans of beats) in order, as bursts that end where a window (`window_beats`) ends.

    What was begun is completed: when ``drop`` is high, owed beats go out without strobes, so that the memory
    gets all it was promised and nothing is written.

    Parameters
    ----------
    bus_bits, address_bits : of the bus. ``most_beats`` : largest job. ``in_flight`` : bursts without answer.

    Members
    -------
    jobs : stream in. ``beats`` : stream in; the jobs' beats, in order.
    drop : in; forget jobs, take no beats. Held until ``idle``.
    m_axi_aw*, m_axi_w*, m_axi_b* : the bus. All outputs are registers.
    idle : out; nothing on offer, no answer owed, no job. ``owed`` : out; the bus owes an answer or has not
        accepted an address or a beat. ``moves`` : out; it accepted something or answered.
    failed : out; high, until ``drop``, after an answer with an error or a job past the address space.
    psum_written : out; high for a cycle when a job that ``is_psum`` has its last answer.
    beat, words : out; a beat was accepted, with as many words: for the counters.

    Latency: 2 cycles from job to address, 1 from beat to bus. Throughput: a beat a cycle.
    Flow control: valid/ready. It is never reset while the bus owes answers.
    """

    def __init__(self, *, bus_bits, address_bits, most_beats, in_flight):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "most_beats": most_beats,
            "in_flight": in_flight,
        }  # fmt: skip
        self._shift = (bus_bits // 8).bit_length() - 1
        super().__init__(
            {
                "jobs": In(stream.Signature(write_job_layout(address_bits, most_beats))),
                "beats": In(stream.Signature(write_beat_layout(bus_bits))),
                "drop": In(1),
                **axi_write_master("m_axi", address_bits, bus_bits),
                "idle": Out(1),
                "owed": Out(1),
                "moves": Out(1),
                "failed": Out(1),
                "psum_written": Out(1),
                "beat": Out(1),
                "words": Out(range(bus_bits // 32 + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p, window = self.parameters, window_beats(self.parameters["bus_bits"])
        m.d.comb += address_constants(self, "m_axi_aw", p["bus_bits"])

        # Addresses: the job on its way, cut at windows.
        active, past_space, issues = Signal(), Signal(), Signal()
        beat = Signal(p["address_bits"] - self._shift + 1)
        left = Signal.like(self.jobs.p.beats)
        window_left, count = Signal(range(window + 1)), Signal(range(window + 1))
        open_bursts = Signal(range(p["in_flight"] + 1))  # whose answer is owed
        answered = Signal()
        m.submodules.bursts = bursts = StreamFIFO(8, depth=p["in_flight"])  # last beats of bursts to send
        m.d.comb += [
            window_left.eq(window - beat[: (window - 1).bit_length()]),
            count.eq(Mux(left < window_left, left, window_left)),
            past_space.eq(active & beat[-1]),
            issues.eq(
                active
                & ~past_space
                & ~self.drop
                & (open_bursts != p["in_flight"])
                & (~self.m_axi_awvalid | self.m_axi_awready)
            ),
            self.jobs.ready.eq(~active | (issues & (left == count))),
            bursts.i.payload.eq(count - 1),
            bursts.i.valid.eq(issues),
        ]
        is_psum = Signal()  # the job is one
        # What each answer owed stands for: the end of a job of partial sums?
        m.submodules.owed_psums = owed_psums = StreamFIFO(1, depth=p["in_flight"])
        m.d.comb += [
            owed_psums.i.payload.eq(is_psum & (left == count)),
            owed_psums.i.valid.eq(issues),
            owed_psums.o.ready.eq(answered),
        ]
        with m.If(self.m_axi_awready):
            m.d.sync += self.m_axi_awvalid.eq(0)
        with m.If(issues):
            m.d.sync += [
                self.m_axi_awvalid.eq(1),
                self.m_axi_awaddr.eq(beat[:-1] << self._shift),
                self.m_axi_awlen.eq(count - 1),
                beat.eq(beat + count),
                left.eq(left - count),
                active.eq(left != count),
            ]
        with m.If(self.jobs.valid & self.jobs.ready):
            m.d.sync += [
                active.eq(1), beat.eq(self.jobs.p.address >> self._shift), left.eq(self.jobs.p.beats),
                is_psum.eq(self.jobs.p.is_psum),
            ]  # fmt: skip
        with m.If(self.drop):
            m.d.sync += active.eq(0)

        self._send_beats(m, bursts)

        m.d.sync += self.m_axi_bready.eq(1)
        m.d.comb += answered.eq(self.m_axi_bvalid & self.m_axi_bready)
        m.d.sync += [
            open_bursts.eq(open_bursts + issues - answered),
            self.psum_written.eq(answered & owed_psums.o.payload),
        ]
        with m.If((answered & (self.m_axi_bresp != OKAY)) | past_space):
            m.d.sync += self.failed.eq(1)
        with m.If(self.drop):
            m.d.sync += self.failed.eq(0)

        m.d.comb += [
            self.owed.eq(open_bursts != 0),
            self.idle.eq(~self.owed & ~active),
            self.moves.eq((self.m_axi_awvalid & self.m_axi_awready) | self.beat | answered),
        ]
        return m

    def _send_beats(self, m, bursts):
        """Data: as many beats as the burst at the head of the queue has."""
        sent = Signal(8)  # beats of the burst
        free, takes, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            free.eq(~self.m_axi_wvalid | self.m_axi_wready),
            self.beats.ready.eq(free & bursts.o.valid & ~self.drop),
            takes.eq(free & bursts.o.valid & (self.beats.valid | self.drop)),
            ends.eq(sent == bursts.o.payload),
            bursts.o.ready.eq(takes & ends),
        ]
        strobes = self.beats.p.strobes
        with m.If(self.m_axi_wready):
            m.d.sync += self.m_axi_wvalid.eq(0)
        with m.If(takes):
            m.d.sync += [
                self.m_axi_wvalid.eq(1),
                self.m_axi_wdata.eq(self.beats.p.data),
                self.m_axi_wlast.eq(ends),
                sent.eq(Mux(ends, 0, sent + 1)),
            ]
            for word, strobe in enumerate(strobes):
                m.d.sync += self.m_axi_wstrb.word_select(word, 4).eq((strobe & ~self.drop).replicate(4))
        m.d.comb += [
            self.beat.eq(self.m_axi_wvalid & self.m_axi_wready),
            self.words.eq(sum(self.m_axi_wstrb[4 * word] for word in range(len(strobes)))),
        ]
