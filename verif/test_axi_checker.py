"""Tests verif/axi_checker.py: legal traffic passes, and each rule fires on a waveform that breaks only it."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from sliceforge.verif.axi_checker import CHANNELS, AxiChecker

BUS = 64
ADDRESS = 32
ORDER = {
    "r": ("data", "resp", "last"),
    "b": ("resp",),
    "ar": ("addr", "len", "size", "burst", "lock", "cache", "prot"),
    "aw": ("addr", "len", "size", "burst", "lock", "cache", "prot"),
    "w": ("data", "strb", "last"),
}
LITE_ORDER = {"r": ("data", "resp"), "b": ("resp",), "ar": ("addr", "prot"), "aw": ("addr", "prot"),
              "w": ("data", "strb")}  # fmt: skip
NORMAL = {"size": 3, "burst": 1, "lock": 0, "cache": 3, "prot": 0}


class Wave:
    """Makes edges from a cycle's offers: channel -> (fields, ready); a channel that is not named is idle."""

    def __init__(self, lite: bool = False, **most: int) -> None:
        data = 32 if lite else BUS
        self.widths = {"addr": ADDRESS, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3,
                       "data": data, "resp": 2, "last": 1, "strb": data // 8}  # fmt: skip
        self.order = LITE_ORDER if lite else ORDER
        self.checker = AxiChecker("bus", address_bits=ADDRESS, data_bits=data, lite=lite, **most)
        self.cycle(reset=True)
        self.cycle()

    def cycle(self, *, reset: bool = False, x: str | None = None, ready: str = "", **offers: Any) -> None:
        """``x``: this channel's payload has an X. ``ready``: channels that are ready without an offer."""
        control = 0
        for i, channel in enumerate(CHANNELS):
            if channel in offers:
                control |= (1 | offers[channel][1] << 1) << 2 * i
            elif channel in ready.split():
                control |= 2 << 2 * i

        def payload(channel: str) -> int | str:
            if channel == x:
                return "00X1"
            bits = offset = 0
            for name in self.order[channel]:
                bits |= offers[channel][0].get(name, 0) << offset
                offset += self.widths[name]
            return bits

        self.checker.step(reset, control, {channel: partial(payload, channel) for channel in CHANNELS})


def address(at: int = 0x1000, beats: int = 1, **fields: int) -> dict[str, int]:
    return {"addr": at, "len": beats - 1, **NORMAL, **fields}


def data(last: int = 1, strb: int = 0xFF, value: int = 0) -> dict[str, int]:
    return {"data": value, "strb": strb, "last": last}


def answer(last: int = 1, resp: int = 0) -> dict[str, int]:
    return {"data": 7, "resp": resp, "last": last}


def test_legal_traffic_passes_and_is_counted() -> None:
    """Random order of all that may happen, with waits; by a small model of master and slave."""
    rng = random.Random(1)
    wave = Wave(most_reads=4, most_read_beats=20, most_writes=4)
    wanted: dict[str, list[dict[str, int]]] = {channel: [] for channel in CHANNELS}
    held: dict[str, dict[str, int]] = {}
    bursts = 0
    written = 0
    pending_w: list[int] = []  # write bursts: 2 after both address and data
    for _ in range(20_000):
        if len(wanted["ar"]) + len(wanted["r"]) == 0 and rng.random() < 0.3:
            wanted["ar"].append(address(8 * rng.randrange(400), rng.randint(1, 5)))
        if not (wanted["aw"] or wanted["w"] or wanted["b"] or held) and rng.random() < 0.3:
            beats = rng.randint(1, 5)
            wanted["aw"].append(address(8 * rng.randrange(400), beats))
            wanted["w"] = [data(i == beats - 1, rng.choice([0, 0xF, 0xF0, 0xFF])) for i in range(beats)]
            written += sum(beat["strb"].bit_count() for beat in wanted["w"])
            pending_w.append(0)
            bursts += 1
        offers: dict[str, Any] = {}
        for channel in CHANNELS:
            if channel not in held and wanted[channel] and rng.random() < 0.5:
                held[channel] = wanted[channel].pop(0)
            if channel in held:
                offers[channel] = (held[channel], int(rng.random() < 0.5))
        wave.cycle(**offers, ready=rng.choice(["", "r b ar aw w"]))
        for channel, (fields, ready) in offers.items():
            if not ready:
                continue
            del held[channel]
            if channel == "ar":
                wanted["r"] += [answer(i == fields["len"]) for i in range(fields["len"] + 1)]
            if channel == "aw" or (channel == "w" and fields["last"]):
                pending_w[0] += 1
                if pending_w[0] == 2:
                    pending_w.pop(0)
                    wanted["b"].append({"resp": rng.choice([0, 2, 3])})
    checker = wave.checker
    assert checker.taken["ar"] == len(checker.reads) > 500
    assert abs(checker.taken["b"] - bursts) <= 1 and bursts > 500
    assert checker.bytes_written > written - 100
    assert all(checker.waited[channel] for channel in CHANNELS) and checker.unasked == set(CHANNELS)


def read_one(wave: Wave, beats: int = 1) -> None:
    wave.cycle(ar=(address(beats=beats), 1))


def write_one(wave: Wave, beats: int = 1) -> None:
    wave.cycle(aw=(address(beats=beats), 1), w=(data(last=int(beats == 1)), 1))


def breaks_valid(wave: Wave, channel: str) -> None:
    fields = {"ar": address(), "aw": address(), "w": data(), "r": answer(), "b": {"resp": 0}}[channel]
    prepare(wave, channel)
    wave.cycle(**{channel: (fields, 0)})
    wave.cycle()


def breaks_payload(wave: Wave, channel: str) -> None:
    fields = {"ar": address(), "aw": address(), "w": data(), "r": answer(), "b": {"resp": 0}}[channel]
    name = {"ar": "addr", "aw": "addr", "w": "data", "r": "data", "b": "resp"}[channel]
    prepare(wave, channel)
    wave.cycle(**{channel: (fields, 0)})
    wave.cycle(**{channel: ({**fields, name: fields[name] ^ 8 if name != "resp" else 2}, 1)})


def prepare(wave: Wave, channel: str) -> None:
    if channel == "r":
        read_one(wave)
    if channel == "b":
        write_one(wave)


def breaks_reset(wave: Wave, channel: str) -> None:
    wave.cycle(reset=True)  # outputs may still be as before: the reset is synchronous
    wave.cycle(reset=True, **{channel: ({"addr": 0}, 0)})


def breaks_after_reset(wave: Wave, channel: str) -> None:
    wave.cycle(reset=True)
    wave.cycle(reset=True)
    wave.cycle(**{channel: ({"addr": 0}, 0)})


def x_in_payload(wave: Wave, channel: str) -> None:
    prepare(wave, channel)
    wave.cycle(x=channel, **{channel: ({}, 1)})


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    ("breaks", "rule"),
    [
        (breaks_valid, "valid fell before ready"),
        (breaks_payload, "the payload changed before ready"),
        (breaks_reset, "valid during reset"),
        (breaks_after_reset, "valid during reset"),
        (x_in_payload, "X or Z in the payload"),
    ],
)
def test_rules_of_every_channel(channel: str, breaks: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"bus_{channel}: {rule}.*, cycle [0-9]+"):
        breaks(Wave(), channel)
    if breaks not in (x_in_payload,):
        with pytest.raises(AssertionError, match=f"bus_{channel}: {rule}.*, cycle [0-9]+"):
            breaks(Wave(lite=True), channel)


