"""Layers in memory for the accelerator's bench: where everything lies, what is read and written."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cocotb

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import DESCRIPTOR, DESCRIPTOR_BYTES, PSUM_ALIGNMENT, TABLE_WORDS
from sliceforge.sim.descriptor import encode_descriptor
from sliceforge.sim.layer_image import descriptor_fields
from sliceforge.verif.accelerator_layers import GoldenLayer

__all__ = ["MEMORY_BYTES", "Placed", "Span", "beats_moved", "long", "place_layers", "seeded"]

MEMORY_BYTES = 1 << 17
"""Of the bench's memory, which repeats over the whole address space."""

Span = tuple[int, int]
"""Address and bytes."""

_LENGTH_OFFSET = next(word.offset for word in DESCRIPTOR if word.name == "ACTIVATIONS_LENGTH")


def long(usual: int, more: int) -> int:
    """A number of repetitions: ``more`` of them with SLICEFORGE_LONG=1 (``--run-long``)."""
    return more if os.environ.get("SLICEFORGE_LONG") == "1" else usual


def seeded(*salt: Any) -> random.Random:
    """A source of random numbers for one test."""
    return random.Random(f"{cocotb.RANDOM_SEED} {salt}")


@dataclass
class Placed:
    """A layer in memory. ``fields``: of its descriptor, for tests to alter before `System.load`."""

    layer: GoldenLayer
    address: int  # of the descriptor
    fields: dict[str, int]
    weights: bytearray = field(default_factory=bytearray)
    activations: bytearray = field(default_factory=bytearray)  # empty if the layer before writes them
    parameters: bytearray = field(default_factory=bytearray)
    space: int | None = None  # what is written ends there

    def pieces(self) -> dict[str, tuple[int, bytes]]:
        """What memory must hold before, each with its address."""
        f = self.fields
        found = {
            "descriptor": (self.address, encode_descriptor(f)),
            "weights": (f["WEIGHTS_ADDRESS"], bytes(self.weights)),
            "activations": (f["ACTIVATIONS_ADDRESS"], bytes(self.activations)),
            "parameters": (f["PARAMETERS_ADDRESS"], bytes(self.parameters)),
        }
        if self.layer.image.output is not None:  # the header of the last region is not written
            last = f["OUTPUT_ADDRESS"] + (len(self.layer.output_regions) - 1) * f["OUTPUT_STRIDE"]
            found["end"] = last, bytes(4)
        return found

    def reads(self) -> dict[str, list[Span]]:
        """All that is read, by what it is, as often as it is read."""
        layer, f = self.layer, self.fields
        found = {
            "descriptor": [(self.address, DESCRIPTOR_BYTES)],
            "weights": [(f["WEIGHTS_ADDRESS"], len(self.weights))] * layer.loads("weights"),
            "activations": [(f["ACTIVATIONS_ADDRESS"], len(self.activations))] * layer.loads("activations"),
            "parameters": list(self._parameter_spans()),
            "psums": self._psums()[0],
        }
        if layer.producer is not None:
            found["activations"] = [
                (
                    f["ACTIVATIONS_ADDRESS"] + i * f["ACTIVATIONS_STRIDE"],
                    (1 + beats) * layer.config.load_beat_bytes,
                )
                for i, beats in enumerate(layer.region_beats("activations"))
            ] * layer.loads("activations")
        return found

    def _parameter_spans(self) -> Any:
        """Table, exponents, and for each row of tiles biases and scales."""
        image, at = self.layer.image, self.fields["PARAMETERS_ADDRESS"]
        table = TABLE_WORDS if image.output is not None and image.output.table is not None else 0
        for words in (table, len(image.exponent_words)):
            if words:
                yield at, 4 * words
            at += 4 * words
        size = 4 if image.output is None else 12
        for rows in image.schedule.parameter_rows():
            yield at + size * rows.start, size * (rows.stop - rows.start)

    def _psums(self) -> tuple[list[Span], list[Span]]:
        """Reads and writes of partial sums: tile t of a block, at position g of its group, lies in place
        t * group + g; a group's head needs all of the group before, the last chunk the rest of its own."""
        s, c = self.layer.schedule, self.layer.config
        reads: list[Span] = []
        writes: list[Span] = []
        if s.psums_resident:
            return reads, writes
        group = max(1, s.psum_group)
        size = 4 * (c.psum_words if s.psum_group else c.tile_m * c.tile_n)
        stride = -(-size // (c.bus_bits // 8)) * (c.bus_bits // 8)
        for i, j, chunk in s.tiles():
            tile = {Dataflow.WEIGHT_STATIONARY: j, Dataflow.INPUT_STATIONARY: i}.get(s.dataflow, 0) % s.block
            first, position = self.fields["PSUM_ADDRESS"] + tile * group * stride, chunk % group
            is_last = chunk == s.steps - 1
            if chunk and position == 0:
                reads.append((first, group * stride))
            elif position and is_last:
                reads.append((first, position * stride))
            if not is_last:
                writes.append((first + position * stride, size))
        return reads, writes

    def output(self) -> list[tuple[int, bytes]]:
        """Results as they are written, job by job, with addresses: rows of a tile, or images and lengths."""
        f, s, c = self.fields, self.layer.schedule, self.layer.config
        first, stride = f["OUTPUT_ADDRESS"], f["OUTPUT_STRIDE"]
        if self.layer.image.output is None:
            results = self.layer.result.astype("<i4")
            found = [
                (first + i * stride + 4 * columns.start, results[i, columns].tobytes())
                for rows, columns in s.output_tiles()
                for i in range(rows.start, rows.stop)
            ]
        else:
            found, at, before = [], first, f["LENGTH_ADDRESS"]
            for images in self.layer.output_regions:
                here = at + c.load_beat_bytes
                for image in images:
                    found.append((here, image.tobytes()))
                    here += image.nbytes
                found.append((before, ((here - at) // c.load_beat_bytes).to_bytes(4, "little")))
                before, at = at, at + stride
        if self.space is not None:
            found = [(at, data[: self.space - at]) for at, data in found if at < self.space]
        return found

    def writes(self) -> dict[str, list[Span]]:
        """All that is written, job by job."""
        return {"output": [(at, len(data)) for at, data in self.output()], "psums": self._psums()[1]}

    def psum_area(self) -> Span:
        return self.fields["PSUM_ADDRESS"], self.layer.image.psum_bytes

    def output_area(self) -> list[Span]:
        """Where the layer may write results, right or wrong."""
        spans = self.writes()["output"]
        if self.layer.image.output is not None:
            size = len(self.layer.output_regions) * self.fields["OUTPUT_STRIDE"]
            spans += [(self.fields["OUTPUT_ADDRESS"], size)]
        return spans

    def clip(self, operand: str, size: int) -> None:
        """Keeps only the first ``size`` bytes of what lies in memory."""
        del getattr(self, operand)[size:]


def place_layers(
    rng: random.Random,
    layers: Sequence[GoldenLayer],
    *,
    memory_bytes: int = MEMORY_BYTES,
    interrupt: Callable[[int], bool] = lambda i: False,
    top: str | None = None,
) -> list[Placed]:
    """Layers as a queue, everything at random legal addresses of the whole space, in random order.

    Some of it lies across 4 KiB. memory_bytes: of the memory to use. top: this of the last layer, an
    address of the descriptor or "descriptor", ends where the address space does.
    """
    config = layers[0].config
    load = config.load_beat_bytes
    strides, wanted = [], []  # wanted: layer, what, size, alignment
    for i, layer in enumerate(layers):
        image = layer.image
        stride = 4 * (image.schedule.n + rng.choice([0, 0, 1, 2, 7]))
        output = (image.schedule.m - 1) * stride + 4 * image.schedule.n, 4
        if image.output is not None:
            stride = image.output.stride + load * rng.choice([0, 0, 1, 3])
            output = len(layer.output_regions) * stride, load
        strides.append(stride)
        wanted += [
            (i, "descriptor", DESCRIPTOR_BYTES, DESCRIPTOR_BYTES),
            (i, "WEIGHTS_ADDRESS", image.weights.nbytes, load),
            (i, "PARAMETERS_ADDRESS", image.parameters.nbytes, 4),
            (i, "OUTPUT_ADDRESS", *output),
            (i, "PSUM_ADDRESS", image.psum_bytes, PSUM_ALIGNMENT),
        ]
        if layer.producer is None:
            wanted.append((i, "ACTIVATIONS_ADDRESS", image.activations.nbytes, load))
        if image.output is not None:
            wanted.append((i, "LENGTH_ADDRESS", 4, 4))
    found = _addresses(rng, config, wanted, memory_bytes, (len(layers) - 1, top))
    placed = []
    for i, layer in enumerate(layers):
        here, image = found[i], layer.image
        following = found[i + 1]["descriptor"] if i + 1 < len(layers) else None
        fields = {
            **{name: int(value) for name, value in descriptor_fields(image).items()},
            **{name: at for name, at in here.items() if name != "descriptor"},
            "OUTPUT_STRIDE": strides[i],
            "NEXT": int(following is not None),
            "NEXT_ADDRESS": following or 0,
            "INTERRUPT": int(interrupt(i)),
        }
        if layer.producer is not None:
            before = placed[i - 1]
            assert before.layer is layer.producer
            fields["ACTIVATIONS_ADDRESS"] = before.fields["OUTPUT_ADDRESS"]
            fields["ACTIVATIONS_STRIDE"] = strides[i - 1]
            before.fields["LENGTH_ADDRESS"] = here["descriptor"] + _LENGTH_OFFSET
        placed.append(
            Placed(
                layer, here["descriptor"], fields, bytearray(image.weights.tobytes()),
                bytearray(image.activations.tobytes()), bytearray(image.parameters.astype("<u4").tobytes()),
            )
        )  # fmt: skip
    return placed


def _addresses(
    rng: random.Random,
    config: AcceleratorConfig,
    wanted: list[tuple[int, str, int, int]],
    memory_bytes: int,
    top: tuple[int, str | None],
) -> list[dict[str, int]]:
    """Of each layer, by name."""
    rng.shuffle(wanted)
    found: list[dict[str, int]] = [{} for _ in range(1 + top[0])]
    end = 0
    for i, what, size, alignment in wanted:
        at = -(-(end + rng.randrange(256)) // alignment) * alignment
        if what != "descriptor" and rng.random() < 0.3:  # across the next 4 KiB
            page = (at | 4095) + 1
            at = max(at, page - rng.randint(1, max(1, min(size, 96) // alignment)) * alignment)
        if (i, what) == top:
            at = ((1 << config.address_bits) - size) // alignment * alignment
        else:
            end = at + size
            at += MEMORY_BYTES * rng.randrange((1 << config.address_bits) // MEMORY_BYTES)
        found[i][what] = at
    assert end <= memory_bytes, f"layers need {end} bytes of memory"
    return found


def beats_moved(placed: Placed) -> tuple[Counter[int], Counter[int]]:
    """How often each beat of memory (address over bytes of the bus) is read, and written, for this layer."""
    bus = placed.layer.config.bus_bits // 8
    counts = []
    for kinds in (placed.reads(), placed.writes()):
        beats = Counter[int]()
        for (at, size), times in Counter(span for spans in kinds.values() for span in spans).items():
            for beat in range(at // bus, -(-(at + size) // bus)):
                beats[beat] += times
        counts.append(beats)
    return counts[0], counts[1]
