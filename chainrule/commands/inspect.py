"""``chainrule inspect``: why a picture of your own is read as it is."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.commands.options import Weights, WhichWeights, WhoseWeights
from chainrule.errors import ChainruleError, WrongUsage

if TYPE_CHECKING:
    from chainrule.predicting.inspecting import Inspection, Stage


def inspect(
    picture: Annotated[
        str, typer.Argument(metavar="IMAGE", help="A picture of one digit; - is standard input.")
    ],
    run: Annotated[Path, typer.Option("--run", help="The folder of a run, or its name in runs/.")],
    deskew: Annotated[bool, typer.Option("--deskew", help="Take the slant out of the digit.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Draw a PNG: the naive way and the whole one, side by side.")
    ] = None,
    weights: WhichWeights = Weights.last,
    weights_of: WhoseWeights = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measures as JSON.")] = False,
) -> None:
    """Compare your own picture with the training data, before and after each step, and say what is off.

    Each line is what the network would see if the steps ended there, resized to 28 x 28.

    Example: chainrule inspect my-seven.jpg --run runs/cnn-same-mnist --out why.png
    """
    from chainrule import files, saved
    from chainrule.engines import threads
    from chainrule.predicting import drawing, sources
    from chainrule.predicting.inspecting import inspect as look
    from chainrule.predicting.reader import Reader
    from chainrule.preprocessing import NoInk, colour, reading

    if out is not None and out.suffix.lower() != ".png":
        raise WrongUsage(f"--out {out}: expected a name that ends in .png")
    if out is not None:
        files.check(out)
    name = "standard input" if picture == sources.STDIN else picture
    image = reading.decode(sources.content(picture), name)
    reader = Reader(saved.open_run(run), weights, weights_of)
    with threads(1):
        try:
            found = look(image, reader, deskew=deskew)
        except NoInk as error:
            raise ChainruleError(f"{name}: {error}") from None
    if as_json:
        print(json.dumps(_as_json(name, found), indent=2))
    else:
        _print(name, image.size, found)
    if out is not None:
        last = found.stages[-1]
        page = drawing.side_by_side(
            name,
            colour.shrink(colour.upright(image), 400),
            (found.naive.seen, _read(found.naive), list(found.naive.off.values())),
            (last.seen, _read(last), list(last.off.values())),
            found.full.steps,
        )
        files.write(out, page)


def _print(name: str, size: tuple[int, int], found: "Inspection") -> None:
    print(f"Picture  {name}: {size[0]:,} x {size[1]:,} pixels")
    print("Measures of each step's picture at 28 x 28; * is outside of what the training images have\n")
    names = list(found.limits)
    print(f"{'':14}" + "".join(f"{name:>14}" for name in names) + "  read as")
    for label, which in (("training from", 0), ("to", 1)):
        print(f"{label:14}" + "".join(f"{limit[which]:13.2f} " for limit in found.limits.values()))
    for stage in (found.naive, *found.stages):
        if stage is found.stages[0]:
            print()
        cells = (f"{value:13.2f}{'*' if key in stage.off else ' '}" for key, value in stage.measures.items())
        print(f"{stage.name:14}" + "".join(cells) + f"  {_read(stage)}")
    print()
    for title, stage in (("Naive", found.naive), ("At the end", found.stages[-1])):
        off = "; ".join(stage.off.values()) or "nothing is off"
        print(f"{title:11}{_read(stage)}: {off}")


def _read(stage: "Stage") -> str:
    return f"{stage.answer.digit} {100 * stage.answer.probability:.0f} %"


def _as_json(name: str, found: "Inspection") -> dict[str, Any]:
    return {
        "file": name,
        "training": {key: list(limits) for key, limits in found.limits.items()},
        "naive": _stage(found.naive),
        "steps": [_stage(stage) for stage in found.stages],
    }


def _stage(stage: "Stage") -> dict[str, Any]:
    return {
        "name": stage.name,
        "what": stage.words,
        "measures": stage.measures,
        "off": stage.off,
        "digit": stage.answer.digit,
        "probability": stage.answer.probability,
        "warnings": stage.answer.warnings,
    }
