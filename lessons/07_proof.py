"""Lesson 7: how to prove a gradient right, and what floating point does to the proof."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="7. Proof: finite differences, complex step, autograd")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 7. Proof: finite differences, complex step, autograd

    A network with a wrong gradient often learns, only worse. Nothing crashes. So a gradient must be
    *proven*, and there are three independent witnesses: differences, which need only the forward; the
    complex step, which is a difference without a subtraction; and autograd. This lesson measures how much
    each can tell, and shows how a careless check lets wrong gradients pass.
    """)
    return


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    import torch

    import agreement
    import nn_reference as nn
    from agreement import checks, mutants
    from agreement.table import ROWS
    from nn_reference import softmax

    return ROWS, agreement, checks, mo, mutants, nn, np, plt, softmax, torch


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Numbers with 53 bits

    A `float64` has 53 binary digits, a `float32` 24. Every result is rounded to the nearest number that
    there is; the relative error is at most the **unit roundoff** $u = 2^{-53}$ or $2^{-24}$.
    """)
    return


@app.cell
def _(agreement, np):
    u64, u32 = agreement.unit_roundoff(np.float64), agreement.unit_roundoff(np.float32)
    tenth = 0.1 + 0.2
    tenth, u64, u32
    return u32, u64


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Two consequences. Two *correct* programs that add in a different order give results that differ in the
    last digits: never compare with `==`. And a small difference of two large numbers has few correct
    digits: **cancellation**.

    ## Finite differences

    $$f'(x) \approx \frac{f(x+h) - f(x)}{h} \quad\text{(one-sided)}$$

    $$f'(x) \approx \frac{f(x+h) - f(x-h)}{2h} \quad\text{(central)}$$

    Smaller $h$ means a better formula: its error falls as $h$, or as $h^2$ for the central one. But the
    numerator is a difference of nearly equal numbers: its rounding error $u$ is divided by $h$. There is a
    best $h$, and it is not tiny. Choose a function and see.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    function = mo.ui.dropdown(["exp", "tanh", "sin", "log"], value="tanh", label="function")
    function
    return (function,)


@app.cell
def _(np):
    derivatives = {
        "exp": np.exp,
        "tanh": lambda x: 1 - np.tanh(x) ** 2,
        "sin": np.cos,
        "log": lambda x: 1 / x,
    }
    hs = 10.0 ** -np.arange(0, 17, 0.5)

    def errors(name, dtype=np.float64):
        """Return the relative errors at x = 0.7 of one-sided and central differences and the complex step."""
        f, x = getattr(np, name), dtype(0.7)
        truth = float(derivatives[name](np.longdouble(x)))
        found = {"one-sided": [], "central": [], "complex step": []}
        for h in hs.astype(dtype):
            found["one-sided"].append((f(x + h) - f(x)) / h)
            found["central"].append((f(x + h) - f(x - h)) / (2 * h))
            found["complex step"].append(np.imag(f(x + 1j * h)) / h)
        return {way: np.abs(np.array(values, float) / truth - 1) for way, values in found.items()}

    return errors, hs


@app.cell(hide_code=True)
def _(errors, function, hs, np, plt):
    with np.errstate(all="ignore"):
        _found = errors(function.value)
    valley, _axes = plt.subplots(figsize=(6.8, 3.4), layout="constrained")
    for (_way, _error), _marker in zip(_found.items(), "osv", strict=True):
        _axes.loglog(hs, np.maximum(_error, 1e-17), marker=_marker, markersize=4, label=_way)
    _axes.set(
        xlabel="step h",
        ylabel="relative error",
        ylim=(5e-18, 10),
        title=f"derivative of {function.value} at 0.7",
    )
    _axes.invert_xaxis()
    _axes.legend()
    valley
    return


@app.cell
def _(errors, hs, np):
    with np.errstate(all="ignore"):
        _found = errors("tanh")
    best = {way: (float(hs[error.argmin()]), float(error.min())) for way, error in _found.items()}
    return (best,)


@app.cell(hide_code=True)
def _(best, mo, u64):
    mo.md(
        "| way | best h for tanh | smallest error | theory: best h |\n| --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {way} | {h:.0e} | {error:.0e} | {theory} |"
            for (way, (h, error)), theory in zip(
                best.items(),
                (f"√u = {u64**0.5:.0e}", f"∛u = {u64 ** (1 / 3):.0e}", "any small enough"),
                strict=True,
            )
        )
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## The complex step

    For a function that can be computed with complex numbers, step *sideways*:

    $$f(x + i h) = f(x) + i h f'(x) - \tfrac{h^2}{2} f''(x) - \dots$$

    $$f'(x) \approx \frac{\text{Im}\, f(x + ih)}{h}$$

    Nothing is subtracted, so nothing cancels: $h = 10^{-20}$ is fine and the derivative is exact to the
    last digit. It needs an analytic forward (no `abs`, no comparison of values that depend on $x$). All of
    `nn_reference` runs in complex numbers for this reason.

    ## Autograd, and a limit that means something

    `agreement.compare` runs a hand-written layer and PyTorch's on the same random numbers, with a random
    upstream gradient:
    """)
    return


