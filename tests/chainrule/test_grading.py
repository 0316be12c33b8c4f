"""From a diagnosis to points: each part for itself, each with its reason; JUnit; a class."""

import json
import os
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement import diagnosis
from agreement.diagnosis import Candidate, Diagnosis, Part, Problem
from chainrule.cli import run
from chainrule.errors import ChainruleError
from chainrule.exercises import catalogue, junit, room
from chainrule.exercises.grading import Grade, Mistake, PartGrade, from_diagnosis, grade

LINEAR = catalogue.find("linear")
TRANSPOSED = Candidate(
    "Linear: transposed weight", "The weight is transposed.", "grad_x = grad_y weight.T", ("grad of x",)
)


def part(name, ok=True, words=""):
    return Part(name, ok, 0.0 if ok else 0.7, (4, 5), (4, 5), words)


def finding(*wrong, candidates=(), problems=(), only=None, **fields):
    """A diagnosis of `linear` in which the parts ``wrong`` are."""
    names = ["output", "grad of x", "grad of weight", "grad of bias"] if only is None else only
    parts = tuple(part(n, n not in wrong, "too large by a factor of 2" if n in wrong else "") for n in names)
    ok = not (wrong or problems or candidates)
    return Diagnosis(
        "linear.py", "linear", ok, parts=parts, candidates=candidates, problems=problems, probes=6, **fields
    )


@pytest.fixture
def found(monkeypatch):
    """Let `grade` be told what the diagnosis of each file is, by a word in the file."""
    findings = {}

    def diagnose(path, subject, *, limits):
        return findings[path.read_text().strip()]

    monkeypatch.setattr(diagnosis, "diagnose", diagnose, raising=False)
    monkeypatch.setattr(Diagnosis, "__str__", lambda self: f"the diagnosis of {self.file}")
    return findings


@pytest.mark.usefixtures("found")
class TestPoints:
    def test_all_right(self):
        graded = from_diagnosis(LINEAR, finding())
        assert graded.full
        assert (graded.points, graded.out_of) == (7, 7)
        assert graded.parts[1].reason == "right in all 6 probes"
        assert graded.mistakes == ()

    def test_a_wrong_part_costs_its_own_points_and_says_why(self):
        graded = from_diagnosis(LINEAR, finding("grad of x", candidates=(TRANSPOSED,)))
        assert [p.points for p in graded.parts] == [1, 0, 2, 1, 1]
        assert graded.parts[1].reason == (
            "too large by a factor of 2; it looks like 'Linear: transposed weight'"
        )
        assert graded.mistakes == (
            Mistake("Linear: transposed weight", "In grad of x: The weight is transposed."),
        )

    def test_what_is_not_returned(self):
        graded = from_diagnosis(LINEAR, finding(only=["output", "grad of x"]))
        assert graded.parts[2].points == 0
        assert graded.parts[2].reason == "the grad of weight was not found among what your code returns"

    def test_code_that_does_not_run_gets_nothing_and_the_problem_as_reason(self):
        problem = Problem("time", "it was stopped after 5 seconds, in line 7", 7)
        graded = from_diagnosis(LINEAR, finding(only=[], problems=(problem,)))
        assert graded.points == 0
        assert {p.reason for p in graded.parts[:-1]} == {problem.words}
        assert graded.mistakes == (Mistake("never ends", problem.words),)

    def test_writing_into_an_argument_costs_a_point_of_its_own(self):
        problem = Problem("in-place", "backward changed grad_y", 9)
        graded = from_diagnosis(LINEAR, finding(problems=(problem,)))
        assert graded.points == 6
        assert graded.parts[-1].reason == "backward changed grad_y"
        assert graded.mistakes[0].name == "changes its arguments"

    def test_nothing_right_earns_nothing_for_changing_nothing(self):
        names = ["output", "grad of x", "grad of weight", "grad of bias"]
        graded = from_diagnosis(LINEAR, finding(*names))
        assert graded.points == 0
        assert graded.mistakes == (Mistake("no known mistake", "wrong, but as no known mistake is"),)

    def test_as_text_and_as_json(self):
        graded = from_diagnosis(LINEAR, finding("grad of x", candidates=(TRANSPOSED,)))
        text = str(graded)
        assert text.startswith("linear: 5 of 7 points for linear.py\n")
        assert "the diagnosis of linear.py" in text
        assert all(len(line) <= 100 for line in text.splitlines())
        data = json.loads(json.dumps(graded.to_dict()))
        assert (data["points"], data["out_of"], data["parts"][1]["points"]) == (5, 7, 0)
        assert "the diagnosis" not in str(from_diagnosis(LINEAR, finding()))


