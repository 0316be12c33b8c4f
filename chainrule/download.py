"""Bringing a data set's files from a mirror: each appears under its name only when its SHA-256 is right.

pooch writes a file beside its place, verifies it and moves it there, so that two downloads at once, or one
that is stopped, leave nothing half-written. What talks to the network does so in daemon threads: the main
thread only waits, with a deadline, so that a name server, a connection or a mirror that never answers costs
seconds and not minutes.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from chainrule.datasets import Copy, command, default_root, find
from chainrule.errors import ChainruleError, WrongUsage, nearest
from chainrule.manifest import File, Source, sources

BLOCK = 16 * 1024


@dataclass(frozen=True)
class Patience:
    """How long the network may take, in seconds."""

    answer: float = 8.0  # for any mirror to answer at all
    others: float = 2.0  # for all of them to answer; after that, those that have will do
    block: float = 12.0  # for each further BLOCK bytes of a file


class DownloadFailed(ChainruleError):
    """A data set could not be fetched. ``lines`` say why: one for each set, two if no mirror was reached."""

    def __init__(self, lines: list[str]):
        super().__init__(" ".join(lines))
        self.lines = lines


class MirrorFailure(Exception):
    """This mirror did not give this file; the text says why, in a few words."""


class NotThere(MirrorFailure):
    """The mirror has no file at this address."""


class WrongFile(MirrorFailure):
    """What the mirror has at this address is not the published file."""


class Unreachable(MirrorFailure):
    """The mirror does not answer: it is not worth asking again."""


@dataclass(frozen=True)
class Mirror:
    """A folder or web address that has a data set's files.

    The files of a published mirror lie at its address. One that a person named (``own``) may also hold them
    uncompressed, or lie one level up: the root of a torchvision tree, or a data root of ours.
    """

    address: str  # ends in a slash
    own: bool = False

    @property
    def remote(self) -> bool:
        """Whether it takes a network."""
        return self.address.startswith(("http://", "https://"))

    def __str__(self) -> str:
        if not self.remote:
            return self.address
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def candidates(self, source: Source, file: File) -> list[tuple[str, str, int, str]]:
        """(address, name, size, SHA-256) of each place and form in which ``file`` may be here."""
        forms = file.forms() if self.own else file.forms()[:1]
        places = ("", "raw/", *(f"{folder}/" for folder in source.folders())) if self.own else ("",)
        return [
            (f"{self.address}{place}{name}", name, size, sha256)
            for place in places
            for name, size, sha256 in forms
        ]


def parse_mirror(text: str) -> Mirror:
    """The mirror that a person named: a folder, or a ``file://``, ``http://`` or ``https://`` address.

    Raises:
        WrongUsage: it is none of these, or the folder does not exist.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port  # each is checked when it is read
    except ValueError:
        raise WrongUsage(f"--mirror {text}: not a valid address") from None
    if parts.scheme in ("http", "https"):
        if not host:
            raise WrongUsage(
                f"--mirror {text}: expected an address with a host, {parts.scheme}://host/folder"
            )
        return Mirror(parts.geturl().rstrip("/") + "/", own=True)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        folder = Path(url2pathname(parts.path))
    elif "://" in text:
        raise WrongUsage(
            f"--mirror {text}: expected a folder, or an address file:///folder, http://… or https://…"
        )
    else:
        folder = Path(text).expanduser()
    if not folder.is_dir():
        found = "is not a folder" if folder.exists() else "does not exist"
        raise WrongUsage(
            f"--mirror {text}: {found}; expected a folder with the files, or an http(s):// address"
        )
    return Mirror(f"{folder}/", own=True)


@dataclass(frozen=True)
class _Plan:
    """What is to be fetched of one data set."""

    source: Source
    here: dict[str, Copy]
    mirrors: tuple[Mirror, ...]
    wanted: dict[str, File]


