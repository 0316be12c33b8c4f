"""Distorted training images: as asked, to the bit, and the same for both engines and after a break."""

from dataclasses import replace

import numpy as np
import pytest

from chainrule import augmentation, checkpoints, datasets, engines, recipe, training
from chainrule.augmentation import Augment
from chainrule.errors import ChainruleError

NONE = Augment(0, 0, 0, 0, 0, 0)


def images(count=300):
    return datasets.load("digits").train_images[:count]


@pytest.mark.parametrize("name", augmentation.NAMES)
def test_each_way_changes_the_images_and_keeps_them_digits(name):
    before = images()
    after = augmentation.distort(before, augmentation.NAMES[name], 0, 1)
    assert after.dtype == np.uint8
    assert after.shape == before.shape
    same = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(before, after, strict=True)]
    assert 0.3 < np.mean(same) < 0.9995
    assert (after != before).any(axis=(1, 2)).mean() > 0.95


def test_nothing_asked_is_nothing_done():
    assert (augmentation.distort(images(), NONE, 0, 1) == images()).all()


def test_seed_and_epoch_decide_to_the_bit():
    first = augmentation.distort(images(), Augment(), 3, 2)
    assert (augmentation.distort(images(), Augment(), 3, 2) == first).all()
    assert (augmentation.distort(images(), Augment(), 3, 3) != first).any()
    assert (augmentation.distort(images(), Augment(), 4, 2) != first).any()


def test_pixels_are_pulled_from_where_the_field_says():
    planes = np.random.default_rng(0).random((2, 5, 6)).astype(np.float32)
    y, x = np.mgrid[:5, :6].astype(np.float32)
    rows, columns = np.stack([y, y + 1]), np.stack([x, x - 2])
    moved = augmentation.pull(planes, rows, columns)
    assert moved[0] == pytest.approx(planes[0])
    expected = np.zeros((5, 6))
    expected[:4, 2:] = planes[1, 1:, :4]
    assert moved[1] == pytest.approx(expected), "what lies beyond the edge is blank"
    halfway = augmentation.pull(planes, rows[:1] + 0.5, columns[:1])[0]
    assert halfway[:4] == pytest.approx((planes[0, :4] + planes[0, 1:]) / 2)


def test_strokes_grow_and_shrink():
    plane = np.zeros((2, 9, 9), np.float32)
    plane[:, 2:7, 4] = 100
    thick, thin = augmentation.strokes(plane, np.array([1.0, -1.0]))
    assert (thick[4] == [0, 0, 0, 100, 100, 100, 0, 0, 0]).all()
    assert (thin == 0).all()
    assert augmentation.strokes(plane, np.array([0.5, 0]))[0, 4, 3] == 50


def test_the_field_has_the_strength_that_was_asked_for():
    rows, columns = augmentation._field((400, 28, 28), replace(NONE, elastic=2.0), np.random.default_rng(0))
    assert (rows - np.arange(28)[:, None]).std() == pytest.approx(2, rel=0.05)
    assert (columns - np.arange(28)).std() == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("wild", "must be all, affine, elastic, stroke or a table, found 'wild'"),
        (3, "or a table, found 3"),
        ({"rotat": 3}, "has no 'rotat'"),
        ({"rotate": -1}, "augment.rotate must be from 0 to 180, found -1"),
        ({"stroke": 1.5}, "augment.stroke must be from 0 to 1, found 1.5"),
        ({"shift": True}, "found True"),
    ],
)
def test_what_cannot_be_is_said(value, says):
    with pytest.raises(ChainruleError, match=says):
        recipe.load("ann", {"training.augment": value})


def test_a_run_keeps_how_its_images_were_distorted():
    from dataclasses import asdict

    plan = recipe.load("ann", {"training.augment": {"rotate": 5, "stroke": 0.2}})
    assert plan.augment == Augment(5, 0, 0, 0, 0, 0.2)
    assert recipe.restore(asdict(plan)).augment == plan.augment
    saved = asdict(recipe.load("ann"))
    del saved["augment"]  # as an older version wrote it
    assert recipe.restore(saved).augment is None


@pytest.fixture
def small():
    data = datasets.load("digits")
    return replace(
        data,
        train_images=data.train_images[:200], train_labels=data.train_labels[:200],
        test_images=data.test_images[:20], test_labels=data.test_labels[:20],
    )  # fmt: skip


def course(plan, data, name):
    return training.begin(engines.build(plan, name, seed=0), plan, data)


def test_both_engines_learn_from_the_same_images(small):
    pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")
    plan = recipe.load("ann", {"training.augment": "all", "training.batch_size": 50})
    losses = {}
    for name in ("numpy", "torch"):
        made = course(plan, small, name)
        losses[name] = [training.one_epoch(made, plan, epoch, lambda _: None)[0]["loss"] for epoch in (1, 2)]
    plain = course(replace(plan, augment=None), small, "numpy")
    first = training.one_epoch(plain, replace(plan, augment=None), 1, lambda _: None)[0]["loss"]
    assert losses["numpy"] == pytest.approx(losses["torch"], rel=1e-4)
    assert abs(losses["numpy"][0] - first) > 1e-3, "and not from those that were not distorted"


def test_a_broken_run_goes_on_to_the_same_bits(small):
    plan = recipe.load("ann", {"training.augment": "all", "training.batch_size": 50, "training.epochs": 2})
    whole = course(plan, small, "numpy")
    for epoch in (1, 2):
        training.one_epoch(whole, plan, epoch, lambda _: None)

    broken = course(plan, small, "numpy")
    training.one_epoch(broken, plan, 1, lambda _: None)

    class Break(Exception):
        pass

    def stop_after_two():
        if broken.running.batches == 2:
            raise Break

    with pytest.raises(Break):
        training.one_epoch(broken, plan, 2, lambda _: None, stop_after_two)
    packed = checkpoints.pack(checkpoints.state_of([broken], [], {}))
    resumed = course(plan, small, "numpy")
    checkpoints.restore(checkpoints.unpack(packed), [resumed])
    training.one_epoch(resumed, plan, 2, lambda _: None)
    for key, value in whole.engine.state_dict().items():
        assert (resumed.engine.state_dict()[key] == value).all(), key
