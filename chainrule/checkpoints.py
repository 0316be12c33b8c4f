"""Checkpoints: all that the rest of a training depends on, in one file that vouches for itself.

A run keeps two, ``checkpoint.safetensors`` and the one before it. Each is a safetensors file: the arrays
(parameters, buffers, the optimizer's moments, PyTorch's random generator) lie in it as tensors; everything
else (the position in the epoch, the sums so far, schedules, NumPy's generators, the metrics) is JSON in its
metadata, which repeats every float to the bit. The metadata also have the SHA-256 of the whole file, computed
with zeros where the sum itself stands. Nothing in it is ever executed, as a pickle would be.
"""

import hashlib
import json
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.errors import ChainruleError, Stopped
from chainrule.runs import CHECKPOINTS, RunFolder
from chainrule.training import Best, Course, Running, Trained

FORMAT = "chainrule checkpoint 1"
_NO_SUM = "0" * 64
_SUM = re.compile(rb'"sha256":"([0-9a-f]{64})"')  # within text its quotes would be escaped


class Damaged(ChainruleError):
    """A checkpoint is not what was written."""


def pack(tree: dict[str, Any]) -> bytes:
    """Return the content of a checkpoint: ``tree`` nests arrays and what JSON knows (tuples become lists)."""
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    state = json.dumps(_without_arrays(tree, "", arrays))  # Python's JSON has NaN and Infinity
    content = save(arrays, {"format": FORMAT, "state": state, "sha256": _NO_SUM})
    start, end = _place_of_sum(content)
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[end:]


def unpack(content: bytes) -> dict[str, Any]:
    """Return what was packed, keys as text. Raises Damaged, with the reason, for anything else."""
    from safetensors.numpy import load

    if not content:
        raise Damaged("it is empty")
    start, end = _place_of_sum(content)
    zeroed = hashlib.sha256(content[:start])
    zeroed.update(_NO_SUM.encode())
    zeroed.update(memoryview(content)[end:])
    if zeroed.hexdigest().encode() != content[start:end]:
        raise Damaged(_length_problem(content) or "its bytes are not those that were written (SHA-256)")
    metadata = json.loads(_header(content))["__metadata__"]
    if metadata["format"] != FORMAT:
        raise Damaged(f"it is a '{metadata['format']}', expected a '{FORMAT}'")
    tree: dict[str, Any] = _with_arrays(json.loads(metadata["state"]), load(content))
    return tree


def _header(content: bytes) -> bytes:
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def _place_of_sum(content: bytes) -> tuple[int, int]:
    found = _SUM.search(_header(content))
    if found is None:
        raise Damaged("its head is damaged, or it is not a checkpoint")
    return 8 + found.start(1), 8 + found.end(1)


def _length_problem(content: bytes) -> str:
    """Say how much of a file is missing; nothing if its length is right, or its head cannot be read."""
    header_length = int.from_bytes(content[:8], "little")
    if len(content) < 8 + header_length:
        return f"it is cut short: found {len(content):,} bytes, its head alone has {8 + header_length:,}"
    try:
        header = json.loads(_header(content))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + header_length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ""
    found = f"found {len(content):,} of {expected:,} bytes"
    return f"it is cut short: {found}" if len(content) < expected else ""


def _without_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return ``value`` with each array moved to ``arrays`` and ``{"array": its key there}`` in its place."""
    if isinstance(value, np.ndarray):
        arrays[path] = np.asarray(value, order="C")
        return {"array": path}
    if isinstance(value, Mapping):
        return {
            str(key): _without_arrays(inner, f"{path}/{key}" if path else str(key), arrays)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_arrays(inner, f"{path}/{i}", arrays) for i, inner in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array"} and isinstance(value["array"], str):
            return arrays[value["array"]]
        return {key: _with_arrays(inner, arrays) for key, inner in value.items()}
    return [_with_arrays(inner, arrays) for inner in value] if isinstance(value, list) else value


def state_of(courses: list[Course], metrics: list[dict[str, Any]], config: dict[str, Any]) -> dict[str, Any]:
    """Return what `restore` needs, to be called between two batches; ``config`` is the run's config.json."""
    return {
        "config": fingerprint(config),
        "metrics": metrics,
        "courses": {course.engine.name: _state_of_course(course) for course in courses},
    }


