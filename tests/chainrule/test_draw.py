"""The page that reads what one draws: its network is the engine's, and drawn digits are recognised."""

import json

import numpy as np
import pytest
from playwright.sync_api import expect

import nn_reference
from chainrule import datasets, engines, records, saved
from chainrule.cli import run
from chainrule.recipe import known, load
from chainrule.runs import RunFolder

# Every layer that is in none of the seven recipes, and arguments that they do not use.
OTHERS = """
summary = "all other layers"
layers = [
{ name = "c1", type = "Conv2d", out_channels = 4, kernel_size = [3, 2], stride = [2, 1], padding = [1, 0] },
{ name = "bn1", type = "BatchNorm2d" },
{ name = "gelu", type = "GELU" },
{ name = "c", type = "Conv2d", out_channels = 6, kernel_size = 2, padding = "same", dilation = 3, groups = 2},
{ name = "silu", type = "SiLU" },
{ name = "pool1", type = "MaxPool2d", kernel_size = 3, stride = 2, padding = 1, ceil_mode = true },
{ name = "elu", type = "ELU", alpha = 0.7 },
{ name = "pool2", type = "AvgPool2d", kernel_size = 3, stride = 2, padding = 1, count_include_pad = false },
{ name = "leaky", type = "LeakyReLU", negative_slope = 0.2 },
{ name = "same", type = "Identity" },
{ name = "flatten", type = "Flatten" },
{ name = "fc1", type = "Linear", out_features = 12, bias = false },
{ name = "tanh", type = "Tanh" },
{ name = "fc2", type = "Linear", out_features = 11 },
{ name = "sigmoid", type = "Sigmoid" },
{ name = "fc3", type = "Linear", out_features = 10 },
{ name = "gelu2", type = "GELU", approximate = "tanh" },
{ name = "softmax", type = "Softmax", dim = 1 },
]
[input]
shape = [1, 28, 28]
mean = 0.2
std = 0.4
[training]
loss = { type = "CrossEntropyLoss" }
optimizer = { type = "SGD", lr = 0.1 }
batch_size = 32
epochs = 1
seed = 0
"""


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def train(path, data):
    """Make the run of 784-128-10 after three hundred steps."""
    plan = load("simplenet")
    built = engines.build(plan, "numpy", seed=0)
    images = built.put(plan.examples(data.train_images), data.train_labels, plan.mean, plan.std)
    order = np.random.default_rng(0)
    for _ in range(300):
        built.train_step(images, order.integers(0, len(data.train_labels), 64))
    with RunFolder(path) as folder:
        folder.write_json("config.json", records.config(plan, ["numpy"], data, "cpu", 1))
        folder.write_model("model.safetensors", built.state_dict())
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    return train(tmp_path_factory.mktemp("runs") / "first", digits)


def write(path, tmp_path):
    html = tmp_path / "page.html"
    assert run(["draw", str(path), "--html", str(html)]) == 0
    return html


def reference(path, image):
    """Probabilities and d log p(answer) / d pixel in float64, from the engine."""
    opened = saved.open_run(path)
    plan = opened.recipe
    network = plan.build(nn_reference).eval()
    network.load_state_dict(saved.load_weights(opened))
    network = network.to(np.float64)
    outputs = network((plan.examples(image[None]) / 255 - plan.mean) / plan.std)
    if plan.layers[-1].type == "Softmax":
        grad = np.zeros_like(outputs)
        grad[0, outputs.argmax()] = 1 / outputs.max()
        return outputs[0], network.backward(grad).reshape(-1) / plan.std
    criterion = nn_reference.CrossEntropyLoss()
    criterion(outputs, outputs.argmax(1))
    gradient = -network.backward(criterion.backward()).reshape(-1) / plan.std
    return nn_reference.Softmax(1)(outputs)[0], gradient


@pytest.mark.parametrize("name", [*known(), "others"])
def test_the_browser_computes_what_the_engine_computes(name, make_run, tmp_path, page, digits):
    recipe = name
    if name == "others":
        recipe = str(tmp_path / "others.toml")
        (tmp_path / "others.toml").write_text(OTHERS)
    path = make_run(tmp_path / "run", recipe)
    page.goto(write(path, tmp_path).as_uri())
    image = digits.test_images[5]
    found = page.evaluate(
        """(pixels) => {
          const { probabilities, gradient } = read(Float64Array.from(pixels, (pixel) => pixel / 255));
          return { probabilities: [...probabilities], gradient: [...gradient] };
        }""",
        image.reshape(-1).tolist(),
    )
    probabilities, gradient = reference(path, image)
    np.testing.assert_allclose(found["probabilities"], probabilities, rtol=1e-11)
    np.testing.assert_allclose(found["gradient"], gradient, rtol=0, atol=1e-11 * abs(gradient).max())


def draw(page, strokes):
    """Draw strokes in a field of 100 x 100 with the mouse."""
    box = page.locator("#pad").bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"] / 100, box["y"] + y * box["height"] / 100) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in [*points[1::2], points[-1]]:
            page.mouse.move(*point)
        page.mouse.up()
    settle(page)