def download(
    names: Iterable[str] = ("mnist",),
    root: Path | None = None,
    mirror: str | None = None,
    *,
    say: Callable[[str], None] = print,
    patience: Patience | None = None,
) -> None:
    """Bring the named data sets into ``<root>/<name>/``; files that are there and verified are kept.

    The mirrors of the manifest are tried in turn, file by file; ``mirror`` takes their place.

    Raises:
        WrongUsage: a name is not in the manifest, or ``mirror`` is no folder or address.
        DownloadFailed: a set could not be fetched. The other sets have been fetched all the same.
        ChainruleError: ``root`` cannot be written.
    """
    root = default_root() if root is None else root
    patience = patience or Patience()
    own = parse_mirror(mirror) if mirror is not None else None
    plans = [_plan(name, root, own) for name in dict.fromkeys(names)]
    probes = Probes({one for plan in plans if plan.wanted for one in plan.mirrors if one.remote}, patience)
    probes.settle()

    failures: list[str] = []
    unreached: list[_Plan] = []
    for plan in plans:
        if not plan.wanted:
            say(f"{plan.source.title}: {_where(plan)}, verified; nothing to download")
        elif not any(probes.answers(one) for one in probes.in_order(plan.mirrors)):
            unreached.append(plan)
        else:
            try:
                _fetch(plan, root / plan.source.name, probes, patience, say)
            except MirrorFailure as failure:
                failures.append(str(failure))
    if unreached:
        failures += _nothing_reached(unreached, probes)
    if failures:
        raise DownloadFailed(failures)


def _plan(name: str, root: Path, own: Mirror | None) -> _Plan:
    if name not in sources():
        names = [known for known, source in sources().items() if source.mirrors]
        raise WrongUsage(f"unknown data set '{name}': expected {', '.join(names)}.{nearest(name, names)}")
    source = sources()[name]
    here = find(source, root)
    mirrors = (own,) if own else tuple(Mirror(address) for address in source.mirrors)
    wanted = {role: file for role, file in source.files.items() if role not in here or here[role].problem}
    if wanted and not source.mirrors:
        raise ChainruleError(
            f"{source.title}: they come with chainrule but are damaged here: install it again"
        )
    return _Plan(source, here, mirrors, wanted)


def _where(plan: _Plan) -> str:
    folders = sorted({str(copy.path.parent) for copy in plan.here.values()})
    return f"its {len(plan.here)} files are in {' and '.join(folders)}"


def _nothing_reached(plans: list[_Plan], probes: "Probes") -> list[str]:
    *some, last = (plan.source.title for plan in plans)
    titles = f"{', '.join(some)} or {last}" if some else last
    mirrors = dict.fromkeys(mirror for plan in plans for mirror in plan.mirrors)
    reasons = ", ".join(f"{mirror} ({probes.reason(mirror)})" for mirror in mirrors)
    names = [plan.source.name for plan in plans]
    again, option = command(), "MIRROR=FOLDER"
    if names != ["mnist"] or not again.startswith("make"):
        again, option = f"chainrule download {' '.join(names)}", "--mirror FOLDER"
    return [
        f"No mirror of {titles} could be reached: {reasons}.",
        f"When there is a network, `{again}` brings it; `{again} {option}` takes it from a copy.",
    ]


def _fetch(
    plan: _Plan, folder: Path, probes: "Probes", patience: Patience, say: Callable[[str], None]
) -> None:
    """Fetch every wanted file of one data set into ``folder``; the first that no mirror gives ends it."""
    source = plan.source
    size = _megabytes(sum(file.size for file in plan.wanted.values()))
    say(f"{source.title}: fetching {len(plan.wanted)} of {len(source.files)} files, {size}, into {folder}")
    lost: dict[Mirror, str] = {}
    for role, file in source.files.items():
        copy = plan.here.get(role)
        if copy and not copy.problem:
            say(f"  {copy.path.name}: here already, verified ({copy.path.parent})")
            continue
        if copy:
            say(f"  {copy.path}: {copy.problem}")
        reasons = dict(lost)
        for mirror in probes.in_order(plan.mirrors):
            if mirror in lost:
                continue
            try:
                if not probes.answers(mirror):
                    raise Unreachable(probes.reason(mirror))
                path = _from_mirror(mirror, source, file, folder, patience)
            except MirrorFailure as failure:
                reasons[mirror] = str(failure)
                if isinstance(failure, Unreachable):
                    lost[mirror] = str(failure)
                continue
            instead = f" ({_listed(reasons)})" if reasons else ""
            say(f"  {path.name}: {_megabytes(path.stat().st_size)} from {mirror}, verified{instead}")
            break
        else:
            raise MirrorFailure(f"{source.title}: {file.name} could not be fetched from {_listed(reasons)}")


