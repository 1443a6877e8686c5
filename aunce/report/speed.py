"""The page on speed: targets, ratios, growth and floors, from `aunce.analyses.timing` and `step_timing`."""

import datetime
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from aunce import files
from aunce.analyses import step_timing, timing
from aunce.report import figures, findings, page
from aunce.study.grid import REPORTS
from aunce.study.results import hardware, provenance

if TYPE_CHECKING:
    from IPython.display import Markdown

GIB = 2**30
QUESTION = "How fast is it, beside what it is compared with and beside what the machine allows?"
BIG = step_timing.Setting("swin-base", 224, 64, 12, 1024, "cuda", "bf16", steps=10)
"""The training whose speed counts on a GPU: the paper's network and size of images."""
ROUNDS = 3  # of its pairs: the released path takes a second a step on a good GPU
RECORD = "gpu.json"
GPU_PARTS = {
    "losses": "the losses",
    "compiled": "compiled steps",
    "eager": "eager steps",
    "disk": "steps from a pack on disk",
}


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
    ("faces", "Faces of 64 px a second, 2 cores", "at least", 1000, ""),
    ("aunce --help", "aunce --help", "at most", 0.3, "s"),
    ("aunce status, 1,000 runs", "aunce status, 1,000 runs", "at most", 1.0, "s"),
    ("start of a run", "start of a run", "at most", 5.0, "s"),
)
"""Name of a measured value, what the page says of it, and its limit with the unit."""


def measure_gpu(path: Path) -> dict[str, Any]:
    """Measure what takes a GPU: a few minutes, on an idle one.

    Args:
        path: the record, written again after each part: what stands then is kept if the machine is taken away.

    Returns:
        Its content: date, revision, hardware, torch; rates (see `timing.rates`, bf16), operations (of a step of the
        network), and rows of `losses` (at 512 images in bf16), `compiled` and `eager` (see
        `step_timing.compare_steps`) and `disk` (see `step_timing.from_disk`).
    """
    place = timing.Place("cuda", torch.bfloat16)
    parts: dict[str, Callable[[], Any]] = {
        "rates": lambda: timing.rates(place),
        "operations": lambda: step_timing.operations(BIG),
        "losses": lambda: _rows(timing.compare_losses([512], place=place)),
        "compiled": lambda: _rows(step_timing.compare_steps(replace(BIG, compiled=True), rounds=ROUNDS)),
        "eager": lambda: _rows(step_timing.compare_steps(BIG, rounds=ROUNDS)),
        "disk": lambda: _rows(step_timing.from_disk(BIG, rounds=ROUNDS)),
    }
    record = {
        "date": datetime.date.today().isoformat(),
        "revision": provenance("cuda", 1)["revision"],
        "hardware": hardware("cuda"),
        "torch": torch.__version__,
    }
    for name, measure in parts.items():
        record[name] = measure()
        files.write(path, json.dumps(record, indent=1) + "\n")
    return record


def _rows(table: pd.DataFrame) -> Any:
    return json.loads(table.to_json(orient="records"))


