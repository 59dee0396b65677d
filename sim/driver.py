"""Driver: runs layers on an accelerator, whatever it is behind: the fast engine, a cocotb bench, a board.

A `Port` reaches registers, memory and the interrupt. All of a run's input goes to memory in one write, each
layer's results come back in one read, and registers are not polled while the machine works, so that a slow
port (UART) does. The driver is synchronous; in cocotb, run it through ``cocotb.task.bridge`` on a port whose
methods are ``cocotb.task.resume``d coroutines, the one that waits with a limit of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.errors import ERROR_TEXTS, ErrorCode
from sliceforge.gen.registers import COUNTERS, DESCRIPTOR, DESCRIPTOR_BYTES, Access, register_map
from sliceforge.sim.layer_image import LayerImage, descriptor_bytes
from sliceforge.sim.layer_memory import read_output

__all__ = ["AcceleratorError", "BusError", "Driver", "Placement", "Port", "RunResult", "place"]

ALIGNMENT = DESCRIPTOR_BYTES
"""Of all sections: a multiple of every machine's load beat (64 bytes at most)."""

ACTIVATIONS_LENGTH_OFFSET = next(word.offset for word in DESCRIPTOR if word.name == "ACTIVATIONS_LENGTH")

Data = bytes | bytearray | memoryview
Progress = Callable[[], None]


class BusError(RuntimeError):
    """A register access was answered with an error; the message has its offset."""


class AcceleratorError(RuntimeError):
    """A layer failed. ``code``: why; ``layer``: index of the layer; the ones before it are done."""

    def __init__(self, code: ErrorCode, layer: int, note: str = "") -> None:
        super().__init__(f"layer {layer} failed with {code.name} ({code.value}): {ERROR_TEXTS[code]}{note}")
        self.code = code
        self.layer = layer


class Port(Protocol):
    """What the driver needs of the machine. Register offsets, addresses and sizes are in bytes."""

    def read_register(self, offset: int) -> int:
        """A 32-bit register. Raises BusError if the answer is an error."""

    def write_register(self, offset: int, value: int) -> None:
        """Raises BusError if the answer is an error."""

    def read_memory(self, address: int, size: int) -> Data: ...

    def write_memory(self, address: int, data: bytes) -> None: ...

    def wait_interrupt(self, progress: Progress | None) -> None:
        """Returns when the interrupt is high, calling ``progress`` from time to time; TimeoutError with
        the reason, after a limit of the port's own, if it stays low.
        """


@dataclass(frozen=True, eq=False)
class RunResult:
    """``outputs``: int64 (M, N) of each layer, of requantized ones as the next layer slices them (x_hat);
    ``counters``: by their names in `registers.COUNTERS`."""

    outputs: list[npt.NDArray[np.int64]]
    counters: dict[str, int]
    layers_done: int


@dataclass(frozen=True)
class Placement:
    """Layers in memory: ``data`` goes to ``address`` and starts with the descriptors, 128 bytes each, in
    order; the results of layer i will lie at ``outputs[i]``, rows without a gap, or requantized; then the
    length of their first region at ``lengths[i]``. ``end``: first byte behind.
    """

    address: int
    data: bytes
    outputs: tuple[int, ...]
    lengths: tuple[int, ...]
    end: int