def _listed(reasons: dict[Mirror, str]) -> str:
    return "; ".join(f"{mirror}: {reason}" for mirror, reason in reasons.items())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _from_mirror(mirror: Mirror, source: Source, file: File, folder: Path, patience: Patience) -> Path:
    """Fetch ``file`` in the first form and place in which the mirror has it, and return its path."""
    failures: list[MirrorFailure] = []
    for address, name, size, sha256 in mirror.candidates(source, file):
        try:
            blocks = _remote(address, size, patience) if mirror.remote else _local(Path(address))
            return _retrieve(blocks, folder / name, size, sha256)
        except (NotThere, WrongFile) as failure:
            failures.append(failure)
    first = next((failure for failure in failures if isinstance(failure, WrongFile)), failures[0])
    only = "" if file.raw_sha256 or not mirror.own else " (uncompressed files of this set cannot be verified)"
    raise type(first)(f"{first}{only}")


def _retrieve(blocks: Generator[bytes, None, None], path: Path, size: int, sha256: str) -> Path:
    """Let pooch write ``blocks`` beside ``path``, verify them and move them there."""
    import pooch

    pooch.get_logger().setLevel("ERROR")

    def downloader(_: str, unverified: str, __: Any) -> None:
        with (
            contextlib.closing(blocks),
            Path(unverified).open("wb") as target,
            _progress(path.name, size) as advance,
        ):
            received = 0
            for block in blocks:
                received += len(block)
                if received > size:
                    raise WrongFile(f"more than the expected {size:,} bytes came")
                target.write(block)
                advance(len(block))
        if received != size:
            raise WrongFile(f"{received:,} bytes came, expected {size:,}")
        Path(unverified).chmod(0o666 & ~_umask())

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve("", f"sha256:{sha256}", path.name, path.parent, downloader=downloader)
    except ValueError:
        raise WrongFile("the SHA-256 is not the published one") from None
    except OSError as error:
        raise ChainruleError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


def _umask() -> int:
    """The process's umask, which a temporary file does not follow."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextlib.contextmanager
def _progress(name: str, size: int) -> Iterator[Callable[[int], object]]:
    """A progress bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda count: None
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=size)
        yield lambda count: progress.advance(task, count)


def _local(path: Path) -> Generator[bytes, None, None]:
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
    except (FileNotFoundError, NotADirectoryError):
        raise NotThere(f"no {path.name} there") from None
    except OSError as error:
        raise WrongFile(f"{path} cannot be read: {error.strerror}") from None


def _remote(address: str, size: int, patience: Patience) -> Generator[bytes, None, None]:
    """The bytes at a web address, as long as BLOCK of them arrive in ``patience.block`` seconds."""
    arrived: queue.SimpleQueue[bytes | MirrorFailure | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        try:
            for block in _response(address, size, patience):
                arrived.put(block)
                if stopped.is_set():
                    return
            arrived.put(None)
        except Exception as error:
            arrived.put(_explained(error))

    threading.Thread(target=work, daemon=True).start()
    pending = 0
    deadline = time.monotonic() + patience.block
    try:
        while True:
            try:
                event = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Unreachable(
                    f"it stalls: under {BLOCK // 1024} KiB in {patience.block:g} seconds"
                ) from None
            if event is None:
                return
            if isinstance(event, MirrorFailure):
                raise event
            yield event
            pending += len(event)
            if pending >= BLOCK:
                pending = 0
                deadline = time.monotonic() + patience.block
    finally:
        stopped.set()


def _response(address: str, size: int, patience: Patience) -> Iterator[bytes]:
    """Ask for the file and yield its bytes as sent: gzip is not undone, it is the archive itself."""
    import requests

    headers = {"Accept-Encoding": "identity"}
    timeouts = (patience.answer, patience.block)
    with requests.get(address, headers=headers, stream=True, timeout=timeouts) as response:
        if response.status_code in (403, 404, 410):
            raise NotThere(f"{response.status_code} {response.reason}".strip())
        if response.status_code != 200:
            raise MirrorFailure(f"{response.status_code} {response.reason}".strip())
        page = "html" in response.headers.get("Content-Type", "")
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) != size:
            what = "a web page" if page else f"{int(announced):,} bytes"
            raise WrongFile(f"it sends {what}, expected a file of {size:,} bytes")
        first = True
        for block in response.raw.stream(BLOCK, decode_content=False):
            if first and block.lstrip().startswith(b"<"):
                raise WrongFile("it sends a web page, not the file")
            first = False
            yield block


