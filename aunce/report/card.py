"""The data card: what is in a data set, section by section, as Markdown for a page and as text for a terminal."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aunce.data import adapter, data_set, load
from aunce.data.frames import FrameTable
from aunce.data.recipes import Recipe
from aunce.errors import DataError
from aunce.report import page
from aunce.report.findings import Findings
from aunce.report.findings import write as write_findings

if TYPE_CHECKING:
    from IPython.display import Markdown

SHOWN_ROWS, SHOWN_COLUMNS, SHOWN_PIXELS = 3, 10, 96  # faces on a page


class DataCard:
    """What the data notebook shows of a data set: its labels, and a few faces.

    Args:
        dataset: one of `aunce.data.DATASETS`.
        root: its folder.
        protocol: a protocol by name; empty takes the data set's first.
        out: folder that gets the figures; empty: they are displayed, nothing is saved.
        show_faces: show faces that are not rendered.

    Raises:
        UsageError: an unknown name.
        DataError: the folder is not what its layout promises.
    """

    def __init__(
        self, dataset: str, root: str | Path, *, protocol: str = "", out: str | Path = "", show_faces: bool = False
    ) -> None:
        self.dataset, self.root = dataset, Path(root)
        self.out = Path(out) if str(out) else None
        self.show_faces = show_faces
        self.table: FrameTable = load(dataset, root, protocol=protocol, images="optional")

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """`FrameTable.card` with published_rate, NaN where none is known, and the difference of the rates."""
        card = self.table.card()
        rates = [_published_rate(self.dataset, row.part, int(row.au)) for row in card.itertuples()]
        return card.assign(published_rate=rates, difference=card["rate"] - rates)

    def text(self) -> str:
        """The card for a terminal."""
        lines = [f"{name}: {value}" for name, value in self.table.summary().items()]
        lines += [f"{name}: {value}" for name, value in self._notes().items()]
        shown = self.numbers.drop(columns="difference")
        return "\n".join([*lines, shown.to_string(index=False, float_format="{:.3f}".format, na_rep="")])

    def title(self) -> "Markdown":
        """Name of the data set, and whether its faces are rendered. Writes `findings.json`, for the index."""
        write_findings(self.out, self.found())
        what = "**The data set itself**, read from its distributed layout."
        if self.table.synthetic:
            made = {name: page.text(value) for name, value in self.table.synthetic.items()}
            made = dict.fromkeys(("setting", "seed", "size", "version"), "unknown") | made
            faces = f" --faces {made['faces']}" if "faces" in made else ""
            frames = made["frames"] if self.table.synthetic.get("frames") else "all"
            what = (
                f"**Rendered faces.** Every image was drawn by `aunce data synth {self.dataset}{faces}` (setting "
                f"{made['setting']}, seed {made['seed']}, {made['size']} px, {frames} frames a sequence, renderer "
                f"version {made['version']}) in the layout of the data set. Nothing here was measured on people."
            )
        return page.markdown(f"# Data card: {page.text(data_set(self.dataset).title)}\n\n{what}")

    def found(self) -> Findings:
        """The card in one line, for the index."""
        counts, apart = self.table.summary(), self.numbers["difference"].abs().max()
        compared = "no published rate to compare with"
        if not np.isnan(apart):
            compared = f"positive rates at most {100 * apart:.1f} points from those compared with"
        return Findings(
            title=f"Data card: {data_set(self.dataset).title}",
            question="What is in the data set?",
            found=f"{counts['frames']:,} labelled frames in {counts['sequences']:,} sequences of "
            f"{counts['subjects']:,} subjects; {compared}.",
            kind="rendered faces" if self.table.synthetic else "recorded faces",
        )

    def summary(self) -> "Markdown":
        """Counts, protocol, and what is not verified."""
        found = self.table.summary()
        rows = [
            ["Subjects", f"{found['subjects']:,}"],
            ["Sequences", f"{found['sequences']:,}"],
            ["Labelled frames", f"{found['frames']:,}"],
            ["Labelled frames without an image", f"{found['missing_images']:,}"],
            ["Subjects of the protocol that are absent", page.text(", ".join(found["absent_subjects"][:12]) or "none")],
            ["Action units", ", ".join(map(str, self.table.protocol.aus))],
            ["Labelled but never drawn", ", ".join(map(str, self.table.null_aus)) or "none"],
            ["Protocol", f"{page.text(found['protocol'])}, frame rule {self.table.protocol.frame_rule}"],
            ["Protocol hash", f"`{found['protocol_hash']}`"],
            *([name, page.text(value)] for name, value in self._notes().items()),
        ]
        return page.markdown(page.table(["What", "Value"], rows, "ll"))

    def _notes(self) -> dict[str, str]:
        module, place = adapter(self.dataset), f"in aunce/data/{self.dataset}.py"
        none = "no published numbers are known"
        frames = f"published or counted by others, see PUBLISHED_FRAMES {place}"
        rates = f"derived from what is published, see RATES {place}" if hasattr(module, "RATES") else none
        return {
            "Frames compared with": frames if hasattr(module, "PUBLISHED_FRAMES") else none,
            "Rates compared with": getattr(module, "RATES_STATUS", rates),
            **(module.notes(self.root) if hasattr(module, "notes") else {}),
        }

    def parts(self) -> "Markdown":
        """Subjects, sequences and frames of each part, beside the published numbers of frames."""
        counted: Mapping[str, Mapping[str, int]] = getattr(adapter(self.dataset), "PUBLISHED_FRAMES", {})
        published = counted.get(self.table.protocol.name, {})
        rows = []
        for part, frames in self.table.frames.groupby("part", sort=False):
            expected = published.get(str(part))
            rows.append(
                [
                    page.text(part),
                    str(frames["subject"].nunique()),
                    str(len(frames[["subject", "sequence"]].drop_duplicates())),
                    f"{len(frames):,}",
                    "not known" if expected is None else f"{expected:,}",
                    "" if expected is None else f"{len(frames) - expected:+,}".replace("-", "−"),
                ]
            )
        return page.markdown(
            page.table(["Part", "Subjects", "Sequences", "Frames", "Published", "Difference"], rows, "lrrrrr")
        )

    def action_units(self) -> "Markdown":
        """One row per part and AU."""
        rows = []
        for row in self.numbers.itertuples():
            published = row.published_rate
            rows.append(
                [
                    page.text(row.part),
                    f"AU{row.au}" + (" (never drawn)" if row.au in self.table.null_aus else ""),
                    f"{row.known:,}",
                    f"{row.unknown:,}",
                    f"{row.positives:,}",
                    _percent(row.rate),
                    _percent(published),
                    "" if np.isnan(published) else f"{100 * row.difference:+.1f}".replace("-", "−"),
                    str(row.subjects_with_10_positives),
                    f"{row.effective_sample_size:,.0f}",
                ]
            )
        headers = ["Part", "AU", "Known", "Unknown", "Positive", "Rate (%)", "Compared with (%)", "Difference"]
        headers += ["Subjects with 10 positives", "Effective sample size"]
        return page.markdown(page.table(headers, rows, "ll" + "r" * 8))

    def rates(self) -> "Markdown":
        """Figure: rates per part."""
        from aunce.report import figures

        card = self.numbers
        return page.figure(
            self.out,
            "rates",
            figures.rates(card),
            card,
            alt=f"Share of known frames with each of {card['au'].nunique()} action units, one marker per part.",
            caption="Share of known frames that carry each action unit, per part.",
        )

    def cooccurrence(self) -> "Markdown":
        """Figure: which AUs occur together."""
        from aunce.report import figures

        present = (self.table.labels == 1).astype(np.int64)  # (n, K)
        pairs = pd.MultiIndex.from_product([self.table.aus, self.table.aus], names=["row", "column"])
        together = pd.DataFrame({"both": (present.T @ present).ravel()}, index=pairs).reset_index()
        return page.figure(
            self.out,
            "cooccurrence",
            figures.cooccurrence(self.table.frames, self.table.aus),
            together,
            alt="Heat map: in percent of the frames that carry the action unit of the row, how many carry that of the "
            "column.",
            caption="Where the action unit of a row is present, how often that of a column is, in percent.",
        )

    def sequence_lengths(self) -> "Markdown":
        """Lengths of the sequences in labelled frames."""
        lengths = self.table.frames.groupby(["subject", "sequence"], sort=False).size()
        quantiles = lengths.quantile([0, 0.25, 0.5, 0.75, 1]).round().astype(int)
        names = ["Shortest", "First quarter", "Median", "Third quarter", "Longest"]
        rows = [[name, f"{value:,}"] for name, value in zip(names, quantiles, strict=True)]
        return page.markdown(page.table(["Sequence", "Labelled frames"], rows, "lr"))

    def faces(self) -> "Markdown":
        """Figure: a few faces as they are in the files, if they are rendered or `show_faces` is set."""
        if self.table.synthetic is None and not self.show_faces:
            return page.markdown("Faces of people are not shown; `--show-faces` shows them to you.")
        from aunce.data import images
        from aunce.report import figures

        with_image = np.flatnonzero(self.table.frames["image"] != "")
        count = min(len(with_image), SHOWN_ROWS * SHOWN_COLUMNS) // SHOWN_COLUMNS * SHOWN_COLUMNS
        if not count:
            return page.markdown("There are too few images to show.")
        rows = with_image[np.linspace(0, len(with_image) - 1, count).astype(int)]
        some = dataclasses.replace(self.table, frames=self.table.frames.iloc[rows])
        with TemporaryDirectory(prefix="aunce-card-") as folder:
            try:
                made = images.pack(some, self.root, Path(folder) / "pack", recipe=Recipe(SHOWN_PIXELS))
            except DataError as error:  # one broken image of these few is too large a share for a pack
                return page.markdown(f"Faces are not shown. {page.text(str(error))}")
            shown: Any = np.array(made.images)
        shown = shown[: len(shown) // SHOWN_COLUMNS * SHOWN_COLUMNS]
        sheet = shown.reshape(-1, SHOWN_COLUMNS, *shown.shape[1:])
        return page.figure(
            self.out,
            "faces",
            figures.faces_sheet(sheet, rows=[""] * len(sheet), columns=[""] * SHOWN_COLUMNS),
            some.frames.drop(columns="image"),
            alt=f"{len(shown)} faces of the data set, evenly spaced over its frames.",
            caption=f"{len(shown)} frames evenly spaced over the data set, the largest centred square of each.",
        )


def _published_rate(dataset: str, part: str, au: int) -> float:
    """Share of known frames; NaN where none is published."""
    rates: Mapping[Any, Any] = getattr(adapter(dataset), "RATES", {})
    of_part = rates.get(part, {}) if any(isinstance(value, Mapping) for value in rates.values()) else rates
    return float(of_part.get(au, np.nan))


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f}"
