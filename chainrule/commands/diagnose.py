"""``chainrule diagnose``: which mistake is in a learner's forward and backward?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from chainrule.errors import ChainruleError, WrongUsage


def diagnose(
    file: Annotated[
        Path, typer.Argument(help="A Python file with forward and backward, or step.", show_default=False)
    ],
    subject: Annotated[
        str | None,
        typer.Option("--as", help="What it is, as linear or adam.", show_default="the file's name"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="CPU time that the file may use.")] = 4.0,
    memory: Annotated[float, typer.Option(help="Memory that the file may use, in GB.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the diagnosis, as JSON.")] = False,
) -> None:
    """Run a learner's code apart and name the mistake that it looks like; exit status 1 when there is one.

    Example: chainrule diagnose my_linear.py --as linear
    """
    from agreement.diagnosis import Limits, UnknownSubject
    from agreement.diagnosis import diagnose as diagnose_file

    if seconds <= 0 or memory < 0.25:
        raise WrongUsage("--seconds must be above 0 and --memory at least 0.25")
    if file.suffix != ".py":
        raise WrongUsage(f"diagnose takes a Python file (.py); found '{file}'")
    if not file.is_file():
        raise ChainruleError(f"{file}: there is no such file")
    try:
        result = diagnose_file(file, subject, limits=Limits(seconds, int(memory * 2**30)))
    except UnknownSubject as error:
        raise WrongUsage(str(error)) from None
    print(json.dumps(result.to_dict(), indent=2) if as_json else str(result))
    if not result.ok:
        raise typer.Exit(1)
