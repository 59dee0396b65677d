"""The loop orders of the tile-reuse dataflow, as a descriptor and the hardware name them."""

from amaranth.lib import enum

__all__ = ["Dataflow"]


class Dataflow(enum.Enum, shape=2):  # type: ignore[call-arg, misc]  # Amaranth has no types
    """What stays where it is while the loops go on (docs/architecture.md has the nests)."""

    OUTPUT_STATIONARY = 0
    WEIGHT_STATIONARY = 1
    INPUT_STATIONARY = 2
