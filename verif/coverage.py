"""Reports functional coverage: cocotb-coverage's bins as a table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cocotb_coverage.coverage import coverage_db

__all__ = ["report_coverage"]


def report_coverage(block: str, log: Callable[[str], None]) -> list[str]:
    """Prints the table of the points ``<block>.*``, also into the file SLICEFORGE_COVERAGE if that is set;
    returns the bins that were never hit."""
    lines, missing = [f"{f'coverage of the {block}':<34}{'bins':>6}{'hit':>6}"], []
    for name in sorted(coverage_db):
        item = coverage_db[name]
        if not name.startswith(f"{block}.") or not hasattr(item, "detailed_coverage"):
            continue
        bins = item.detailed_coverage
        hit = [key for key, count in bins.items() if count]
        missing += [f"{name}: {key}" for key, count in bins.items() if not count]
        lines.append(f"{name.removeprefix(f'{block}.'):<34}{len(bins):>6}{len(hit):>6}")
    lines.append(f"never hit: {', '.join(missing) or 'none'}")
    for line in lines:
        log(line)
    target = os.environ.get("SLICEFORGE_COVERAGE")
    if target:
        Path(target).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return missing
