"""Rendered people: what they show and when, and their images and landmarks. Writers and figures begin here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aunce.data.render import drawn
from aunce.data.render.behaviour import AUS, Behaviour, Subject, plain_scene, stream
from aunce.data.render.difficulty import SETTINGS, Difficulty
from aunce.errors import UsageError


class Population:
    """Rendered people with rates, behaviour and looks of their own.

    Args:
        subjects: names of the subjects.
        rates: subject -> AU -> target rate of the subject's part. AUs without a target get a modest rate.
        difficulty: of the faces and of the recordings, such as `SETTINGS["easy"]`.
        seed: fixes everything. Bytes depend on (seed, subject, task, time) alone, not on the order of asking.
    """

    def __init__(
        self,
        subjects: Sequence[str],
        *,
        rates: Mapping[str, Mapping[int, float]],
        difficulty: Difficulty,
        seed: int,
    ) -> None:
        self.subjects, self.difficulty, self.seed = tuple(subjects), difficulty, seed
        self._subjects = {name: Subject(name, rates[name], difficulty, seed) for name in self.subjects}
        self._identities: dict[str, drawn.Identity] = {}

    def sequence(self, subject: str, task: str, times: NDArray[np.floating]) -> Behaviour:
        """Behaviour of a subject in a task at `times` (T,) in seconds, which may be sparse."""
        return self._subjects[subject].sequence(task, times)

    def images(self, subject: str, behaviour: Behaviour, *, size: int) -> NDArray[np.uint8]:
        """Images (T, size, size, 3) uint8 RGB of a behaviour."""
        return drawn.render(behaviour.intensity, self._identity(subject), behaviour.scene, self.difficulty, size)

    def landmarks(self, subject: str, behaviour: Behaviour, *, size: int) -> NDArray[np.float64]:
        """The 49 landmarks in those images, pixels (T, 49, 2), x first, counted from 0.

        Brows are points 1-10, bridge and base of the nose 11-19, eyes 20-25 and 26-31, outer lips 32-43 and inner lips
        44-49, counted from 1. Each runs from the image's left to its right, eyes and lips clockwise. They are the
        points of the 68-point scheme without the outline and the inner corners of the mouth.
        """
        return drawn.landmarks(behaviour.intensity, self._identity(subject), behaviour.scene, self.difficulty, size)

    def _identity(self, subject: str) -> drawn.Identity:
        who = self._identities.get(subject)
        if who is None:
            who = self._identities[subject] = drawn.identity(stream(self.seed, subject, "identity"), self.difficulty)
        return who


def faces(
    intensities: NDArray[np.floating],
    *,
    identity_seed: int,
    difficulty: Difficulty | None = None,
    size: int = 96,
    neutral_scene: bool = True,
) -> NDArray[np.uint8]:
    """Draw one person at given intensities.

    Args:
        intensities: (T, 17) in 0..5, in the order of `AUS`.
        identity_seed: which person.
        difficulty: of the faces; that of "easy" if left out.
        size: side of the images in pixels.
        neutral_scene: frontal, evenly lit, without blur and noise. False draws a scene from the difficulty.

    Returns:
        Images (T, size, size, 3) uint8 RGB.

    Raises:
        UsageError: intensities of another shape or outside 0..5, or a size that cannot be drawn.
    """
    difficulty = difficulty or SETTINGS["easy"]
    levels = np.asarray(intensities, dtype=np.float64)
    if levels.ndim != 2 or levels.shape[1] != len(AUS) or not ((levels >= 0) & (levels <= 5)).all():
        raise UsageError(f"intensities: expected an array (frames, {len(AUS)}) in 0..5, got shape {levels.shape}")
    who = drawn.identity(stream(identity_seed, "face", "identity"), difficulty)
    if neutral_scene:
        return drawn.render(levels, who, plain_scene(len(levels)), difficulty, size)
    behaviour = Subject("face", {}, difficulty, identity_seed).sequence("T1", np.arange(len(levels)) / 25)
    return drawn.render(levels, who, behaviour.scene, difficulty, size)
