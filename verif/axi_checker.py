"""AXI protocol checker: watches an AXI4 or AXI4-Lite interface and fails at the first offence.

`AxiChecker` is plain Python and is told what each rising edge saw. `Watched` gives a block ports that show
this in few values, since each value that cocotb reads costs microseconds; `watch` reads them.

The rules are those of the AXI4 specification (ARM IHI 0022) for one identifier, and ours: incrementing bursts
of whole beats at aligned addresses, whole 32-bit words in the strobes, a bound on what is on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cocotb
from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import RisingEdge

__all__ = ["CHANNELS", "AxiChecker", "Watched", "watch"]

# Answers first: what they answer was asked in an earlier cycle.
CHANNELS = ("r", "b", "ar", "aw", "w")
_ADDRESS = ("addr", "len", "size", "burst", "lock", "cache", "prot")
_PAYLOADS = {
    "AXI4": {
        "r": ("data", "resp", "last"), "b": ("resp",), "ar": _ADDRESS, "aw": _ADDRESS,
        "w": ("data", "strb", "last"),
    },
    "AXI4-Lite": {
        "r": ("data", "resp"), "b": ("resp",), "ar": ("addr", "prot"), "aw": ("addr", "prot"),
        "w": ("data", "strb"),
    },
}  # fmt: skip
_WIDTHS = {"len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "resp": 2, "last": 1}
_INCR = 1
_NORMAL_MEMORY = 0b0011
_EXOKAY = 1
_PAGE = 4096


class AxiChecker:
    """The rules of one interface. AssertionError names the channel, the rule and the cycle.

    Parameters
    ----------
    prefix : name of the interface, for messages.
    address_bits, data_bits : widths.
    lite : AXI4-Lite, else AXI4 with the rules of our master.
    most_reads, most_read_beats, most_writes : most that may be on their way: read bursts, beats of
        read bursts, write bursts (counted from address or first data). Unbounded if None.

    What it saw is there for tests to ask: ``taken[channel]`` counts transfers, ``waited[channel]`` cycles in
    which valid met no ready; ``unasked`` holds channels on which ready met no valid; ``reads`` and ``writes``
    are (address, beats) of each burst; ``bytes_written`` counts strobes; ``still`` counts cycles since
    something was asked for, or last moved; ``on_their_way`` holds the numbers of "reads", "read beats" and
    "writes" that were on their way at a time.
    """

    def __init__(
        self,
        prefix: str,
        *,
        address_bits: int,
        data_bits: int,
        lite: bool = False,
        most_reads: int | None = None,
        most_read_beats: int | None = None,
        most_writes: int | None = None,
    ) -> None:
        self._prefix = prefix
        self._lite = lite
        self._most = {"reads": most_reads, "read beats": most_read_beats, "writes": most_writes}
        self._bus_bytes = data_bits // 8
        widths = {**_WIDTHS, "addr": address_bits, "data": data_bits, "strb": data_bits // 8}
        self._layouts: dict[str, list[tuple[str, int, int]]] = {}
        for channel, names in _PAYLOADS["AXI4-Lite" if lite else "AXI4"].items():
            offsets, offset = [], 0
            for name in names:
                offsets.append((name, offset, (1 << widths[name]) - 1))
                offset += widths[name]
            self._layouts[channel] = offsets
        self.cycle = 0
        self.still = 0
        self.on_their_way: dict[str, set[int]] = {what: set() for what in self._most}
        self.taken = dict.fromkeys(CHANNELS, 0)
        self.waited = dict.fromkeys(CHANNELS, 0)
        self.unasked: set[str] = set()
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.bytes_written = 0
        self._in_reset = False
        self._forget()

    def _forget(self) -> None:
        """What a reset ends."""
        self._offers: dict[str, Any] = dict.fromkeys(CHANNELS)
        self._reads_owed: deque[int] = deque()  # beats of each read burst that is not fully answered
        self._beats_read = 0  # of the oldest of them
        self._lengths: deque[int] = deque()  # beats of write bursts whose data is not complete
        self._beats_ahead: deque[int] = deque()  # beats of write bursts whose data came before the address
        self._beats_written = 0  # of the burst whose data is coming
        self._answers_owed = 0  # write bursts that are complete but for their answer

    def step(self, reset: bool, control: int | str, payloads: Mapping[str, Callable[[], int | str]]) -> None:
        """One rising edge.

        control : bit 2 i is valid, 2 i + 1 is ready of channel ``CHANNELS[i]``; a str if it has X or Z.
        payloads : give the payload of a channel: its fields one above the other; a str if it has X or Z.
        """
        self.cycle += 1
        self._check(isinstance(control, int), "control", f"X or Z on valid or ready ({control})")
        if reset or self._in_reset:
            # Registers are in reset from the first edge that sees it to the first that does not.
            for i, channel in enumerate(CHANNELS):
                self._check(not (self._in_reset and control >> 2 * i & 1), channel, "valid during reset")
            self._in_reset = reset
            self._forget()
            return
        self.still = 0 if self.idle else self.still + 1
        for i, channel in enumerate(CHANNELS):
            bits = control >> 2 * i & 3
            if bits & 1:
                self._offered(channel, bool(bits & 2), payloads[channel]())
            elif self._offers[channel] is not None:
                self._fail(channel, "valid fell before ready")
            elif bits:
                self.unasked.add(channel)

    def finish(self) -> None:
        """At the end: everything that was asked for was answered, and nothing is on offer."""
        for channel, offer in self._offers.items():
            self._check(offer is None, channel, "still on offer at the end")
        self._check(not self._reads_owed, "r", f"{len(self._reads_owed)} bursts unanswered at the end")
        self._check(not self._lengths, "w", f"data of {len(self._lengths)} bursts missing at the end")
        ahead = bool(self._beats_ahead) or self._beats_written > 0
        self._check(not ahead, "aw", "data without an address at the end")
        self._check(not self._answers_owed, "b", f"{self._answers_owed} bursts unanswered at the end")

    @property
    def idle(self) -> bool:
        """Nothing is on its way."""
        return not (
            self._reads_owed or self._lengths or self._beats_ahead or self._beats_written
            or self._answers_owed or any(offer is not None for offer in self._offers.values())
        )  # fmt: skip

    @property
    def owed(self) -> str:
        """What is on its way: "reads are", "writes are", "both are" or "nothing is"."""
        reads = bool(self._reads_owed) or self._offers["ar"] is not None
        if reads or self.idle:
            other = self._lengths or self._beats_ahead or self._beats_written or self._answers_owed
            writes = bool(other) or self._offers["aw"] is not None or self._offers["w"] is not None
            return "both are" if reads and writes else "reads are" if reads else "nothing is"
        return "writes are"

    def _fail(self, channel: str, rule: str) -> None:
        raise AssertionError(f"{self._prefix}_{channel}: {rule}, cycle {self.cycle}")

    def _check(self, holds: bool, channel: str, rule: str) -> None:
        if not holds:
            self._fail(channel, rule)

    def _offered(self, channel: str, ready: bool, bits: int | str) -> None:
        """A payload is on offer. Its rules are checked when it first is: ready must not matter."""
        if self._offers[channel] is None:
            self._check(isinstance(bits, int), channel, f"X or Z in the payload ({bits})")
            fields = {name: bits >> offset & mask for name, offset, mask in self._layouts[channel]}
            getattr(self, f"_check_{channel}")(fields)
            self._offers[channel] = (bits, fields)
        elif self._offers[channel][0] != bits:
            self._fail(channel, "the payload changed before ready")
        if ready:
            _, fields = self._offers[channel]
            self._offers[channel] = None
            self.taken[channel] += 1
            self.still = 0
            getattr(self, f"_take_{channel}")(fields)
        else:
            self.waited[channel] += 1

    def _check_address(self, channel: str, fields: Mapping[str, int]) -> None:
        if self._lite:
            return
        address, size = fields["addr"], (fields["len"] + 1) * self._bus_bytes
        for name, value in (
            ("burst", _INCR), ("size", self._bus_bytes.bit_length() - 1), ("lock", 0),
            ("cache", _NORMAL_MEMORY), ("prot", 0),
        ):  # fmt: skip
            self._check(fields[name] == value, channel, f"{name} is {fields[name]}, not {value}")
        self._check(address % self._bus_bytes == 0, channel, f"address {address:#x} is not aligned")
        self._check(
            address % _PAGE + size <= _PAGE,
            channel,
            f"{fields['len'] + 1} beats at {address:#x} cross 4 KiB",
        )

    def _bound(self, channel: str, what: str, count: int) -> None:
        most = self._most[what]
        self.on_their_way[what].add(count)
        self._check(most is None or count <= most, channel, f"{count} {what} on their way, at most {most}")

    # Read: an address asks for beats, which come in order.

    def _check_ar(self, fields: Mapping[str, int]) -> None:
        self._check_address("ar", fields)

    def _take_ar(self, fields: Mapping[str, int]) -> None:
        beats = fields.get("len", 0) + 1
        self.reads.append((fields["addr"], beats))
        self._reads_owed.append(beats)
        self._bound("ar", "reads", len(self._reads_owed))
        self._bound("ar", "read beats", sum(self._reads_owed) - self._beats_read)

    def _check_r(self, fields: Mapping[str, int]) -> None:
        self._check(bool(self._reads_owed), "r", "an answer that nobody asked for")
        self._check(fields["resp"] != _EXOKAY, "r", "EXOKAY to a normal read")
        last = self._beats_read + 1 == self._reads_owed[0]
        self._check(
            bool(fields.get("last", 1)) == last,
            "r",
            f"last is {fields.get('last', 1)} on beat {self._beats_read + 1} of {self._reads_owed[0]}",
        )

    def _take_r(self, fields: Mapping[str, int]) -> None:
        self._beats_read += 1
        if self._beats_read == self._reads_owed[0]:
            self._reads_owed.popleft()
            self._beats_read = 0

    # Write: addresses and data come each in order, in any order between the two; then an answer.

    def _check_aw(self, fields: Mapping[str, int]) -> None:
        self._check_address("aw", fields)

    def _take_aw(self, fields: Mapping[str, int]) -> None:
        beats = fields.get("len", 0) + 1
        self.writes.append((fields["addr"], beats))
        if self._beats_ahead:
            ahead = self._beats_ahead.popleft()
            self._check(ahead == beats, "aw", f"a burst of {beats} whose data ended after beat {ahead}")
            self._answers_owed += 1
        else:
            ahead = 0 if self._lengths else self._beats_written
            self._check(ahead < beats, "aw", f"a burst of {beats} of which {ahead} came without last")
            self._lengths.append(beats)
        self._bound_writes("aw")

    def _check_w(self, fields: Mapping[str, int]) -> None:
        if not self._lite:
            strobes = fields["strb"]
            words = sum(1 << 4 * i for i in range(self._bus_bytes // 4) if strobes >> 4 * i & 1)
            self._check(strobes == 15 * words, "w", f"strobes {strobes:#x} split a word")

    def _take_w(self, fields: Mapping[str, int]) -> None:
        self.bytes_written += fields["strb"].bit_count()
        self._beats_written += 1
        last = bool(fields.get("last", 1))
        if self._lengths:
            due = self._beats_written == self._lengths[0]
            self._check(
                last == due, "w", f"last is {int(last)} on beat {self._beats_written} of {self._lengths[0]}"
            )
        if last:
            if self._lengths:
                self._lengths.popleft()
                self._answers_owed += 1
            else:
                self._beats_ahead.append(self._beats_written)
            self._beats_written = 0
        self._bound_writes("w")

    def _bound_writes(self, channel: str) -> None:
        open_ = max(len(self._lengths), bool(self._beats_written) + len(self._beats_ahead))
        self._bound(channel, "writes", open_ + self._answers_owed)

    def _check_b(self, fields: Mapping[str, int]) -> None:
        self._check(self._answers_owed > 0, "b", "an answer that nobody asked for")
        self._check(fields["resp"] != _EXOKAY, "b", "EXOKAY to a normal write")

    def _take_b(self, fields: Mapping[str, int]) -> None:
        self._answers_owed -= 1


class Watched(wiring.Component):
    """``block`` with ports that show its AXI interfaces: what `watch` reads at each rising edge.

    Parameters
    ----------
    block : a component with AXI ports; its other ports are passed on, too.
    prefixes : of the interfaces, such as "m_axi"; True for AXI4-Lite.

    Members
    -------
    As the block's, and for each interface
    watch_{prefix} : out; valid and ready of all channels, two bits each in the order of `CHANNELS`.
    watch_{prefix}_{channel} : out; the fields of its payload.
    {prefix}_{ar,aw,r,b}id : identifiers, which cocotbext-axi insists on; only on AXI4, and without use.
    """

    def __init__(self, block: Any, prefixes: Mapping[str, bool]) -> None:
        self._block = block
        self._shown: dict[str, list[str]] = {}
        for prefix, lite in prefixes.items():
            self._shown[f"watch_{prefix}"] = [
                f"{prefix}_{channel}{end}" for channel in CHANNELS for end in ("valid", "ready")
            ]
            for channel, names in _PAYLOADS["AXI4-Lite" if lite else "AXI4"].items():
                shown = [f"{prefix}_{channel}{name}" for name in names]
                self._shown[f"watch_{prefix}_{channel}"] = shown
        identifiers = {
            f"{prefix}_{channel}id": block.signature.members[f"{prefix}_{channel}valid"].flow(1)
            for prefix, lite in prefixes.items()
            for channel in ("ar", "aw", "r", "b")
            if not lite
        }
        super().__init__(
            {
                **block.signature.members,
                **identifiers,
                **{
                    port: Out(sum(len(getattr(block, name)) for name in names))
                    for port, names in self._shown.items()
                },
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.block = block = self._block
        for name, member in block.signature.members.items():
            inner, outer = getattr(block, name), getattr(self, name)
            if member.is_signature:
                wiring.connect(m, inner, wiring.flipped(outer))
            else:
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        for port, names in self._shown.items():
            m.d.comb += getattr(self, port).eq(Cat(getattr(block, name) for name in names))
        return m


def watch(dut: Any, checkers: Mapping[str, AxiChecker], *, resets: Sequence[str] = ("rst",)) -> Any:
    """Starts the task that shows each rising edge to the checkers, by prefix; ``dut`` is a `Watched`.

    resets: signals any of which holds the interfaces in reset.
    """

    def reader(handle: Any) -> Callable[[], int | str]:
        def read() -> int | str:
            value = handle.value
            try:
                return int(value)
            except ValueError:
                return str(value)

        return read

    watched = []
    for prefix, checker in checkers.items():
        payloads = {channel: reader(getattr(dut, f"watch_{prefix}_{channel}")) for channel in CHANNELS}
        watched.append((checker, reader(getattr(dut, f"watch_{prefix}")), payloads))

    signals = [getattr(dut, name) for name in resets]

    async def run() -> None:
        edge = RisingEdge(dut.clk)
        while True:
            await edge
            in_reset = any(signal.value == 1 for signal in signals)
            for checker, control, payloads in watched:
                checker.step(in_reset, control(), payloads)

    return cocotb.start_soon(run())
