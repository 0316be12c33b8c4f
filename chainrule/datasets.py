"""Loading a data set for training: found, verified against the manifest, and checked.

Files lie in ``<root>/<name>/`` under their published names, as archives or uncompressed; a torchvision tree
(``<root>/MNIST/raw/``) is read as it is. The SHA-256 of each file is verified on every load.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from chainrule.errors import ChainruleError, WrongUsage, nearest
from chainrule.manifest import ROLES, File, Source, sources

IMAGE_SHAPE = (28, 28)
CLASSES = 10


@dataclass(frozen=True)
class Dataset:
    """A data set in memory: images uint8 (N, 28, 28), 0 = paper to 255 = ink, and labels uint8 (N,), 0..9."""

    name: str
    title: str
    train_images: np.ndarray  # (N, 28, 28)
    train_labels: np.ndarray  # (N,)
    test_images: np.ndarray  # (M, 28, 28)
    test_labels: np.ndarray  # (M,)
    class_names: tuple[str, ...]
    sha256: dict[str, str]  # of each file as it was read, by its name
    folder: Path
    why: str = ""


@dataclass(frozen=True)
class Copy:
    """A file as it was found on this disk. ``problem`` is empty when its bytes are the published ones.

    ``unverified`` is a problem too, but no damage: no SHA-256 of such a file is published.
    """

    path: Path
    sha256: str
    problem: str
    data: bytes = field(repr=False)
    unverified: bool = False


class NotHere(ChainruleError):
    """None of a data set's files is on this disk."""


def default_root() -> Path:
    """The folder that holds the data sets: ``$CHAINRULE_DATA``, else ``data`` where the command is run."""
    return Path(os.environ.get("CHAINRULE_DATA") or "data").expanduser()


def known() -> list[str]:
    """The names that :func:`load` takes, besides ``auto`` and the path of a folder."""
    return [name for name, source in sources().items() if source.complete]


def load(name: str = "auto", root: Path | None = None) -> Dataset:
    """Load a data set by its name or its folder.

    ``auto`` is MNIST when it is below ``root`` and verified, else the embedded digits; ``why`` says which
    and for what reason. A folder is a set of one's own: four IDX files under MNIST's names, which are
    checked for shape but have no published SHA-256.

    Raises:
        WrongUsage: no data set is called ``name``.
        ChainruleError: a file is missing, damaged, or holds something other than images or labels.
    """
    root = default_root() if root is None else root
    if name == "auto":
        return _automatic(root)
    if name in sources():
        return _published(sources()[name], root)
    names = ["auto", *known()]
    expected = f"expected {', '.join(names)}, or a folder with four IDX files"
    if not name:
        raise WrongUsage(f"the data set's name is empty: {expected}")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _own(folder)
    if folder.exists():
        raise ChainruleError(
            f"{name} is a file: expected a data set's name, or a folder with its four IDX files"
        )
    if name.startswith((".", "~")) or "/" in name or os.sep in name:
        raise ChainruleError(f"{name}: there is no such folder")
    raise WrongUsage(f"unknown data set '{name}': {expected}.{nearest(name, names)}")


def find(source: Source, root: Path) -> dict[str, Copy]:
    """The file of each role as it lies below ``root``: a verified one if there is any, else a damaged one.

    A role whose file is not there at all is left out.
    """
    copies: dict[str, Copy] = {}
    for role, file in source.files.items():
        for copy in (copy for folder in _folders(source, root) for copy in _examine(source, file, folder)):
            copies.setdefault(role, copy)
            if not copy.problem:
                copies[role] = copy
                break
    return copies


def _folders(source: Source, root: Path) -> list[Path]:
    if not source.mirrors:
        return [embedded()]
    return [root / folder for folder in source.folders()]


def embedded() -> Path:
    """The folder of the embedded digits: in the installed package, or ``data/digits`` of a checkout."""
    package = Path(__file__).parent
    installed = package / "digits"
    return installed if installed.is_dir() else package.parent / "data" / "digits"


