"""Shared by all tests: nothing from the network, one thread."""

import os

os.environ.update(HF_HUB_OFFLINE="1", MPLBACKEND="agg", OMP_NUM_THREADS="1")
