# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""SoC: the accelerator with a memory and a host at a UART. Wiring only."""

from math import log2

from amaranth import ClockDomain, ClockSignal, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.host_link import BUS_TIMEOUT, FRAME_TIMEOUT, clocks_per_bit, hello
from sliceforge.gen.registers import REGISTER_SPACE
from sliceforge.hw.accelerator import Accelerator
from sliceforge.hw.axi import axi_lite_slave, axi_read_master, axi_write_master, connect_buses
from sliceforge.hw.frame_receiver import FrameReceiver
from sliceforge.hw.frame_sender import FrameSender
from sliceforge.hw.hierarchy import place
from sliceforge.hw.host_bridge import HostBridge
from sliceforge.hw.onchip_memory import OnChipMemory
from sliceforge.hw.sdram_memory import SdramMemory, sdram_pins
from sliceforge.hw.uart import UartReceiver, UartTransmitter

__all__ = ["Soc"]


class Soc(wiring.Component):
    """Executes the requests of gen/host_link.py. To the host, registers are at address 0, and the memory is
    where it is to the accelerator; all else is answered with DECERR, to both.

    Parameters
    ----------
    accelerator : dict of `Accelerator`'s parameters.
    clock_hz, baud : rates of the clock and of the line. memory_bytes : size of the memory.
    sdram : dict of those parameters of `SdramMemory` that are not the bus's; None for a memory on the chip.

    Members
    -------
    uart_rx, uart_tx : in, out; the line to the host. uart_rx need not be synchronous.
    irq : out; the accelerator's interrupt. alive : out; a square wave of about 1 Hz.
    sdram_* : with `sdram`; to the registers of its pins (`sdram_pins`).

    Domains: all on the bus is reset by the host, too. Tested range: docs/verification.md.
    """

    def __init__(self, *, accelerator, clock_hz, baud, memory_bytes, sdram=None):
        self._accelerator, self._clock_hz, self._baud = accelerator, clock_hz, baud
        self._memory_bytes, self._sdram = memory_bytes, sdram
        self._bus = {name: accelerator[name] for name in ("bus_bits", "address_bits")}
        self._pins = {} if sdram is None else sdram_pins("sdram", sdram["row_bits"])
        super().__init__({"uart_rx": In(1), "uart_tx": Out(1), "irq": Out(1), "alive": Out(1), **self._pins})

    def elaborate(self, platform):
        m = Module()
        m.domains.bus = bus_domain = ClockDomain(local=True)

        def unit(name, component, domain="sync"):
            m.submodules[name] = place(platform, component, name, domain=domain)
            return component

        clock_hz, baud, clocks = self._clock_hz, self._baud, clocks_per_bit(self._clock_hz, self._baud)
        words = hello(clock_hz=clock_hz, baud=baud, memory_bytes=self._memory_bytes)
        uart_receiver = unit("uart_receiver", UartReceiver(clocks=clocks))
        receiver = unit("frame_receiver", FrameReceiver(timeout=round(clock_hz * FRAME_TIMEOUT)))
        bridge = unit("host_bridge", HostBridge(hello=words, timeout=BUS_TIMEOUT))
        sender = unit("frame_sender", FrameSender())
        uart_transmitter = unit("uart_transmitter", UartTransmitter(clocks=clocks))
        accelerator = unit("accelerator", Accelerator(**self._accelerator), "bus")
        if self._sdram is None:
            memory = unit("memory", OnChipMemory(memory_bytes=self._memory_bytes, **self._bus), "bus")
        else:
            memory = unit("memory", SdramMemory(**self._sdram, **self._bus))
            m.d.comb += memory.restart.eq(bridge.reset_bus)
            for name, member in self._pins.items():
                inner, outer = getattr(memory, name.replace("sdram", "pins")), getattr(self, name)
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)

        m.d.comb += [
            ClockSignal("bus").eq(ClockSignal()),
            bus_domain.rst.eq(bridge.reset_bus | ResetSignal()),
            uart_receiver.rx.eq(self.uart_rx),
            receiver.octet.eq(uart_receiver.octet),
            receiver.valid.eq(uart_receiver.valid),
            receiver.failed.eq(uart_receiver.failed),
            bridge.word.eq(receiver.word),
            bridge.word_index.eq(receiver.word_index),
            bridge.word_valid.eq(receiver.word_valid),
            self.uart_tx.eq(uart_transmitter.tx),
            bridge.irq.eq(accelerator.irq),
            self.irq.eq(accelerator.irq),
        ]
        wiring.connect(m, receiver.requests, bridge.requests)
        wiring.connect(m, bridge.words, sender.words)
        wiring.connect(m, sender.octets, uart_transmitter.octets)
        bus = self._bus["address_bits"], self._bus["bus_bits"]
        connect_buses(
            m, accelerator, memory, {**axi_read_master("m_axi", *bus), **axi_write_master("m_axi", *bus)}
        )
        self._connect_bridge(m, bridge, accelerator, memory)

        cycles = Signal(round(log2(clock_hz)))
        m.d.sync += cycles.eq(cycles + 1)
        m.d.comb += self.alive.eq(cycles[-1])
        return m

    def _connect_bridge(self, m, bridge, accelerator, memory):
        """An access below REGISTER_SPACE goes to the accelerator, any other to the memory, which answers
        those that are not its own, too. The address stands, so that a selection by it is enough."""
        to_registers = Signal()
        m.d.comb += to_registers.eq(bridge.m_axi_araddr < REGISTER_SPACE)
        for name, member in axi_lite_slave("axi", 32).items():
            here = getattr(bridge, f"m_{name}")
            registers, words = (
                getattr(accelerator, f"s_{name}"),
                getattr(memory, name.replace("axi", "s_lite")),
            )
            if member.flow == Out:
                m.d.comb += here.eq(Mux(to_registers, registers, words))
            elif name.endswith(("valid", "ready")):
                m.d.comb += [registers.eq(here & to_registers), words.eq(here & ~to_registers)]
            else:
                m.d.comb += [registers.eq(here[: len(registers)]), words.eq(here)]