@app.cell
def _(agreement, nn, np, torch):
    linear_report = agreement.compare(
        nn.Linear(7, 5, dtype=np.float64, generator=np.random.default_rng(0)), torch.nn.Linear(7, 5), (4, 7)
    )
    str(linear_report)
    return (linear_report,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    The error is the **largest difference over the largest value** of a tensor. Why not `np.allclose`?
    Because its absolute tolerance of $10^{-8}$ passes every gradient that is small enough, even one that is
    entirely zero:
    """)
    return


@app.cell
def _(agreement, np):
    right = np.array([3e-9, -5e-9, 8e-9])  # small gradients are normal: a well-trained network has them
    nothing = np.zeros(3)
    fooled = np.allclose(nothing, right)
    relative_error = agreement.compare_tensors("gradient", nothing, right).error
    fooled, relative_error
    return fooled, relative_error


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## How a check goes blind

    The quickest check calls `.sum()` on the output and compares gradients. For softmax the sum of the
    outputs is always 1; its gradient is 0, and a backward that returns *nothing* passes. With a random
    upstream gradient it is caught.
    """)
    return


@app.cell
def _(agreement, np, softmax):
    def no_backward(cache, grad_y):
        """Return no gradient at all."""
        return np.zeros_like(grad_y)

    _z = np.random.default_rng(0).normal(size=(3, 5))
    _, _cache = softmax.forward(_z, 1)
    by_sum = float(np.abs(softmax.backward(_cache, np.ones((3, 5)))).max())  # what is right for .sum()

    caught = agreement.check_gradients((lambda x: softmax.forward(x, 1), no_backward), [(3, 5)])
    by_sum, caught.agrees
    return by_sum, caught


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Other blind spots: a batch of one (a forgotten sum over the batch does not show), square weights (a
    forgotten transpose does not show), and positive numbers only (a wrong ReLU does not show).

    ## Who checks the checks?

    A check is worth as much as the mistakes that it catches. `agreement.mutants` is a library of wrong
    backwards, each with one mistake that people make. Choose one; the checks run on the engine with that
    mistake planted.
    """)
    return


@app.cell
def _(mutants):
    rows = ("Linear", "Sigmoid", "Tanh", "ReLU", "Softmax", "CrossEntropyLoss", "BatchNorm1d", "Conv2d")
    shown = {}
    for _mutant in mutants.OPERATIONS:
        if _mutant.operation in rows and "float64" in _mutant.shows_in:
            shown.setdefault(_mutant.operation, _mutant)
    shown = {mutant.name: mutant for mutant in shown.values()}
    len(mutants.ALL), list(shown)
    return (shown,)


@app.cell(hide_code=True)
def _(mo, shown):
    mistake = mo.ui.dropdown(list(shown), value=next(iter(shown)), label="planted mistake")
    mistake
    return (mistake,)


@app.cell
def _(ROWS, checks, shown):
    def caught_by(mutant):
        """Return the worst error that each check finds with the mistake planted, if it finds one."""
        for seed in range(3):  # an example may hide it: a 1x1 kernel cannot be flipped
            with mutant.planted():
                found = checks.check(ROWS[mutant.operation], seed)
            wrong = {name: [t for t in tensors if not t.agrees] for name, tensors in found.items()}
            if any(wrong.values()):
                break
        return {name: max(t.error for t in tensors) for name, tensors in wrong.items() if tensors}

    catches = {name: caught_by(mutant) for name, mutant in shown.items()}
    return (catches,)


@app.cell(hide_code=True)
def _(catches, mistake, mo, shown):
    _mutant = shown[mistake.value]
    mo.md(
        f"**The mistake:** {_mutant.mistake}\n\n"
        f"- right: `{_mutant.right}`\n- wrong: `{_mutant.wrong}`\n\n"
        "| check | error found |\n| --- | --- |\n"
        + "\n".join(
            f"| {name.replace('_', ' ')} | {f'{error:.1e}' if error < 1e9 else 'a value where 0 was due'} |"
            for name, error in catches[mistake.value].items()
        )
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## In float32

    Training runs in `float32`, with 7 decimal digits. Two correct engines then differ visibly, the more the
    better the network is: at the label the gradient is $p_y - 1$, and when $p_y$ is nearly 1, PyTorch
    subtracts two nearly equal numbers. `nn_reference` adds up the *other* probabilities instead, which
    cancels nothing. The truth is
    the same computation in `longdouble`:
    """)
    return