def command(name: str = "mnist") -> str:
    """What brings a data set: for MNIST in a checkout a target of the Makefile, else our own command."""
    if name != "mnist":
        return f"chainrule download {name}"
    return "make download" if embedded().parent.name == "data" else "chainrule download"


def _examine(source: Source, file: File, folder: Path) -> Iterator[Copy]:
    """Each form of ``file`` that lies in ``folder``."""
    for name, size, sha256 in file.forms():
        path = folder / name
        if path.exists():
            copy = _copy(path)
            if not copy.problem and copy.sha256 != sha256:
                problem = (
                    f"not the published file: found {len(copy.data):,} bytes with SHA-256 {copy.sha256[:12]}…"
                    f"{_identify(copy.sha256)}, expected {size:,} bytes with SHA-256 {sha256[:12]}…"
                )
                copy = replace(copy, problem=problem)
            yield copy
    raw = folder / file.raw_name
    if not file.raw_sha256 and raw.exists():
        problem = (
            "no SHA-256 of the uncompressed file is published, so it cannot be verified: "
            f"`chainrule download {source.name}` brings {file.name}, or name its folder as the data set"
        )
        copy = _copy(raw)
        yield copy if copy.problem else replace(copy, problem=problem, unverified=True)


def _identify(sha256: str) -> str:
    for source in sources().values():
        for file in source.files.values():
            if sha256 in (file.sha256, file.raw_sha256):
                return f" (that is {source.title}'s {file.name})"
    return ""


def _copy(path: Path) -> Copy:
    try:
        data = path.read_bytes()
    except OSError as error:
        return Copy(path, "", f"cannot be read: {error.strerror}", b"")
    return Copy(path, hashlib.sha256(data).hexdigest(), "", data)


def _automatic(root: Path) -> Dataset:
    mnist = sources()["mnist"]
    try:
        return replace(_published(mnist, root), why="verified")
    except NotHere:
        why = f"MNIST is not in {root / mnist.name}: `{command()}` brings it"
    except ChainruleError as error:
        why = f"MNIST cannot be used: {error}"
    return replace(_published(sources()["digits"], root), why=why)


def _published(source: Source, root: Path) -> Dataset:
    return _dataset(source.name, source.title, source.classes, _verified(source, root))


def verified(name: str, root: Path | None = None) -> tuple[Source, dict[str, Copy]]:
    """Return a known data set and the verified file of each role, without reading what is in them.

    Raises as :func:`load` does.
    """
    if name not in known():
        raise WrongUsage(f"unknown data set '{name}': expected {', '.join(known())}.{nearest(name, known())}")
    return sources()[name], _verified(sources()[name], default_root() if root is None else root)


def _verified(source: Source, root: Path) -> dict[str, Copy]:
    if not source.complete:
        raise ChainruleError(
            f"{source.title} cannot be trained on: no verified SHA-256 of its images is known, so they are "
            f"not offered (its labels are: `chainrule download {source.name}`)"
        )
    copies = find(source, root)
    folder = _folders(source, root)[0]
    what = f"`{command(source.name)}`" if source.mirrors else "installing chainrule"
    if not copies:
        raise NotHere(f"{source.title} is not in {folder}: {what} brings it")
    for role, file in source.files.items():
        if role not in copies:
            raise ChainruleError(
                f"{folder / file.name}: missing, though other files of {source.title} are here: "
                f"{what} brings it"
            )
        if copies[role].problem:
            remedy = "" if copies[role].unverified else f": {what} brings it again"
            raise ChainruleError(f"{copies[role].path}: {copies[role].problem}{remedy}")
    return copies


