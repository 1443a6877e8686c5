"""The targets of `notebooks/speed.ipynb`, and which of them are met."""

from collections.abc import Mapping

import pandas as pd

TARGETS = (
    ("loss 32", "Loss at B = 32: times as fast as published", "at least", 3.0, "times"),
    ("loss 256", "Loss at B = 256: times as fast as published", "at least", 2.5, "times"),
    ("scores 256", "Loss at B = 256: memory of the size of scores, share of published", "at most", 1 / 8, ""),
    ("bytes 256", "Loss at B = 256: memory beyond the features, share of published", "at most", 1 / 2, ""),
    ("chunks", "Loss at B = 4,096 in chunks: memory beyond the features", "at most", 2, "GiB"),
    ("GPU loss", "GPU, loss in bf16 at B = 512: times as fast as published", "at least", 6, "times"),
    ("eager", "GPU, Swin-B at 224 px: share of the measured matrix rate, eager", "at least", 15, "%"),
    ("compiled", "GPU, Swin-B at 224 px: the same, compiled", "at least", 25, "%"),
    ("model alone, compiled", "GPU, model alone: times the released path", "at least", 4, "times"),
    ("end to end, compiled", "GPU, end to end: times the released path", "at least", 4, "times"),
    ("disk", "GPU, from a pack on disk: share of the rate on the device", "at least", 95, "%"),
    ("counts and F1", "counts and F1, 46,034 frames", "at most", 0.05, "s"),
    ("AUC without each subject", "AUC without each subject, 46,034 frames", "at most", 2.0, "s"),
    ("faces", "Drawn faces of 64 px a second, 2 cores", "at least", 1000, ""),
    ("modelled faces", "Modelled faces of 64 px a second, 2 cores", "at least", 300, ""),
    ("aunce --help", "aunce --help", "at most", 0.3, "s"),
    ("aunce status, 1,000 runs", "aunce status, 1,000 runs", "at most", 1.0, "s"),
    ("start of a run", "start of a run", "at most", 5.0, "s"),
)
"""Name of a measured value, what the page says of it, and its limit with the unit."""


def judged(measured: Mapping[str, float], *, loads_torch: bool) -> pd.DataFrame:
    """Every target beside what was measured.

    Args:
        measured: name of a target -> its value. What was not measured is missing.
        loads_torch: whether `import aunce` loads torch, which it should not.

    Returns:
        One row per target: what, target, measured (texts) and met ("yes", "no" or "not measured").
    """
    rows = []
    for name, what, sense, limit, unit in TARGETS:
        value = measured.get(name)
        target = f"{sense} {_text(limit, unit)}"
        if value is None:
            rows.append((what, target, "", "not measured"))
        else:
            met = value >= limit if sense == "at least" else value <= limit
            rows.append((what, target, _text(value, unit), "yes" if met else "no"))
    rows.append(("import aunce without torch", "", *(("with torch", "no") if loads_torch else ("without", "yes"))))
    return pd.DataFrame(rows, columns=["what", "target", "measured", "met"])


def _text(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()
