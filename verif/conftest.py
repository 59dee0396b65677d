"""Options of the test run."""

import os

import pytest

from sliceforge.sim.toolchain import cache_dir
from sliceforge.verif.simulation import seed


def pytest_addoption(parser):
    parser.addoption("--run-long", action="store_true", help="also run the tests marked long")


def pytest_configure():
    """The hundreds of processes that tests start keep what they compile of our sources: in the cache, since
    whoever sets PYTHONDONTWRITEBYTECODE wants a clean checkout."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ["PYTHONPYCACHEPREFIX"] = str(cache_dir() / "bytecode")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-long"):
        return
    skip = pytest.mark.skip(reason="long: runs with --run-long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


def pytest_report_header() -> str:
    return f"random stimulus: seed {seed()} (SLICEFORGE_SEED)"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the coverage tables of the benches that were measured."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == "coverage":
                terminalreporter.section("functional coverage")
                terminalreporter.write_line(text)
