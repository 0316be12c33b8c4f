"""What runs read on a folder of real drawings and photographs, as they are and made harder.

    python benchmarks/own_digits.py RUN... --pictures ../shared/own-digits

``labels.csv`` in that folder has the columns file, label, repo and note (with "28x28" where a picture has
that size). Prints the share that is right of all pictures and of those that are not 28x28, the mean
probability of right and wrong answers, the same with half of the pictures changed, the naive way, and how
many are missed of each hand (repo).
"""

import argparse
import collections
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from chainrule import preprocessing, saved
from chainrule.errors import ChainruleError
from chainrule.predicting.reader import Reader
from chainrule.preprocessing import colour, reading

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def paper(pixels: np.ndarray) -> np.ndarray:
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.median(edge, axis=0)


def inverted(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return 255 - pixels


def padded(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, bottom, left, right = (int(random.uniform(0.1, 1) * max(height, width)) for _ in range(4))
    page = np.tile(paper(pixels), (height + top + bottom, width + left + right, 1))
    page[top : top + height, left : left + width] = pixels
    return page


def shrunk(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    share = random.uniform(0.5, 0.8)
    picture = Image.fromarray(np.round(pixels).astype(np.uint8))
    size = (max(1, int(picture.width * share)), max(1, int(picture.height * share)))
    small = np.asarray(picture.resize(size, Image.Resampling.LANCZOS)).astype(float)
    page = np.tile(paper(pixels), (*pixels.shape[:2], 1))
    top = int(random.integers(0, page.shape[0] - small.shape[0] + 1))
    left = int(random.integers(0, page.shape[1] - small.shape[1] + 1))
    page[top : top + small.shape[0], left : left + small.shape[1]] = small
    return page


def moved(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    ink = np.abs(pixels - paper(pixels)).max(axis=-1) > 60
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return pixels
    down = int(random.integers(-rows[0], height - rows[-1]))
    across = int(random.integers(-columns[0], width - columns[-1]))
    page = np.tile(paper(pixels), (height, width, 1))
    page[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)] = pixels[
        max(-down, 0) : height - max(down, 0), max(-across, 0) : width - max(across, 0)
    ]
    return page


def on_grey(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.clip(random.uniform(90, 165) + (pixels - paper(pixels)) * random.uniform(0.4, 0.7), 0, 255)


def on_gradient(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    slope = np.cos(angle) * y / height + np.sin(angle) * x / width
    slope = (slope - slope.min()) / max(np.ptp(slope), 1e-9)
    return 0.5 * pixels + (20 + 107 * slope)[..., None]


CHANGES: tuple[Change, ...] = (inverted, padded, shrunk, moved, on_grey, on_gradient)


def prepared(pictures: list[Image.Image]) -> np.ndarray:
    """Return every picture as the network sees it; black where nothing is found on it."""
    images = np.zeros((len(pictures), 28, 28), np.uint8)
    for i, picture in enumerate(pictures):
        try:
            images[i] = preprocessing.prepare(picture).image
        except ChainruleError as error:
            print(f"  picture {i}: {error}")
    return images


def opaque(picture: Image.Image) -> np.ndarray:
    return np.asarray(colour.opaque(picture).convert("RGB")).astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--pictures", type=Path, default=Path("../shared/own-digits"))
    parser.add_argument("--seed", type=int, default=0, help="decides which half is changed, and how")
    arguments = parser.parse_args()
    with (arguments.pictures / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in rows])
    large = np.array(["28x28" not in row["note"] for row in rows])
    hands = np.array([row["repo"] for row in rows])
    pictures = [reading.read(arguments.pictures / row["file"]) for row in rows]
    random = np.random.default_rng(arguments.seed)
    sets = {"as they are": prepared(pictures)}
    for change in CHANGES:
        half = random.permutation(len(rows)) < len(rows) / 2
        changed = [
            Image.fromarray(np.clip(np.round(change(opaque(picture), random)), 0, 255).astype(np.uint8))
            if chosen
            else picture
            for picture, chosen in zip(pictures, half, strict=True)
        ]
        sets[f"half {change.__name__.replace('_', ' ')}"] = prepared(changed)
    sets["the naive way"] = np.array([preprocessing.naive(picture).image for picture in pictures])
    for path in arguments.runs:
        reader = Reader(saved.open_run(path), likeness=False)
        print(f"\n{path} ({reader.run.recipe.name}), temperature {reader.temperature}")
        print(f"{'':18} {'all':>7} {'not 28x28':>10}   mean probability: right  wrong")
        for name, images in sets.items():
            answers = reader.read(images)
            right = np.array(
                [int(answer.digit) == label for answer, label in zip(answers, labels, strict=True)]
            )
            sure = np.array([answer.probability for answer in answers])
            wrong = f"{sure[~right].mean():.3f}" if not right.all() else "-"
            mean = sure[right].mean()
            print(f"{name:18} {right.mean():7.2%} {right[large].mean():10.2%} {mean:25.3f}  {wrong}")
            if name == "as they are":
                missed = collections.Counter(hands[~right])
        of = collections.Counter(hands)
        print("missed: " + ", ".join(f"{hand.split('/')[0]} {n} of {of[hand]}" for hand, n in missed.items()))


if __name__ == "__main__":
    main()