def test_what_cannot_be_graded_is_one_line(tmp_path):
    with pytest.raises(ChainruleError, match="there is no such file"):
        grade("linear", tmp_path / "none.py")
    with pytest.raises(ChainruleError, match="a folder, expected a file"):
        grade("linear", tmp_path)


@pytest.mark.usefixtures("found")
def test_junit_has_a_test_for_each_part_and_survives_any_character():
    bad = Problem("exception", 'ValueError: \x00\x1b[31m <&" \ud800')
    grades = [
        ("ana", from_diagnosis(LINEAR, finding())),
        ("bo", replace(from_diagnosis(LINEAR, finding(only=[], problems=(bad,))), file="\x01.py")),
    ]
    root = ElementTree.fromstring(junit.to_junit(grades).encode("utf-8"))
    assert [suite.get("name") for suite in root] == ["ana.linear", "bo.linear"]
    assert [(suite.get("tests"), suite.get("failures")) for suite in root] == [("5", "0"), ("5", "5")]
    assert root[1].get("file") == "?.py"
    first = root[1][0]
    assert (first.get("classname"), first.get("name")) == ("bo.linear", "output")
    assert first.find("failure").get("message") == '0 of 1 points: ValueError: ??[31m <&" ?'
    assert {p.get("name"): p.get("value") for p in first.iter("property")} == {"points": "0", "out_of": "1"}


@given(text=st.text(), learner=st.text(min_size=1))
def test_any_text_makes_junit_that_can_be_read(text, learner):
    graded = Grade("linear", text, (PartGrade("output", 0, 1, text),), (), text)
    root = ElementTree.fromstring(junit.to_junit([(learner, graded)]).encode("utf-8"))
    assert len(root.findall(".//failure")) == 1


@given(wrong=st.sets(st.sampled_from(["output", "grad of x", "grad of weight", "grad of bias"])))
def test_the_points_are_those_of_the_parts_that_are_right(wrong):
    graded = from_diagnosis(LINEAR, finding(*wrong))
    right = {"output", "grad of x", "grad of weight", "grad of bias"} - wrong
    assert graded.points == sum(LINEAR.points[name] for name in right) + bool(right)
    assert graded.full == (not wrong)
    assert bool(graded.mistakes) == bool(wrong)


# -- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def handed_in(tmp_path, found):
    """A class of four: two with the same mistake, one without any, one who has other files too."""
    found["right"] = finding()
    found["transposed"] = finding("grad of x", candidates=(TRANSPOSED,))
    found["endless"] = finding(only=[], problems=(Problem("time", "it was stopped"),))
    folder = tmp_path / "class"
    for learner, word in {"ana": "transposed", "bo": "right", "cy": "transposed"}.items():
        (folder / learner).mkdir(parents=True)
        (folder / learner / "linear.py").write_text(word)
    (folder / "di" / "week 2").mkdir(parents=True)
    (folder / "di" / "week 2" / "Linear.py").write_text("endless")
    (folder / "di" / "notes.py").write_text("")
    (folder / "di" / "__pycache__").mkdir()
    (folder / "di" / "__pycache__" / "linear.py").write_text("")
    return folder


