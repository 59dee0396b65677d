"""Random queues of layers for tests of the whole accelerator: all dataflows, with and without APSQ."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.chain import ChainLayer, run_chain
from sliceforge.verif.accelerator_layers import Array, GoldenLayer, make_chain, random_operands_of, scales_for

__all__ = ["STEPS", "random_queue", "step_class"]

STEPS: dict[int, tuple[str, ...]] = {
    0: ("1", "more"),
    1: ("1", "> group"),
    2: ("1", "= group", "> group"),
    3: ("1", "< group", "= group", "> group"),
    4: ("1", "< group", "= group", "> group"),
}
"""Classes of the number of K-chunks, for each group size of APSQ, 0 without APSQ."""


def step_class(group: int, steps: int) -> str:
    """Of `STEPS`."""
    if steps == 1 or group == 0:
        return "1" if steps == 1 else "more"
    return "< group" if steps < group else "= group" if steps == group else "> group"


Kind = tuple[Dataflow, int, str, bool | None]
"""Dataflow, group size, class of steps, and whether the partial sums are spilled."""
_MOST_WORK = 2500  # cycles of the array for all layers of a chain


@cache
def _decks() -> dict[str, list[Any]]:
    """What is still to come, by its name: all tests of a run draw from it, so that all comes soon."""
    return {}


def _draw(rng: random.Random, name: str, all_: Sequence[Any]) -> Any:
    deck = _decks().setdefault(name, [])
    if not deck:
        deck += all_
        rng.shuffle(deck)
    return deck.pop()


_KINDS: list[Kind] = [
    (flow, group, steps, spilled)
    for flow in Dataflow
    for group in STEPS
    for steps in STEPS[group]
    for spilled in ((None,) if steps == "1" else (False, True))
]


def random_queue(rng: random.Random, config: AcceleratorConfig, count: int) -> list[GoldenLayer]:
    """Chains of layers of sizes around the tile, each with settings of its own, and of bounded work."""
    layers: list[GoldenLayer] = []
    while len(layers) < count:
        kinds = [_draw(rng, "kind", _KINDS) for _ in range(rng.randint(1, min(3, count - len(layers))))]
        found = _try_chain(rng, config, kinds)
        if found is None:  # too much for the machine's memories: each for itself
            alone = [_try_chain(rng, config, [kind]) for kind in kinds]
            assert all(alone), f"no layers {kinds} for {config}"
            found = [layer for chain in alone if chain for layer in chain]
        layers += found
    return layers


def _try_chain(rng: random.Random, config: AcceleratorConfig, kinds: list[Kind]) -> list[GoldenLayer] | None:
    for _ in range(40):
        try:
            found = _random_chain(rng, config, kinds)
        except ValueError:  # the machine cannot run it, or its sums may pass 32 bits
            continue
        if sum(layer.products() for layer in found) <= _MOST_WORK * config.operators:
            return found
    return None


def _random_chain(rng: random.Random, config: AcceleratorConfig, kinds: list[Kind]) -> list[GoldenLayer]:
    chained = len(kinds) > 1
    chunk = config.tile_m if chained else rng.randint(1, config.tile_k + 3)  # without APSQ
    cut = chained and (0, "more") in {kind[1:3] for kind in kinds}
    sizes = [_steps(rng, config, kind, chunk, follows=i > 0, cut=cut) for i, kind in enumerate(kinds)]
    last_m = _draw(rng, "M", _around(config.tile_m))
    n = _draw(rng, "N", _around(config.tile_n))
    lo_bits = [rng.choice([4, 5, 6]) for _ in range(len(kinds) + 1)]
    operands: list[ChainLayer] = []
    x: Array | None = None
    current: Array = np.zeros(0)
    for i, (kind, (k, own_chunk)) in enumerate(zip(kinds, sizes, strict=True)):
        top = (256 >> lo_bits[i]) - 1
        frequent = rng.choice([0, top, rng.randint(0, top)]) << lo_bits[i]
        m = sizes[i + 1][0] if i + 1 < len(kinds) else last_m
        zero_point = rng.choice([frequent, frequent + (1 << lo_bits[i]) - 1])
        if operands:
            assert operands[-1].output is not None
            zero_point = rng.choice([zero_point, operands[-1].output.zero_point_out])
        layer, given = random_operands_of(
            rng, config, (m, k, n),
            weight_bits=rng.choice([bits for bits in (4, 7, 10) if bits <= config.max_weight_bits]),
            lo_bits=lo_bits[i],
            zero_point=zero_point,
            weight_sparsity=rng.choice([0.0, 0.5, 0.97, 1.0]),
            activation_sparsity=rng.choice([0.0, 0.5, 0.97, 1.0]),
            group=kind[1], chunk=own_chunk,
        )  # fmt: skip
        if x is None:
            x = current = given
        if i + 1 < len(kinds) or rng.random() < 0.3:
            layer = replace(layer, output=scales_for(rng, layer, current, rng.randrange(256), lo_bits[i + 1]))
        operands.append(layer)
        current = run_chain([layer], current)[-1]
    assert x is not None
    flows, places = ([kind[i] for kind in kinds] for i in (0, 3))
    if (0, "more") not in {kind[1:3] for kind in kinds}:
        chunk = config.max_k
    return make_chain(
        rng, config, operands, x, flows=flows, chunk=chunk, resident=None, spilled=places
    )  # fmt: skip


def _steps(
    rng: random.Random, config: AcceleratorConfig, kind: Kind, chunk: int, *, follows: bool, cut: bool
) -> tuple[int, int | None]:
    """(K, chunk of APSQ) of a layer of this kind."""
    _, group, class_, _ = kind
    own = chunk
    if group:
        own = config.tile_m * rng.choice([1, 1, 2]) if follows else rng.randint(1, config.tile_k + 3)
    steps = {
        "1": 1,
        "< group": rng.randint(2, max(2, group - 1)),
        "= group": group,
        "> group": rng.randint(group + 1, 2 * group + 1),
        "more": rng.randint(2, 5),
    }[class_]
    if class_ == "1":
        k = rng.randint(1, chunk)  # if others of the chain are cut into chunks
        if group or not cut:
            k = min(config.max_k, _draw(rng, "K", [*_around(config.tile_k), 5 * config.tile_k + 1]))
        return k, k
    k = (steps - 1) * own + rng.choice([1, own, rng.randint(1, own)])
    return min(k, config.max_k), own


def _around(tile: int) -> list[int]:
    return [1, max(1, tile - 1), tile, tile + 1, 2 * tile + 3, 7, 13]