def _explained(error: Exception) -> MirrorFailure:
    """What went wrong with a request, in a few words."""
    import requests
    import urllib3.exceptions

    if isinstance(error, MirrorFailure):
        return error
    text = str(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return Unreachable("the proxy does not let it through")
    if isinstance(error, requests.exceptions.SSLError):
        return Unreachable("its certificate is not accepted")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return Unreachable("no answer")
    if isinstance(error, requests.exceptions.Timeout | urllib3.exceptions.TimeoutError):
        return Unreachable("it stalls")
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return MirrorFailure("it redirects without end")
    if "NameResolution" in text or "getaddrinfo" in text or "Name or service" in text:
        return Unreachable("its name is not found")
    if "NewConnectionError" in text or "Failed to establish" in text:
        return Unreachable("connection refused" if "refused" in text else "no connection")
    if isinstance(
        error, requests.exceptions.ConnectionError | urllib3.exceptions.HTTPError | ConnectionError
    ):
        return MirrorFailure("the connection dropped")
    return MirrorFailure(f"{type(error).__name__}: {text}")


class Probes:
    """Which mirrors answer at all: all are asked at once, so that together they cost a few seconds.

    Any answer counts, an error too. Folders are not asked.
    """

    def __init__(self, mirrors: Iterable[Mirror], patience: Patience):
        self._patience = patience
        self._start = time.monotonic()
        self._changed = threading.Condition()
        # For each mirror: "" when it answers, else why it does not; None until that is known.
        self._found: dict[Mirror, str | None] = dict.fromkeys(mirrors)
        for mirror in list(self._found):
            threading.Thread(target=self._ask, args=(mirror,), daemon=True).start()

    def _ask(self, mirror: Mirror) -> None:
        import requests

        try:
            requests.head(mirror.address, timeout=self._patience.answer, allow_redirects=False).close()
            reason = ""
        except Exception as error:
            failure = _explained(error)
            reason = str(failure) if isinstance(failure, Unreachable) else ""
        with self._changed:
            self._found[mirror] = reason
            self._changed.notify_all()

    def _wait(self, done: Callable[[], bool], until: float) -> None:
        with self._changed:
            self._changed.wait_for(done, timeout=max(0.0, self._start + until - time.monotonic()))

    def settle(self) -> None:
        """Wait until it is known what answers, or the time is over."""
        self._wait(lambda: all(found is not None for found in self._found.values()), self._patience.others)
        self._wait(
            lambda: "" in self._found.values() or None not in self._found.values(), self._patience.answer
        )

    def answers(self, mirror: Mirror) -> bool:
        """Whether the mirror answers; waits for it as long as the time lasts."""
        if not mirror.remote:
            return True
        self._wait(lambda: self._found[mirror] is not None, self._patience.answer)
        return self._found[mirror] == ""

    def reason(self, mirror: Mirror) -> str:
        """Why the mirror counts as not reached."""
        return self._found[mirror] or f"no answer in {self._patience.answer:g} seconds"

    def in_order(self, mirrors: Iterable[Mirror]) -> list[Mirror]:
        """The mirrors, those that are known to answer first."""
        return sorted(mirrors, key=lambda mirror: mirror.remote and self._found[mirror] != "")
