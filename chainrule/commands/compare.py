"""``chainrule compare``: does the backward written by hand agree with autograd, tensor by tensor?"""

import contextlib
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chainrule.commands.options import Device, Precision, check_precision
from chainrule.errors import ChainruleError, WrongUsage

if TYPE_CHECKING:
    from agreement import Report


class Dtype(StrEnum):
    """Values of ``--dtype``."""

    float64 = "float64"
    float32 = "float32"


def compare(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name or file.", show_default="simplenet")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="The precision of both engines.")] = Dtype.float64,
    steps: Annotated[int, typer.Option(help="Train both for so many steps first.")] = 0,
    seed: Annotated[
        int | None, typer.Option(help="Decides weights, batch and masks.", show_default="the recipe's, or 0")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per batch.", show_default="the recipe's")
    ] = None,
    dataset: Annotated[str, typer.Option(help="auto, a name, or a folder of IDX files.")] = "auto",
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets.", show_default="$CHAINRULE_DATA or data")
    ] = None,
    own: Annotated[
        str | None,
        typer.Option(
            help="Your own code: FILE.py:backward (its forward is found beside it) or FILE.py:Class."
        ),
    ] = None,
    like: Annotated[str | None, typer.Option(help="What it should equal, as torch.nn.Linear.")] = None,
    args: Annotated[str | None, typer.Option(help="Arguments of both constructors, as 7,5.")] = None,
    input: Annotated[
        list[str] | None, typer.Option(help="Shape of an input, as 4,7; once for each input.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where PyTorch computes; cuda compares gradients.")] = (
        Device.cpu
    ),
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="How far each engine's gradient is from float64, with PyTorch's products in this precision.",
            show_default="compare every tensor",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the report, as JSON.")] = False,
) -> None:
    """Compare every intermediate, parameter and gradient with PyTorch's; exit status 1 when they disagree.

    Example: chainrule compare simplenet --dtype float32 --steps 100 --report compare.html

    Your own: chainrule compare --own my_layer.py:backward --like torch.nn.Linear

    TF32: chainrule compare cnn-same --device cuda --precision tf32
    """
    from chainrule.engines import threads, torch_is_installed

    _check(recipe, own, like, args, input, steps, seed, batch_size)
    if report is not None and not report.expanduser().absolute().parent.is_dir():
        raise ChainruleError(f"--report {report}: there is no such folder")
    if not torch_is_installed():
        raise ChainruleError("compare needs PyTorch, which is not installed: pip install 'chainrule[torch]'")
    if precision is not None or device is Device.cuda:
        chosen = precision or Precision.float32
        check_precision(chosen, device)
        if own is not None or steps or report is not None or dtype is not Dtype.float64:
            raise WrongUsage(
                "--precision and --device compare gradients with float64: "
                "they take no --own, --steps, --dtype or --report"
            )
        with threads(1):
            _show_distances(recipe, str(chosen), str(device), seed, batch_size, dataset, root, as_json)
        return
    with threads(1):
        if own is not None:
            from chainrule import own as own_code

            with contextlib.redirect_stdout(sys.stderr):  # what their code prints is no part of the report
                result, details = own_code.compare(own, like or "", args, input or [], str(dtype), seed or 0)
        else:
            from chainrule import comparison

            if dtype == Dtype.float64 and sys.stderr.isatty():
                print("Computing, in longdouble too: a CNN takes up to half a minute.", file=sys.stderr)
            result, details = comparison.compare(
                recipe or "simplenet",
                dtype=str(dtype),
                steps=steps,
                seed=seed,
                batch_size=batch_size,
                dataset=dataset,
                root=root and root.expanduser(),
            )
    _show(result, details, report and report.expanduser(), as_json)
    if not result.agrees:
        raise ChainruleError(f"{result.verdict()[:-1]}: see the report above")


def _check(
    recipe: str | None,
    own: str | None,
    like: str | None,
    args: str | None,
    inputs: list[str] | None,
    steps: int,
    seed: int | None,
    batch_size: int | None,
) -> None:
    for name, value, least in (("--steps", steps, 0), ("--seed", seed, 0), ("--batch-size", batch_size, 2)):
        if value is not None and not least <= value < 2**63:
            raise WrongUsage(f"{name} must be at least {least}, found {value}")
    if own is not None and like is None:
        raise WrongUsage("--own needs --like, such as --like torch.nn.Linear")
    if own is not None and recipe is not None:
        raise WrongUsage(f"--own compares your own code: leave out the recipe '{recipe}'")
    if own is None and (like, args, inputs) != (None, None, None) and (like or args or inputs):
        raise WrongUsage("--like, --args and --input are for --own FILE.py:NAME")


def _show_distances(
    recipe: str | None,
    precision: str,
    device: str,
    seed: int | None,
    batch_size: int | None,
    dataset: str,
    root: Path | None,
    as_json: bool,
) -> None:
    from chainrule.precision import distances

    found, details = distances(
        recipe or "simplenet",
        precision=precision,
        device=device,
        seed=seed,
        batch_size=batch_size,
        dataset=dataset,
        root=root and root.expanduser(),
    )
    if as_json:
        print(json.dumps({key.lower(): value for key, value in details.items()} | found.to_dict(), indent=2))
    else:
        print(*(f"{key:7}  {value}" for key, value in details.items()), "", *found.lines(), sep="\n")
    if not found.agrees:
        raise ChainruleError(
            "a gradient is further from float64 than rounding explains: see the report above"
        )


def _show(result: "Report", details: dict[str, str], path: Path | None, as_json: bool) -> None:
    if path is not None:
        from agreement.html import to_html

        path.write_text(to_html(result, details), "utf-8")
    if as_json:
        print(
            json.dumps(
                {**{key.lower(): value for key, value in details.items()}, **result.to_dict()}, indent=2
            )
        )
        return
    width = max(map(len, details), default=0)
    for key, value in details.items():
        print(f"{key:{width}}  {value}")
    print()
    print(result)
    if path is not None:
        print(f"Report  {path}")
