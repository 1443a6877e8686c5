"""Rendered people: what they show and when, and their images and landmarks. Writers and figures begin here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aunce.data.render.behaviour import AUS, Behaviour, Scene, Subject, plain_scene, stream
from aunce.data.render.difficulty import SETTINGS_OF, VERSIONS, Difficulty
from aunce.errors import UsageError

KEPT = 8
"""People of a population that are kept ready: a modelled one takes megabytes, and a data set has hundreds."""


class Generator(Protocol):
    """What a module that turns people, scenes and intensities into pixels must have.

    `who` is what its `identity` gave. `intensities` are (T, 17) in 0..5, in the order of `AUS`; `size` is the side of
    the images in pixels.
    """

    def identity(self, rng: np.random.Generator, difficulty: Difficulty, /) -> Any:
        """Draws a person."""

    def render(
        self, intensities: NDArray[np.floating], who: Any, scene: Scene, difficulty: Difficulty, size: int, /
    ) -> NDArray[np.uint8]:
        """Images (T, size, size, 3), RGB."""

    def landmarks(
        self, intensities: NDArray[np.floating], who: Any, scene: Scene, difficulty: Difficulty, size: int, /
    ) -> NDArray[np.float64]:
        """The landmarks (T, 49, 2) of `Population.landmarks` in those images."""


def generator(faces: str) -> Generator:
    """The generator of that name; its module and what that reads are loaded now.

    Raises:
        UsageError: there is none of that name.
        DataError: a file that it reads is damaged.
    """
    if faces == "modelled":
        from aunce.data.render import modelled

        return modelled
    if faces == "drawn":
        from aunce.data.render import drawn

        return drawn
    raise UsageError(f"unknown faces {faces!r}. Known: {', '.join(VERSIONS)}.")


class Population:
    """Rendered people with rates, behaviour and looks of their own.

    Args:
        subjects: names of the subjects.
        rates: subject -> AU -> target rate of the subject's part. AUs without a target get a modest rate.
        difficulty: of the faces and of the recordings, such as `SETTINGS["easy"]`.
        seed: fixes everything. Bytes depend on (seed, subject, task, time) alone, not on the order of asking.
        faces: name of the generator. Behaviour and scenes do not depend on it.

    Raises:
        UsageError: a rate outside 0..1, or an unknown generator.
        DataError: a file of the generator is damaged.
    """

    def __init__(
        self,
        subjects: Sequence[str],
        *,
        rates: Mapping[str, Mapping[int, float]],
        difficulty: Difficulty,
        seed: int,
        faces: str = "drawn",
    ) -> None:
        generator(faces)
        self.subjects, self.difficulty, self.seed = tuple(subjects), difficulty, seed
        self._subjects = {name: Subject(name, rates[name], difficulty, seed) for name in self.subjects}
        self.faces = faces
        self._identities: dict[str, Any] = {}

    def sequence(self, subject: str, task: str, times: NDArray[np.floating]) -> Behaviour:
        """Behaviour of a subject in a task at `times` (T,) in seconds, which may be sparse."""
        return self._subjects[subject].sequence(task, times)

    def images(self, subject: str, behaviour: Behaviour, *, size: int) -> NDArray[np.uint8]:
        """Images (T, size, size, 3) uint8 RGB of a behaviour."""
        who = self._identity(subject)
        return generator(self.faces).render(behaviour.intensity, who, behaviour.scene, self.difficulty, size)

    def landmarks(self, subject: str, behaviour: Behaviour, *, size: int) -> NDArray[np.float64]:
        """The 49 landmarks in those images, pixels (T, 49, 2), x first, counted from 0.

        Brows are points 1-10, bridge and base of the nose 11-19, eyes 20-25 and 26-31, outer lips 32-43 and inner lips
        44-49, counted from 1. Each runs from the image's left to its right, eyes and lips clockwise. They are the
        points of the 68-point scheme without the outline and the inner corners of the mouth.
        """
        who = self._identity(subject)
        return generator(self.faces).landmarks(behaviour.intensity, who, behaviour.scene, self.difficulty, size)

    def _identity(self, subject: str) -> Any:
        if subject not in self._identities:
            if len(self._identities) == KEPT:
                del self._identities[next(iter(self._identities))]
            rng = stream(self.seed, subject, "identity")
            self._identities[subject] = generator(self.faces).identity(rng, self.difficulty)
        return self._identities[subject]


def faces(
    intensities: NDArray[np.floating],
    *,
    identity_seed: int,
    difficulty: Difficulty | None = None,
    size: int = 96,
    neutral_scene: bool = True,
    faces: str = "drawn",
) -> NDArray[np.uint8]:
    """Draw one person at given intensities.

    Args:
        intensities: (T, 17) in 0..5, in the order of `AUS`.
        identity_seed: which person.
        difficulty: of the faces; that of the generator's "easy" if left out.
        size: side of the images in pixels.
        neutral_scene: frontal, evenly lit, without blur and noise. False draws a scene from the difficulty.
        faces: name of the generator.

    Returns:
        Images (T, size, size, 3) uint8 RGB.

    Raises:
        UsageError: intensities of another shape or outside 0..5, a size that cannot be drawn, or an unknown generator.
    """
    made = generator(faces)
    difficulty = difficulty or SETTINGS_OF[faces]["easy"]
    levels = np.asarray(intensities, dtype=np.float64)
    if levels.ndim != 2 or levels.shape[1] != len(AUS) or not ((levels >= 0) & (levels <= 5)).all():
        raise UsageError(f"intensities: expected an array (frames, {len(AUS)}) in 0..5, got shape {levels.shape}")
    who = made.identity(stream(identity_seed, "face", "identity"), difficulty)
    scene = plain_scene(len(levels))
    if not neutral_scene:
        scene = Subject("face", {}, difficulty, identity_seed).sequence("T1", np.arange(len(levels)) / 25).scene
    return made.render(levels, who, scene, difficulty, size)
