"""Studies: what a study file says, the grid of its runs, and one run from its data to its results.

Modules: spec (what may be written), grid (keys and state on disk), execution (one run), engine (all of them), kernels,
results. What a run has reached is read from its folder, never from memory: `metrics.json` alone says *done*.
"""
