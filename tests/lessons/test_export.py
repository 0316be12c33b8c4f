"""The exported lessons: pages that need no network, and notebooks that Jupyter can run."""

import json
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

NUMBERS = [f"{number:02}" for number in range(1, 11)]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_page_opens_without_a_network(exported, page, number):
    lesson = exported(number)
    text = lesson.page.read_text()
    assert "https://" not in text.replace("https://www.w3.org", "")
    assert "marimo-" not in text  # no element that only marimo's script can show
    assert lesson.page.stat().st_size < 3_000_000
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(lesson.page.as_uri())
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.locator("h1").inner_text().startswith(f"{int(number)}. ")
    assert page.locator("h2", has_text="Exercise").count() == 1
    assert page.evaluate("[...document.images].every((i) => i.naturalWidth > 0 && i.alt.length > 3)")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_slider_moves_what_depends_on_it(exported, page):
    lesson = exported("02")
    page.goto(lesson.page.as_uri())
    before = page.locator("text=z = -0.75").first
    assert before.is_visible()
    page.locator("#weight").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.locator("#activation").select_option(label="tanh")
    assert not before.is_visible()
    neuron, values = lesson.values.neuron, lesson.values
    step = neuron.step(values.Neuron((values.X,), (1.5,), values.B, values.TARGET, "tanh"), 0.1)
    shown = page.locator("div[data-key]:visible table").first.inner_text()
    assert f"{step.dL_dw[0]:+.4f}" in shown
    assert page.locator("#weight").get_attribute("aria-valuetext") == "1.5"


def test_a_page_is_accessible(exported, page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe; runs in CI")
    page.goto(exported("02").page.as_uri())
    found = axe.Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("number", NUMBERS)
def test_a_notebook_has_its_outputs(exported, number):
    notebook = json.loads(exported(number).notebook.read_text())
    cells = notebook["cells"]
    assert any("image/png" in out["data"] for cell in cells for out in cell.get("outputs", []))
    assert not any("mo.md(r" in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code = [compile("".join(cell["source"]), "cell", "exec") for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5


def test_a_label_with_a_script_in_it_stays_text(export):
    dangerous = "<script>document.title = 'pwned'</script>"
    cell = export.Cell(code=f"x = {dangerous!r}", hidden=False, output=dangerous)
    cell.frames = {(): export.shown(dangerous)}
    cell.own = [export.Control("x", "an x", [dangerous], [dangerous], 0, slides=False)]
    assert dangerous not in export.page(dangerous, [cell])


def test_too_many_choices_are_refused(export):
    import marimo as mo

    app = mo.App()

    @app.cell
    def _():
        import marimo as mo

        a = mo.ui.slider(0, 99)
        return (a,)

    @app.cell
    def _(a):
        a.value + 1
        return

    with pytest.raises(SystemExit, match="a: 100 choices in one cell, expected at most 64"):
        export.run(app)


def test_the_command_writes_what_it_is_asked_for(export, monkeypatch, capsys, tmp_path):
    written = []
    monkeypatch.setattr(export, "export", lambda path, out: written.append(path.name))
    monkeypatch.setattr("sys.argv", ["export.py", "03", "10", "--out", str(tmp_path / "pages")])
    export.main()
    assert written == ["03_why_non_linear.py", "10_convolution.py"]
    index = (tmp_path / "pages" / "index.html").read_text()
    assert all(f'href="{path.stem}.html"' in index for path in Path(export.HERE).glob("[0-9]*.py"))
    assert index.count("<li>") == 10

    monkeypatch.setattr("sys.argv", ["export.py", "99"])
    with pytest.raises(SystemExit) as stopped:
        export.main()
    assert stopped.value.code == 2
    assert "no lesson is called 99" in capsys.readouterr().err


def test_a_notebook_runs_from_top_to_bottom(exported):
    names = {}
    for cell in json.loads(exported("05").notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    plt.close("all")
    assert names["twice"] == exported("05").values.twice