def test_a_class_by_learner_and_by_mistake(handed_in, capsys):
    assert run(["grade", "--all", str(handed_in), "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    table, room_ = out.split("What the room has not understood:")
    rows = {line.split()[0]: line.split()[1:3] for line in table.splitlines() if line}
    assert rows["learner"] == ["linear", "sum"]
    assert (rows["ana"], rows["bo"], rows["di"]) == (["5/7", "5"], ["7/7", "7"], ["0/7", "0"])
    first, second = (line for line in room_.splitlines() if " x " in line)
    assert first.strip() == "2 x Linear: transposed weight (linear): ana, cy"
    assert second.strip() == "1 x never ends (linear): di"
    assert "notes.py" in room_


def test_a_table_of_many_exercises_has_their_numbers_for_heads(tmp_path, monkeypatch, capsys):
    (tmp_path / "ana").mkdir()
    for exercise in catalogue.exercises().values():
        (tmp_path / "ana" / exercise.file_name).write_text("")
    graded = from_diagnosis(LINEAR, finding())
    monkeypatch.setattr(room, "grade", lambda exercise, path, **_: replace(graded, exercise=exercise.name))
    assert run(["grade", "--all", str(tmp_path), "--jobs", "1"]) == 0
    legend, table = capsys.readouterr().out.split("\n\n")
    assert "19 adam, 20 cnn-step" in " ".join(legend.split())
    head, row = table.splitlines()
    assert head.split() == ["learner", *map(str, range(1, 22)), "sum", "mistakes"]
    assert row.split() == ["ana", *["7/7"] * 21, "147"]


def test_a_class_as_json_and_junit(handed_in, tmp_path, capsys):
    xml = tmp_path / "grades.xml"
    assert run(["grade", "--all", str(handed_in), "--jobs", "1", "--json", "--junit", str(xml)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert list(data["learners"]) == ["ana", "bo", "cy", "di"]
    assert data["learners"]["ana"][0]["points"] == 5
    assert data["mistakes"][0]["learners"] == ["ana", "cy"]
    assert len(ElementTree.parse(xml).getroot()) == 4


def test_one_file_that_breaks_the_grader_costs_nobody_else_a_grade(handed_in, found, capsys):
    del found["transposed"]  # the diagnosis raises KeyError
    assert run(["grade", "--all", str(handed_in), "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "2 x cannot be graded (linear): ana, cy" in out
    assert "the grader failed: KeyError: 'transposed'" in out
    assert out.count("7/7") == 1


def test_a_class_is_graded_by_several_processes(tmp_path, capsys):
    for learner in ("ana", "bo"):
        (tmp_path / learner).mkdir()
        (tmp_path / learner / "relu.py").write_text("def forward(x): return x\n")
    assert run(["grade", "--all", str(tmp_path), "--jobs", "2"]) == 0
    assert "2 x function missing (relu): ana, bo" in capsys.readouterr().out


def test_one_file_for_each_learner(tmp_path, found, capsys):
    found["right"] = finding()
    for learner in ("ana", "bo"):
        (tmp_path / f"{learner}.py").write_text("right")
    (tmp_path / "cy").mkdir()
    (tmp_path / "cy" / "homework.py").write_text("right")
    assert [s.learner for s in room.submissions(tmp_path, [LINEAR])[0]] == ["ana", "bo", "cy"]
    with pytest.raises(ChainruleError, match="nothing was handed in here"):
        room.submissions(tmp_path, list(catalogue.exercises().values()))
    assert run(["grade", "linear", "--all", str(tmp_path), "--jobs", "1"]) == 0
    assert capsys.readouterr().out.count("7/7") == 3


def test_of_two_files_the_newer_one_counts(tmp_path):
    for age, place in ((100, "again"), (200, "before")):
        (tmp_path / "ana" / place).mkdir(parents=True)
        (tmp_path / "ana" / place / "linear.py").write_text("right")
        os.utime(tmp_path / "ana" / place / "linear.py", (1e9 - age, 1e9 - age))
    (only,), left_out = room.submissions(tmp_path, [LINEAR])
    assert only.path.parent.name == "again"
    assert [path.parent.name for path in left_out] == ["before"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["grade"], 2, "expected an exercise and a file"),
        (["grade", "linear"], 2, "expected an exercise and a file"),
        (["grade", "liner", "x.py"], 2, "there is no exercise 'liner'"),
        (["grade", "linear", "none.py"], 1, "none.py: there is no such file"),
        (["grade", "linear", "x.py", "--all", "."], 2, "--all grades a folder: leave out the file 'x.py'"),
        (["grade", "--all", "nowhere"], 1, "nowhere: there is no such folder"),
        (["grade", "linear", "x.py", "--seconds", "0"], 2, "--seconds must be above 0"),
        (["grade", "linear", "x.py", "--seconds", "nan"], 2, "--seconds must be above 0"),
        (["grade", "--all", ".", "--jobs", "0"], 2, "--jobs must be at least 1"),
        (["grade", "linear", "x.py", "--junit", "no/where.xml"], 1, "no/where.xml: there is no such folder"),
    ],
)
def test_wrong_usage_is_one_line(arguments, status, message, capsys):
    assert run(arguments) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_exit_status_says_whether_points_are_missing(tmp_path, found, capsys):
    found["right"], found["wrong"] = finding(), finding("grad of x", candidates=(TRANSPOSED,))
    for word, status in (("right", 0), ("wrong", 1)):
        file = tmp_path / f"{word}.py"
        file.write_text(word)
        assert run(["grade", "linear", str(file)]) == status
        shown = capsys.readouterr()
        assert ("7 of 7" if word == "right" else "5 of 7") in shown.out
        assert shown.err == ""
