"""Runs a script of Yosys in a process of its own, as a test needs it that looks at what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["run_yosys"]

_RUN = (
    "import sys; from pyosys import libyosys; libyosys.run_pass('script ' + sys.argv[1], libyosys.Design())"
)


def run_yosys(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """``script`` in ``folder``; the caller looks at the status."""
    (folder / "run.ys").write_text(script, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-c", _RUN, "run.ys"], cwd=folder, capture_output=True, text=True, check=False
    )
