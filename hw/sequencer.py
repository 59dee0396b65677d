"""Sequencer: runs the layers of a queue one after the other, and stops at the first error."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR_BYTES

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """For each layer: release the units from reset, fetch its descriptor, run it, hold the units in reset.

    An error ends the queue: its code is latched, ``failed`` is raised at once, and the units are held while
    the bus gives the answers that it owes.

    Parameters
    ----------
    address_bits : of the bus.

    Members
    -------
    start, soft_reset : in; pulses. ``queue_address`` : in; with start. ``stall_limit`` : in.
    held : out; the units' reset. ``fetch``, ``run`` : out; pulses: start of the descriptor unit, and of all
        that move data. ``descriptor_address`` : out.
    descriptor_done, descriptor_illegal, next_valid, next_address : in; of the descriptor unit.
    layer_valid, layer_ready : out, in; the core's descriptor stream.
    core_done, core_error : in; the core's status. ``stored`` : in; all results have left the store unit.
    unit_error : in; the first error of any unit, a cycle later, or NONE. Of several errors in a cycle it
        counts first, then the descriptor's or its address's, then a stall, then the core's.
    bus_idle, bus_owed, bus_moves : in; both halves of the bus together.
    busy, counting, error, layers_done : out; for the registers. ``counting``: between start and interrupt.
    cleared : out; a pulse: a queue starts.
    layer_ends : out; a pulse: a layer is done. ``done``, ``failed`` : out; pulses: the queue is.

    Latency: a few cycles a layer besides the memory's; a stall is an error in the second cycle after the last
    of ``stall_limit`` still ones, whatever the bus does meanwhile. Reset: only with the whole machine.
    """

    def __init__(self, *, address_bits):
        self.parameters = {"address_bits": address_bits}
        super().__init__(
            {
                "start": In(1),
                "soft_reset": In(1),
                "queue_address": In(address_bits),
                "stall_limit": In(32),
                "held": Out(1, init=1),
                "fetch": Out(1),
                "run": Out(1),
                "descriptor_address": Out(address_bits),
                "descriptor_done": In(1),
                "descriptor_illegal": In(ErrorCode),
                "next_valid": In(1),
                "next_address": In(address_bits),
                "layer_valid": Out(1),
                "layer_ready": In(1),
                "core_done": In(1),
                "core_error": In(ErrorCode),
                "stored": In(1),
                "unit_error": In(ErrorCode),
                "bus_idle": In(1),
                "bus_owed": In(1),
                "bus_moves": In(1),
                "busy": Out(1),
                "counting": Out(1),
                "cleared": Out(1),
                "error": Out(ErrorCode),
                "layers_done": Out(32),
                "layer_ends": Out(1),
                "done": Out(1),
                "failed": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        aligned_bits = (DESCRIPTOR_BYTES - 1).bit_length()
        error = Signal(ErrorCode)  # of this cycle, where one counts
        goes_on = Signal()  # another layer follows the one that is closed
        settled = Signal()
        ended = Signal()  # the layer, a cycle ago: an error of its last cycle comes now
        m.d.sync += self.run.eq(0)
        m.d.sync += ended.eq(self.core_done & self.stored & self.bus_idle)

        def stop():
            """In each state in which something runs: an error and a soft reset lead to CLOSE."""
            m.d.comb += running.eq(1)
            with m.If(stops):
                m.next = "CLOSE"

        running, stops = Signal(), Signal()
        m.d.comb += [
            stops.eq(running & (self.soft_reset | (error != ErrorCode.NONE))),
            self.failed.eq(stops & ~self.soft_reset),
            self.busy.eq(1),
        ]
        with m.FSM(name="state") as state:
            with m.State("IDLE"):
                m.d.comb += [self.busy.eq(0), self.cleared.eq(self.start & ~self.soft_reset)]
                m.d.sync += goes_on.eq(0)
                with m.If(self.cleared):
                    m.d.sync += [
                        self.descriptor_address.eq(self.queue_address),
                        self.error.eq(ErrorCode.NONE),
                        self.layers_done.eq(0),
                        self.counting.eq(1),
                    ]
                    m.next = "RELEASE"
            with m.State("RELEASE"):
                m.d.sync += self.held.eq(0)
                m.next = "FETCH"
                stop()
            with m.State("FETCH"):
                m.d.comb += self.fetch.eq(1)
                m.next = "DESCRIPTOR"
                stop()
            with m.State("DESCRIPTOR"):
                with m.If(self.descriptor_done):
                    m.next = "OFFER"
                stop()
            with m.State("OFFER"):
                m.d.comb += self.layer_valid.eq(1)
                m.d.sync += settled.eq(0)
                with m.If(self.layer_ready):
                    m.next = "SETTLE"
                stop()
            with m.State("SETTLE"):  # the core needs two cycles to refuse a layer
                m.d.sync += settled.eq(1)
                with m.If(settled):
                    m.d.sync += self.run.eq(~stops)
                    m.next = "RUN"
                stop()
            with m.State("RUN"):
                with m.If(ended):
                    m.d.comb += self.layer_ends.eq(~stops)
                    m.next = "CLOSE"
                stop()
            with m.State("CLOSE"):
                with m.If(self.soft_reset):
                    m.d.sync += [goes_on.eq(0), self.counting.eq(0)]
                with m.Elif(self.bus_idle):
                    m.next = "IDLE"
                    with m.If(goes_on):
                        m.next = "RELEASE"
                    with m.Else():
                        m.d.comb += self.done.eq(self.counting)
                        m.d.sync += self.counting.eq(0)

        # Which error counts, if there are several in a cycle.
        m.d.comb += error.eq(Mux(self._stalled(m), ErrorCode.STALLED, self.core_error))
        with m.If(state.ongoing("RELEASE") & self.descriptor_address[:aligned_bits].any()):
            m.d.comb += error.eq(ErrorCode.ILLEGAL_QUEUE_ADDRESS)
        with m.If(state.ongoing("DESCRIPTOR") & self.descriptor_done):
            with m.If(self.descriptor_illegal != ErrorCode.NONE):
                m.d.comb += error.eq(self.descriptor_illegal)
        with m.If(self.unit_error != ErrorCode.NONE):
            m.d.comb += error.eq(self.unit_error)

        with m.If(self.layer_ends):
            m.d.sync += [
                self.held.eq(1),
                self.layers_done.eq(self.layers_done + 1),
                self.descriptor_address.eq(self.next_address),
                goes_on.eq(self.next_valid),
            ]
        with m.If(stops):
            m.d.sync += [self.held.eq(1), self.counting.eq(0), goes_on.eq(0)]
        with m.If(self.failed):
            m.d.sync += self.error.eq(error)
        return m

    def _stalled(self, m):
        """A register: the bus owed something and had not moved for ``stall_limit`` cycles."""
        still = Signal(32)
        m.d.sync += still.eq(still + 1)
        with m.If(self.bus_moves | ~self.bus_owed):
            m.d.sync += still.eq(0)
        stalled = Signal()
        m.d.sync += stalled.eq((self.stall_limit != 0) & (still >= self.stall_limit))
        return stalled
