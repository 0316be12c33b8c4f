"""How much an image is like what the network was trained on, by a rule that is measured, not guessed.

The training images span few of the 784 directions that an image could differ in. Principal components find
them; the distance of an image is how far it lies along each of these, in its standard deviations, and beside
all of them (Mahalanobis distance with a residual: Jackson and Mudholkar, 1979). How far is too far is
read off images that were kept back from the fit: all but 1 in 100 lie nearer.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chainrule.errors import ChainruleError
from chainrule.preprocessing.measures import measures, odd

if TYPE_CHECKING:
    from chainrule.saved import SavedRun

FILE = "likeness.safetensors"
COMPONENTS = 60
_MOST = 12_000  # images that the rule is fitted to: more change its third digit
SHARE = 0.01  # of the images kept back that it calls unlike


@dataclass(frozen=True)
class Likeness:
    """The rule: ``mean`` (784,), ``basis`` (components, 784) scaled to unit variance, and its limits."""

    mean: np.ndarray
    basis: np.ndarray
    residual: float  # the standard deviation in what the basis leaves out, per direction
    limit: float
    lows: np.ndarray  # of each measure, in the order of `measures`
    highs: np.ndarray

    @classmethod
    def fit(cls, learn: np.ndarray, kept: np.ndarray) -> "Likeness":
        """Fit the rule to images (N, 28, 28) in uint8, and choose its limits on others, ``kept``."""
        pixels = learn[:: max(1, len(learn) // _MOST)].reshape(-1, 784).astype(np.float32) / 255
        mean = pixels.mean(axis=0)
        values, axes = np.linalg.eigh((pixels - mean).T @ (pixels - mean) / len(pixels))
        count = min(COMPONENTS, len(pixels) // 4)
        variances = np.maximum(values[::-1][:count], 1e-6)
        basis = (axes[:, ::-1][:, :count] / np.sqrt(variances)).T
        residual = float(np.sqrt(max(values[:-count].sum() / 784, 1e-6)))
        rule = cls(mean, np.ascontiguousarray(basis, np.float32), residual, 0.0, np.zeros(0), np.zeros(0))
        limit = float(np.quantile(rule.distance(kept), 1 - SHARE))
        each = np.stack(list(measures(kept).values()))
        lows, highs = np.quantile(each, [0.002, 0.998], axis=1)
        return cls(mean, rule.basis, residual, limit, lows.astype(np.float32), highs.astype(np.float32))

    def distance(self, images: np.ndarray) -> np.ndarray:
        """Return the distance (N,) of images (N, 28, 28): 1 for an ordinary one, in root mean square."""
        rest = images.reshape(-1, 784).astype(np.float32) / 255 - self.mean
        along = rest @ self.basis.T  # (N, components), each of unit variance on the training images
        scale = (self.basis**2).sum(axis=1)  # 1 / variance
        left_out = np.maximum((rest**2).sum(axis=1) - (along**2 / scale).sum(axis=1), 0)
        residual = left_out / (784 * self.residual**2)
        return np.asarray(np.sqrt(((along**2).mean(axis=1) + residual) / 2))

    def limits(self) -> dict[str, tuple[float, float]]:
        """Return the least and the most of each measure that is usual in the training data."""
        names = list(measures(np.zeros((1, 28, 28), np.uint8)))
        return {name: (float(a), float(b)) for name, a, b in zip(names, self.lows, self.highs, strict=True)}

    def doubts(self, images: np.ndarray) -> list[list[str]]:
        """Return for each image what makes it unlike the training images, in words; nothing for most."""
        found, each, limits = self.distance(images), measures(images), self.limits()
        doubts: list[list[str]] = []
        for i, distance in enumerate(found):
            if distance <= self.limit:
                doubts.append([])
                continue
            why = list(odd({name: float(values[i]) for name, values in each.items()}, limits))
            words = (
                f"unlike the training images: distance {distance:.1f}, 99 in 100 are below {self.limit:.1f}"
            )
            doubts.append([f"{words}{': ' if why else ''}{'; '.join(why)}"])
        return doubts

    def to_bytes(self) -> bytes:
        """Return the rule as a safetensors file."""
        from safetensors.numpy import save

        return bytes(
            save(
                {
                    "mean": self.mean,
                    "basis": self.basis,
                    "limits": np.array([self.residual, self.limit]),
                    "measures": np.stack([self.lows, self.highs]),
                }
            )
        )

    @classmethod
    def of_run(cls, run: "SavedRun") -> "Likeness | None":
        """Return the rule that a run keeps; of an older run it is made of its data set, None without that."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        file = run.path / FILE
        try:
            found = load(file.read_bytes())
            residual, limit = map(float, found["limits"])
            rule = cls(found["mean"], found["basis"], residual, limit, *found["measures"])
            rule.limits()
            return rule
        except FileNotFoundError:
            return _of_data(run)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ChainruleError(f"{file}: damaged: {error}; without this file it is made anew") from None


def _of_data(run: "SavedRun") -> Likeness | None:
    from chainrule import saved

    try:
        data, _ = saved.load_data(run)
    except ChainruleError:
        return None
    return fit_split(data.train_images, run.recipe.validation, run.recipe.seed)


def fit_split(images: np.ndarray, validation: int, seed: int) -> Likeness:
    """Fit the rule to the training images, and choose its limits on the validation images.

    Of a run that keeps none back, a tenth of the training images serves: the rule, unlike the network, does
    not learn from them.
    """
    from chainrule.training import split

    learn, kept = split(len(images), validation or max(1, len(images) // 10), seed)
    return Likeness.fit(images[learn], images[kept][:5000])
