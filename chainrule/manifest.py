"""What is known of the public data sets: ``manifest.toml`` as objects."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class File:
    """One published file; ``raw_size`` and ``raw_sha256``, of the bytes in it, may be unknown: 0 and ""."""

    name: str
    size: int
    sha256: str
    raw_size: int = 0
    raw_sha256: str = ""

    @property
    def raw_name(self) -> str:
        """The name of the uncompressed file."""
        return Path(self.name).stem

    def forms(self) -> list[tuple[str, int, str]]:
        """(name, size, SHA-256) of each form that can be verified: as published, then uncompressed."""
        raw = [(self.raw_name, self.raw_size, self.raw_sha256)] if self.raw_sha256 else []
        return [(self.name, self.size, self.sha256), *raw]


@dataclass(frozen=True)
class Source:
    """One public data set.

    ``files`` maps a role (``train_images``, ``train_labels``, ``test_images``, ``test_labels``) to its file,
    and ``torchvision`` is the folder that torchvision keeps the set in. ``mirrors`` end in a slash; the
    embedded digits have none.
    """

    name: str
    title: str
    page: str
    mirrors: tuple[str, ...]
    torchvision: str
    classes: tuple[str, ...]
    note: str
    files: dict[str, File]

    @property
    def size(self) -> int:
        """The bytes to download."""
        return sum(file.size for file in self.files.values())

    @property
    def complete(self) -> bool:
        """Whether images and labels of both halves are known, so that a network can be trained."""
        return set(ROLES) <= set(self.files)

    def folders(self) -> tuple[str, ...]:
        """Where below a data folder the files may lie: our own folder first, then torchvision's."""
        return (self.name, f"{self.torchvision}/raw") if self.torchvision else (self.name,)


MANIFEST = Path(__file__).with_name("manifest.toml")
ROLES = ("train_images", "train_labels", "test_images", "test_labels")


@cache
def sources() -> dict[str, Source]:
    """Every data set of the manifest by name."""
    with MANIFEST.open("rb") as file:
        table = tomllib.load(file)
    return {
        name: Source(
            name=name,
            title=entry["title"],
            page=entry["page"],
            mirrors=tuple(entry["mirrors"]),
            torchvision=entry.get("torchvision", ""),
            classes=tuple(entry.get("classes", ())),
            note=entry.get("note", ""),
            files={role: File(**file) for role, file in entry["files"].items()},
        )
        for name, entry in table.items()
    }
