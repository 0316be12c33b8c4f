"""``chainrule export``: a run's network for other programs, as a PyTorch state dict or as ONNX."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from chainrule.commands.options import RunArgument, Weights, WhichWeights, WhoseWeights
from chainrule.errors import ChainruleError, WrongUsage


class Format(StrEnum):
    """Values of ``--format``."""

    pth = "pth"
    onnx = "onnx"


def export(
    run: RunArgument,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="The kind of file.", show_default="as --out ends, or pth"),
    ] = None,
    weights: WhichWeights = Weights.last,
    weights_of: WhoseWeights = None,
    out: Annotated[
        Path | None, typer.Option(help="The file.", show_default="RUN/model.pth, RUN/best-torch.onnx ...")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a run's network as a PyTorch state dict (.pth), or as ONNX, which many runtimes read.

    ONNX takes pixels / 255, float32 (batch, 1, 28, 28), and normalises them itself; the file says so too.

    Example: chainrule export runs/cnn-mnist --format onnx
    """
    suffix = out.suffix.lower().removeprefix(".") if out else ""
    form = form or (Format(suffix) if suffix in list(Format) else Format.pth)
    if suffix in list(Format) and suffix != form:
        raise WrongUsage(f"--format {form} does not fit --out {out}")

    from chainrule import exporting, saved
    from chainrule.engines import torch_is_installed
    from idx.writing import replacing, write_all

    if form is Format.pth and not torch_is_installed():
        raise ChainruleError(
            "--format pth needs PyTorch, which is not installed: pip install 'chainrule[torch]'"
        )
    opened = saved.open_run(run)
    source = saved.weights_file(opened, weights, weights_of)
    path = out.expanduser() if out else (opened.path / source).with_suffix(f".{form}")
    if path.exists() and not overwrite:
        raise ChainruleError(f"{path} exists: give another --out, or --overwrite")
    state = saved.load_weights(opened, weights, weights_of)
    if form is Format.pth:
        content = exporting.pth(state)
    else:
        content = exporting.onnx(opened.recipe, state, opened.class_names, f"{opened.path.name}: {source}")
    with replacing(path) as file:
        write_all(file, content)
    print(f"{path}: {len(content):,} bytes")
    if form is Format.pth:
        print(f"network.load_state_dict(torch.load({str(path)!r}, weights_only=True)) takes it")
    else:
        image, (classes,) = opened.recipe.input_shape[-2:], opened.recipe.shapes[-1]
        shape = f"(batch, 1, {image[0]}, {image[1]})"
        print(f"image: float32 {shape}, pixels / 255 -> scores: float32 (batch, {classes})")