@app.cell
def _(agreement, nn, np, torch):
    def errors_of_label(lead):
        """Return the relative errors of the label's gradient, ours and PyTorch's, for its lead."""
        z = np.zeros((1, 10), np.float32)
        z[0, 0] = lead
        criterion, found = nn.CrossEntropyLoss(), []
        for x in (z.astype(np.longdouble), z):
            criterion(x, np.array([0]))
            found.append(criterion.backward()[0, 0])
        t = torch.tensor(z, requires_grad=True)
        torch.nn.CrossEntropyLoss()(t, torch.tensor([0])).backward()
        truth, ours = found
        return [
            agreement.error_against(np.array([truth]), np.array([g])) for g in (ours, t.grad.numpy()[0, 0])
        ]

    float32_errors = {lead: errors_of_label(lead) for lead in (0, 4, 8, 12, 16, 20)}
    return (float32_errors,)


@app.cell(hide_code=True)
def _(float32_errors, mo):
    mo.md(
        "| lead of the right score | error of `nn_reference` | error of PyTorch |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| {lead} | {ours:.0e} | {theirs:.0e} |" for lead, (ours, theirs) in float32_errors.items()
        )
        + "\n\nSo a check in float32 has to allow $u\\,(16 + 1/\\text{loss})$, and "
        "a proof is best made in float64, where "
        "$10^{-12}$ is generous. `docs/agreement.md` derives these limits."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Exercise

    Here is a layer that takes the mean of each row and subtracts it. Its backward looks plausible, it even
    has the right shape, and a network with it would learn. Find the mistake. (Each output depends on
    *every* input of its row, through the mean: two paths.)
    """)
    return


@app.cell
def _():
    def forward(x):
        """Return x (N, C) minus the mean of each row; backward needs nothing."""
        return x - x.mean(1, keepdims=True), None

    def backward(cache, grad_y):
        """Return the gradient of x. Your turn."""
        return grad_y * (1 - 1 / grad_y.shape[1])

    return backward, forward


@app.cell
def _(agreement, backward, forward):
    verdict = agreement.check_gradients((forward, backward), [(4, 6)])
    str(verdict)
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    To prove code of your own: `agreement.compare` and `agreement.check_gradients` take any object or pair
    of functions with a forward and a backward (`docs/own-scripts.md`). `chainrule grade NAME FILE` does so
    for all exercises of these lessons.
    """)
    return


if __name__ == "__main__":
    app.run()
