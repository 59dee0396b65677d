"""Frames of the host link: a body and its CRC-32 between flags, in HDLC's octet stuffing (RFC 1662)."""

from __future__ import annotations

from zlib import crc32

from sliceforge.gen.host_link import CRC_BYTES, ESCAPE, ESCAPE_XOR, FLAG

__all__ = ["FrameParser", "encode_frame"]

_FLAG, _ESCAPE = bytes([FLAG]), bytes([ESCAPE])
_STUFFED = {octet: bytes([ESCAPE, octet[0] ^ ESCAPE_XOR]) for octet in (_ESCAPE, _FLAG)}  # in this order


def encode_frame(body: bytes) -> bytes:
    """The bytes that go over the line for ``body``, both flags included."""
    content = body + crc32(body).to_bytes(CRC_BYTES, "little")
    for octet, stuffed in _STUFFED.items():
        content = content.replace(octet, stuffed)
    return _FLAG + content + _FLAG


class FrameParser:
    """Finds frames in what comes over a line, in pieces of any size.

    Drops what is no frame, has a wrong CRC, no body or one of more than ``longest`` bytes; the next flag
    starts anew.
    """

    def __init__(self, longest: int) -> None:
        self._most = longest + CRC_BYTES
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies of the frames that end in ``data``."""
        *contents, rest = (self._rest + data).split(_FLAG)
        self._rest = rest[: 2 * self._most + 1]  # so much is too long however it is stuffed
        return [body for content in contents if (body := self._body(content)) is not None]

    def _body(self, content: bytes) -> bytes | None:
        plain = bytearray()
        octets = iter(content)
        for octet in octets:
            if octet == ESCAPE:
                escaped = next(octets, None)
                if escaped is None:
                    return None  # aborted by its sender
                octet = escaped ^ ESCAPE_XOR
            plain.append(octet)
        body, crc = bytes(plain[:-CRC_BYTES]), plain[-CRC_BYTES:]
        if not CRC_BYTES < len(plain) <= self._most or crc32(body) != int.from_bytes(crc, "little"):
            return None
        return body
