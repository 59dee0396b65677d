# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""RAM: a memory of any size as a block of its own, whose module a user can replace by a macro."""

from amaranth import Module, Shape
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sliceforge.hw.hierarchy import place

__all__ = ["Ram", "add_ram"]


class Ram(wiring.Component):
    """`depth` words of `shape`, with one write port and one read port on the same clock.

    Parameters
    ----------
    shape : of a word. depth : words, 2 or more.
    parts : divides the bits of a word: as many pieces of equal size can be written one by one.

    Members
    -------
    write : in; a bit for each part of the word, lowest first: the part is written at this edge.
    write_address, write_data : in; where and what.
    read : in; the word is read at this edge. read_address : in; where.
    read_data : out; the word that was read last. Undefined before the first read.

    A word that is read at the edge at which it is written comes out as it was before in simulation, and as
    anything after synthesis: no block relies on it, nor on what is in a word that nobody wrote. Reset changes
    nothing.
    Latency: 1 cycle from ``read`` to ``read_data``. Throughput: a write and a read a cycle.
    Tested range: depth 2..2040, words of 8..512 bits, parts 1..64.
    """

    def __init__(self, *, shape, depth, parts=1):
        self._shape = shape
        width = Shape.cast(shape).width
        self.parameters = {"depth": depth, "width": width, "part_bits": width // parts}
        super().__init__(
            {
                "write": In(parts),
                "write_address": In(range(depth)),
                "write_data": In(shape),
                "read": In(1, init=1),
                "read_address": In(range(depth)),
                "read_data": Out(shape),
            }
        )

    @property
    def block(self):
        """Name of the module below the prefix of the design: ``ram_<depth>x<width>[_by_<part_bits>]``."""
        depth, width, part_bits = self.parameters.values()
        return f"ram_{depth}x{width}" + (f"_by_{part_bits}" if part_bits != width else "")

    def elaborate(self, platform):
        m = Module()
        depth, width, part_bits = self.parameters.values()
        # Yosys would build logic around a block RAM for what a read at the edge of a write returns.
        attrs = {"no_rw_check": 1}
        m.submodules.words = words = Memory(shape=width, depth=depth, init=[], attrs=attrs)
        write, read = words.write_port(granularity=part_bits), words.read_port()
        m.d.comb += [
            write.en.eq(self.write),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            read.en.eq(self.read),
            read.addr.eq(self.read_address),
            self.read_data.eq(read.data),
        ]
        return m


def add_ram(m, platform, name, **parameters):
    """A `Ram` with ``parameters`` as submodule ``name`` of ``m``: an instance where modules are shared."""
    ram = Ram(**parameters)
    m.submodules[name] = place(platform, ram, ram.block)
    return ram
