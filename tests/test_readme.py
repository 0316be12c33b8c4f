"""The README shows what is: its samples run, and what it prints is what the commands print."""

import re
from pathlib import Path

import numpy as np

from chainrule import recipe
from chainrule.cli import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def run_sample(word, monkeypatch):
    (sample,) = [block for block in blocks("python") if word in block]
    monkeypatch.chdir(ROOT)
    names = {}
    exec(sample, names)
    return names


def test_the_network_learns(monkeypatch):
    names = run_sample("nn.Sequential", monkeypatch)
    before = float(names["loss"])
    after = float(names["criterion"](names["network"](names["images"]), names["labels"]))
    assert np.isfinite(before)
    assert after < before, "one step of Adam on the same batch must lower its loss"


def test_the_digits_are_read(monkeypatch):
    names = run_sample("idx.read", monkeypatch)
    assert (names["images"].shape, names["first"].shape) == ((1500, 28, 28), (10, 28, 28))


def test_the_neuron_is_what_the_command_prints(capsys):
    assert run(["explain", "neuron"]) == 0
    assert capsys.readouterr().out.strip() in README


def test_the_training_shown_is_of_the_recipe_that_it_names(capsys):
    (shown,) = [block for block in blocks("") if block.startswith("Data ")]
    plan = recipe.load("simplenet")
    assert (
        f"simplenet: {plan.summary}; {plan.epochs} epochs, batches of {plan.batch_size}, seed {plan.seed}"
        in shown
    )
    assert "They agree: every ratio is at most 1e-12." in shown


def test_the_targets_and_files_that_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for line in re.findall(r"^make ([a-z -]+)$", README, flags=re.MULTILINE):
        for target in line.split():
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
