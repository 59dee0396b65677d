"""AXI ports: members with the standard names, so that tools and bus models find them by prefix.

AXI4 with one identifier (no ID signals: answers in order), incrementing bursts of whole beats; and AXI4-Lite.
"""

from amaranth.lib.wiring import In, Out

__all__ = [
    "DECERR", "OKAY", "SLVERR", "address_constants", "axi_lite_slave", "axi_read_master", "axi_write_master",
    "connect_buses", "connect_ports", "other_side", "window_beats",
]  # fmt: skip

OKAY = 0
SLVERR = 2
DECERR = 3

_INCR = 1


def window_beats(bus_bits):
    """Beats of the aligned window that no burst leaves: it has 4 KiB, or 256 beats, the most of a burst."""
    return min(256, 4096 * 8 // bus_bits)


def axi_lite_slave(prefix, address_bits):
    """Members of an AXI4-Lite slave with 32-bit data."""
    return {
        f"{prefix}_{name}": flow(width)
        for name, flow, width in (
            ("awaddr", In, address_bits), ("awprot", In, 3), ("awvalid", In, 1), ("awready", Out, 1),
            ("wdata", In, 32), ("wstrb", In, 4), ("wvalid", In, 1), ("wready", Out, 1),
            ("bresp", Out, 2), ("bvalid", Out, 1), ("bready", In, 1),
            ("araddr", In, address_bits), ("arprot", In, 3), ("arvalid", In, 1), ("arready", Out, 1),
            ("rdata", Out, 32), ("rresp", Out, 2), ("rvalid", Out, 1), ("rready", In, 1),
        )
    }  # fmt: skip


def other_side(members):
    """The same members for the other side of the bus: a slave's for a master's."""
    return {name: member.flip() for name, member in members.items()}


def _address_channel(letter, address_bits):
    return (
        (f"a{letter}addr", Out, address_bits), (f"a{letter}len", Out, 8), (f"a{letter}size", Out, 3),
        (f"a{letter}burst", Out, 2), (f"a{letter}lock", Out, 1), (f"a{letter}cache", Out, 4),
        (f"a{letter}prot", Out, 3), (f"a{letter}valid", Out, 1), (f"a{letter}ready", In, 1),
    )  # fmt: skip


def axi_read_master(prefix, address_bits, bus_bits):
    """Members of the read half of an AXI4 master."""
    channels = (
        *_address_channel("r", address_bits),
        ("rdata", In, bus_bits), ("rresp", In, 2), ("rlast", In, 1), ("rvalid", In, 1), ("rready", Out, 1),
    )  # fmt: skip
    return {f"{prefix}_{name}": flow(width) for name, flow, width in channels}


def axi_write_master(prefix, address_bits, bus_bits):
    """Members of the write half of an AXI4 master."""
    channels = (
        *_address_channel("w", address_bits),
        ("wdata", Out, bus_bits), ("wstrb", Out, bus_bits // 8), ("wlast", Out, 1), ("wvalid", Out, 1),
        ("wready", In, 1), ("bresp", In, 2), ("bvalid", In, 1), ("bready", Out, 1),
    )  # fmt: skip
    return {f"{prefix}_{name}": flow(width) for name, flow, width in channels}


def address_constants(component, prefix, bus_bits):
    """Statements for the constant signals of an address channel, ``prefix`` such as "m_axi_ar"."""
    return [
        getattr(component, f"{prefix}size").eq((bus_bits // 8).bit_length() - 1),
        getattr(component, f"{prefix}burst").eq(_INCR),
        getattr(component, f"{prefix}lock").eq(0),
        getattr(component, f"{prefix}cache").eq(0b0011),  # modifiable and bufferable: normal memory
        getattr(component, f"{prefix}prot").eq(0),
    ]


def connect_ports(m, outer, inner, members):
    """Passes ``members`` of the block ``inner`` on to the ports of ``outer`` by the same names."""
    for name, member in members.items():
        if member.flow == In:
            m.d.comb += getattr(inner, name).eq(getattr(outer, name))
        else:
            m.d.comb += getattr(outer, name).eq(getattr(inner, name))


def connect_buses(m, master, slave, members):
    """Connects ``members`` of the block ``master``, named "m_axi_...", to the "s_axi_..." of ``slave``."""
    for name, member in members.items():
        there = getattr(slave, name.replace("m_axi", "s_axi"))
        if member.flow == In:
            m.d.comb += getattr(master, name).eq(there)
        else:
            m.d.comb += there.eq(getattr(master, name))