def settle(page):
    """Wait until what was asked for is shown: the page updates once in a frame."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def answer(page):
    return page.locator("#answer").inner_text().split()[0]


def test_drawn_digits_are_recognised(trained, tmp_path, page):
    page.goto(write(trained, tmp_path).as_uri())
    right = 0
    for digit in range(10):
        draw(page, page.evaluate(f"EXAMPLES[{digit}]"))
        right += answer(page) == str(digit)
        page.get_by_role("button", name="Clear").click()
        settle(page)
        assert answer(page) == "–"
    assert right >= 7  # by a network that has seen only small scans, enlarged


def test_drawn_digits_are_recognised_after_mnist(shared, tmp_path, page):
    path = train(tmp_path / "run", datasets.load(str(shared / "mnist")))
    page.goto(write(path, tmp_path).as_uri())
    answers = page.evaluate("EXAMPLES.map((strokes) => read(imageOf(strokes)).answer)")
    assert np.sum(np.equal(answers, range(10))) >= 9


def test_a_small_drawing_in_a_corner_is_the_same_image(trained, tmp_path, page):
    page.goto(write(trained, tmp_path).as_uri())
    images = page.evaluate(
        """EXAMPLES.map((strokes) => [[...imageOf(strokes)],
          [...imageOf(strokes.map((stroke) => stroke.map(([x, y]) => [300 + x / 7, y / 7])))]])"""
    )
    for image, moved in np.array(images).reshape(10, 2, 28, 28):
        np.testing.assert_allclose(image, moved, atol=1.01 / 255)
        rows, columns = np.nonzero(image)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21, 22)  # the half-dark edge included
        middle = np.arange(28) + 0.5
        assert image.sum(1) @ middle / image.sum() == pytest.approx(14, abs=0.1)
        assert image.sum(0) @ middle / image.sum() == pytest.approx(14, abs=0.1)


def test_one_can_draw_by_keyboard(trained, tmp_path, page):
    page.goto(write(trained, tmp_path).as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "pad"
    for key in ("Shift+ArrowUp", "Shift+ArrowUp", "Space", *["ArrowDown"] * 18, "Space"):
        page.keyboard.press(key)
    settle(page)
    assert answer(page) == "1"
    expect(page.locator("#said")).to_contain_text("Read as 1")
    page.keyboard.press("Backspace")
    settle(page)
    assert answer(page) == "–"


def test_a_class_can_be_asked_about(trained, tmp_path, page):
    page.goto(write(trained, tmp_path).as_uri())
    draw(page, page.evaluate("EXAMPLES[3]"))
    row = page.get_by_role("button", name="5", exact=True)
    row.click()
    settle(page)
    assert row.get_attribute("aria-pressed") == "true"
    assert page.locator("#evidence-title").inner_text() == "Which pixels speak for 5"
    # It is a derivative: a hundredth more ink where it says so raises log p(5) as it says.
    change, slope = page.evaluate(
        """() => {
          const { gradient } = read(drawn.image, 5);
          const at = gradient.indexOf(Math.max(...gradient)), more = drawn.image.slice();
          more[at] += 1e-6;
          const logP = (image) => Math.log(read(image).probabilities[5]);
          return [(logP(more) - logP(drawn.image)) / 1e-6, gradient[at]];
        }"""
    )
    assert change == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_accessible_and_fits(trained, tmp_path, page, width):
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 800})
    page.goto(write(trained, tmp_path).as_uri())
    page.get_by_label("Or let the page draw").select_option("7")
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_text_of_others_stays_text(trained, tmp_path, page, monkeypatch):
    evil = "</script><script>console.error('ran')</script><img src=x onerror=console.error(1)>"
    monkeypatch.setattr(saved.SavedRun, "class_names", tuple(f"{k}{evil}" for k in range(10)))
    folder = tmp_path / evil.replace("/", "∕")
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((trained / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["recipe"]["summary"] = config["dataset"] = evil
    (folder / "config.json").write_text(json.dumps(config))
    page.goto(write(folder, tmp_path).as_uri())
    draw(page, page.evaluate("EXAMPLES[1]"))
    assert evil in page.locator("#network").inner_text()
    assert evil in page.locator("#answer").inner_text()
    assert page.get_by_role("button", name=f"3{evil}").count() == 1
    assert page.locator("img").count() == 0


def test_without_html_it_is_opened(trained, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    assert run(["draw", str(trained)]) == 0
    path = trained / "draw.html"
    assert opened == [path.resolve().as_uri()]
    assert capsys.readouterr().out == f"{path}: {path.stat().st_size:,} bytes\n"
    assert path.stat().st_size < 3e6
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    assert run(["draw", str(trained)]) == 0
    assert "No browser was found" in capsys.readouterr().out


def test_errors_are_one_line(trained, tmp_path, capsys):
    assert run(["draw", str(trained), "--html", str(tmp_path)]) == 1
    assert "is a folder: expected the name of a file" in capsys.readouterr().err
    assert run(["draw", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["draw", str(trained), "--weights", "best"]) == 1
    assert "a run trained with --validation keeps it" in capsys.readouterr().err


def test_a_network_that_needs_a_batch_is_refused(make_run, tmp_path, capsys):
    text = OTHERS.replace('"BatchNorm2d"', '"BatchNorm2d", track_running_stats = false')
    (tmp_path / "batch.toml").write_text(text)
    path = make_run(tmp_path / "run", str(tmp_path / "batch.toml"))
    assert run(["draw", str(path), "--html", str(tmp_path / "page.html")]) == 1
    assert "'bn1' has no running statistics, and one image is no batch" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_help_has_an_example(capsys):
    assert run(["draw", "--help"]) == 0
    assert "Example: chainrule draw" in " ".join(capsys.readouterr().out.split())
