"""The errors that a person sees as one line: what is wrong, and what to do."""

from collections.abc import Iterable


class ChainruleError(Exception):
    """Something outside the program is wrong: a file, the network, the disk. Exit status 1."""

    exit_status = 1


class WrongUsage(ChainruleError):
    """The command was given something it does not know. Exit status 2."""

    exit_status = 2


class Stopped(ChainruleError):
    """A person pressed Ctrl-C. Exit status 130, as shells have it."""

    exit_status = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'ann'?"`` when ``word`` is close to a known name, else an empty string."""
    import difflib

    names = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f" Did you mean '{names[matches[0]]}'?" if matches else ""
