"""A diagnosis as a text for a learner."""

import textwrap

from agreement.diagnosis.result import Candidate, Diagnosis

WIDTH = 100


def text_of(diagnosis: Diagnosis) -> str:
    """Return all of it, in lines of at most 100 characters but for formulas."""
    lines = [
        f"{diagnosis.file}: {diagnosis.subject}, {diagnosis.probes} probe{'s' * (diagnosis.probes != 1)}"
        if diagnosis.probes
        else f"{diagnosis.file}: {diagnosis.subject}"
    ]
    lines.append("")
    width = max((len(part.name) for part in diagnosis.parts), default=0)
    for part in diagnosis.parts:
        lines.append(f"  {part.name:{width}}  {'right' if part.ok else 'WRONG: ' + part.words}")
    if diagnosis.parts:
        lines.append("")
    for problem in diagnosis.problems:
        end = "" if problem.words.endswith("?") else "."
        lines += _wrapped(f"{problem.words[0].upper()}{problem.words[1:]}{end}")
    if diagnosis.ok:
        lines.append("Everything is right.")
    elif diagnosis.candidates:
        lines += _of_candidates(diagnosis)
    elif diagnosis.narrowing:
        lines.append("No known mistake gives these numbers. What is known:")
        lines += [line for words in diagnosis.narrowing for line in _wrapped(f"- {words}", "  ")]
    for note in diagnosis.notes:
        lines += _wrapped(f"Note: {note}.")
    return "\n".join(lines).rstrip()


def _of_candidates(diagnosis: Diagnosis) -> list[str]:
    lines = []
    if len(diagnosis.candidates) > 1:
        count = len(diagnosis.candidates)
        lines.append(f"It looks like one of {count} mistakes; these give the same numbers on every probe:")
    for candidate in diagnosis.candidates:
        lines += _of_one(candidate, len(diagnosis.candidates) > 1)
    return lines


def _of_one(candidate: Candidate, several: bool) -> list[str]:
    head = "-" if several else "It looks like"
    lines = _wrapped(f"{head} {candidate.name}: {candidate.mistake}")
    lines.append(f"    as if:            {candidate.wrong}")
    if candidate.formula:
        lines.append(f"    the chain rule:   {candidate.formula}")
    if candidate.reason:
        lines += _wrapped(f"    {candidate.reason}", "    ")
    if candidate.lines:
        some = ", ".join(map(str, candidate.lines))
        lines.append(f"    where to look:    line{'s' if len(candidate.lines) > 1 else ''} {some}")
    return lines


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False) or [""]
