"""The page of a run: all of it in one file, nothing taken at its word, and what a stopped run has."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import pytest

from chainrule import evidence
from chainrule.cli import run

PICTURES = {"curves", "confusion", "samples", "mistakes", "reliability", "classes", "weights"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    arguments = ["simplenet", "--dataset", "digits", "--epochs", "2", "--validation", "100"]
    assert run(["train", *arguments, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "first")


def edit(folder, name, change):
    file = folder / name
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


class Page(HTMLParser):
    """What a browser would see: the tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)
        assert self.open == [], "a tag is not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def report(folder, *arguments):
    assert run(["report", str(folder), *arguments]) == 0
    return (folder / "report.html").read_text("utf-8")


def test_the_page_has_all_of_it_in_one_file(folder):
    html = report(folder)
    page = Page(html)
    summary = json.loads((folder / "summary.json").read_text())
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(PICTURES) == len(set(images))
    assert all(source.startswith("data:image/png;base64,") for source in images)
    assert not re.search(r"https?://|<script|<link|@import", html), "it must not ask the network for anything"
    assert len(html) < 2e6
    for engine in ("numpy", "torch"):
        results = summary["engines"][engine]
        assert f"{results['test_accuracy']:.2%}of the test images read correctly by {engine}" in "".join(
            page.text.splitlines()
        )
    pair = summary["most_confused"][0]
    assert f"{pair['truth']} read as {pair['answer']}: {pair['count']} of {pair['of']}" in page.text
    assert f"{summary['per_class']['3']['f1']:.2%}" in page.text
    assert "They agree" in page.text
    for value in summary["dataset_sha256"].values():
        assert value in page.text
    assert "Beside the published record" not in page.text, "the digits are not MNIST"


def test_what_it_says_of_the_training_can_be_repeated(folder):
    scheduler = {"type": "StepLR", "arguments": {"step_size": 10, "gamma": 0.7}, "name": ""}
    command = ["chainrule", "train", "--set", "training.optimizer={type='SGD', lr=1}", "--out", "my run"]
    edit(folder, "config.json", lambda config: config["recipe"].update(scheduler=scheduler))
    edit(folder, "config.json", lambda config: config.update(command=command))
    text = " ".join(Page(report(folder)).text.split())
    assert shlex.join(command) in text
    assert "LossCrossEntropyLoss()" in text
    assert "SchedulerStepLR(step_size=10, gamma=0.7), stepped every epoch" in text


def test_a_run_on_mnist_stands_beside_the_record(folder):
    edit(folder, "config.json", lambda config: config.update(dataset="mnist"))
    page = Page(report(folder))
    assert "Beside the published record" in page.text
    own = [index for index, (tag, attributes) in enumerate(page.tags) if attributes.get("class") == "own"]
    assert len(own) == 1


def test_names_are_text_and_nothing_else(folder):
    evil = "<script>alert('1')</script>$body"

    def rename(config):
        config["dataset"] = config["recipe"]["name"] = config["dataset_folder"] = evil
        config["command"] = ["chainrule", evil]

    edit(folder, "config.json", rename)
    html = report(shutil.move(folder, folder.with_name("a <b> & c")))
    assert "<script" not in html
    assert evil in Page(html).text
    assert "a <b> & c" in Page(html).text


def test_a_stopped_run_shows_what_is_there(folder):
    for file in folder.iterdir():
        if file.name not in ("config.json", "metrics.csv", "model.safetensors"):
            file.unlink()
    lines = (folder / "metrics.csv").read_text().splitlines()
    (folder / "metrics.csv").write_text("\n".join(lines[:7]))  # the first epoch of both engines
    page = Page(report(folder))
    assert "stopped after 1 of 2 epochs" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 1, "the curves can be drawn from metrics.csv"
    (folder / "metrics.csv").unlink()
    assert "stopped after 0 of 2 epochs" in Page(report(folder)).text


def test_out_names_the_file(folder, tmp_path, capsys):
    assert run(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert not (folder / "report.html").exists()
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_a_run_is_found_below_runs(folder, monkeypatch, tmp_path):
    shutil.move(folder, tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    assert run(["report", "first"]) == 0


def fails(capsys, *arguments):
    assert run(["report", *map(str, arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("chainrule: ")
    assert error.count("\n") == 1
    return error


def test_errors_are_one_line(folder, tmp_path, capsys):
    assert "there is no such run. Did you mean" in fails(capsys, folder.with_name("firts"))
    assert "holds no run: config.json is missing" in fails(capsys, tmp_path)
    assert "expected the folder of a run" in fails(capsys, folder / "config.json")
    assert "is a folder: expected the name of a file" in fails(capsys, folder, "--out", tmp_path)
    assert "cannot write" in fails(capsys, folder, "--out", tmp_path / "none" / "page.html")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json: not valid JSON"),
        ("config.json", "[]", "config.json: expected a JSON object, found list"),
        ("config.json", "{}", "'recipe' is missing"),
        ("config.json", '{"recipe": 3}', "config.json: not what a run writes: recipe is 3"),
        ("summary.json", "[" * 100_000, "summary.json: not valid JSON"),
        ("summary.json", "{}", "'engines' is missing"),
        ("summary.json", '{"engines": {"numpy": {}, "torch": {}}}', "'epochs' is missing"),
        ("metrics.csv", "epoch,loss\n1,2\n", "metrics.csv: not the metrics of a run"),
        (
            "metrics.csv",
            "epoch,engine,split,loss,accuracy\none,numpy,train,1,1\n",
            "metrics.csv: not the metrics",
        ),
        ("metrics.csv", "epoch,engine,split,loss,accuracy\n1,numpy,train,,1\n", "a row has no loss"),
    ],
)
def test_a_damaged_file_is_named(folder, capsys, name, text, message):
    (folder / name).write_text(text)
    assert message in fails(capsys, folder)
    assert not (folder / "report.html").exists()


def test_a_summary_that_lies_is_one_line(folder, capsys):
    edit(folder, "summary.json", lambda summary: summary["engines"]["numpy"].update(per_class=[1, 2]))
    assert "config.json or summary.json is not what a run writes" in fails(capsys, folder)
    edit(folder, "summary.json", lambda summary: summary["engines"]["numpy"].update(best=3))
    assert "summary.json: not what a run writes" in fails(capsys, folder)


def test_the_figures_of_a_stopped_run_are_those_of_its_last_epoch(folder):
    whole = evidence.read(folder)
    (folder / "summary.json").unlink()
    stopped = evidence.read(folder)
    for engine in ("numpy", "torch"):
        expected, found = whole.results(engine), stopped.results(engine)
        for quantity in ("epochs", "test_accuracy", "test_loss", "train_accuracy", "train_loss"):
            assert found[quantity] == expected[quantity]
        assert found["seconds"] == pytest.approx(expected["seconds"], abs=0.002)
