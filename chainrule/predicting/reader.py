"""A run's network as a reader of digits: the answer, its probability, and doubts in words."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import nn_reference
from chainrule import saved
from chainrule.errors import ChainruleError
from chainrule.metrics import probabilities
from chainrule.predicting.likeness import Likeness

UNSURE = 0.6  # below it a second answer is worth a look


@dataclass(frozen=True)
class Answer:
    """What the network says of one digit; ``ranked`` has every class and its probability, likeliest first."""

    image: np.ndarray  # uint8 (28, 28), what the network saw
    ranked: list[tuple[str, float]]
    distance: float | None  # from what it was trained on, see `likeness`; None where that is not known
    warnings: list[str] = field(default_factory=list)

    @property
    def digit(self) -> str:
        """The likeliest class."""
        return self.ranked[0][0]

    @property
    def probability(self) -> float:
        """How likely it is."""
        return self.ranked[0][1]


class Reader:
    """The reference engine with a run's weights; ``temperature`` is None for a run that is not calibrated."""

    def __init__(
        self,
        run: saved.SavedRun,
        which: str = "last",
        trained_by: str | None = None,
        *,
        likeness: bool = True,
    ):
        self.run = run
        shape = run.recipe.input_shape
        if shape[-2:] != (28, 28) or int(np.prod(shape)) != 784:
            raise ChainruleError(f"{run.path}: its network takes images of {shape}, not of 28 x 28")
        self.network = run.recipe.build(nn_reference).eval()
        self.network.load_state_dict(saved.load_weights(run, which, trained_by))
        digits = all(name.isdigit() for name in run.class_names)
        self.notes = [] if digits else [f"trained on {run.config['dataset']}, not on handwritten digits"]
        self.temperature = run.temperature(which, trained_by)
        self.likeness = Likeness.of_run(run) if likeness else None

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Return what the network gives for images, uint8 (N, 28, 28): scores (N, classes)."""
        recipe = self.run.recipe
        pixels = (recipe.examples(images).astype(np.float32) / 255 - recipe.mean) / recipe.std
        with nn_reference.no_grad():
            return np.concatenate([self.network(pixels[i : i + 256]) for i in range(0, len(pixels), 256)])

    def read(self, images: np.ndarray) -> list[Answer]:
        """Return an answer for each image, uint8 (N, 28, 28)."""
        chances = probabilities(self.outputs(images) / (self.temperature or 1.0))
        names = self.run.class_names
        distances: list[Any] = [None] * len(images)
        doubts: list[list[str]] = [[] for _ in images]
        if self.likeness is not None:
            distances = list(map(float, self.likeness.distance(images)))
            doubts = self.likeness.doubts(images)
        answers = []
        for image, chance, distance, doubt in zip(images, chances, distances, doubts, strict=True):
            order = np.argsort(-chance, kind="stable")
            ranked = [(names[i], float(chance[i])) for i in order]
            warnings = [*self.notes, *doubt]
            if ranked[0][1] < UNSURE:
                (first, likely), (second, less) = ranked[:2]
                warnings.append(f"unsure: {first} ({likely:.0%}) or {second} ({less:.0%})")
            answers.append(Answer(image, ranked, distance, warnings))
        return answers