def _own(folder: Path) -> Dataset:
    """The set in ``folder``, or in the one folder below it that is laid out as below a data root."""
    below = ["", "raw", *(place for source in sources().values() for place in source.folders())]
    places = {place: found for place in below if (found := _files_in(folder / place))}
    if not places:
        names = ", ".join(_name(role) for role in ROLES)
        raise ChainruleError(f"{folder}: holds no data set: expected the IDX files {names} (or each as .gz)")
    if "" not in places and len(places) > 1:
        raise ChainruleError(
            f"{folder}: holds several data sets: name one of {', '.join(str(folder / p) for p in places)}"
        )
    place, paths = next(iter(places.items()))
    for role in ROLES:
        if role not in paths:
            raise ChainruleError(f"{folder / place / _name(role)}: missing (as {_name(role)}.gz too)")

    copies = {role: _copy(path) for role, path in paths.items()}
    for copy in copies.values():
        if copy.problem:
            raise ChainruleError(f"{copy.path}: {copy.problem}")
    for source in sources().values():
        if source.complete and all(
            copies[role].sha256 in (source.files[role].sha256, source.files[role].raw_sha256)
            for role in ROLES
        ):
            dataset = _dataset(source.name, source.title, source.classes, copies)
            return replace(dataset, why=f"the files in {folder} are the published ones")
    name = folder.resolve().name
    digits = tuple(str(digit) for digit in range(CLASSES))
    why = f"the files in {folder}; their SHA-256 is computed, there is no published one to verify"
    return replace(_dataset(name, name, digits, copies), why=why)


def _files_in(folder: Path) -> dict[str, Path]:
    """The path of each role's file in ``folder``; the dotted names are those that Kaggle gives them."""
    found = {}
    for role in ROLES:
        name = _name(role)
        dotted = name.replace("-idx", ".idx")
        paths = [folder / form for form in (f"{name}.gz", name, f"{dotted}.gz", dotted)]
        if path := next((path for path in paths if path.is_file()), None):
            found[role] = path
    return found


def _name(role: str) -> str:
    return sources()["mnist"].files[role].raw_name


def _dataset(name: str, title: str, classes: tuple[str, ...], copies: Mapping[str, Copy]) -> Dataset:
    arrays = {role: _array(copies[role]) for role in ROLES}
    for half in ("train", "test"):
        images, labels = f"{half}_images", f"{half}_labels"
        _check(copies[images].path, arrays[images], copies[labels].path, arrays[labels])
    return Dataset(
        name=name,
        title=title,
        class_names=classes,
        sha256={copies[role].path.name: copies[role].sha256 for role in ROLES},
        folder=copies["train_images"].path.parent,
        train_images=arrays["train_images"],
        train_labels=arrays["train_labels"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
    )


def _array(copy: Copy) -> np.ndarray:
    import idx

    try:
        return idx.read(copy.data)
    except idx.IdxError as error:
        raise ChainruleError(f"{copy.path}: {str(error).removeprefix('<bytes>: ')}") from None


def _check(images_path: Path, images: np.ndarray, labels_path: Path, labels: np.ndarray) -> None:
    """Refuse what is not N > 0 images of 28x28 bytes with N labels 0..9."""
    for path, array, noun, tail in (
        (images_path, images, "images", IMAGE_SHAPE),
        (labels_path, labels, "labels", ()),
    ):
        if (
            array.dtype != np.uint8
            or array.ndim != 1 + len(tail)
            or array.shape[1:] != tail
            or len(array) == 0
        ):
            shape = ", ".join(["N > 0", *map(str, tail)])
            kind = {1: ", which look like labels", 3: ", which look like images"}.get(array.ndim, "")
            hint = kind if array.ndim != 1 + len(tail) else ""
            raise ChainruleError(
                f"{path}: expected {noun}, uint8 of shape ({shape}); "
                f"found {array.dtype} of shape {array.shape}{hint}"
            )
    if len(images) != len(labels):
        raise ChainruleError(
            f"{labels_path}: found {len(labels):,} labels, "
            f"expected as many as the {len(images):,} images of {images_path}"
        )
    if labels.max() >= CLASSES:
        where = int(np.argmax(labels >= CLASSES))
        raise ChainruleError(f"{labels_path}: label {where} is {labels[where]}, expected 0 to {CLASSES - 1}")