def place(images: Sequence[LayerImage], *, base: int, memory_bytes: int) -> Placement:
    """Lays out ``images`` in the memory of ``memory_bytes`` bytes at ``base``: descriptors, then each layer's
    weights, activations and parameters, then requantized results, the other results, and partial sums that
    are kept in memory. ValueError if they do not fit, or the memory is not within the machine's addresses.
    """
    if not images:
        raise ValueError("images must have at least one layer, not none")
    bits = images[0].config.address_bits
    if not 0 <= base <= base + memory_bytes <= 1 << bits:
        raise ValueError(
            f"base and memory_bytes must stay within {bits} address bits, "
            f"not reach from {base:#x} to {base + memory_bytes:#x}"
        )
    address = end = -(-base // ALIGNMENT) * ALIGNMENT

    def allocate(size: int) -> int:
        nonlocal end
        start, end = end, end + -(-size // ALIGNMENT) * ALIGNMENT
        return start

    descriptors = [allocate(DESCRIPTOR_BYTES) for _ in images]
    inputs = [
        [
            (allocate(part.nbytes), part.tobytes())
            for part in (im.weights, im.activations, im.parameters.astype("<u4"))
        ]
        for im in images
    ]
    # The header of the last region of requantized results is not written and must be 0: memory that is
    # written.
    requantized = {i: allocate(im.output_bytes) for i, im in enumerate(images) if im.output is not None}
    own_lengths = allocate(4 * len(images))
    inputs_end = end
    outputs = [
        requantized[i] if i in requantized else allocate(image.output_bytes) for i, image in enumerate(images)
    ]
    # One layer runs at a time, so that all may keep their partial sums in the same place.
    psums = allocate(max(image.psum_bytes for image in images))
    if end > base + memory_bytes:
        raise ValueError(f"memory_bytes must be {end - base} or more for these layers, not {memory_bytes}")

    # Layers that chain: the length of a layer's first region of results is a field of the next one's
    # descriptor.
    chained = [following.activations_stride != 0 for following in images[1:]] + [False]
    lengths = [
        descriptors[i + 1] + ACTIVATIONS_LENGTH_OFFSET if links else own_lengths + 4 * i
        for i, links in enumerate(chained)
    ]
    data = bytearray(inputs_end - address)
    for i, (image, parts) in enumerate(zip(images, inputs, strict=True)):
        descriptor = descriptor_bytes(
            image,
            weights_address=parts[0][0],
            activations_address=outputs[i - 1] if i and chained[i - 1] else parts[1][0],
            parameters_address=parts[2][0],
            output_address=outputs[i],
            psum_address=psums,
            length_address=lengths[i] if image.output is not None else 0,
            next_address=descriptors[i + 1] if i + 1 < len(images) else None,
        )
        for start, part in ((descriptors[i], descriptor), *parts):
            data[start - address : start - address + len(part)] = part
    return Placement(address, bytes(data), tuple(outputs), tuple(lengths), end)


class Driver:
    """Drives one accelerator through ``port``.

    Raises RuntimeError if what answers there is not the accelerator of ``config``, of this release.
    idle_polls: how often BUSY is read, at most, until it falls: each wait of the driver has an end.
    """

    def __init__(self, port: Port, config: AcceleratorConfig, *, idle_polls: int = 10_000) -> None:
        self.port = port
        self.config = config
        self._idle_polls = idle_polls
        self._registers = {register.name: register for register in register_map(config)}
        for name, register in self._registers.items():
            if all(field.access is Access.CONSTANT for field in register.fields):
                found = port.read_register(register.offset)
                expected = sum(field.reset << field.lsb for field in register.fields)
                if found != expected:
                    raise RuntimeError(
                        f"register {name} must be {expected} ({expected:#x}) for config {config.name!r} and "
                        f"this release of sliceforge, not {found} ({found:#x})"
                    )

    # Registers.

    def read(self, name: str, field: str = "VALUE") -> int:
        """A field of register ``name``."""
        register = self._registers[name]
        place = register.field(field)
        return (self.port.read_register(register.offset) & place.mask) >> place.lsb

    def write(self, name: str, **fields: int) -> None:
        """Writes register ``name`` with these ``fields``, and 0 in its others."""
        register, word = self._registers[name], 0
        for field_name, value in fields.items():
            field = register.field(field_name)
            if not 0 <= value < 1 << field.width:
                raise ValueError(f"{name}.{field_name} must fit {field.width} bits, not be {value}")
            word |= value << field.lsb
        self.port.write_register(register.offset, word)

    # Runs.

    def run(
        self,
        images: Sequence[LayerImage],
        *,
        base: int = 0,
        memory_bytes: int,
        progress: Progress | None = None,
    ) -> RunResult:
        """Runs a chain of layers, in the ``memory_bytes`` bytes of memory from address ``base`` on.

        progress: passed on to the port, which calls it while the machine works.
        Raises ValueError if the layers do not fit (before anything is written), AcceleratorError for a layer
        that failed, TimeoutError if the machine does not answer.
        """
        for i, image in enumerate(images):
            if image.config != self.config:
                raise ValueError(
                    f"images must be packed for config {self.config.name!r} of this accelerator, and "
                    f"layer {i} is for {image.config.name!r} or other fields"
                )
        placement = place(images, base=base, memory_bytes=memory_bytes)
        self._check_idle()
        self.port.write_memory(placement.address, placement.data)
        counters = self.execute(placement.address, layers=len(images), progress=progress)
        outputs = [self._read_output(image, placement, i) for i, image in enumerate(images)]
        return RunResult(outputs, counters, len(images))

    def _read_output(self, image: LayerImage, placement: Placement, i: int) -> npt.NDArray[np.int64]:
        s, address = image.schedule, placement.outputs[i]
        if image.output is None:
            data = self.port.read_memory(address, image.output_bytes)
            return np.frombuffer(data, "<i4").astype(np.int64).reshape(s.m, s.n)
        length = int.from_bytes(self.port.read_memory(placement.lengths[i], 4), "little")
        return read_output(self.port.read_memory, address, length, image).astype(np.int64)

    def execute(self, queue_address: int, *, layers: int, progress: Progress | None = None) -> dict[str, int]:
        """Runs the ``layers`` layers whose descriptors memory holds, the first at ``queue_address``; returns
        the counters. Errors as in `run`; after them, too, the machine takes a new start.
        """
        self._check_idle()
        self._clear_pending()  # left by a run that nobody waited for
        if "QUEUE_ADDRESS_HIGH" in self._registers:
            self.write("QUEUE_ADDRESS", VALUE=queue_address & 0xFFFF_FFFF)
            self.write("QUEUE_ADDRESS_HIGH", VALUE=queue_address >> 32)
        else:
            self.write("QUEUE_ADDRESS", VALUE=queue_address)
        self.write("INTERRUPT_ENABLE", DONE=1, ERROR=1)
        self.write("CONTROL", START=1)
        try:
            self.port.wait_interrupt(progress)
        except TimeoutError as error:
            raise TimeoutError(self._give_up(layers, str(error) or "the port gave up")) from error
        return self._finish(layers)

    def soft_reset(self) -> None:
        """Stops whatever runs. TimeoutError if the machine stays busy, as its bus is owed answers."""
        self.write("CONTROL", SOFT_RESET=1)
        self._wait_idle()
        self._clear_pending()

    def counters(self) -> dict[str, int]:
        """The performance counters of the last run; only while nothing runs are both halves of one time."""
        return {name: self.read(name) | self.read(f"{name}_HIGH") << 32 for name in COUNTERS}

    def _finish(self, layers: int) -> dict[str, int]:
        """After the interrupt: clears it, and returns the counters or raises AcceleratorError."""
        error = self.read("INTERRUPT_PENDING", "ERROR")
        self._clear_pending()
        note = ""
        try:
            self._wait_idle()
        except TimeoutError as stuck:
            if not error:
                raise
            note = f" And {stuck}."  # the error explains it, so it must not get lost
        done = self.read("LAYERS_DONE")
        if error:
            number = self.read("STATUS", "ERROR_CODE")
            try:
                code = ErrorCode(number)
            except ValueError:
                raise RuntimeError(f"layer {done} failed with error code {number}, an unknown one") from None
            raise AcceleratorError(code, done, note)
        if done != layers:
            raise RuntimeError(f"the accelerator must have done {layers} layers at its interrupt, not {done}")
        return self.counters()

    def _give_up(self, layers: int, reason: str) -> str:
        """Stops a machine that raised no interrupt, and tells what is known of it."""
        busy, done = self.read("STATUS", "BUSY"), self.read("LAYERS_DONE")
        state = "busy" if busy else "idle"
        text = f"no interrupt came, and the accelerator is {state} after {done} of {layers} layers: {reason}"
        try:
            self.soft_reset()
        except TimeoutError as error:
            text += f"; soft reset did not help: {error}"
        return text

    def _check_idle(self) -> None:
        if self.read("STATUS", "BUSY"):
            raise RuntimeError("the accelerator is busy with something else; soft_reset() stops it")

    def _wait_idle(self) -> None:
        for _ in range(self._idle_polls):
            if not self.read("STATUS", "BUSY"):
                return
        raise TimeoutError(f"the accelerator is still busy after {self._idle_polls} looks at STATUS")

    def _clear_pending(self) -> None:
        self.write("INTERRUPT_PENDING", DONE=1, ERROR=1, LAYER=1)
