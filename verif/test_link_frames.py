"""Frames of the host link: every body comes back, and nothing else does."""

from __future__ import annotations

from itertools import chain, pairwise
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sliceforge.sim.link_frames import FrameParser, encode_frame

BODIES = st.binary(min_size=1, max_size=80)
CRAMMED = st.lists(st.sampled_from([0x7D, 0x7E, 0x5D, 0x5E, 0x20]), min_size=1, max_size=80).map(bytes)
# Garbage without a flag of its own: two would enclose a frame.
GARBAGE = st.binary(max_size=40).map(lambda data: data.replace(b"\x7e", b"\x7d"))


class TestFrames:
    def test_by_hand(self) -> None:
        # The CRC's published check value is 0xcbf43926.
        assert encode_frame(b"123456789") == b"\x7e123456789\x26\x39\xf4\xcb\x7e"
        body = b"\x7d\x7e\x5e"
        crc = crc32(body).to_bytes(4, "little")
        assert not {0x7D, 0x7E} & set(crc)
        assert encode_frame(body) == b"\x7e\x7d\x5d\x7d\x5e\x5e" + crc + b"\x7e"

    @given(st.lists(BODIES | CRAMMED, max_size=5), st.data())
    def test_bodies_come_back(self, bodies: list[bytes], data: st.DataObject) -> None:
        """From a line with garbage before, between and behind, cut into pieces anywhere."""
        line = b"".join(data.draw(GARBAGE) + encode_frame(body) for body in bodies) + data.draw(GARBAGE)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(line)), max_size=6)))
        parser = FrameParser(80)
        found = [parser.feed(line[a:b]) for a, b in pairwise([0, *cuts, len(line)])]
        assert list(chain(*found)) == bodies

    @given(st.lists(BODIES, min_size=1, max_size=4))
    def test_one_flag_between_frames(self, bodies: list[bytes]) -> None:
        line = b"\x7e" + b"".join(encode_frame(body)[1:] for body in bodies)
        assert FrameParser(80).feed(line) == bodies

    @given(BODIES | CRAMMED, st.data())
    def test_a_spoilt_frame_is_dropped(self, body: bytes, data: st.DataObject) -> None:
        """One of its bytes is altered, lost or doubled; the frame behind it is found."""
        frame = bytearray(encode_frame(body))
        at = data.draw(st.integers(0, len(frame) - 1))
        other = data.draw(st.sampled_from([b"", bytes(frame[at : at + 1]) * 2, bytes([frame[at] ^ 1])]))
        frame[at : at + 1] = other
        assert FrameParser(80).feed(bytes(frame) + encode_frame(b"next")) in ([b"next"], [body, b"next"])

    def test_what_is_no_frame(self) -> None:
        good = encode_frame(b"good")
        crc = crc32(b"good").to_bytes(4, "little")
        for content in (b"", b"\0\0\0\0", crc, b"good" + crc + b"\x7d", b"good" + crc[::-1], b"goo" + crc):
            assert FrameParser(80).feed(b"\x7e" + content + good) == [b"good"], content

    @pytest.mark.parametrize("octet", [b"a", b"\x7e"])
    def test_lengths(self, octet: bytes) -> None:
        parser = FrameParser(80)
        for length in (1, 79, 80, 81, 200, 100_000):
            body = octet * length
            expected = [body] if length <= 80 else []
            assert parser.feed(encode_frame(body)) == expected
            line = encode_frame(body)
            assert list(chain(*(parser.feed(line[i : i + 1]) for i in range(len(line))))) == expected
