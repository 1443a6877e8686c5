"""Draws the trials of the study `search`: python tools/draw_search.py; what it prints stands in the study's file.

Twelve draws of a Latin hypercube for each method, the same learning rates and weight decays for all. Trial 0 has the
method's defaults; with temperature .5 both rows of AUNCE share it, and it stands once.

With the tables of `search` as an argument (reports/search) it prints the arms of the second stage: for each method and
noise level the best three trials by the AUC on inner validation.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import qmc

TRIALS, SEED = 12, 2026
RATE, DECAY, TEMPERATURE = (3e-4, 3e-2), (1e-5, 1e-1), (0.05, 2.0)
LOSSES = ["bce"] * 4 + ["bce_pos_weight", "focal", "asymmetric", "label_smoothing"] * 2
METHODS = {
    "supervised": {"method": "bce"},
    "SupCon": {"method": "supcon", "temperature": 0.1},
    "AUNCE (tau tuned)": {"method": "aunce", "preset": "released", "temperature": 0.5},
    "AUNCE (tau .5, released)": {"method": "aunce", "preset": "released", "temperature": 0.5},
}
"""Method -> its fields and defaults: those of SupCon's paper and of the released AUNCE."""

FIXED = ("supervised", "AUNCE (tau .5, released)")  # no temperature to draw
KEPT = 3


def trials(name: str, number: int) -> list[dict[str, object]]:
    """The fields of trial 0 and of the draws of one method."""
    drawn = qmc.LatinHypercube(3, rng=np.random.default_rng([SEED, number])).random(TRIALS)  # (12, 3)
    order = np.random.default_rng([SEED, number, 1]).permutation(LOSSES)
    listed: list[dict[str, object]] = [METHODS[name] | {"learning_rate": 2e-3, "weight_decay": 1e-4}]
    for place, shares in enumerate(drawn):
        rate, decay, temperature = (
            float(f"{low * (high / low) ** share:.3g}")
            for share, (low, high) in zip(shares, (RATE, DECAY, TEMPERATURE), strict=True)
        )
        fields = METHODS[name] | {"learning_rate": rate, "weight_decay": decay}
        if name == "supervised":
            fields["method"] = str(order[place])
        if name not in FIXED:
            fields["temperature"] = temperature
        listed.append(fields)
    return listed


def arms() -> dict[str, dict[str, object]]:
    """Name of each trial -> its fields."""
    return {
        f"{name}, trial {place}": fields
        for number, name in enumerate(METHODS)
        for place, fields in enumerate(trials(name, number))
        if place or name != FIXED[1]
    }


def finalists(runs: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """Noise and method -> its best three trials, from the rows of `runs.parquet`.

    Raises:
        SystemExit: a trial has not finished.
    """
    if len(runs) != 2 * len(arms()) or (runs["status"] != "done").any():
        raise SystemExit("the first stage has not finished: aunce study search")
    scores = runs.astype({"noise": str, "arm": str}).set_index(["noise", "arm"])["val_auc"]  # NaN where it diverged
    best = {}
    for noise in dict.fromkeys(runs["noise"].astype(str)):
        for name in METHODS:
            of = [arm for arm in arms() if arm.rsplit(", trial ")[0] == name]
            of += ["AUNCE (tau tuned), trial 0"] if name == FIXED[1] else []
            best[noise, name] = scores[noise][of].sort_values(ascending=False, kind="stable").index[:KEPT].tolist()
    return best


def toml(listed: dict[str, dict[str, object]]) -> str:
    """One arm a line."""
    lines = []
    for name, fields in listed.items():
        shown = ", ".join(f"{key} = {value!r}".replace("'", '"') for key, value in fields.items())
        lines.append(f'"{name}" = {{ {shown} }}')
    return "\n".join(lines)


def second(runs: pd.DataFrame) -> str:
    """The arms of the second stage, and which noise each is left out of."""
    best = finalists(runs)
    wanted = {noise: {arm for (at, _), of in best.items() if at == noise for arm in of} for noise, _ in best}
    listed = {name: fields for name, fields in arms().items() if any(name in some for some in wanted.values())}
    left_out = [
        f'[[exclude]]\nnoise = "{noise}"\narm = {json.dumps([name for name in listed if name not in some], indent=4)}'
        for noise, some in wanted.items()
    ]
    return "[axes.arm]\n" + "\n\n".join([toml(listed), *left_out])


if __name__ == "__main__":
    print(second(pd.read_parquet(Path(sys.argv[1]) / "runs.parquet")) if sys.argv[1:] else toml(arms()))
