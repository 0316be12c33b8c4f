"""What several commands share: the values of options, and their checks."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from chainrule.errors import ChainruleError, WrongUsage


class EngineChoice(StrEnum):
    """Values of ``--engine``."""

    numpy = "numpy"
    torch = "torch"
    both = "both"


class OneEngine(StrEnum):
    """Values of an option that takes one engine."""

    numpy = "numpy"
    torch = "torch"


class Device(StrEnum):
    """Values of ``--device``."""

    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """Values of ``--precision``: of the products that PyTorch computes."""

    float32 = "float32"
    tf32 = "tf32"
    bf16 = "bf16"


class Weights(StrEnum):
    """Values of ``--weights``."""

    last = "last"
    best = "best"


RunArgument: TypeAlias = Annotated[Path, typer.Argument(help="The folder of a run, or its name in runs/.")]
WhichWeights: TypeAlias = Annotated[
    Weights, typer.Option(help="Those after the last epoch, or after the best one by validation.")
]
WhoseWeights: TypeAlias = Annotated[
    OneEngine | None,
    typer.Option(help="Which engine's, of a run of both.", show_default="the run's first"),
]


def check_least(*options: tuple[str, int | None, int]) -> None:
    """Raise WrongUsage unless each option ("--seed", value, least) is absent or at least ``least``."""
    for name, value, least in options:
        if value is not None and not least <= value < 2**63:
            raise WrongUsage(f"{name} must be at least {least}, found {value}")


def check_precision(precision: Precision, device: Device) -> None:
    """Raise WrongUsage for TF32 on the CPU."""
    if precision is Precision.tf32 and device is not Device.cuda:
        raise WrongUsage("--precision tf32 is for CUDA: use --device cuda")


def engine_names(engine: EngineChoice | None, device: Device) -> list[str]:
    """Return which engines are meant: without a choice both, or numpy where PyTorch is missing.

    Raises WrongUsage for NumPy on CUDA, ChainruleError when PyTorch is asked for and not installed.
    """
    from chainrule.engines import torch_is_installed

    if engine is EngineChoice.numpy and device is Device.cuda:
        raise WrongUsage(
            "--device cuda is for PyTorch: the NumPy engine computes on the CPU; use --engine torch or both"
        )
    if not torch_is_installed() and (device is Device.cuda or engine not in (None, EngineChoice.numpy)):
        asked = "--device cuda" if engine is None else f"--engine {engine}"
        raise ChainruleError(
            f"{asked} needs PyTorch, which is not installed: "
            "pip install 'chainrule[torch]', or use --engine numpy"
        )
    if engine is None:
        engine = EngineChoice.both if torch_is_installed() else EngineChoice.numpy
    return ["numpy", "torch"] if engine is EngineChoice.both else [str(engine)]
