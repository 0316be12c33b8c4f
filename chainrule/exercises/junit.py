"""Grades as JUnit XML, which continuous integration and most graders of classes read."""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from chainrule.exercises.grading import Grade

# What XML 1.0 has no way to write.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(grades: Iterable[tuple[str, Grade]]) -> str:
    """Return one test suite for each (learner, grade), and in it one test for each part.

    A part without all its points is a failure whose message is the reason. The learner is "" where there is
    but one; points stand in each test's properties.
    """
    root = ElementTree.Element("testsuites", name="chainrule grade")
    for learner, grade in grades:
        name = f"{learner}.{grade.exercise}" if learner else grade.exercise
        failed = sum(part.points < part.out_of for part in grade.parts)
        counts = {"tests": str(len(grade.parts)), "failures": str(failed), "errors": "0", "skipped": "0"}
        attributes = {"name": _clean(name), "file": _clean(grade.file), **counts}
        suite = ElementTree.SubElement(root, "testsuite", attributes)
        for part in grade.parts:
            test = ElementTree.SubElement(suite, "testcase", classname=_clean(name), name=_clean(part.name))
            properties = ElementTree.SubElement(test, "properties")
            for key, value in (("points", part.points), ("out_of", part.out_of)):
                ElementTree.SubElement(properties, "property", name=key, value=str(value))
            if part.points < part.out_of:
                message = f"{part.points} of {part.out_of} points: {part.reason}"
                failure = ElementTree.SubElement(test, "failure", message=_clean(message))
                failure.text = _clean(grade.text)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
