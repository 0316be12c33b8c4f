"""The places that data sets come from: which of them answer, and the bytes that they send.

What talks to the network does so in daemon threads: the main thread only waits, with a deadline, so that a
name server, a connection or a mirror that never answers costs seconds and not minutes.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from chainrule.errors import WrongUsage
from chainrule.manifest import File, Source

BLOCK = 16 * 1024


@dataclass(frozen=True)
class Patience:
    """How long the network may take, in seconds."""

    answer: float = 8.0  # for any mirror to answer at all
    others: float = 2.0  # for all of them to answer; after that, those that have will do
    block: float = 12.0  # for each further BLOCK bytes of a file


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

    def shown(self, among: Iterable["Mirror"]) -> str:
        """Its scheme and host, without a password; its path too where another mirror has the same host."""
        if not self.remote:
            return self.address
        host, path = self._parts()
        return f"{host}{path}" if [one._parts()[0] for one in among].count(host) > 1 else host

    def _parts(self) -> tuple[str, str]:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path

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
    if not text or (parts.scheme == "file" and not parts.path):
        raise WrongUsage(f"--mirror '{text}': names no folder; expected one, or an http(s):// address")
    if "://" in text and (parts.query or parts.fragment):
        raise WrongUsage(
            f"--mirror {text}: expected a folder's address, to which file names can be added, without ? or #"
        )
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


def file_at(mirror: Mirror, address: str, size: int, patience: Patience) -> Generator[bytes, None, None]:
    """The bytes of the file at ``address``, one of the mirror's candidates, as they arrive.

    Raises:
        MirrorFailure: the mirror does not give it, or stalls; the subclasses say in which way.
    """
    return _remote(address, size, patience) if mirror.remote else _local(Path(address))


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
            # Not HEAD, which some servers never answer: a GET, of which only the headers are waited for.
            timeout = self._patience.answer
            requests.get(mirror.address, stream=True, timeout=timeout, allow_redirects=False).close()
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
