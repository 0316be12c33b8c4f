"""``chainrule datasets``: which data sets are here, and where they come from; ``show``: what is in one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from chainrule.datasets import Dataset


datasets = typer.Typer(add_completion=False, rich_markup_mode=None)

Root = Annotated[
    Path | None, typer.Option(help="The folder of the data sets. [default: $CHAINRULE_DATA, else ./data]")
]


@datasets.callback(invoke_without_command=True)
def list_datasets(
    context: typer.Context,
    root: Root = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the known data sets: verified, unverified, partly here, damaged or not here, and their mirrors.

    Example: chainrule datasets --root ~/data
    """
    if context.invoked_subcommand is not None:
        return
    from chainrule.datasets import default_root

    rows = list(survey(root.expanduser() if root else default_root()))
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        _print(rows)


@datasets.command()
def show(
    dataset: Annotated[
        str, typer.Argument(help="auto (MNIST if it is here, else digits), a name, or a folder of IDX files.")
    ] = "auto",
    root: Root = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Show what is in a data set: images in each class, and the mean and standard deviation of its pixels.

    These are what normalises: (pixel / 255 - mean) / std has mean 0 and variance 1 over the training images.

    Example: chainrule datasets show fashion-mnist
    """
    from chainrule.datasets import load

    record = describe(load(dataset, root and root.expanduser()))
    if as_json:
        print(json.dumps(record, indent=2))
        return
    height, width = record["image_shape"]
    print(f"{record['title']}: images of {height}x{width} pixels, from {record['folder']}")
    names = max(5, *(len(name) for name in record["classes"]))
    print(f"\n{'class':{names}}  training    test")
    for name, counts in [*record["classes"].items(), ("all", record["images"])]:
        print(f"{name:{names}}  {counts['train']:8,}  {counts['test']:6,}")
    pixels = record["training_pixels"]
    print(
        f"\nTraining pixels / 255: mean {pixels['mean']:.4f}, standard deviation {pixels['std']:.4f}"
        f"\nexactly: {pixels['count']:,} pixels, their sum {pixels['sum']:,}, "
        f"the sum of their squares {pixels['sum_of_squares']:,}"
        f"\nin a recipe: mean = {pixels['mean']:.4f}, std = {pixels['std']:.4f} under [input]"
    )


def describe(data: "Dataset") -> dict[str, Any]:
    """Count what is in a data set; the record that ``datasets show --json`` prints."""
    from chainrule.normalisation import pixel_statistics

    pixels = pixel_statistics(data.train_images)
    labels = {"train": data.train_labels, "test": data.test_labels}
    return {
        "name": data.name,
        "title": data.title,
        "folder": str(data.folder),
        "sha256": data.sha256,
        "image_shape": list(data.train_images.shape[1:]),
        "images": {half: len(values) for half, values in labels.items()},
        "classes": {
            name: {half: int((values == index).sum()) for half, values in labels.items()}
            for index, name in enumerate(data.class_names)
        },
        "training_pixels": {
            "count": pixels.count,
            "sum": pixels.sum,
            "sum_of_squares": pixels.sum_of_squares,
            "mean": pixels.mean,
            "std": pixels.std,
        },
    }


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
