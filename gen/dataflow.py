"""The loop orders of the tile-reuse dataflow, as a descriptor and the hardware name them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enum import Enum
else:
    from amaranth.lib.enum import Enum  # has no types

__all__ = ["Dataflow"]


class Dataflow(Enum, shape=2):
    """What stays where it is while the loops go on (docs/architecture.md has the nests)."""

    OUTPUT_STATIONARY = 0
    WEIGHT_STATIONARY = 1
    INPUT_STATIONARY = 2
