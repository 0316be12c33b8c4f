"""Pictures read one after the other: each decoded, prepared and answered, or said in a line why not."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from chainrule import preprocessing
from chainrule.errors import ChainruleError
from chainrule.predicting import sources
from chainrule.predicting.reader import Answer, Reader
from chainrule.preprocessing import Prepared, reading

if TYPE_CHECKING:
    from PIL.Image import Image

_AT_ONCE = 64  # digits that go through the network together


@dataclass
class Reading:
    """One picture: what was prepared of it and what the network says, or ``problem``, a line naming it."""

    name: str
    problem: str | None = None
    picture: "Image | None" = None  # small, for the eye; only where it was asked for
    prepared: list[Prepared] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class How:
    """How pictures are prepared, and what is kept of the way."""

    many: bool = False
    naive: bool = False
    deskew: bool = False
    keep_steps: bool = False
    keep_picture: bool = False

    def __call__(self, name: str) -> Reading:
        """Return a picture prepared, or its problem."""
        from chainrule.preprocessing import colour

        try:
            image = reading.decode(sources.content(name), "standard input" if name == sources.STDIN else name)
        except ChainruleError as error:
            return Reading(name, str(error))
        shown = "standard input" if name == sources.STDIN else name
        try:
            if self.naive:
                made = [preprocessing.naive(image, keep=self.keep_steps)]
            elif self.many:
                made = preprocessing.prepare_many(image, deskew=self.deskew, keep=self.keep_steps)
            else:
                made = [preprocessing.prepare(image, deskew=self.deskew, keep=self.keep_steps)]
        except ChainruleError as error:
            return Reading(shown, f"{shown}: {error}")
        picture = colour.shrink(colour.upright(image), 224) if self.keep_picture else None
        return Reading(shown, None, picture, made)


def read_all(reader: Reader, names: Iterable[str], how: How, workers: int = 2) -> Iterator[Reading]:
    """Give each picture's reading in the order of ``names``; a few are prepared ahead, on other threads."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Reading]] = deque()
        ready: list[Reading] = []
        for name in names:
            waiting.append(pool.submit(how, name))
            if len(waiting) > 4 * workers:
                ready.append(waiting.popleft().result())
            if sum(len(each.prepared) for each in ready) >= _AT_ONCE:
                yield from _answered(reader, ready)
                ready = []
        ready += [future.result() for future in waiting]
        yield from _answered(reader, ready)


def _answered(reader: Reader, readings: list[Reading]) -> list[Reading]:
    images = [prepared.image for reading in readings for prepared in reading.prepared]
    if images:
        answers = iter(reader.read(np.stack(images)))
        for each in readings:
            each.answers = [next(answers) for _ in each.prepared]
    return readings
