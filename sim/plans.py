"""Plans: which schedules of a layer a machine can run, and the one that moves the fewest bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.schedule import Schedule, dram_bytes

__all__ = ["DATAFLOWS", "LOOP_ORDERS", "dataflow_name", "named_dataflow", "plan", "plans"]

LOOP_ORDERS = {
    "os": Dataflow.OUTPUT_STATIONARY,
    "ws": Dataflow.WEIGHT_STATIONARY,
    "is": Dataflow.INPUT_STATIONARY,
}
"""The loop orders by name."""
DATAFLOWS: dict[str, Dataflow | None] = {**LOOP_ORDERS, "auto": None}
"""What users choose from; None is for `plan` to choose."""

_EQUAL = 1 / 256  # what block sizes may differ in traffic: headers of regions do not decide
_MOST_BLOCKS = 64  # sizes of a block that are tried


def named_dataflow(name: object) -> Dataflow | None:
    """The entry ``name`` of `DATAFLOWS`; ValueError if there is none."""
    if not isinstance(name, str) or name not in DATAFLOWS:
        raise ValueError(f"dataflow must be one of {', '.join(DATAFLOWS)}, not {name!r}")
    return DATAFLOWS[name]


def dataflow_name(dataflow: Dataflow) -> str:
    return next(name for name, flow in LOOP_ORDERS.items() if flow is dataflow)


def plans(
    config: AcceleratorConfig,
    m: int,
    k: int,
    n: int,
    *,
    dataflow: Dataflow,
    chunk: int | None = None,
    psum_group: int = 0,
    resident: bool = True,
    k_tile: int | None = None,
    span: int | None = None,
) -> Iterator[Schedule]:
    """All schedules with ``dataflow`` that the machine can run; with ``resident`` False, those that load
    operands anew for each tile wherever that is possible. chunk: K by default; k_tile: tile_k."""
    base = Schedule(
        config=config, m=m, k=k, n=n, chunk=min(k, chunk or k), k_tile=k_tile or config.tile_k, span=span,
        dataflow=dataflow, psum_group=psum_group,
    )  # fmt: skip
    count = 1
    if base.weight_stationary:
        count = base.columns
    elif base.input_stationary:
        count = base.rows
    sizes = sorted({*range(1, min(count, _MOST_BLOCKS) + 1), count})
    stationary = base.weight_stationary or base.input_stationary
    stays = (True, False) if resident else (False,)
    for block in sizes:
        for weights in (True, False) if base.weight_stationary and block < count else stays:
            for activations in (True, False) if base.input_stationary and block < count else stays:
                for shares in (True, False) if stationary and resident else (False,):
                    for psums in (True, False) if base.steps > 1 else (True,):
                        schedule = replace(
                            base,
                            block=block,
                            weights_resident=weights,
                            activations_resident=activations,
                            blocks_share=shares,
                            psums_resident=psums,
                        )
                        if schedule.legal:
                            yield schedule


def plan(
    config: AcceleratorConfig,
    m: int,
    k: int,
    n: int,
    *,
    dataflow: Dataflow | None = Dataflow.OUTPUT_STATIONARY,
    chunk: int | None = None,
    psum_group: int = 0,
    resident: bool = True,
    k_tile: int | None = None,
    span: int | None = None,
    weight_bytes: int | None = None,
    activation_bytes: int | None = None,
) -> Schedule:
    """The schedule with the least estimated traffic to DRAM, of ``dataflow`` or, if None, of all three; among
    equals output stationary, and within a loop order, of what differs by less than 1/256, the smallest block
    of two tiles or more if partial sums stay on chip, else the largest; ValueError if there is none. The
    bytes of all images of an operand decide; without them, those of full slots are taken.
    """
    flows = tuple(Dataflow) if dataflow is None else (dataflow,)

    def cost(schedule: Schedule) -> int:
        layouts = config.weight_layout, config.activation_layout
        sides = schedule.rows * config.pea_count, schedule.columns * config.lanes
        full = [
            layout.slot_granules * layout.granule_bits // 8 * side * schedule.images
            for layout, side in zip(layouts, sides, strict=True)
        ]
        return dram_bytes(
            schedule.traffic(
                full[0] if weight_bytes is None else weight_bytes,
                full[1] if activation_bytes is None else activation_bytes,
            )
        )

    def preference(found: tuple[int, Schedule]) -> tuple[bool, int, int]:
        # Results of small blocks leave evenly, but between the K-chunks of a lone tile nothing happens; and
        # in a large block partial sums have time to come back from memory.
        bytes_moved, schedule = found
        size = schedule.block if schedule.psums_resident else -schedule.block
        return schedule.block == 1, size, bytes_moved

    best: list[tuple[int, Schedule]] = []
    for flow in flows:
        found = [
            (cost(schedule), schedule)
            for schedule in plans(
                config, m, k, n, dataflow=flow, chunk=chunk, psum_group=psum_group, resident=resident,
                k_tile=k_tile, span=span,
            )
        ]  # fmt: skip
        if found:
            most = min(bytes_moved for bytes_moved, _ in found) * (1 + _EQUAL)
            best.append(min((one for one in found if one[0] <= most), key=preference))
    if not best:
        raise ValueError(
            f"dataflow must be one whose tiles fit the machine's memories, which {dataflow_name(flows[0])} "
            f"does not for M = {m}, K = {k}, N = {n}"
        )
    return min(best, key=itemgetter(0))[1]
