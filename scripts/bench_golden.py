"""How long the golden model takes against one float64 product of the same operands.

python scripts/bench_golden.py [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sliceforge.sim.golden import aqs_gemm


def operands(
    m: int, k: int, n: int, dtype: str = "int16"
) -> tuple[npt.NDArray[np.signedinteger], npt.NDArray[np.uint8], int]:
    """Seeded weights (M, K) of 7 bits, activations (K, N) and their zero point; HO slices are sparse."""
    rng = np.random.default_rng(0)
    weights = np.empty((m, k), dtype)
    for row in weights:  # one at a time: memory is measured around what comes after
        row[:] = np.clip(np.rint(rng.standard_normal(k) * 6), -64, 63)
    zero_point = 136
    activations = np.clip(np.rint(rng.standard_normal((k, n)) * 6 + zero_point), 0, 255).astype(np.uint8)
    return weights, activations, zero_point


def seconds(action: Callable[[], object], repeats: int) -> float:
    """The quickest of ``repeats`` calls, in seconds of wall time."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_rss_mib() -> float:
    """Most memory that this process has had resident since its start (Linux: its VmHWM)."""
    # Not getrusage: on Linux its ru_maxrss starts at the parent's.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(
    m: int = 4096, k: int = 4096, n: int = 128, dtype: str = "int16", repeats: int = 3
) -> dict[str, float]:
    """Seconds of ``W.astype(float) @ X.astype(float)`` and of `aqs_gemm` with counts, their ratio, and by how
    much one `aqs_gemm` raises the peak of a fresh process's memory (MiB)."""
    weights, activations, zero_point = operands(m, k, n, dtype)
    product = seconds(lambda: weights.astype(float) @ activations.astype(float), repeats)
    golden = seconds(lambda: aqs_gemm(weights, activations, zero_point=zero_point), repeats)
    probe = [sys.executable, __file__, "--memory", str(m), str(k), str(n), dtype]
    memory = float(subprocess.run(probe, check=True, capture_output=True, text=True).stdout)
    return {
        "float64_product_seconds": product,
        "aqs_gemm_seconds": golden,
        "ratio": golden / product,
        "peak_rss_delta_mib": memory,
    }


def memory_delta(m: int, k: int, n: int, dtype: str) -> float:
    """By how much one `aqs_gemm` raises this process's peak memory, in MiB."""
    weights, activations, zero_point = operands(m, k, n, dtype)
    before = peak_rss_mib()
    aqs_gemm(weights, activations, zero_point=zero_point)
    return peak_rss_mib() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--memory", nargs=4, metavar=("M", "K", "N", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        m, k, n, dtype = args.memory
        print(memory_delta(int(m), int(k), int(n), dtype))
        return
    result = measure()
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:26} {value:10.3f}")


if __name__ == "__main__":
    main()
