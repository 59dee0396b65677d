"""One configuration describes one machine; everything else is generated from it.

Sizes that several parts need (image layout, accumulator width, memory depths) are derived here, once.
Sources: Panacea (HPCA 2025) for the organisation; vector length, lanes, memory sizes are our choices.
"""

from __future__ import annotations

import operator
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any, SupportsIndex

__all__ = ["AcceleratorConfig", "TileLayout"]

COUNT_BITS = 8
"""Width of a count of run-length coded entries, in a tile image's header."""
MOST_WORDS = 1 << 16
"""Words that a bank may have. The generated Verilog has a line for each, so that larger ones take minutes."""


@dataclass(frozen=True)
class TileLayout:
    """How one operand's tile image (tile_k positions) lies in its bank, in words called granules.

    A granule is 16 * vector bits: four vectors of 4-bit slices. A slot holds one tile of one bank:
    the count of high-order (HO) entries, then low-order (LO) granules, then HO granules.
    """

    vector: int
    dense: int  # LO slices a position: 1 for activations, weight_slices - 1 (at least 1) for weights
    run_bits: int
    tile_k: int

    @property
    def granule_bits(self) -> int:
        return 16 * self.vector

    @property
    def entry_bits(self) -> int:
        """Bits of a run-length coded entry: skip and one vector."""
        return self.run_bits + 4 * self.vector

    @property
    def entries_per_granule(self) -> int:
        return self.granule_bits // self.entry_bits

    def lo_granules(self, length: int, dense: int) -> int:
        """Granules of the LO section of ``length`` positions with ``dense`` slices each."""
        return -(-length * dense // 4)

    def ho_granules(self, count: int) -> int:
        """Granules of the HO section of ``count`` entries."""
        return -(-count // self.entries_per_granule)

    def header_beats(self, banks: int, ways: int) -> int:
        """Beats of the header: the counts of a way's banks fill granules."""
        return -(-(-(-banks // ways)) // (self.granule_bits // COUNT_BITS))

    def most_image_beats(self, banks: int, ways: int, length: int) -> int:
        """Load beats of ``ways`` granules of the largest image of ``length`` positions of all banks."""
        granules = self.lo_granules(length, self.dense) + self.ho_granules(length)
        return self.header_beats(banks, ways) + -(-banks // ways) * granules

    @property
    def ho_base(self) -> int:
        """Offset of the HO section in a slot."""
        return 1 + self.lo_granules(self.tile_k, self.dense)

    @property
    def slot_granules(self) -> int:
        return self.ho_base + self.ho_granules(self.tile_k)


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Parameters of one accelerator. Every illegal value or combination raises ValueError (TypeError
    for a wrong type) with one sentence that names the field, the value and the rule."""

    name: str
    pea_count: int = 16
    """Processing element arrays; a PEA owns `vector` rows of the output tile."""
    lanes: int = 16
    """Operators a PEA; a lane owns `vector` columns of the output tile."""
    vector: int = 4
    """v: an operator multiplies v weight slices with v activation slices each cycle."""
    weight_slices: int = 2
    """S: weights of up to 3 S + 1 bits."""
    run_bits: int = 4
    """Width of the skip field of a run-length coded entry."""
    tile_k: int = 32
    """Positions along K in a tile image."""
    fifo_depth: int = 8
    """Entries of each operator's weight and activation FIFO."""
    wmem_kib: int = 256
    amem_kib: int = 256
    omem_kib: int = 64
    bus_bits: int = 256
    """Width of the AXI4 master's data, and of the load and result streams."""
    address_bits: int = 32
    """Width of the AXI4 master's addresses."""
    load_buffer: int = 128
    """Bus beats in the buffer of each load unit: as many may be on their way from memory."""
    packed_products: int = 0
    """Of the vector**2 products of an operator, those from wide multipliers (DSP blocks); the others are made
    in logic."""
    packing: int = 2
    """Products from a wide multiplier: 2 from one of 18 x 18 bits, 4 from one of 25 x 18."""
    table_products: int = 0
    """Of the products of an operator, those from tables (block RAMs), two from each."""
    max_k: int = 4096
    """Largest K; with weight_slices it sets the accumulator's width."""

    def __post_init__(self) -> None:
        _check_fields(self)
        _check_combinations(self)

    # Sources of a configuration.

    @staticmethod
    def presets() -> tuple[str, ...]:
        return tuple(_PRESETS)

    @classmethod
    def preset(cls, preset: str, /, **overrides: Any) -> AcceleratorConfig:
        """The preset with ``overrides``, of its name too; ValueError lists the presets for an unknown one."""
        if not isinstance(preset, str) or preset not in _PRESETS:
            raise ValueError(f"config must be one of the presets {', '.join(_PRESETS)}, not {preset!r}")
        return cls._build({"name": preset, **_PRESETS[preset], **overrides})

    @classmethod
    def load(cls, source: str | Path, settings: Iterable[str] = ()) -> AcceleratorConfig:
        """A preset's name or the path of a TOML file, and ``key=value`` settings on top of it.

        A TOML file may name a preset to start from (``preset = "tiny"``); its stem is the default name.
        """
        if not isinstance(source, (str, Path)) or "\0" in str(source):
            raise TypeError(f"config must be a preset's name or the path of a .toml file, not {source!r}")
        if isinstance(settings, str) or not all(isinstance(setting, str) for setting in settings):
            raise TypeError(f"settings must be a list of 'key=value', not {settings!r}")
        overrides = dict(_parse_setting(setting) for setting in settings)
        if str(source) in _PRESETS:
            return cls.preset(str(source), **overrides)
        path = Path(source)
        if path.suffix != ".toml":
            raise ValueError(
                f"config must be a preset ({', '.join(_PRESETS)}) or a .toml file, not {str(source)!r}"
            )
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ValueError(f"config {str(source)!r} cannot be read: {reason}") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"config {str(source)!r} must be valid TOML: {error}") from None
        except RecursionError:
            raise ValueError(f"config {str(source)!r} must be valid TOML, not nested so deeply") from None
        start: dict[str, int] = {}
        if "preset" in values:
            base = values.pop("preset")
            if not isinstance(base, str) or base not in _PRESETS:
                raise ValueError(f"preset must be one of {', '.join(_PRESETS)}, not {base!r}")
            start = _PRESETS[base]
        return cls._build({"name": path.stem, **start, **values, **overrides})

    @classmethod
    def _build(cls, values: Mapping[str, Any]) -> AcceleratorConfig:
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(f"configuration field must be one of {', '.join(known)}, not {key!r}")
        return cls(**values)

    def parameters(self) -> dict[str, Any]:
        """The fields as a plain dict, in order."""
        return asdict(self)

    # Derived values.

    @property
    def module(self) -> str:
        """Name of the top Verilog module."""
        return f"sliceforge_{self.name}"

    @property
    def operators(self) -> int:
        return self.pea_count * self.lanes

    @property
    def multipliers(self) -> int:
        """4-bit by 4-bit multipliers."""
        return self.operators * self.vector**2

    @property
    def tile_m(self) -> int:
        """Rows of an output tile."""
        return self.pea_count * self.vector

    @property
    def tile_n(self) -> int:
        """Columns of an output tile."""
        return self.lanes * self.vector

    @property
    def max_weight_bits(self) -> int:
        return 3 * self.weight_slices + 1

    @property
    def accumulator_bits(self) -> int:
        """Signed width that holds every ``sum_k W[k] * x_hat[k]``: |W| <= 2^(b-1), x_hat <= 255."""
        return (self.max_weight_bits - 1) + 8 + (self.max_k - 1).bit_length() + 1

    @cached_property
    def weight_layout(self) -> TileLayout:
        return TileLayout(self.vector, max(1, self.weight_slices - 1), self.run_bits, self.tile_k)

    @cached_property
    def activation_layout(self) -> TileLayout:
        return TileLayout(self.vector, 1, self.run_bits, self.tile_k)

    @property
    def load_ways(self) -> int:
        """Granules side by side in a beat of a load stream (at least one)."""
        return max(1, self.bus_bits // self.weight_layout.granule_bits)

    @property
    def load_beat_bytes(self) -> int:
        """Bytes of a beat of a load stream: a beat of the bus, or a granule where that is wider."""
        return self.load_ways * self.weight_layout.granule_bits // 8

    @property
    def weight_slots(self) -> int:
        """Tiles that a PEA's bank of WMEM holds."""
        return _slots(self.wmem_kib, self.pea_count, self.weight_layout)

    @property
    def activation_slots(self) -> int:
        """Tiles that a lane's bank of AMEM holds."""
        return _slots(self.amem_kib, self.lanes, self.activation_layout)

    @property
    def output_slots(self) -> int:
        """Output tiles of 32-bit sums that OMEM holds."""
        return self.omem_kib * 1024 // (self.tile_m * self.tile_n * 4)

    @property
    def transit_slots(self) -> int:
        """Of these, the tiles on their way out of the array: one is filled while one is read."""
        return 2

    @property
    def psum_slots(self) -> int:
        """Of these, the tiles of partial sums that wait for the next K-chunk: one at full width, or up to
        four of 8 bits, in each slot."""
        return self.output_slots - self.transit_slots

    @property
    def result_lanes(self) -> int:
        """Lanes whose sums are read side by side from OMEM: twice the bus's width, so that partial sums,
        which stay on chip, keep pace with the array. A power of 2."""
        return gcd(self.lanes, max(1, self.bus_bits // (16 * self.vector)))

    @property
    def result_sums(self) -> int:
        """Sums in a beat of the result stream. A power of 2."""
        return self.result_lanes * self.vector

    @property
    def drain_lanes(self) -> int:
        """Lanes of a PEA whose sums leave the accumulators side by side."""
        return gcd(self.result_lanes, 2)

    @property
    def psum_words(self) -> int:
        """Words of 32 bits that a tile's partial sums of 8 bits take in memory."""
        return self.tile_m * self.tile_n // self.result_sums * max(1, self.result_sums // 4)


def _slots(kib: int, banks: int, layout: TileLayout) -> int:
    return kib * 1024 * 8 // (banks * layout.slot_granules * layout.granule_bits)


_PRESETS: dict[str, dict[str, int]] = {
    "panacea": {},
    "edge": {
        "pea_count": 4,
        "lanes": 8,
        "wmem_kib": 32,
        "amem_kib": 32,
        "omem_kib": 8,
        "bus_bits": 64,
        "load_buffer": 64,
    },
    "tiny": {
        "pea_count": 2,
        "lanes": 2,
        "tile_k": 16,
        "wmem_kib": 4,
        "amem_kib": 4,
        "omem_kib": 1,
        "bus_bits": 64,
        "load_buffer": 64,
    },
}

_RANGES = {
    "pea_count": (1, 64),
    "lanes": (1, 64),
    "run_bits": (1, 8),
    "tile_k": (4, 128),
    "fifo_depth": (2, 64),
    "wmem_kib": (1, 65536),
    "amem_kib": (1, 65536),
    "omem_kib": (1, 65536),
    "address_bits": (32, 64),
    "packed_products": (0, 64),
    "table_products": (0, 64),
    "max_k": (1, 1 << 20),
}
_CHOICES = {
    "vector": (2, 4, 8),
    "weight_slices": (1, 2, 3),
    "bus_bits": (32, 64, 128, 256, 512),
    "packing": (2, 4),
    "load_buffer": (16, 32, 64, 128, 256, 512),
}


def _check_fields(config: AcceleratorConfig) -> None:
    if not isinstance(config.name, str):
        raise TypeError(f"name must be a string, not {config.name!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", config.name):
        raise ValueError(
            f"name must be 1 to 32 lower-case letters, digits or _, a letter first, not {config.name!r}"
        )
    for key, value in config.parameters().items():
        if key != "name" and (not isinstance(value, SupportsIndex) or isinstance(value, bool)):
            raise TypeError(f"{key} must be an integer, not {value!r}")
        if key != "name":
            object.__setattr__(config, key, operator.index(value))  # numpy's integers become Python's
    for key, (low, high) in _RANGES.items():
        if not low <= getattr(config, key) <= high:
            raise ValueError(f"{key} must be {low}..{high}, not {getattr(config, key)}")
    for key, allowed in _CHOICES.items():
        if getattr(config, key) not in allowed:
            listed = ", ".join(map(str, allowed))
            raise ValueError(f"{key} must be one of {listed}, not {getattr(config, key)}")
    if config.tile_k % 4:
        raise ValueError(f"tile_k must be a multiple of 4, not {config.tile_k}")


def _check_combinations(config: AcceleratorConfig) -> None:
    if config.packed_products % config.packing or config.packed_products > config.vector**2:
        raise ValueError(
            f"packed_products must be a multiple of packing = {config.packing} up to {config.vector**2} "
            f"(vector = {config.vector}), not {config.packed_products}"
        )
    left = config.vector**2 - config.packed_products
    if config.table_products % 2 or config.table_products > left:
        raise ValueError(
            f"table_products must be even and up to {left}, the products that are not packed, "
            f"not {config.table_products}"
        )
    if config.accumulator_bits > 32:
        raise ValueError(
            f"max_k must keep the accumulator within 32 bits: max_k = {config.max_k} with "
            f"weight_slices = {config.weight_slices} needs {config.accumulator_bits}"
        )
    for key, banks, layout in (
        ("wmem_kib", config.pea_count, config.weight_layout),
        ("amem_kib", config.lanes, config.activation_layout),
    ):
        slot_bytes = layout.slot_granules * layout.granule_bits // 8
        slots = _slots(getattr(config, key), banks, layout)
        if slots * layout.slot_granules > MOST_WORDS:
            most = MOST_WORDS * banks * layout.granule_bits // 8192
            raise ValueError(
                f"{key} must give each of {banks} banks at most {MOST_WORDS} words of "
                f"{layout.granule_bits} bits, {most} KiB or less, not {getattr(config, key)}"
            )
        if slots < 2:
            raise ValueError(
                f"{key} must hold two tiles in each of {banks} banks (double buffering), "
                f"{-(-2 * banks * slot_bytes // 1024)} KiB or more, not {getattr(config, key)}"
            )
    words = config.psum_slots * config.tile_m * config.lanes // config.result_lanes
    if words > MOST_WORDS:
        most = (MOST_WORDS * config.result_sums + 2 * config.tile_m * config.tile_n) * 4 // 1024
        raise ValueError(
            f"omem_kib must give partial sums at most {MOST_WORDS} words of {32 * config.result_sums} bits, "
            f"{most} KiB or less, not {config.omem_kib}"
        )
    if config.psum_slots < 1:
        needed = -(-3 * config.tile_m * config.tile_n * 4 // 1024)
        raise ValueError(
            f"omem_kib must hold three output tiles of {config.tile_m} x {config.tile_n} sums, "
            f"{needed} KiB or more, not {config.omem_kib}"
        )


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, sep, text = setting.partition("=")
    key, text = key.strip(), text.strip()
    if not sep or not key or not text:
        raise ValueError(f"set must be key=value, not {setting!r}")
    known = [field.name for field in fields(AcceleratorConfig)]
    if key not in known:
        raise ValueError(f"configuration field must be one of {', '.join(known)}, not {key!r}")
    if key == "name":
        return key, text
    try:
        return key, int(text, 0)
    except ValueError:
        raise ValueError(f"{key} must be an integer, not {text!r}") from None
