"""Layers as bytes: unpacked again from memory alone, the chain of regions, descriptors, and the document."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import DESCRIPTOR
from sliceforge.sim.descriptor import decode_descriptor, encode_descriptor
from sliceforge.sim.driver import place
from sliceforge.sim.images import activation_images, weight_images
from sliceforge.sim.layer_image import LayerImage, descriptor_bytes, least_bytes, pack_layer
from sliceforge.sim.layer_memory import unpack_layer
from sliceforge.sim.schedule import Schedule
from sliceforge.sim.slices import sliced_activations

TINY = AcceleratorConfig.preset("tiny")
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "memory-format.md"


@st.composite
def configs(draw: st.DrawFn) -> AcceleratorConfig:
    """Any layout: buses narrower than a granule, more ways than banks, entries of every width."""
    return AcceleratorConfig(
        name="layers",
        pea_count=draw(st.integers(1, 5)),
        lanes=draw(st.integers(1, 5)),
        vector=draw(st.sampled_from([2, 4, 8])),
        weight_slices=draw(st.integers(1, 3)),
        run_bits=draw(st.integers(1, 8)),
        tile_k=draw(st.sampled_from([4, 8, 28, 64])),
        wmem_kib=draw(st.sampled_from([9, 64])),
        amem_kib=draw(st.sampled_from([9, 64])),
        bus_bits=draw(st.sampled_from([32, 64, 128, 256, 512])),
        address_bits=draw(st.sampled_from([32, 40, 64])),
        max_k=256,
    )


def operands(
    seed: int, m: int, k: int, n: int, weight_bits: int, zero_point: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, activations and folded biases; in a random share of places close to what is compressed."""
    rng = np.random.default_rng(seed)
    top = 1 << (weight_bits - 1)
    weights = np.where(
        rng.random((m, k)) < rng.choice([0, 0.9, 1]),
        rng.integers(-4, 4, (m, k)),
        rng.integers(-top, top, (m, k)),
    )
    near = np.clip(zero_point + rng.integers(-3, 4, (k, n)), 0, 255)
    activations = np.where(rng.random((k, n)) < rng.choice([0, 0.9, 1]), near, rng.integers(0, 256, (k, n)))
    return weights, activations, rng.integers(-(1 << 31), 1 << 31, m)


def memory_of(image: LayerImage, base: int) -> tuple[bytearray, Any]:
    """The bytes of a layer placed from ``base`` on, and a function that reads them by address."""
    placement = place([image], base=base, memory_bytes=1 << 24)
    memory = bytearray(placement.data)

    def read(address: int, size: int) -> bytes:
        start = address - placement.address
        assert 0 <= start <= start + size <= len(memory)
        return bytes(memory[start : start + size])

    return memory, read


