"""Read arbiter: the read half of the AXI4 master, shared by the readers."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.axi import OKAY, address_constants, axi_read_master
from sliceforge.hw.payloads import index, read_answer_layout, read_request_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["ReadArbiter"]


class ReadArbiter(wiring.Component):
    """Passes bursts of several readers to the bus, and each answer to the reader that asked.

    Readers that are ``eager`` go first; in turn among those. Answers come in the order of the requests
    (one identifier), and readers always take them, so ``rready`` is always high.

    Parameters
    ----------
    bus_bits, address_bits : of the bus. ``readers`` : how many. ``in_flight`` : bursts without full answer.
    enough_beats : with so many beats on their way no more are asked for: they would queue in the memory,
        where a more urgent request cannot overtake them.

    Members
    -------
    requests_{i} : stream in. ``eager_{i}`` : in; with it.
    answer_{i} : out; a beat for reader i in this cycle if its ``valid`` is high.
    m_axi_ar*, m_axi_r* : the bus. All outputs are registers.
    idle : out; no reader asks, no answer is owed or on its way to a reader. ``owed`` : out; the bus owes an
        answer, or has not accepted an address. ``moves`` : out; the bus accepted an address or gave a beat.
    refused, beat : out; an address waits, a beat arrived: for the counters.

    Latency: 1 cycle from request to address, 1 from the bus's beat to the answer. Throughput: an address
    every other cycle, a beat a cycle.
    Flow control: valid/ready; answers are pushed. It is never reset while the bus owes answers.
    """

    def __init__(self, *, bus_bits, address_bits, readers, in_flight, enough_beats):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "readers": readers, "in_flight": in_flight,
            "enough_beats": enough_beats,
        }  # fmt: skip
        super().__init__(
            {
                **{
                    f"requests_{i}": In(stream.Signature(read_request_layout(address_bits)))
                    for i in range(readers)
                },
                **{f"eager_{i}": In(1) for i in range(readers)},
                **{f"answer_{i}": Out(read_answer_layout(bus_bits)) for i in range(readers)},
                **axi_read_master("m_axi", address_bits, bus_bits),
                "idle": Out(1),
                "owed": Out(1),
                "moves": Out(1),
                "refused": Out(1),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        readers = self.parameters["readers"]
        requests = [getattr(self, f"requests_{i}") for i in range(readers)]
        m.d.comb += address_constants(self, "m_axi_ar", self.parameters["bus_bits"])

        # Who is next: the first after the one before, among the eager ones if there are any.
        eager = Signal(readers)
        m.d.comb += [eager[i].eq(requests[i].valid & getattr(self, f"eager_{i}")) for i in range(readers)]
        candidates, chosen, before = Signal(readers), Signal(index(readers)), Signal(index(readers))
        for i in range(readers):
            m.d.comb += candidates[i].eq(Mux(eager.any(), eager[i], requests[i].valid))
        with m.Switch(before):
            for i in range(readers):
                with m.Case(i):
                    for step in reversed(range(1, readers + 1)):
                        turn = (i + step) % readers
                        with m.If(candidates[turn]):
                            m.d.comb += chosen.eq(turn)

        # Whose answers are on their way, burst by burst.
        m.submodules.owners = owners = StreamFIFO(index(readers), depth=self.parameters["in_flight"])
        accepts, arrives, counted = Signal(), Signal(), Signal()
        on_way = Signal(range(self.parameters["enough_beats"] + 256))  # beats that were asked for
        asked = Signal(9)
        m.d.sync += [asked.eq(0), counted.eq(~accepts), on_way.eq(on_way + asked - arrives)]
        m.d.comb += [
            accepts.eq(
                candidates.any()
                & counted
                & owners.i.ready
                & (on_way < self.parameters["enough_beats"])
                & (~self.m_axi_arvalid | self.m_axi_arready)
            ),
            owners.i.valid.eq(accepts),
            owners.i.payload.eq(chosen),
        ]
        with m.If(self.m_axi_arready):
            m.d.sync += self.m_axi_arvalid.eq(0)
        with m.If(accepts):
            m.d.sync += [self.m_axi_arvalid.eq(1), before.eq(chosen)]
            with m.Switch(chosen):
                for i, request in enumerate(requests):
                    with m.Case(i):
                        m.d.comb += request.ready.eq(1)
                        m.d.sync += [
                            asked.eq(request.p.last_beat + 1),
                            self.m_axi_araddr.eq(request.p.address),
                            self.m_axi_arlen.eq(request.p.last_beat),
                        ]

        m.d.sync += self.m_axi_rready.eq(1)
        m.d.comb += [
            arrives.eq(self.m_axi_rvalid & self.m_axi_rready),
            owners.o.ready.eq(arrives & self.m_axi_rlast),
        ]
        word, error = Signal(self.parameters["bus_bits"]), Signal()
        m.d.sync += [word.eq(self.m_axi_rdata), error.eq(self.m_axi_rresp != OKAY), self.beat.eq(arrives)]
        for i in range(readers):
            answer = getattr(self, f"answer_{i}")
            valid = Signal(name=f"valid_{i}")
            m.d.sync += valid.eq(arrives & (owners.o.payload == i))
            m.d.comb += [answer.data.eq(word), answer.error.eq(error), answer.valid.eq(valid)]

        m.d.comb += [
            self.owed.eq(self.m_axi_arvalid | owners.o.valid),
            # An offer counts: it may be taken in the cycle in which its reader is reset, and is owed then.
            self.idle.eq(~self.owed & ~self.beat & ~Cat(request.valid for request in requests).any()),
            self.refused.eq(self.m_axi_arvalid & ~self.m_axi_arready),
            self.moves.eq((self.m_axi_arvalid & self.m_axi_arready) | arrives),
        ]
        return m
