"""Studies: spec (what a study file may say), grid (its runs, their keys), state (what a run has reached), execution
(one run), engine (all of them), kernels, results."""