class Speed:
    """The page. Everything is measured when it is first asked for, and once.

    Args:
        full: measure at the sizes of the report, ten minutes and some more for a GPU; else at tiny ones, whose numbers
            mean nothing.
        tables: folder of the record of a GPU, which is written again where there is one; empty takes that of the
            committed report.
        out: folder for figures and their data; empty saves nothing.
    """

    def __init__(self, *, full: bool, tables: str = "", out: str = "") -> None:
        self.full, self.out = full, Path(out) if out else None
        self.record = Path(tables or REPORTS / "speed") / RECORD
        self.sizes = timing.FULL if full else timing.SMALL
        self.gpu = full and torch.cuda.is_available()

    # What is measured

    @cached_property
    def rates(self) -> dict[str, float]:
        """Measured rates of the CPU, from which the floors follow, see `timing.rates`."""
        return timing.rates(least=self.sizes.least)

    @cached_property
    def losses(self) -> pd.DataFrame:
        """The loss on the CPU against others, one row per batch size and other side, see `timing.compare_losses`."""
        aus, channels = (12, 1024) if self.full else (4, 64)
        return timing.compare_losses(
            self.sizes.compared, aus=aus, channels=channels, rounds=self.sizes.rounds, least=self.sizes.least
        )

    @cached_property
    def growth(self) -> pd.DataFrame:
        """Seconds, floor and bytes of the loss against images, AUs and channels, see `timing.grow`."""
        return timing.grow(self.sizes, self.rates)

    @cached_property
    def setting(self) -> step_timing.Setting:
        """The training whose steps are timed on the CPU."""
        small = step_timing.Setting(steps=self.sizes.steps)
        return small if self.full else step_timing.Setting(pixels=32, images=4, channels=8, steps=self.sizes.steps)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """Images a second of `setting`, ours and others', see `compare_steps` and `from_disk` of `step_timing`."""
        workers = 4 if self.full else 0
        compared = step_timing.compare_steps(self.setting, workers=workers, rounds=self.sizes.rounds)
        return pd.concat([compared, step_timing.from_disk(self.setting, rounds=self.sizes.rounds)], ignore_index=True)

    @cached_property
    def tried(self) -> pd.DataFrame:
        """Alternatives that are not used, each beside what is used, see `step_timing.tried`."""
        return step_timing.tried(self.setting, images=64 if self.full else 4, rounds=self.sizes.rounds)

    @cached_property
    def evaluation(self) -> pd.DataFrame:
        """Seconds of the scores against the number of frames, see `timing.evaluate`."""
        return timing.evaluate(self.sizes)

    @cached_property
    def faces(self) -> tuple[int, float]:
        """How many faces of 64 px were rendered, and in how many seconds, start of the workers included."""
        return timing.render_faces(self.sizes.faces, workers=2 if self.full else 1, subjects=9 if self.full else 3)

    @cached_property
    def commands(self) -> dict[str, float]:
        """Seconds of the commands that a person waits for; at tiny sizes of the help alone."""
        taken = {"aunce --help": timing.command_seconds("--help", least=self.sizes.least)}
        if self.full:
            taken["aunce status, 1,000 runs"] = timing.status_seconds(1000)
            taken["start of a run"] = timing.start_seconds()
        return taken

    @cached_property
    def on_gpu(self) -> dict[str, Any]:
        """The measurements of `measure_gpu`, made now or read from its record; empty if there is neither.

        The record of a machine that was taken away lacks its later parts.
        """
        if self.gpu:
            return measure_gpu(self.record)
        return json.loads(self.record.read_text()) if self.full and self.record.is_file() else {}

    # What is said

    @cached_property
    def targets(self) -> pd.DataFrame:
        """One row per target: what, target, measured (texts) and met ("yes", "no" or "not measured")."""
        measured, rows = self._measured(), []
        for name, what, sense, limit, unit in TARGETS:
            value = measured.get(name)
            target = f"{sense} {_text(limit, unit)}"
            if value is None:
                rows.append((what, target, "", "not measured"))
            else:
                met = value >= limit if sense == "at least" else value <= limit
                rows.append((what, target, _text(value, unit), "yes" if met else "no"))
        loaded = ("with torch", "no") if timing.loads_torch() else ("without", "yes")
        rows.append(("import aunce without torch", "", *loaded))
        return pd.DataFrame(rows, columns=["what", "target", "measured", "met"])

    def _measured(self) -> dict[str, float]:
        """Name of a target -> its value. What was not measured is missing."""
        values: dict[str, float] = {}
        for row in self.losses[self.losses["other"] == "published"].itertuples():
            values[f"loss {row.images}"] = row.ratio
            values[f"scores {row.images}"] = row.ours_scores / row.other_scores
            values[f"bytes {row.images}"] = row.ours_bytes / row.other_bytes
        chunked = self.growth[(self.growth["size"] == 4096) & self.growth["series"].str.startswith("in chunks")]
        if len(chunked):
            values["chunks"] = chunked["bytes"].iloc[0] / GIB
        values |= self._measured_on_gpu()
        values |= self.evaluation[self.evaluation["size"] == 46_034].set_index("series")["seconds"].to_dict()
        if self.full:
            count, seconds = self.faces
            values |= {"faces": count / seconds} | self.commands
        return values

    def _measured_on_gpu(self) -> dict[str, float]:
        found, values = self.on_gpu, {}
        for row in found.get("losses", []):
            if row["other"] == "published":
                values["GPU loss"] = row["ratio"]
        for name in ("eager", "compiled"):
            for row in found.get(name, []):
                values[f"{row['part']}, {name}"] = row["ratio"]
                if row["part"] == "model alone":
                    values[name] = 100 * row["ours"] * found["operations"] / BIG.images / found["rates"]["flops"]
        for row in found.get("disk", []):
            values["disk"] = 100 * row["ratio"]
        return values

    # The page

    def title(self) -> "Markdown":
        """Heading and question, with the machines measured on; it says where sizes are tiny or no GPU was at hand."""
        where = f"{hardware('cpu')}, {torch.get_num_threads()} threads"
        where += f"; {hardware('cuda')}" if self.gpu else ""
        lines = [
            "# How fast it is",
            "",
            f"**{QUESTION}** Measured on: {page.text(where)}; torch {torch.__version__}, "
            f"Python {platform.python_version()}.",
        ]
        if not self.full:
            lines += ["", "**Tiny sizes: these numbers show that the measurements work, and nothing else.**"]
        elif self.on_gpu and not self.gpu:
            record = self.on_gpu
            where = f"{page.text(record['hardware'])}, torch {record['torch']}, code revision {record['revision']}"
            parts = [what for name, what in GPU_PARTS.items() if name in record]
            lines += ["", f"Of what needs a GPU, {', '.join(parts)} were measured on {record['date']} on: {where}."]
        elif not self.gpu:
            lines += ["", "No GPU was at hand: what needs one is *not measured*."]
        return page.markdown("\n".join(lines))

    def verdicts(self) -> "Markdown":
        """How many targets are met, missed and not measured, and a table of all; also writes the findings."""
        met = self.targets["met"].value_counts()
        said = (
            f"Of {len(self.targets)} targets {met.get('yes', 0)} are met, {met.get('no', 0)} are not, and "
            f"{met.get('not measured', 0)} were not measured."
        )
        about = findings.Findings(title="How fast it is", question=QUESTION, found=said, kind="computation")
        findings.write(self.out, about)
        rows = [[page.text(value) for value in row] for row in self.targets.itertuples(index=False)]
        return page.markdown(said + "\n\n" + page.table(["What", "Target", "Measured", "Met"], rows, "llll"))

    def losses_table(self) -> "Markdown":
        """Table: milliseconds and memory of the loss beside others, by batch size; those on a GPU come last."""
        on_gpu = pd.DataFrame(self.on_gpu.get("losses", []), columns=self.losses.columns)
        rows = [
            [
                f"{row.images}{', GPU, bf16' if row.Index >= len(self.losses) else ''}",
                *(page.text(row.other), f"{1e3 * row.other_s:.1f}", f"{1e3 * row.ours_s:.1f}", _ratio(row)),
                *(_share(row, name) for name in ("bytes", "scores")),
            ]
            for row in pd.concat([self.losses, on_gpu], ignore_index=True).itertuples()
        ]
        headers = ["Images", "Other side", "Other, ms", "Ours, ms", "Times as fast", "Memory, MB", "Of scores, MB"]
        return page.markdown(page.table(headers, rows, "rlrrrrr"))

    def growth_figure(self) -> "Markdown":
        """Figure: time and memory of the loss against images, AUs and channels, with the floor of this machine."""
        return page.figure(
            self.out,
            "growth",
            figures.growth(self.growth),
            self.growth,
            alt="Time and memory of the loss against images, AUs and channels, on logarithmic axes, with the floor.",
            caption="Forward and backward, beyond the features themselves. Floor: two products of matrices at the "
            f"measured rate of {self.rates['flops'] / 1e9:.0f} GFLOP/s, or the features and their gradient once "
            f"through memory at {self.rates['bytes'] / 1e9:.0f} GB/s, whichever takes longer.",
        )

    def limits(self) -> "Markdown":
        """Table: distance from the floor, and the powers with which time and memory grow."""
        whole = self.growth[self.growth["series"] == "in one piece"]
        rows = []
        for axis, part in whole.groupby("axis", sort=False):
            first, last = part.iloc[[0, -1]].itertuples()
            times = (f"{end.seconds / end.floor:.1f}" for end in (first, last))
            powers = (f"{_slope(part, name):.2f}" for name in ("seconds", "bytes"))
            rows.append([page.text(axis), f"{first.size} to {last.size}", *times, *powers])
        headers = ["Axis", "Sizes", "Times the floor, first", "last", "Power of time", "Power of memory"]
        few, more, many = whole[whole["axis"] == whole["axis"].iloc[0]].iloc[[0, 1, -1]].itertuples()
        limits = (
            f"What limits it now: with {few.size} images it takes {1e3 * few.seconds:.1f} ms where the floor is "
            f"{1e3 * few.floor:.2f} ms, and with {more.size} {more.seconds / few.seconds:.2f} times as long: as far as "
            f"that is less than {more.size / few.size:g} times, calls cost more than numbers there. With {many.size} "
            f"images it takes {many.seconds / many.floor:.1f} times the floor, which is the two products of matrices; "
            "what the rest is was not taken apart."
        )
        return page.markdown(f"{page.table(headers, rows, 'llrrrr')}\n\n{limits}")

    def steps_table(self) -> "Markdown":
        """Table: images a second in training, network alone, end to end and from disk, beside the other side."""
        trainings = [(f"{self.setting.backbone}, {self.setting.pixels} px, CPU", self.steps)]
        for part, how in (("eager", "eager"), ("compiled", "compiled"), ("disk", "eager")):
            if part in self.on_gpu:
                trainings.append((f"Swin-B, 224 px, bf16, {how}", pd.DataFrame(self.on_gpu[part])))
        rows = [
            [*map(page.text, (training, row.part)), f"{row.other:,.0f}", f"{row.ours:,.0f}", _ratio(row)]
            for training, steps in trainings
            for row in steps.itertuples()
        ]
        headers = ["Training", "Part", "Other side, images/s", "Ours, images/s", "Ratio"]
        return page.markdown(page.table(headers, rows, "llrrr"))

    def evaluation_figure(self) -> "Markdown":
        """Figure: seconds of counts, concordant pairs and the AUC without each subject, against frames."""
        table = self.evaluation.assign(axis="Frames", floor=float("nan"), bytes=float("nan"))
        return page.figure(
            self.out,
            "evaluation",
            figures.growth(table),
            self.evaluation,
            alt="Seconds of counts, of concordant pairs and of the AUC without each subject, against frames.",
            caption="12 AUs, 41 subjects, one thread. The AUC without each subject is over 10 replicates and starts "
            "from the pairs, whose number does not depend on the frames.",
        )

    def tried_table(self) -> "Markdown":
        """Table: milliseconds of each way that is not used, and of what is used in its place."""
        rows = [
            [page.text(row.what), f"{1e3 * row.tried_s:.2f}", f"{1e3 * row.used_s:.2f}", _ratio(row)]
            for row in self.tried.itertuples()
        ]
        headers = ["Tried for what is used", "Tried, ms", "Used, ms", "Tried / used"]
        return page.markdown(page.table(headers, rows, "lrrr"))

    def faces_and_commands(self) -> "Markdown":
        """Table: seconds to render faces, with faces a second, and of the commands that a person waits for."""
        count, seconds = self.faces
        faces = f"{count:,} faces of 64 px, start of the workers included"
        rows = [[faces, f"{seconds:.1f} s", f"{count / seconds:,.0f} a second"]]
        rows += [[page.text(what), f"{taken:.2f} s", ""] for what, taken in self.commands.items()]
        return page.markdown(page.table(["What", "Time", "Rate"], rows, "lrr"))


def _text(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def _ratio(row: Any) -> str:
    return f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})"


def _share(row: Any, name: str) -> str:
    ours, other = getattr(row, f"ours_{name}"), getattr(row, f"other_{name}")
    return "" if pd.isna(ours) else f"{ours / 1e6:.1f} of {other / 1e6:.1f}"


def _slope(part: pd.DataFrame, name: str) -> float:
    """The power with which a measure grows over the upper half of the sizes."""
    upper = part.iloc[len(part) // 2 :]
    return float(np.polyfit(np.log(upper["size"]), np.log(upper[name]), 1)[0])