def _state_of_course(course: Course) -> dict[str, Any]:
    running = course.running
    sums = {"loss": float(running.loss), "correct": int(running.correct), "norm": float(running.norm)}
    schedule = {} if course.scheduler is None else course.scheduler.state_dict()
    return {
        **course.engine.training_state(),
        # The recipe builds the same milestones again.
        "scheduler": {key: value for key, value in schedule.items() if not isinstance(value, Counter)},
        "trained": asdict(course.trained),
        "running": {**vars(running), **sums},
    }


def restore(state: dict[str, Any], courses: list[Course]) -> list[dict[str, Any]]:
    """Put courses that have just begun where those of `state_of` stood; return the metrics so far.

    Raises ChainruleError if the state does not fit them, as one that another version wrote may not.
    """
    try:
        for course in courses:
            _restore_course(state["courses"][course.engine.name], course)
        metrics: list[dict[str, Any]] = state["metrics"]
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ChainruleError(f"the checkpoint does not fit this version of chainrule: {error!r}") from None
    return metrics


def _restore_course(saved: dict[str, Any], course: Course) -> None:
    if course.scheduler is not None:
        course.scheduler.load_state_dict(saved["scheduler"])
    course.engine.load_training_state(saved)
    best = saved["trained"].pop("best")
    course.trained = Trained(**saved["trained"], best=Best(**best) if best else None)
    course.running = Running(**saved["running"])


def fingerprint(config: dict[str, Any]) -> str:
    """Return a sum over config.json: a checkpoint belongs to the run that wrote it."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def newest(folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the state in the newest whole checkpoint of a run, and what was wrong with a newer one.

    The state is None for a run that was stopped before its first checkpoint. Raises ChainruleError if none of
    its checkpoints can be used.
    """
    problems: list[str] = []
    for name in CHECKPOINTS:
        try:
            state = unpack((folder / name).read_bytes())
            if state["config"] != fingerprint(config):
                raise Damaged("it is not of this run: config.json is another one")
            return state, problems
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
        except Damaged as error:
            problems.append(f"{name}: {error}")
    if any((folder / name).exists() for name in CHECKPOINTS):
        raise ChainruleError(f"{folder} has no checkpoint to go on from: {'; '.join(problems)}")
    return None, []


class Keeper:
    """Writes a training's checkpoints: after each epoch, within one every so many seconds, and on Ctrl-C."""

    def __init__(
        self,
        folder: RunFolder,
        courses: list[Course],
        metrics: list[dict[str, Any]],
        config: dict[str, Any],
        seconds: float,
    ):
        self._folder, self._courses, self._metrics, self._config = folder, courses, metrics, config
        self._seconds = seconds
        self._last = time.monotonic()
        self._stopping = False

    def between_batches(self) -> None:
        """Write a checkpoint if it is time. Raises Stopped if a person has pressed Ctrl-C."""
        if self._stopping or time.monotonic() - self._last >= self._seconds:
            self.save()

    def save(self) -> None:
        """Write a checkpoint. Raises Stopped if a person has pressed Ctrl-C."""
        self._folder.write_checkpoint(pack(state_of(self._courses, self._metrics, self._config)))
        self._last = time.monotonic()
        if self._stopping:
            raise Stopped(f"stopped: {self._folder.how_to_resume}")

    @contextmanager
    def finishing_on_ctrl_c(self) -> Iterator[None]:
        """While inside, let Ctrl-C wait until the training can be continued; a second one does not wait."""
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            yield  # signals are the main thread's; and whoever ignores this one (nohup) has a reason
            return

        def stop(*_: object) -> None:
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
