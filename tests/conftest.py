"""Shared by all tests: nothing from the network, one thread; disks that are full or cannot be written to."""

import os
import subprocess

import pytest

os.environ.update(OPENCV_IO_MAX_IMAGE_PIXELS="100000000", HF_HUB_OFFLINE="1", MPLBACKEND="agg", OMP_NUM_THREADS="1")


def pytest_collection_modifyitems(items):
    """The few tests that take longest come first, so that no core waits for them at the end."""
    items.sort(key=lambda item: item.path.name != "test_faults.py")


def pytest_addoption(parser):
    parser.addoption("--mutations", type=int, default=200, help="damaged label files for each data set")


@pytest.fixture
def mutations(request):
    """Damaged files that a test tries: 200 in `make test`, 2,000 for each of the data sets in `make test-all`."""
    return request.config.getoption("--mutations")


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a disk of its own with 256 kB, and a function that makes it read-only."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk has to be mounted for this test: run it as root on Linux")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def finished_run():
    """The folder of a finished run on a tiny rendered data set; a test copies it before it changes anything."""
    import torch

    from aunce import prediction

    torch.set_num_threads(1)
    return prediction.tiny_run()
