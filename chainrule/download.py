"""Bringing a data set's files from a mirror: each appears under its name only when its SHA-256 is right.

pooch writes a file into a temporary folder beside its place and verifies it there; then it is moved, so that
two downloads at once, or one that is stopped, leave nothing half-written. How mirrors are asked is in
mirrors.py.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.datasets import Copy, command, default_root, find
from chainrule.errors import ChainruleError, WrongUsage, nearest
from chainrule.manifest import File, Source, sources
from chainrule.mirrors import (
    Mirror,
    MirrorFailure,
    NotThere,
    Patience,
    Probes,
    Unreachable,
    WrongFile,
    file_at,
    parse_mirror,
)

PART = ".download-"  # how the name of a temporary folder begins
OLD = 3600.0  # seconds after which one that nothing was written to is no running download's


class DownloadFailed(ChainruleError):
    """A data set could not be fetched.

    ``lines`` say why, one for each set or one for all whose mirrors were not reached; the last, what to do.
    """

    def __init__(self, lines: list[str]):
        super().__init__(" ".join(lines))
        self.lines = lines


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
    failed: list[_Plan] = []
    unreached: list[_Plan] = []
    for plan in plans:
        folder = root / plan.source.name
        _sweep(folder)
        if not plan.wanted:
            say(f"{plan.source.title}: {_where(plan)}, verified; nothing to download")
        elif not any(probes.answers(one) for one in probes.in_order(plan.mirrors)):
            unreached.append(plan)
        else:
            try:
                with _removed_if_empty(folder):
                    _fetch(plan, folder, probes, patience, say)
            except MirrorFailure as failure:
                failures.append(str(failure))
                failed.append(plan)
    if unreached:
        failures.append(_nothing_reached(unreached, probes))
    if failures:
        raise DownloadFailed([*failures, _later(failed + unreached)])


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


def _sweep(folder: Path) -> None:
    """Remove what a download that was killed has left in ``folder``."""
    for part in folder.glob(f"{PART}*"):
        with contextlib.suppress(OSError):
            if time.time() - max(path.stat().st_mtime for path in (part, *part.iterdir())) > OLD:
                shutil.rmtree(part)


@contextlib.contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Take ``folder`` and its parents away again where they are new and nothing came into them."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for place in new:
                place.rmdir()


def _where(plan: _Plan) -> str:
    folders = sorted({str(copy.path.parent) for copy in plan.here.values()})
    return f"its {len(plan.here)} files are in {' and '.join(folders)}"


def _nothing_reached(plans: list[_Plan], probes: Probes) -> str:
    *some, last = (plan.source.title for plan in plans)
    titles = f"{', '.join(some)} or {last}" if some else last
    mirrors = dict.fromkeys(mirror for plan in plans for mirror in plan.mirrors)
    reasons = ", ".join(f"{mirror.shown(mirrors)} ({probes.reason(mirror)})" for mirror in mirrors)
    return f"No mirror of {titles} could be reached: {reasons}."


def _later(plans: list[_Plan]) -> str:
    """What brings the sets that could not be fetched, and what training does without them."""
    names = [plan.source.name for plan in plans]
    again, option = command(), "MIRROR=FOLDER"
    if names != ["mnist"] or not again.startswith("make"):
        again, option = f"chainrule download {' '.join(names)}", "--mirror FOLDER"
    meanwhile = "; until then training uses the embedded digits" if "mnist" in names else ""
    return (
        f"When there is a way to a mirror, `{again}` brings it; "
        f"`{again} {option}` takes it from a copy{meanwhile}."
    )


def _fetch(plan: _Plan, folder: Path, probes: Probes, patience: Patience, say: Callable[[str], None]) -> None:
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
            size = _megabytes(path.stat().st_size)
            first = f"; tried first: {_listed(reasons, plan)}" if reasons else ""
            say(f"  {path.name}: {size} from {mirror.shown(plan.mirrors)}, verified{first}")
            break
        else:
            raise MirrorFailure(
                f"{source.title}: {file.name} could not be fetched from {_listed(reasons, plan)}"
            )


def _listed(reasons: dict[Mirror, str], plan: _Plan) -> str:
    return "; ".join(f"{mirror.shown(plan.mirrors)}: {reason}" for mirror, reason in reasons.items())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _from_mirror(mirror: Mirror, source: Source, file: File, folder: Path, patience: Patience) -> Path:
    """Fetch ``file`` in the first form and place in which the mirror has it, and return its path."""
    failures: list[MirrorFailure] = []
    for address, name, size, sha256 in mirror.candidates(source, file):
        try:
            return _retrieve(file_at(mirror, address, size, patience), folder / name, size, sha256)
        except (NotThere, WrongFile) as failure:
            failures.append(failure)
    first = next((failure for failure in failures if isinstance(failure, WrongFile)), failures[0])
    only = "" if file.raw_sha256 or not mirror.own else " (uncompressed files of this set cannot be verified)"
    raise type(first)(f"{first}{only}")


def _retrieve(blocks: Generator[bytes, None, None], path: Path, size: int, sha256: str) -> Path:
    """Let pooch write ``blocks`` beside ``path`` and verify them; then move the file there."""
    import pooch

    pooch.get_logger().setLevel("ERROR")

    def downloader(_: str, unverified: str, __: Any) -> None:
        Path(unverified).unlink()  # pooch's file is for its owner alone: a new one follows the umask
        with (
            contextlib.closing(blocks),
            Path(unverified).open("xb") as target,
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

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PART, dir=path.parent) as part:
            pooch.retrieve("", f"sha256:{sha256}", path.name, part, downloader=downloader)
            Path(part, path.name).replace(path)
    except ValueError:
        raise WrongFile("the SHA-256 is not the published one") from None
    except OSError as error:
        raise ChainruleError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


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
