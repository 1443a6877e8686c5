"""Draws the trials of the study `search`: python tools/draw_search.py > arms.toml; the table stands in the study.

Twelve draws of a Latin hypercube for each method, the same learning rates and weight decays for all. Trial 0 has the
method's defaults; with temperature .5 both rows of AUNCE share it, and it stands once.
"""

import numpy as np
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


def table() -> str:
    """The arms as TOML, one trial a line."""
    lines = []
    for number, name in enumerate(METHODS):
        for place, fields in list(enumerate(trials(name, number)))[name == "AUNCE (tau .5, released)" :]:
            shown = ", ".join(f"{key} = {value!r}".replace("'", '"') for key, value in fields.items())
            lines.append(f'"{name}, trial {place}" = {{ {shown} }}')
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