@settings(deadline=None)
@given(
    config=configs(), n_slices=st.integers(1, 3), m=st.integers(1, 50), k=st.integers(1, 140),
    n=st.integers(1, 50), lo_bits=st.integers(4, 6), zero_point=st.integers(0, 255), seed=st.integers(0, 999),
    resident=st.booleans(), dataflow=st.sampled_from([*Dataflow, None]), chunk=st.integers(1, 140),
    group=st.integers(0, 4),
)  # fmt: skip
@example(
    AcceleratorConfig(name="narrow", pea_count=3, lanes=2, vector=8, weight_slices=3, bus_bits=32, max_k=256),
    3, 49, 77, 33, 6, 255, 0, False, Dataflow.WEIGHT_STATIONARY, 30, 3,
)  # fmt: skip
def test_round_trip(
    config: AcceleratorConfig, n_slices: int, m: int, k: int, n: int, lo_bits: int, zero_point: int,
    seed: int, resident: bool, dataflow: Dataflow | None, chunk: int, group: int,
) -> None:  # fmt: skip
    weight_bits = 3 * min(n_slices, config.weight_slices) + 1
    w, x, bias = operands(seed, m, k, n, weight_bits, zero_point)
    exponents = [(seed + step) % 32 for step in range(-(-k // chunk))] if group else []
    image = pack_layer(
        w, x, bias, zero_point=zero_point, weight_bits=weight_bits, lo_bits=lo_bits, config=config,
        resident=resident, dataflow=dataflow, chunk=chunk, psum_group=group, psum_exponents=exponents or None,
    )  # fmt: skip
    base = (1 << config.address_bits) - (1 << 25)  # addresses of all bits
    _, read = memory_of(image, base)
    found = unpack_layer(read, base, config)
    np.testing.assert_array_equal(found.weights, w)
    np.testing.assert_array_equal(found.x_hat, sliced_activations(x, lo_bits))
    np.testing.assert_array_equal(found.bias, bias)
    d = found.descriptor
    assert (d["M"], d["K"], d["N"], d["LO_BITS"]) == (m, k, n, lo_bits)
    assert (d["WEIGHT_SLICES"], d["FREQUENT"]) == ((weight_bits - 1) // 3, zero_point >> lo_bits)
    assert (d["K_CHUNK"], d["PSUM_GROUP"], d["EXPONENT_WORDS"]) == (
        min(k, chunk),
        group,
        -(-len(exponents) // 4),
    )
    assert found.exponents == tuple(exponents)
    assert found.schedule == image.schedule
    assert dataflow is None or found.schedule.dataflow == dataflow
    assert (d["OUTPUT_STRIDE"], d["NEXT"], d["NEXT_ADDRESS"], d["INTERRUPT"]) == (4 * n, 0, 0, 0)
    for name in ("WEIGHTS_ADDRESS", "ACTIVATIONS_ADDRESS"):
        assert d[name] % config.load_beat_bytes == 0


@pytest.mark.parametrize("bus_bits", [32, 64, 512])
def test_regions(bus_bits: int) -> None:
    """Headers and images stand where the document says, whatever a load beat's size."""
    config = AcceleratorConfig.preset("tiny", bus_bits=bus_bits)
    w, x, bias = operands(1, 20, 40, 18, 7, 90)
    image = pack_layer(w, x, bias, zero_point=90, weight_bits=7, lo_bits=5, config=config)
    beat = config.load_beat_bytes
    rows = [b"".join(map(bytes, row)) for row in weight_images(w, weight_bits=7, config=config).images]
    columns = activation_images(x, zero_point=90, lo_bits=5, config=config).images
    assert len(rows) == len(columns) == 3
    lengths = [1 + len(row) // beat for row in rows]
    headers = [struct.pack("<I", length).ljust(beat, b"\0") for length in (*lengths[1:], 0)]
    assert bytes(image.weights) == b"".join(header + row for header, row in zip(headers, rows, strict=True))
    region = b"".join(bytes(tile) for column in columns for tile in column)
    assert bytes(image.activations) == bytes(beat) + region
    assert (image.weights_length, image.activations_length) == (lengths[0], 1 + len(region) // beat)
    assert least_bytes(image) == (
        sum(map(len, rows)) + 3 * beat + len(region) + beat + 4 * 20 + 128, 4 * 20 * 18
    )  # fmt: skip


@pytest.mark.parametrize("dataflow", [Dataflow.WEIGHT_STATIONARY, Dataflow.INPUT_STATIONARY])
def test_regions_of_the_other_dataflows(dataflow: Dataflow) -> None:
    """A region for each chunk of the stationary operand; the other's images in the order of the loops."""
    config = AcceleratorConfig.preset("tiny")
    w, x, bias = operands(1, 20, 70, 18, 7, 90)  # 3 x 3 tiles, chunks of 2, 2 and 1 images
    schedule = Schedule(config=config, m=20, k=70, n=18, chunk=32, k_tile=16, dataflow=dataflow, block=2)
    image = pack_layer(
        w, x, bias, zero_point=90, weight_bits=7, lo_bits=5, config=config, schedule=schedule
    )  # fmt: skip
    rows = weight_images(w, weight_bits=7, config=config, chunk=32).images
    columns = activation_images(x, zero_point=90, lo_bits=5, config=config, chunk=32).images
    chunks = ((0, 1), (2, 3), (4,))
    stays, moves = (rows, columns) if dataflow == Dataflow.WEIGHT_STATIONARY else (columns, rows)
    found = [
        (chain_of([[tile[kt] for kt in chunk] for tile in stays for chunk in chunks]), stays),
        (
            chain_of(
                [
                    [moves[t][kt] for chunk in chunks for t in block for kt in chunk]
                    for block in ((0, 1), (2,))
                ]
            ),
            moves,
        ),
    ]
    for data, operand in found:
        assert bytes(image.weights if operand is rows else image.activations) == data


def chain_of(regions: list[list[Any]]) -> bytes:
    """Regions of these images as they lie in memory."""
    beat = TINY.load_beat_bytes
    bodies = [b"".join(bytes(image) for image in region) for region in regions]
    lengths = [1 + len(body) // beat for body in bodies]
    headers = [struct.pack("<I", length).ljust(beat, b"\0") for length in (*lengths[1:], 0)]
    return b"".join(header + body for header, body in zip(headers, bodies, strict=True))


def small(**changes: Any) -> LayerImage:
    arguments: dict[str, Any] = {
        "weights": np.full((9, 20), 5), "activations": np.full((20, 3), 130), "folded_bias": np.arange(9),
        "zero_point": 128, "weight_bits": 7, "lo_bits": 4, "config": TINY, **changes,
    }  # fmt: skip
    return pack_layer(**arguments)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"weights": np.full((9, 21), 5)}, "activations must have K = 21 rows"),
        ({"weights": np.full((9, 20), 64)}, "weights must have all elements in -64..63, not 64"),
        ({"activations": np.full((20, 3), 256)}, "activations must have all elements in 0..255"),
        ({"folded_bias": np.full(9, 1 << 31)}, "bias must have all elements in -2147483648..2147483647"),
        ({"folded_bias": np.arange(8)}, r"bias must have shape \(M,\) = \(9,\)"),
        ({"weight_bits": 10}, "weight_bits must be at most 7, not 10"),
        ({"lo_bits": 3}, "lo_bits must be one of 4, 5, 6, not 3"),
        ({"zero_point": 256}, "zero_point must be 0..255, not 256"),
        ({"config": AcceleratorConfig.preset("tiny", max_k=19)}, "at most max_k = 19 columns, not 20"),
        ({"chunk": 0}, "chunk must be 1 or more, not 0"),
        ({"psum_group": 5, "psum_exponents": 1}, "psum_group must be 0..4, not 5"),
        ({"psum_group": 1}, "psum_exponents must be given with psum_group = 1, not None"),
        ({"psum_group": 1, "chunk": 10, "psum_exponents": [1]}, "psum_exponents must"),
        ({"psum_group": 1, "psum_exponents": 32}, "psum_exponents must"),
    ],
)
def test_layers_that_the_machine_cannot_run_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small(**changes)


def test_descriptor_word_by_word() -> None:
    image = small(dataflow=Dataflow.WEIGHT_STATIONARY, chunk=4, psum_group=2, psum_exponents=[1, 2, 3, 4, 5])
    data = descriptor_bytes(
        image, weights_address=0x1_2345_6780, activations_address=0x2_0000_0008,
        parameters_address=0x3_0000_0004, output_address=0x4_0000_000C, output_stride=0x40,
        psum_address=0x6_0000_0040, next_address=0x5_0000_0080, interrupt=True,
    )  # fmt: skip
    kept = 0b111 | image.schedule.blocks_share << 3
    words = {
        0x00: 2 | (0b11 | kept << 2) << 8 | 4 << 16 | 2 << 20 | 8 << 24 | 1 << 28, 0x04: 9, 0x08: 3, 0x0C: 20,
        0x10: 0x2345_6780, 0x14: 1, 0x18: image.weights_length, 0x1C: 4,
        0x20: 8, 0x24: 2, 0x28: image.activations_length,
        0x30: 4, 0x34: 3, 0x38: 0xC, 0x3C: 4, 0x40: 0x40, 0x44: 16 | 2 << 8, 0x48: 0x80, 0x4C: 5,
        0x50: 0x40, 0x54: 6, 0x58: (1 << 24) - 1, 0x5C: 1, 0x60: 2,
    }  # fmt: skip
    assert list(image.parameters) == [0x0403_0201, 5, *range(9)]
    assert data == b"".join(struct.pack("<I", words.get(offset, 0)) for offset in range(0, 128, 4))
    assert encode_descriptor(decode_descriptor(data)) == data


def test_a_next_descriptor_at_address_0() -> None:
    addresses: dict[str, Any] = {"weights_address": 0, "activations_address": 0, "parameters_address": 0}
    data = descriptor_bytes(small(), **addresses, output_address=0, output_stride=12, next_address=0)
    assert decode_descriptor(data)["NEXT"] == 1


def test_fields_that_do_not_fit_are_refused() -> None:
    addresses: dict[str, Any] = {
        "weights_address": 0,
        "activations_address": 0,
        "parameters_address": 0,
        "output_address": 0,
    }
    with pytest.raises(ValueError, match=r"OUTPUT_STRIDE must be 0..4294967295, not 4294967296"):
        descriptor_bytes(small(), **addresses, output_stride=1 << 32)
    with pytest.raises(ValueError, match=r"PARAMETERS_ADDRESS must be 0..18446744073709551615, not -1"):
        descriptor_bytes(small(), **addresses | {"parameters_address": -1}, output_stride=12)


@pytest.mark.parametrize(
    ("offset", "sentence"),
    [
        (0, "descriptor must have format 2, not 3"),
        (0x7C, "all reserved bits 0"),  # a word that no field uses
        (0x07, "all reserved bits 0"),  # above M
    ],
)
def test_malformed_descriptors(offset: int, sentence: str) -> None:
    memory, read = memory_of(small(), 0)
    memory[offset] ^= 1
    with pytest.raises(ValueError, match=sentence):
        unpack_layer(read, 0, TINY)


@pytest.mark.parametrize(
    ("section", "at", "value", "sentence"),
    [
        ("WEIGHTS", 0, 0, "operand must have 2 regions, not 1"),
        ("WEIGHTS", 5, 1, "region 0 must have zeros after the length"),
        ("ACTIVATIONS", 8, 200, "image must have"),  # a count
    ],
)
def test_malformed_regions(section: str, at: int, value: int, sentence: str) -> None:
    memory, read = memory_of(small(), 0)
    memory[decode_descriptor(memory[:128])[f"{section}_ADDRESS"] + at] = value
    with pytest.raises(ValueError, match=sentence):
        unpack_layer(read, 0, TINY)


def test_a_length_beyond_the_last_image() -> None:
    memory, read = memory_of(small(), 0)
    fields = decode_descriptor(memory[:128])
    memory[:128] = encode_descriptor(fields | {"ACTIVATIONS_LENGTH": fields["ACTIVATIONS_LENGTH"] + 1})
    with pytest.raises(ValueError, match="region must end with its last image, not 1 beats later"):
        unpack_layer(read, 0, TINY)


# The document.


def test_the_document_prints_what_it_says() -> None:
    example = r"```python\n(.*?)```\n\nIt prints[^\n]*\n\n```\n(.*?)```"
    ((code, printed),) = re.findall(example, DOCUMENT.read_text(encoding="utf-8"), re.S)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, {})
    without_notes = [line.split("    ")[0].rstrip() for line in printed.splitlines()]
    assert output.getvalue().rstrip().splitlines() == without_notes


def test_the_documents_descriptor() -> None:
    """Its table names each word at its byte, and each field of the first word with its bits."""
    document = DOCUMENT.read_text(encoding="utf-8")
    for field in DESCRIPTOR[0].fields:
        bits = f"{field.lsb + field.width - 1}..{field.lsb}" if field.width > 1 else str(field.lsb)
        assert f"`{field.name}` {bits}" in document
    words = [register for register in DESCRIPTOR[1:] if not register.name.endswith("_HIGH")]
    for register in words:
        assert f"| {register.offset:#04x} | `{register.name}` |" in document
    assert document.count("\n| 0x") == 1 + len(words)
