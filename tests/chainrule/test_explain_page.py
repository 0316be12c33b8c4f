"""The page of an explanation: its numbers are the engine's, also after a weight was moved in the browser."""

import json
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

import nn_reference
from chainrule import explaining, recipe
from chainrule.cli import run
from chainrule.explaining import page as pages
from chainrule.explaining.encoding import decode

NET = ("--net", "2-3-2", "--activation", "tanh", "--input", "0.8,-0.5", "--label", "1")


def write(tmp_path, capsys, *arguments):
    """Write the page; return its path and what ``--json`` says of the same."""
    html = tmp_path / "page.html"
    assert run(["explain", *arguments, "--html", str(html), "--json"]) == 0
    return html, json.loads(capsys.readouterr().out)


def values(locator):
    """The full numbers behind what is shown."""
    return locator.evaluate_all("(cells) => cells.map((cell) => Number(cell.dataset.value))")


# -- The numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [NET, ("--net", "3-4-3-2", "--input", "1,0,-1;0.5,2,0.1;0,1,1", "--label", "0,1,1")]
)
def test_all_numbers_are_those_of_json(arguments, tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, *arguments)
    page.goto(html.as_uri())
    page.get_by_text("All numbers, as tables").click()
    expect(page.locator("#all table").first).to_be_visible()
    found = [values(table.locator("[data-value]")) for table in page.locator("#all table").all()]
    expected = []
    for layer in said["layers"]:
        output, upstream = decode(layer["output"])[0], decode(layer["upstream"])[0]
        expected.append(np.stack([output, upstream], -1))
        rows = []
        for parameter in layer["parameters"].values():
            keys = ("value", "gradient", "finite_difference", "autograd")
            rows.append(np.stack([decode(parameter[key]).ravel() for key in keys if key in parameter], -1))
        if rows:
            expected.append(np.concatenate(rows))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other.ravel())


def parameters(page):
    return page.evaluate(
        """net.steps.map(({ layer, grads }) => Object.fromEntries(Object.entries(grads).map(([name, grad]) =>
          [name, [[...layer.parameters[name].data], [...grad]]])))"""
    )


def assert_gradients(found, expected):
    """Compare [{name: [values, gradients]}, ...] of the page with the gradients {"fc1.weight": ...}."""
    theirs = np.concatenate([np.ravel(grad) for layer in found for _, grad in layer.values()])
    ours = np.concatenate([np.ravel(grad) for grad in expected])
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-9 * abs(ours).max())


TINY = """
summary = "one layer and {text}"
layers = [
{{ name = "flatten", type = "Flatten" }},
{{ name = "fc1", type = "Linear", out_features = 10 }},
{{ name = "log_softmax", type = "LogSoftmax", dim = 1 }},
]
[input]
shape = [28, 28]
mean = 0.1
std = 0.3
[training]
loss = {{ type = "NLLLoss" }}
optimizer = {{ type = "SGD", lr = 0.1 }}
batch_size = 10
epochs = 1
seed = 0
"""


