"""Running a learner's code in a process of its own, with limits on time, memory, files and output."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WORKER = Path(__file__).with_name("worker.py")
_ANSWER = 64 * 2**20  # bytes: what a worker may send back
_KEPT = 2_000  # characters of what the code prints are kept
_FLOOD = 64 * 2**20  # bytes: printing more ends the process
_SLOW = 3  # times the limit of CPU time, a process may take by the clock (it may sleep, or share its core)


@dataclass(frozen=True)
class Limits:
    """What the code may use: seconds of CPU, bytes of address space, bytes in one file that it writes."""

    seconds: float = 4.0
    memory: int = 2 * 2**30
    file_size: int = 16 * 2**20


@dataclass
class Answer:
    """What came back: the worker's messages, and how the process ended.

    ``ended`` is "done", "slow" (stopped by the clock), "flood" (it printed too much), "large" (it sent too
    much), or "died" with ``status``, its exit status (negative: the signal that ended it).
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    ended: str = "done"
    status: int = 0
    printed: int = 0
    output: str = ""
    line: int | None = None


def run_apart(source: bytes, name: str, folder: Path, job: dict[str, Any], limits: Limits) -> Answer:
    """Run a worker on a copy of the file in an empty folder, and return what it found.

    The copy is what the code can delete; of the environment it sees only what Python needs. When the worker
    is done, or its time is over, its whole process group is killed.
    """
    with tempfile.TemporaryDirectory(prefix="learner-", ignore_cleanup_errors=True) as place:
        path = Path(place, name)
        path.write_bytes(source)
        receive, send = os.pipe()
        job = job | {
            "file": str(path),
            "folder": str(folder),
            "channel": send,
            "seconds": limits.seconds,
            "memory": limits.memory,
            "file_size": limits.file_size,
        }
        process = subprocess.Popen(
            [sys.executable, "-B", "-P", "-X", "faulthandler", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=place,
            env=_environment(place),
            pass_fds=[send],
            start_new_session=True,
        )
        os.close(send)
        return _listen(process, receive, json.dumps(job).encode(), limits, path.name)


def _environment(place: str) -> dict[str, str]:
    kept = {
        key: os.environ[key] for key in ("PATH", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT") if key in os.environ
    }
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return kept | {
        "PYTHONPATH": paths,
        "HOME": place,
        "TMPDIR": place,
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def _listen(
    process: "subprocess.Popen[bytes]", receive: int, job: bytes, limits: Limits, name: str
) -> Answer:
    answer, parts, head = Answer(), [], bytearray()

    def stop(why: str) -> None:
        if answer.ended == "done":
            answer.ended = why
        if why == "slow":  # Python then says in which line it is
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGABRT)
            time.sleep(0.3)
        _kill(process)

    def read_results() -> None:
        size = 0
        with os.fdopen(receive, "rb") as channel:
            while chunk := channel.read1(65536):
                size += len(chunk)
                if size > _ANSWER:
                    stop("large")
                    return
                parts.append(chunk)

    def read_output() -> None:
        stream: Any = process.stdout
        while chunk := stream.read1(65536):
            answer.printed += len(chunk)
            head.extend(chunk[: max(0, _KEPT - len(head))])
            if answer.printed > _FLOOD:
                stop("flood")
                return

    readers = [threading.Thread(target=target, daemon=True) for target in (read_results, read_output)]
    for reader in readers:
        reader.start()
    clock = threading.Timer(_SLOW * limits.seconds, stop, ["slow"])
    clock.daemon = True
    clock.start()
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(job)
            process.stdin.close()
        answer.status = process.wait()
    finally:
        clock.cancel()
        _kill(process)  # and what it started
    for reader in readers:
        reader.join(timeout=2)
    for line in b"".join(parts).decode("utf-8", "replace").splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict):
            answer.messages.append(message)
    if answer.ended == "done" and not any("done" in message for message in answer.messages):
        answer.ended = "died"
    answer.output = head.decode("utf-8", "replace")
    found = re.findall(rf'File ".*{re.escape(name)}", line (\d+)', answer.output)
    answer.line = int(found[0]) if found else None
    if process.stdout is not None:
        process.stdout.close()
    return answer


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and all that it started and that stayed in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
