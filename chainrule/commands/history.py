"""``chainrule history``: what neural networks have reached on MNIST, and where a run stands among them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from chainrule.errors import ChainruleError


def history(
    run: Annotated[
        Path | None, typer.Argument(help="The folder of a run on MNIST, to be set beside the record.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw error over year too, as a PNG file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """List the published test errors of neural networks on MNIST, with their sources.

    Example: chainrule history runs/simplenet-mnist --picture history.png
    """
    from chainrule import evidence
    from chainrule import history as published

    own = None
    if run is not None:
        found = evidence.read(run)
        accuracy = found.results(found.engines[0]).get("test_accuracy")
        if accuracy is None:
            raise ChainruleError(f"{found.path} was stopped before its first epoch was over: it has no error")
        own = published.own(found.name, found.config["dataset"], found.layers, accuracy)
    if picture is not None:
        from chainrule import plots
        from chainrule.files import write

        write(picture.expanduser(), plots.history(published.records(), own))
    if as_json:
        records = [asdict(record) for record in published.records()]
        print(json.dumps({"run": own and asdict(own), "records": records}, indent=2, ensure_ascii=False))
        return
    rows = [
        (
            f"{record.error:.2f} %",
            str(record.year),
            record.network,
            record.kind,
            record.distortions,
            str(record.committee),
            published.cite(record),
        )
        for record in published.records()
    ]
    if own is not None:
        place = sum(record.error >= own.error for record in published.records())
        rows.insert(place, (f"{own.error:.2f} %", "now", f"> {own.name}", own.kind, "none", "1", "this run"))
    heads = ("error", "year", "network", "kind", "distortions", "networks", "source")
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(7)]
    right = (0, 5)
    for row in (heads, *rows):
        cells = (f"{text:{'>' if i in right else '<'}{widths[i]}}" for i, text in enumerate(row))
        print("  ".join(cells).rstrip())
    print()
    for number, source in enumerate(published.sources(), start=1):
        print(f"[{number}] {source}")
    if own is not None:
        print(f"\n{published.standing(own)}")