@pytest.mark.parametrize("name", [*recipe.known(), "mlp --train --index 0:3", "nll.toml"])
def test_the_browser_computes_what_the_engine_computes(name, tmp_path, capsys, page, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nll.toml").write_text(TINY.format(text="NLLLoss"))
    html, said = write(tmp_path, capsys, *name.split(), "--dataset", "digits")
    page.goto(html.as_uri())
    loss, apart = page.evaluate(
        """() => {
          const before = netFrom(DATA).steps;
          recompute(net);
          const most = (values) => values.reduce((found, value) => Math.max(found, Math.abs(value)), 0);
          const apart = (own, engine) => most(own.map((value, at) => value - engine[at])) / most(engine);
          return [net.loss.value, net.steps.flatMap((step, l) => [
            ...['y', 'gradY', 'gradX'].map((key) => [l, key, apart(step[key].data, before[l][key].data)]),
            ...Object.keys(step.grads).map((key) => [l, key, apart(step.grads[key], before[l].grads[key])]),
          ])];
        }"""
    )
    assert len(apart) > 3 * len(said["layers"])
    many = sum(recipe.load(name.split()[0]).parameter_counts()) > pages.MANY  # then the page has float32
    limit = 1e-6 if many else 1e-11
    assert [row for row in apart if not row[2] <= limit] == []
    assert loss == pytest.approx(said["loss"]["value"], rel=limit)


@pytest.mark.parametrize(
    "arguments",
    [
        NET,
        (*NET[:3], "relu", *NET[4:]),
        ("--net", "3-4-2", "--activation", "gelu", "--input", "1,0,-1;0.5,2,0.1", "--label", "0,1"),
        ("--net", "2-3-1", "--activation", "sigmoid", "--input", "1,2", "--target", "0.8"),
        ("--net", "2-3-1", "--activation", "silu", "--loss", "bce", "--input", "1,2", "--target", "1"),
        ("--net", "2-3-2", "--activation", "elu", "--input", "1,2", "--label", "0"),
    ],
)
def test_sliders_agree_with_the_engine_after_50_moves(arguments, tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, *arguments)
    page.goto(html.as_uri())
    page.keyboard.press("End")
    rng = np.random.default_rng(1)
    sliders = page.locator("input[type=range]")
    moves = [[int(rng.integers(sliders.count())), float(rng.uniform(-2, 2))] for _ in range(50)]
    page.evaluate(
        """(moves) => {
          const ranges = document.querySelectorAll('input[type=range]');
          for (const [which, value] of moves) {
            ranges[which].value = value;
            ranges[which].dispatchEvent(new Event('input'));
          }
        }""",
        moves,
    )
    found = parameters(page)
    built = nn_reference.Sequential(
        *(getattr(nn_reference, layer["kind"])(**layer["arguments"]) for layer in said["layers"])
    ).to(np.float64)
    before = {
        f"{number}.{name}": decode(one["value"])
        for number, layer in enumerate(said["layers"])
        for name, one in layer["parameters"].items()
    }
    now = {f"{number}.{name}": pair[0] for number, layer in enumerate(found) for name, pair in layer.items()}
    state = {key: np.reshape(now[key], before[key].shape) for key in before}
    assert sum(not np.array_equal(state[key], before[key]) for key in state) > 1
    built.load_state_dict(state)
    x = np.array(page.evaluate("[...net.steps[0].x.data]")).reshape(said["input"]["shape"])
    criterion = getattr(nn_reference, said["loss"]["kind"])(**said["loss"]["arguments"])
    loss = criterion(built(x), decode(said["target"]))
    built.backward(criterion.backward())
    assert float(page.locator("#loss").get_attribute("data-value")) == pytest.approx(float(loss), rel=1e-9)
    assert_gradients(found, [parameter.grad for parameter in built.parameters()])

    page.get_by_role("button", name="Reset").click()
    for number, layer in enumerate(parameters(page)):
        for name, (value, _) in layer.items():
            np.testing.assert_array_equal(value, before[f"{number}.{name}"].ravel())


def test_a_step_of_gradient_descent_lowers_the_loss(tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, *NET)
    page.goto(html.as_uri())
    page.get_by_role("button", name="One step of gradient descent").click()
    weight, grad = (decode(said["layers"][0]["parameters"]["weight"][key]) for key in ("value", "gradient"))
    np.testing.assert_allclose(parameters(page)[0]["weight"][0], (weight - 0.1 * grad).ravel(), rtol=1e-14)
    assert float(page.locator("#loss").get_attribute("data-value")) < said["loss"]["value"]
    expect(page.locator("#descent")).to_contain_text("loss 0.394121 → 0.3")


@pytest.mark.parametrize("name", ["2-3-2", "cnn", "ann", "mlp-bn", "mlp-bn --train --index 0:3"])
def test_every_story_adds_up(name, tmp_path, capsys, page):
    """Upstream x local, summed, is the number itself: of each number, or of some of each layer."""
    arguments = NET if name == "2-3-2" else (*name.split(), "--dataset", "digits")
    html, _ = write(tmp_path, capsys, *arguments)
    page.goto(html.as_uri())
    apart = page.evaluate(
        """() => net.steps.flatMap(({ x, y, grads }, l) => {
          const some = (size) => [0, 1, 2, 3, 4].filter((k) => k < size).map((k) => Math.floor(k * size / 5));
          const all = [
            ...some(ofOne(y)).map((u) => ({ of: 'y', l, u })),
            ...some(ofOne(x)).map((u) => ({ of: 'gradient', l, u })),
            ...Object.keys(grads).flatMap((name) =>
              some(grads[name].length).map((at) => ({ of: 'parameter', l, name, at }))),
          ];
          return all.map((which) => {
            const { terms, plus, total } = story(net, which);
            const sum = terms.reduce((found, { a, b }) => found + a * b, plus);
            const size = terms.reduce((found, { a, b }) => found + Math.abs(a * b), Math.abs(plus));
            return [`${net.steps[l].layer.name} ${JSON.stringify(which)}`, terms.length, sum, total, size];
          });
        })"""
    )
    limit = 1e-5 if "mlp-bn" in name else 1e-12  # where the page has float32
    for which, terms, total, expected, size in apart:
        of_batch = (
            "--train" in name and which.startswith("bn") and '"of":"parameter"' in which
        )  # x̂ is not there
        if terms or ('"of":"y"' not in which and not of_batch):  # an activation's y has no terms
            assert abs(total - expected) <= limit * size, which
    assert sum(terms > 1 for _, terms, *_ in apart) > 5


# -- Stepping -------------------------------------------------------------------------------------------


def test_it_steps_forward_and_backward_by_keyboard(tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, *NET)
    page.goto(html.as_uri())
    title, cells = page.locator("#frame-title"), page.locator("#frame [data-value]")
    assert title.inner_text() == "The input"
    assert page.locator("#loss").inner_text() == "?"
    for k, layer in enumerate(said["layers"], 1):
        page.keyboard.press("ArrowRight")
        assert title.inner_text() == f"Forward {k} of 3: {layer['name']} ({layer['kind']})"
        np.testing.assert_array_equal(values(cells), decode(layer["output"])[0])
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == "The loss"
    assert values(cells) == [said["loss"]["value"]]
    page.keyboard.press("ArrowRight")
    np.testing.assert_array_equal(values(cells), decode(said["loss"]["gradient"])[0])
    for k, layer in enumerate(reversed(said["layers"]), 1):
        page.keyboard.press("ArrowRight")
        assert title.inner_text() == f"Backward {k} of 3: {layer['name']} ({layer['kind']})"
        expected = [decode(one["gradient"]).ravel() for one in layer["parameters"].values()]
        expected = np.concatenate([*expected, decode(layer["gradient"])[0]])
        np.testing.assert_array_equal(values(cells), expected)
        expect(page.locator("#said")).to_contain_text(f"Backward {k} of 3")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    assert title.inner_text().startswith("Backward 2 of 3")
    page.keyboard.press("Home")
    assert title.inner_text() == "The input"


def test_matrices_and_neurons(tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, *NET)
    page.goto(html.as_uri())
    page.get_by_label("by", exact=True).select_option("matrix")
    page.keyboard.press("End")  # in the select: it stays where it is
    page.locator("h1").click()
    page.keyboard.press("End")
    layer = said["layers"][0]
    tables = page.locator("#frame table")
    expected = (layer["upstream"], layer["parameters"]["weight"]["value"], layer["gradient"])
    for table, one in zip(tables.all(), expected, strict=True):
        np.testing.assert_array_equal(values(table.locator("[data-value]")), decode(one).ravel())
    page.evaluate("setLevel('neuron')")
    page.keyboard.press("Home")
    count = page.evaluate("view.frames.length")
    # The input, 3 + 3 + 2 outputs, the loss, 2 scores; backward 2 + 2 + 3, 3, and 3 + 3 + 2.
    assert count == 1 + 8 + 1 + 2 + (2 + 2 + 3) + 3 + (3 + 3 + 2)
    for _ in range(count - 1):
        page.keyboard.press("ArrowRight")
    assert values(page.locator("#frame .result")) == [decode(layer["gradient"])[0, 1]]
    page.keyboard.press("PageUp")
    assert page.locator("#frame-title").inner_text().startswith("Backward 2 of 3: tanh1")


def test_numbers_are_not_shown_before_their_frame(tmp_path, capsys, page):
    html, _ = write(tmp_path, capsys, *NET)
    page.goto(html.as_uri())
    assert page.locator("svg .unit .value").all_text_contents() == ["0.8", "−0.5", *"????????", "?"]
    assert "".join(page.locator("svg .grad").all_text_contents()) == ""
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.locator("svg .unit .value").all_text_contents().count("?") == 3
    page.keyboard.press("End")
    assert "" not in page.locator("svg .grad").all_text_contents()


def test_a_weight_and_a_neuron_show_what_they_are_made_of(tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, *NET)
    page.goto(html.as_uri())
    page.keyboard.press("End")
    page.get_by_role("button", name="weight fc1.weight[1,0] is −0.65, gradient 0.23").press("Enter")
    box = page.locator("#chosen-box")
    expect(box.locator("h3")).to_have_text("dL/d fc1.weight[1,0] = 0.229987")
    assert box.locator("tbody tr").first.inner_text().split("\t") == [
        "dL/d fc1[1] 0.28748", "×", "input[0] 0.8", "=", "+0.22999",
    ]  # fmt: skip
    expect(box.locator(".formula")).to_have_text("dL/dw = Σ dL/dy · dy/dw, and dy/dw = x")
    one = said["layers"][0]["parameters"]["weight"]
    keys = ("gradient", "finite_difference", "autograd")
    assert values(box.locator(".checks [data-value]")) == [decode(one[k])[1, 0] for k in keys if k in one]
    page.get_by_role("button", name="tanh1[1] is").click()
    expect(box.locator("h3")).to_have_text("dL/d tanh1[1] = 0.293155")
    assert box.locator("tbody tr").count() == 3  # the two paths, and their sum
    page.get_by_role("button", name="fc1[2] is").press(" ")
    box.get_by_role("button", name="its bias").click()
    expect(box.locator("h3")).to_have_text("dL/d fc1.bias[2] = −0.269579")
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()


def test_guess_the_number(tmp_path, capsys, page):
    html, _ = write(tmp_path, capsys, *NET)
    page.goto(html.as_uri())
    page.get_by_role("button", name="Guess the number").click()
    asked = page.evaluate("nameOf(net, question())")
    value = page.evaluate("numberOf(net, question())")
    field = page.get_by_label(f"What is {asked}?")
    assert page.locator("#frame [data-value]").count() == 0
    assert page.locator("svg .unit .value").all_text_contents().count("?") == 9
    field.fill("much")
    field.press("Enter")
    expect(page.locator("#verdict")).to_contain_text("Write a number")
    field.fill(str(-value))
    field.press("Enter")
    expect(page.locator("#verdict")).to_contain_text("its sign is the other one")
    field.fill(f"{value:.2g}")
    field.press("Enter")
    expect(page.locator("#verdict")).to_contain_text(f"Right: {asked} = ")
    assert page.locator("svg .unit .value").all_text_contents().count("?") == 6
    page.keyboard.press("Enter")  # the focus is on Next
    assert page.locator("#frame-title").inner_text().startswith("Forward 2 of 3")
    page.get_by_role("button", name="Show it").click()
    assert page.locator("#frame [data-value]").count() == 3


# -- Large networks ----------------------------------------------------------------------------------------


def test_784_128_10_is_small_enough_and_can_be_walked_through(tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, "simplenet", "--dataset", "digits", "--step")
    assert html.stat().st_size < 3e6
    page.goto(html.as_uri())
    page.keyboard.press("End")
    picture = page.get_by_role("application", name="dL/d fc1", exact=True)
    picture.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    upstream = decode(said["layers"][1]["upstream"])[0]
    expect(page.locator("#chosen-box h3")).to_contain_text("dL/d fc1[17] = ")
    assert values(page.locator("#chosen-box .result")) == [upstream[17]]
    assert page.get_by_label("Weights of unit (0 to 127)").input_value() == "17"
    own = page.get_by_role("application", name="dL/d fc1.weight of one unit")
    own.click(position={"x": 145, "y": 145})
    value = values(page.locator("#chosen-box .checks [data-value]"))
    grad = decode(said["layers"][1]["parameters"]["weight"]["gradient"])
    assert value[0] == grad[17, 14 * 28 + 14]
    assert value[1] == pytest.approx(value[0], abs=1e-8)
    assert value[2:] == pytest.approx([value[0]], rel=1e-9)


@pytest.mark.parametrize(
    "arguments",
    [
        ("mlp", "--train"),
        ("mlp-bn", "--train", "--index", "0:4"),
    ],
)
def test_every_frame_of_every_layer_can_be_shown(arguments, tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, *arguments, "--dataset", "digits")
    page.goto(html.as_uri())
    assert page.evaluate("live") == ("mlp-bn" not in arguments or "--train" not in arguments)
    page.evaluate("for (const frame of view.frames) go(view.position + 1)")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.evaluate("setLevel('neuron'); go(0); for (const frame of view.frames.slice(0, 50)) jump(1)")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    if said["batch"] > 1:
        page.get_by_label("Example", exact=True).select_option("1")
        assert (
            page.evaluate("numberOf(net, { of: 'y', l: 0, u: 3 })")
            == decode(said["layers"][0]["output"])[1].ravel()[3]
            or said["subject"]["name"] == "mlp-bn"
        )


# -- For everyone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("arguments", [NET, ("simplenet", "--dataset", "digits")])
def test_it_is_accessible_and_fits(arguments, width, tmp_path, capsys, page):
    from axe_playwright_python.sync_playwright import Axe

    html, _ = write(tmp_path, capsys, *arguments)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(html.as_uri())
    for level in ("layer", "matrix", "neuron"):
        page.evaluate(f"setLevel('{level}'); KEYS.End(); choose({{ of: 'gradient', l: 0, u: 0 }})")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


# The texts of a graph that lie on one another, by more than the empty rim of a line.
OVERLAPPING = """() => {
  const texts = [...document.querySelectorAll('svg text')]
    .filter((text) => text.textContent && getComputedStyle(text).visibility === 'visible');
  const boxes = texts.map((text) => text.getBoundingClientRect());
  const found = [];
  boxes.forEach((a, i) => boxes.forEach((b, j) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (i < j && across > 2 && down > 5) found.push(`${texts[i].textContent} and ${texts[j].textContent}`);
  }));
  return [texts.length, found];
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_no_number_of_the_graph_hides_another(width, tmp_path, capsys, page):
    html, _ = write(tmp_path, capsys, *NET)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(html.as_uri())
    page.keyboard.press("End")
    count, found = page.evaluate(OVERLAPPING)
    assert count > 40
    assert found == []


def test_it_prints_all_numbers_and_no_buttons(tmp_path, capsys, page):
    html, _ = write(tmp_path, capsys, *NET)
    page.goto(html.as_uri())
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#all table").first).to_be_visible()
    assert page.locator("button:visible, input:visible, select:visible").count() == 0


def test_text_of_others_stays_text(tmp_path, capsys, page):
    evil = "<script>console.error(1)<∕script><img src=x onerror=console.error(2)>"
    path = tmp_path / f"{evil}.toml"
    path.write_text(TINY.format(text="</script><script>console.error(3)</script><!--"))
    html, _ = write(tmp_path, capsys, str(path), "--dataset", "digits")
    page.goto(html.as_uri())
    assert evil in page.locator("h1").inner_text()
    assert "<!--" in page.locator("#network").inner_text()
    page.keyboard.press("End")
    assert page.locator("img").count() == 0


def test_it_opens_at_the_weight_that_was_asked_for(tmp_path, capsys, page):
    html, said = write(tmp_path, capsys, *NET, "--weight", "fc2.weight[1,2]", "--lr", "0.5")
    page.goto(html.as_uri())
    assert values(page.locator("#chosen-box .result")) == [said["weight"]["gradient"]]
    assert page.get_by_label("learning rate").input_value() == "0.5"


def test_a_folder_is_refused(tmp_path, capsys):
    assert run(["explain", *NET, "--html", str(tmp_path)]) == 1
    assert "is a folder: expected the name of a file" in capsys.readouterr().err


def test_a_page_that_no_browser_would_open_is_refused(tmp_path, capsys, monkeypatch):
    html = tmp_path / "page.html"
    assert run(["explain", "simplenet", "--dataset", "digits", "--html", str(html)]) == 0
    size = html.stat().st_size / 1e6
    html.unlink()
    monkeypatch.setattr(pages, "MOST_MEGABYTES", 0.9 * size)
    capsys.readouterr()
    assert run(["explain", "simplenet", "--dataset", "digits", "--html", str(html)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Give it fewer examples, or a smaller network" in said
    assert not html.exists()


def test_a_label_stays_text(tmp_path, page):
    wanted = explaining.Wanted(input="0.8,-0.5", label="1")
    subject = explaining.from_net("2-3-2", "tanh", None, 0.1, wanted)
    evil = "<img src=x onerror=console.error(4)></script><script>console.error(5)</script>"
    pages.write(explaining.explain(replace(subject, class_names=("no", evil))), tmp_path / "page.html")
    page.goto((tmp_path / "page.html").as_uri())
    assert evil in page.locator("#example-words").inner_text()
    assert page.locator("img").count() == 0
