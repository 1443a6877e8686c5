"""Shared by all tests: nothing from the network, one thread."""

import os

import pytest

os.environ.update(HF_HUB_OFFLINE="1", MPLBACKEND="agg", OMP_NUM_THREADS="1")


def pytest_addoption(parser):
    parser.addoption("--mutations", type=int, default=200, help="damaged label files for each data set")


@pytest.fixture
def mutations(request):
    """Damaged files that a test tries: 200 in `make test`, 2,000 for each of the data sets in `make test-all`."""
    return request.config.getoption("--mutations")