@pytest.mark.parametrize("channel", ["ar", "aw"])
@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        (address(burst=0), "burst is 0"),
        (address(burst=2), "burst is 2"),
        (address(size=2), "size is 2"),
        (address(lock=1), "lock is 1"),
        (address(cache=0), "cache is 0"),
        (address(prot=2), "prot is 2"),
        (address(at=0x1004), "address 0x1004 is not aligned"),
        (address(at=0x1FF8, beats=2), "2 beats at 0x1ff8 cross 4 KiB"),
        (address(at=0x1808, beats=256), "256 beats at 0x1808 cross 4 KiB"),
    ],
)
def test_addresses(channel: str, fields: dict[str, int], rule: str) -> None:
    for ready in (0, 1):  # as soon as it is on offer
        with pytest.raises(AssertionError, match=f"bus_{channel}: {rule}"):
            Wave().cycle(**{channel: (fields, ready)})
    wave = Wave()
    wave.cycle(**{channel: (address(at=0x1800, beats=256), 1)})
    wave.cycle(**{channel: (address(at=0x1FF8, beats=1), 1)})


def test_x_on_control() -> None:
    wave = Wave()
    with pytest.raises(AssertionError, match="bus_control: X or Z on valid or ready"):
        wave.checker.step(False, "000000000X", {})


def test_answers_of_reads() -> None:
    with pytest.raises(AssertionError, match="bus_r: an answer that nobody asked for"):
        Wave().cycle(r=(answer(), 0))
    with pytest.raises(AssertionError, match="bus_r: an answer that nobody asked for"):
        Wave().cycle(ar=(address(), 1), r=(answer(), 1))  # in the same cycle is too early
    wave = Wave()
    read_one(wave, 2)
    with pytest.raises(AssertionError, match="bus_r: last is 1 on beat 1 of 2"):
        wave.cycle(r=(answer(last=1), 0))
    wave = Wave()
    read_one(wave, 2)
    wave.cycle(r=(answer(last=0), 1))
    with pytest.raises(AssertionError, match="bus_r: last is 0 on beat 2 of 2"):
        wave.cycle(r=(answer(last=0), 1))
    wave = Wave()
    read_one(wave)
    wave.cycle(r=(answer(), 1))
    with pytest.raises(AssertionError, match="bus_r: an answer that nobody asked for"):
        wave.cycle(r=(answer(), 1))
    wave = Wave()
    read_one(wave)
    with pytest.raises(AssertionError, match="bus_r: EXOKAY"):
        wave.cycle(r=(answer(resp=1), 1))


