"""Options of the test run."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--run-long", action="store_true", help="also run the tests marked long")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-long"):
        return
    skip = pytest.mark.skip(reason="long: runs with --run-long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)
