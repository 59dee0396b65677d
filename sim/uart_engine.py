"""The engine ``uart://``: a layer on a board at a serial port, by the driver that simulation uses too."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.host_link import DEFAULT_BAUD
from sliceforge.sim import checks
from sliceforge.sim.driver import Driver
from sliceforge.sim.layer_image import LayerImage
from sliceforge.sim.parts import Pack, split_layer
from sliceforge.sim.uart_port import UartPort
from sliceforge.sim.verilated import Progress

__all__ = ["Board", "run_on_board"]

_EXAMPLE = "uart:///dev/ttyUSB0?baud=1000000"


@dataclass(frozen=True)
class Board:
    """A serial port and its bits a second."""

    device: str
    baud: int

    @classmethod
    def parse(cls, engine: str) -> Board:
        """``uart://DEVICE[?baud=BAUD]``; ValueError for another URL."""
        device, _, query = engine.removeprefix("uart://").partition("?")
        options = parse_qsl(query, keep_blank_values=True)
        known = [name for name, _ in options] in ([], ["baud"])
        if not engine.startswith("uart://") or not device or not known:
            raise ValueError(f"engine must be uart://DEVICE[?baud=BAUD], such as {_EXAMPLE}, not {engine!r}")
        baud = dict(options).get("baud", str(DEFAULT_BAUD))
        if not baud.isdecimal():
            raise ValueError(f"engine's baud must be an integer, as in {_EXAMPLE}, not {baud!r}")
        return cls(device, checks.integer("engine's baud", int(baud), 1200, 1 << 24))


def run_on_board(
    board: Board,
    config: AcceleratorConfig,
    shape: tuple[int, int],
    pack: Pack,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.int64], dict[str, int], list[LayerImage]]:
    """Runs a layer of M x N results, ``shape``, in as many parts as the board's memory asks for. Returns its
    output, int64 (M, N), the counters, added up, and the parts' images. progress: called with the share of
    memory traffic that is done.

    Raises ValueError if the port cannot be opened or the memory is too small, RuntimeError if the board is of
    another configuration, does not answer, or a part fails.
    """
    moved, total = 0, 0

    def report(size: int) -> None:
        nonlocal moved
        moved += size
        if progress is not None and total:
            progress(min(moved / total, 1.0))

    try:
        with UartPort(board.device, config, baud=board.baud, moved=report) as port:
            driver = Driver(port, config)
            memory = {"base": port.memory_base, "memory_bytes": port.memory_bytes}
            parts = split_layer(*shape, pack, **memory)
            total = sum(part.traffic for part in parts)
            output = np.zeros(shape, np.int64)
            counters: dict[str, int] = {}
            for part in parts:
                result = driver.run([part.image], **memory)
                output[part.rows, part.columns] = result.outputs[0]
                for name, count in result.counters.items():
                    counters[name] = counters.get(name, 0) + count
    except TimeoutError as error:
        raise RuntimeError(str(error)) from error
    return output, counters, [part.image for part in parts]
