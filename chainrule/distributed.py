"""One training by several processes: how those that ``torchrun`` starts begin, speak and end together.

The first of them, rank 0, is the one that a person deals with: it reads the command line, checks, writes the
run and prints. The others wait until it has found nothing wrong, get from it what is to be trained, and then
call the engine in step with it. Whatever goes wrong, one of them says so, in one line, and all of them end.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from chainrule.errors import ChainruleError


class Lost(ChainruleError):
    """Another rank is gone, or does not answer. Exit status 1."""


@dataclass
class World:
    """The processes of one training, of which this is the one with number ``rank``."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    how_to_resume: str = ""  # as soon as there is a run's folder
    _store: Any = None  # what torchrun keeps for all ranks
    _saved: bool = False

    @property
    def first(self) -> bool:
        """Whether this process reads, writes and prints."""
        return self.rank == 0

    def join(self, seconds: float) -> None:
        """Wait until all ranks are here, at most this long; later, too, no rank waits longer for another.

        Raises Lost if they do not come.
        """
        import torch
        import torch.distributed as dist

        if self.local_rank < torch.cuda.device_count():
            torch.cuda.set_device(self.local_rank)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        wait = timedelta(seconds=seconds)
        with self.translated():
            rendezvous: Any = dist.rendezvous  # type: ignore[attr-defined]
            self._store, rank, size = next(rendezvous("env://", timeout=wait))
            dist.init_process_group(backend, store=self._store, rank=rank, world_size=size, timeout=wait)

    def check_device(self, device: str) -> None:
        """Raise ChainruleError if there is no device of this kind for this rank alone."""
        import torch

        if device == "cuda" and self.local_rank >= (count := torch.cuda.device_count()):
            raise ChainruleError(
                f"--device cuda: rank {self.rank} is process {self.local_rank + 1} on its machine, which has "
                f"{count} CUDA devices: give torchrun a smaller --nproc-per-node"
            )

    def broadcast(self, value: Any = None) -> Any:
        """Return rank 0's value, on all ranks."""
        import torch.distributed as dist

        box = [value]
        with self.translated():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def note_saved(self) -> None:
        """Let all ranks know, from rank 0, that there is a checkpoint to go on from."""
        if self._store is not None and not self._saved:
            self._store.set("chainrule/saved", "")
        self._saved = True

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Let only one rank say what went wrong: the first that finds out; the others end silently.

        Inside, what gloo, NCCL and torchrun do when a rank is gone becomes `Lost`, which says what to do. At
        the end the connections are closed.
        """
        if self.size == 1:
            yield
            return
        try:
            with self.translated():
                yield
        except ChainruleError as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # we are ending as it is
            first = self._is_first_to_say()
            # A traceback would keep the engine, and with it gloo's threads, which must end before Python.
            error.__cause__ = error.__context__ = None
            raise error.with_traceback(None) if first else SystemExit(error.exit_status)  # noqa: B904
        finally:
            self._leave()

    def _leave(self) -> None:
        import gc

        import torch.distributed as dist

        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _is_first_to_say(self) -> bool:
        if self._store is None:
            return self.first  # the others have not begun
        try:
            return bool(self._store.add("chainrule/said", 1) == 1)
        except RuntimeError:
            return True  # whoever kept it is gone: better said twice than never

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn an error of the connection between ranks, and the SIGTERM of torchrun, into `Lost`."""
        try:
            with _on_sigterm(self):
                yield
        except RuntimeError as error:
            if self.size == 1 or not _is_about_ranks(error):
                raise
            text = str(error).lower()
            late = "timed out" in text or "timeout" in text
            raise self.lost("another rank does not answer" if late else "another rank has ended") from error

    def lost(self, what: str) -> Lost:
        """Return the error that says what happened, and how the training can be continued."""
        if not self._saved and self._store is not None:
            try:
                self._saved = bool(self._store.check(["chainrule/saved"]))
            except RuntimeError:
                self._saved = True  # rank 0 kept it, and was killed: it cleared nothing away
        return Lost(f"{what}: {self.how_to_resume if self._saved else 'nothing was written'}")


def from_environment() -> World:
    """Return this process's place among those that ``torchrun`` started, or a world of its own.

    Raises ChainruleError if the variables that torchrun sets are not numbers.
    """
    if "MASTER_ADDR" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return World()
    try:
        rank, size, local_rank = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except (KeyError, ValueError) as error:
        raise ChainruleError(
            f"WORLD_SIZE is set, so torchrun should have set RANK and LOCAL_RANK to numbers too: {error}"
        ) from None
    # What a lost connection means is ours to say, in one line and not in C++.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return World(rank, size, local_rank)


def _is_about_ranks(error: RuntimeError) -> bool:
    """Tell whether an error is of the connection between ranks: gloo's have no class of their own."""
    import torch.distributed as dist

    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "nccl", "connection"))


@contextmanager
def _on_sigterm(world: World) -> Iterator[None]:
    """While inside, let SIGTERM end this rank as `Lost`: torchrun sends it when another rank has failed."""
    if world.size == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise world.lost("ended by SIGTERM, which torchrun sends when another rank has failed")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
