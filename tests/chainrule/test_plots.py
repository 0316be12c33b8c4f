"""Pictures: which a run gets, and what stands in them. What they look like, a person has to look at."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import nn_reference
from chainrule import datasets, engines, history, pictures, plots, recipe, training

NAMES = tuple(map(str, range(10)))
MATHS = ("$x_1", "50 % of $", "<script>", "Ankle boot")


@pytest.fixture
def texts(monkeypatch):
    """Every text of the figures that are made, for the picture itself is only pixels."""
    found = []
    save = Figure.savefig

    def savefig(figure, *arguments, **options):
        found.extend(text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text")))
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def size(png):
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert np.ptp(np.asarray(picture.convert("L"))) > 100, "an empty picture"
        return picture.size


def rows(engines=("numpy",), splits=("train", "validation", "test"), accuracy=(0.5, 0.8, 0.7)):
    return [
        {
            "epoch": epoch,
            "engine": engine,
            "split": split,
            "loss": 1 / epoch,
            "accuracy": value,
            "learning_rate": 0.1 if split == "train" else None,
        }
        for epoch, value in enumerate(accuracy, start=1)
        for engine in engines
        for split in splits
    ]


def outputs_for(answers):
    return np.eye(10, dtype=np.float32)[answers] * 7


def run_of(name, **changes):
    plan = recipe.load(name, changes)
    data = datasets.load("digits")
    state = dict(plan.build(nn_reference, generator=np.random.default_rng(0)).state_dict())
    outputs = outputs_for((data.test_labels + (np.arange(len(data.test_labels)) % 5 == 0)) % 10)
    first = training.Trained("numpy", epochs=3, test_accuracy=0.8, outputs=outputs)
    return plan, data, first, state


@pytest.mark.parametrize(
    ("name", "dataset", "more"),
    [
        ("simplenet", "mnist", {"weights.png", "history.png"}),
        ("cnn", "digits", {"weights.png", "features.png"}),
    ],
)
def test_which_pictures_a_run_gets(name, dataset, more, texts):
    plan, data, first, state = run_of(name, **{"training.validation": 100})
    data = replace(data, name=dataset)
    made = pictures.of_run(rows(), data, first, plan, state)
    always = {"curves.png", "confusion.png", "samples.png", "mistakes.png", "classes.png"}
    assert made.keys() == always | more
    assert {size(png)[0] for png in made.values()} == {868}
    text = " ".join(texts)
    assert "validation: 100 images, " in text
    assert "best of numpy: epoch 2, 80.00%" in text
    assert ("simplenet: 20.00 %" in texts) == (dataset == "mnist")
    assert f"{name} (numpy) on {data.title}: 80.00% of the test images right" in " ".join(text.split())


def test_a_mistake_says_answer_probability_and_truth(texts):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    labels = np.array([4, 9, 1])
    outputs = outputs_for([4, 4, 1])
    outputs[1, 4] = np.log(9 * 9)  # against nine outputs of 0: 81 / 90
    size(plots.mistakes(images, labels, outputs, NAMES, "mistakes"))
    assert "read 4, 90.0%\nis 9" in texts
    outputs[1, 4] = 30
    plots.mistakes(images, labels, outputs, NAMES, "mistakes")
    assert "read 4, > 99.9%\nis 9" in texts


def test_without_a_mistake_there_is_a_sentence(texts):
    size(plots.mistakes(np.zeros((2, 28, 28)), np.array([1, 2]), outputs_for([1, 2]), NAMES, "mistakes"))
    assert "Nothing to show: all 2 images are read correctly." in texts


def test_samples_name_the_truth_of_a_mistake(texts):
    size(plots.samples(np.zeros((2, 28, 28)), np.array([1, 2]), outputs_for([1, 7]), NAMES, "samples"))
    assert "7, is 2" in texts


def test_names_are_not_read_as_mathematics():
    images, labels = np.zeros((4, 28, 28)), np.arange(4)
    outputs = np.roll(np.eye(4), 1, axis=1)
    for draw in (plots.samples, plots.mistakes):
        size(draw(images, labels, outputs, MATHS, "50 $ or $100 \\frac"))
    size(plots.confusion(np.ones((4, 4), int), MATHS, "$\\frac$"))
    size(plots.classes({"train": labels}, MATHS, "$"))
    size(plots.history(history.records(), history.Own("$\\frac", "convolutional", 1.0)))


@pytest.mark.parametrize("engines", [("numpy",), ("torch",), ("numpy", "torch")])
def test_curves_say_which_engine_is_which(engines, texts):
    size(plots.curves(rows(engines), "curves"))
    assert ("numpy: wide and pale" in texts) == (len(engines) == 2)
    assert len({text for text in texts if "best of" in text}) == len(engines)


def test_without_validation_no_epoch_is_called_the_best(texts):
    """The test images decide nothing, not even which epoch a picture marks."""
    size(plots.curves(rows(splits=("train", "test")), "curves"))
    assert not any("best" in text for text in texts)


def test_the_rate_is_drawn_within_the_epochs(monkeypatch):
    """A cycle of steps; a point for each epoch alone would be a straight line down."""
    drawn = {}
    save = Figure.savefig

    def savefig(figure, *arguments, **options):
        drawn["rate"] = [line.get_xydata() for line in figure.axes[2].get_lines()]
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    changes = {"training.scheduler": {"type": "OneCycleLR", "max_lr": 0.01}, "training.epochs": 3}
    plan = recipe.load("simplenet", changes)
    rates = plan.rates_within_epochs(10)
    assert len(rates) == 30
    assert max(rates) == pytest.approx(0.01, rel=1e-3)
    size(plots.curves(rows(splits=("train",), accuracy=(0.5, 0.8)), "curves", rates, 10))
    line = max(drawn["rate"], key=len)
    assert len(line) == 20, "a run that stopped after two of its three epochs"
    assert line[:, 0].tolist() == pytest.approx([step / 10 for step in range(1, 21)])
    assert line[:, 1].tolist() == rates[:20]


def test_the_rates_are_those_that_the_training_had():
    changes = {"training.scheduler": {"type": "CosineAnnealingLR", "interval": "step"}, "training.epochs": 2}
    plan, data = recipe.load("simplenet", changes), datasets.load("digits")
    course = training.begin(engines.build(plan, "numpy", seed=0), plan, data)
    seen = []
    training.train([course], plan, report=lambda progress: seen.append(progress.learning_rate),
                   after_epoch=lambda *_: None)  # fmt: skip
    assert plan.rates_within_epochs(training.steps_per_epoch(1500, plan)) == seen
    assert recipe.load("mlp").rates_within_epochs(24) == [], (
        "stepped once an epoch: the metrics have them all"
    )


def test_the_best_epoch_is_the_one_that_the_run_kept():
    assert plots.best_epoch(rows(accuracy=(0.5, 0.8, 0.8)), "numpy") == 3  # the lower loss of the two
    assert plots.best_epoch(rows(splits=("train",)), "numpy") is None


def test_feature_maps_are_what_the_layers_give():
    plan, data, _, state = run_of("cnn")
    maps = dict(pictures.feature_maps(plan, state, data.test_images[:1]))
    assert list(maps) == [f"{name}{n} ({kind})" for n in "12" for name, kind in LAYERS]
    conv, relu, pool = (maps[f"{name}1 ({kind})"] for name, kind in LAYERS)
    assert np.array_equal(relu, np.maximum(conv, 0))
    assert np.array_equal(pool, relu.reshape(32, 13, 2, 13, 2).max(axis=(2, 4)))
    image = (data.test_images[0] / 255 - plan.mean) / plan.std
    kernel, bias = state["conv1.weight"][5, 0], state["conv1.bias"][5]
    assert conv[5, 10, 11] == pytest.approx(np.sum(image[10:13, 11:14] * kernel) + bias, rel=1e-4, abs=1e-5)
    assert pictures.feature_maps(*run_of("simplenet")[0::3], data.test_images[:1]) == []


LAYERS = (("conv", "Conv2d"), ("relu", "ReLU"), ("pool", "MaxPool2d"))


def test_first_weights_are_laid_out_as_the_pixels():
    plan, _, _, state = run_of("simplenet")
    name, images = pictures.first_weights(plan, state)
    assert (name, images.shape) == ("fc1", (128, 28, 28))
    assert images[3, 2, 5] == state["fc1.weight"][3, 2 * 28 + 5]
    plan, _, _, state = run_of("cnn-same")
    assert pictures.first_weights(plan, state)[1].shape == (32, 3, 3)


def test_weights_of_zero_can_be_drawn():
    size(plots.weights(np.zeros((3, 28, 28)), "weights"))


def test_features_of_few_channels_can_be_drawn():
    maps = np.random.default_rng(0).normal(size=(3, 6, 6))
    size(
        plots.features(np.zeros((28, 28)), [("conv1 (Conv2d)", maps), ("relu1 (ReLU)", maps * 0)], "features")
    )
