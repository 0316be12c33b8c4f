"""``chainrule datasets``: which data sets are here, which are not, and where they come from."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer


def datasets(
    root: Annotated[
        Path | None, typer.Option(help="The folder of the data sets. [default: $CHAINRULE_DATA, else ./data]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the known data sets: verified, unverified, partly here, damaged or not here, and their mirrors.

    Example: chainrule datasets --root ~/data
    """
    from chainrule.datasets import default_root

    rows = list(survey(root.expanduser() if root else default_root()))
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        _print(rows)


def survey(root: Path) -> Iterable[dict[str, Any]]:
    """Look for each data set below ``root`` and verify it; one record for each, as ``--json`` prints it."""
    from chainrule.datasets import find
    from chainrule.manifest import sources

    for source in sources().values():
        copies = find(source, root)
        problems = [f"{copy.path}: {copy.problem}" for copy in copies.values() if copy.problem]
        if problems:
            healthy = all(copy.unverified for copy in copies.values() if copy.problem)
            state = "unverified" if healthy else "damaged"
        elif not copies:
            state = "not here"
        else:
            state = "verified" if len(copies) == len(source.files) else "partly here"
        yield {
            "name": source.name,
            "title": source.title,
            "state": state,
            "folders": sorted({str(copy.path.parent) for copy in copies.values()}),
            "files": [
                {
                    "role": role,
                    "name": file.name,
                    "size": file.size,
                    "sha256": file.sha256,
                    "path": str(copies[role].path) if role in copies else None,
                    "verified": role in copies and not copies[role].problem,
                }
                for role, file in source.files.items()
            ],
            "size": source.size,
            "mirrors": list(source.mirrors),
            "page": source.page,
            "note": source.note,
            "problems": problems,
        }


def _print(rows: list[dict[str, Any]]) -> None:
    """Two lines for each data set, and one for each thing to know about it."""
    states = [_state(row) for row in rows]
    width = max(map(len, states))
    for row, state in zip(rows, states, strict=True):
        size = f"{row['size'] / 1e6:.1f} MB"
        print(f"{row['name']:15}{state:{width}}{size:>9}  {', '.join(row['folders'])}".rstrip())
        hosts = [urlsplit(mirror) for mirror in row["mirrors"]]
        origin = ", ".join(f"{host.scheme}://{host.netloc}" for host in hosts)
        for line in (f"from {origin}" if origin else "comes with chainrule", row["note"], *row["problems"]):
            if line:
                print(f"{'':15}{line}")


def _state(row: dict[str, Any]) -> str:
    good, count = sum(file["verified"] for file in row["files"]), len(row["files"])
    return row["state"] if good in (0, count) else f"{row['state']} ({good} of {count} files verified)"