def test_data_and_answers_of_writes() -> None:
    wave = Wave()
    wave.cycle(aw=(address(beats=2), 1))
    with pytest.raises(AssertionError, match="bus_w: last is 1 on beat 1 of 2"):
        wave.cycle(w=(data(last=1), 1))
    wave = Wave()
    wave.cycle(aw=(address(beats=1), 1))
    with pytest.raises(AssertionError, match="bus_w: last is 0 on beat 1 of 1"):
        wave.cycle(w=(data(last=0), 1))
    wave = Wave()  # data first
    wave.cycle(w=(data(last=0), 1))
    wave.cycle(w=(data(last=1), 1))
    with pytest.raises(AssertionError, match="bus_aw: a burst of 3 whose data ended after beat 2"):
        wave.cycle(aw=(address(beats=3), 1))
    wave = Wave()
    wave.cycle(w=(data(last=0), 1))
    wave.cycle(w=(data(last=0), 1))
    with pytest.raises(AssertionError, match="bus_aw: a burst of 2 of which 2 came without last"):
        wave.cycle(aw=(address(beats=2), 1))
    with pytest.raises(AssertionError, match="bus_w: strobes 0x3 split a word"):
        Wave().cycle(w=(data(strb=3), 0))
    for early in ({"aw": (address(), 1)}, {"w": (data(), 1)}):
        wave = Wave()
        wave.cycle(**early)
        with pytest.raises(AssertionError, match="bus_b: an answer that nobody asked for"):
            wave.cycle(b=({"resp": 0}, 0))
    wave = Wave()
    with pytest.raises(AssertionError, match="bus_b: an answer that nobody asked for"):
        wave.cycle(aw=(address(), 1), w=(data(), 1), b=({"resp": 0}, 1))
    wave = Wave()
    write_one(wave)
    wave.cycle(b=({"resp": 2}, 1))
    with pytest.raises(AssertionError, match="bus_b: an answer that nobody asked for"):
        wave.cycle(b=({"resp": 0}, 1))
    wave = Wave()
    write_one(wave)
    with pytest.raises(AssertionError, match="bus_b: EXOKAY"):
        wave.cycle(b=({"resp": 1}, 1))


def test_bounds() -> None:
    wave = Wave(most_reads=2)
    read_one(wave)
    read_one(wave)
    with pytest.raises(AssertionError, match="bus_ar: 3 reads on their way, at most 2"):
        read_one(wave)
    wave = Wave(most_read_beats=8)
    read_one(wave, 5)
    wave.cycle(r=(answer(last=0), 1))
    read_one(wave, 4)
    with pytest.raises(AssertionError, match="bus_ar: 9 read beats on their way, at most 8"):
        read_one(wave, 1)
    wave = Wave(most_writes=2)
    write_one(wave)
    write_one(wave)
    with pytest.raises(AssertionError, match="bus_aw: 3 writes on their way, at most 2"):
        write_one(wave)
    wave = Wave(most_writes=1)
    wave.cycle(w=(data(), 1))
    with pytest.raises(AssertionError, match="bus_w: 2 writes on their way, at most 1"):
        wave.cycle(w=(data(), 1))


def test_the_end() -> None:
    cases: list[tuple[list[dict[str, Any]], str]] = [
        ([{"ar": (address(), 0)}], "bus_ar: still on offer"),
        ([{"ar": (address(beats=2), 1)}, {"r": (answer(last=0), 1)}], "bus_r: 1 bursts unanswered"),
        ([{"aw": (address(), 1)}], "bus_w: data of 1 bursts missing"),
        ([{"w": (data(), 1)}], "bus_aw: data without an address"),
        ([{"w": (data(last=0), 1)}], "bus_aw: data without an address"),
        ([{"aw": (address(), 1), "w": (data(), 1)}], "bus_b: 1 bursts unanswered"),
    ]
    for cycles, rule in cases:
        wave = Wave()
        assert wave.checker.idle
        for offers in cycles:
            wave.cycle(**offers)
        assert not wave.checker.idle
        with pytest.raises(AssertionError, match=rule):
            wave.checker.finish()
        wave.cycle(reset=True)
        wave.cycle()
        assert wave.checker.idle  # a reset ends all that was on its way
        wave.checker.finish()


def test_lite() -> None:
    wave = Wave(lite=True)
    wave.cycle(ar=({"addr": 5}, 1))
    wave.cycle(r=({"data": 1, "resp": 2}, 1))
    wave.cycle(aw=({"addr": 4}, 1))
    with pytest.raises(AssertionError, match="bus_b: an answer that nobody asked for"):
        wave.cycle(b=({"resp": 0}, 1))
    wave = Wave(lite=True)
    wave.cycle(w=({"data": 1, "strb": 5}, 1))
    wave.cycle(aw=({"addr": 4}, 1))
    wave.cycle(b=({"resp": 0}, 1))
    wave.checker.finish()
