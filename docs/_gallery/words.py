"""What is said of a mistake, from what was measured."""

import numpy as np
from measure import Curve, Shown

from agreement.checks import CHECKERS
from agreement.mutants import Kind, Mutant
from agreement.table import ROWS


def of_training(wrong: Curve, right: list[Curve]) -> tuple[str, str]:
    """Return a word for the index, and what training does with the mistake."""
    reached, best = _last(right[0]), [_last(curve) for curve in right]
    low, high = min(best), max(best)
    others = f"{low:.1%} to {high:.1%} with {len(right)} seeds"
    if wrong.stopped:
        after = f" in epoch {len(wrong.loss) + 1}" if wrong.loss else ""
        return "stops", f"Training stops{after} with an error: `{short(wrong.stopped)}`"
    if wrong.loss == right[0].loss:
        return "no trace", "Training here does not show it at all: every figure is that of the right one."
    found = _last(wrong)
    if not np.isfinite(wrong.loss).all():
        epoch = int(np.argmin(np.isfinite(wrong.loss))) + 1
        return "diverges", f"The loss leaves all numbers in epoch {epoch}."
    if found <= 0.2:
        return "learns nothing", f"It learns nothing: {found:.1%} of the test digits, against {others}."
    if found < low - 0.005:
        lost = 100 * (np.mean(best) - found)
        word = "learns badly" if lost > 10 else "loses a little"
        return (
            word,
            f"It learns, and loses {lost:.1f} points: {found:.1%} of the test digits, against {others}.",
        )
    behind = _behind(wrong, right)
    same = f"{found:.1%} of the test digits, against {others}"
    if behind:
        return "slower", f"It gets there later: after the first epoch {behind}; in the end {same}."
    if found > high + 0.005:
        return "converges", f"It converges, here even higher: {same}. A figure like that hides the mistake."
    own = f"(the right one from the same weights: {reached:.1%})"
    return "converges", f"It converges, and nobody would notice: {same} {own}."


def _last(curve: Curve) -> float:
    """Return the mean accuracy of the last three epochs: that of one jumps."""
    return float(np.mean(curve.accuracy[-3:]))


def _behind(wrong: Curve, right: list[Curve]) -> str:
    first, others = wrong.accuracy[0], [curve.accuracy[0] for curve in right]
    return f"{first:.1%} against {min(others):.1%} to {max(others):.1%}" if first < min(others) - 0.05 else ""


def short(text: str) -> str:
    """Return a message that fits into a line."""
    text = " ".join(text.split()).replace("`", "'")
    return text if len(text) <= 150 else text[:147] + "..."


def of_tensor(shown: Shown) -> str:
    """Return in what the wrong tensor differs."""
    right, wrong = shown.right.ravel(), shown.wrong.ravel()
    if not np.isfinite(wrong).all():
        return "it is not finite"
    if not wrong.any():
        return "it is zero everywhere"
    differing = wrong != right
    norms = np.linalg.norm(right) * np.linalg.norm(wrong)
    cosine = float(right @ wrong / norms) if norms else 0.0
    size = float(np.linalg.norm(wrong) / max(np.linalg.norm(right), 1e-300))
    if cosine > 1 - 1e-9 and abs(size - 1) > 1e-6:
        return f"it points the same way and is {size:.3g} times as large"
    if cosine < -1 + 1e-9:
        return "its sign is turned" + (
            f", and it is {size:.3g} times as large" if abs(size - 1) > 1e-6 else ""
        )
    change = float(np.abs(wrong - right).max() / max(np.abs(right).max(), 1e-300))
    part = differing.mean()
    where = "" if part > 0.5 else f" in {differing.sum():,} of {right.size:,} elements"
    if change < 1e-3:
        return f"it differs by {change:.0e} of its largest value{where}"
    return f"cosine {cosine:.2f}, {size:.2f} times as large; the largest difference is {change:.0%}{where}"


_CHECKER = {
    "autograd": "comparison with autograd",
    "complex_step": "the complex step",
    "finite_differences": "finite differences",
    "one_sided": "one-sided differences at planted kinks",
    "longdouble": "float64 beside longdouble",
    "float32": "float32 beside the truth",
    "float32_sums": "float32 sums over thousands of rows beside longdouble",
    "float32_autograd": "both engines in float32 beside the truth",
}


def how_to_notice(mutant: Mutant, shown: Shown | None, effect: str) -> str:
    """Return what gives the mistake away."""
    if mutant.kind is Kind.OPTIMIZER:
        means = "One step from the same gradients, beside that of `torch.optim`: `agreement.locked_training`"
        return f"{means} compares moments, parameters and rate. No check of gradients can see it."
    if mutant.kind is Kind.NETWORK:
        means = "`agreement.first_difference` follows a step point by point and names the first that departs"
        more = "; a layer checked alone is right" if mutant.operation in ("Parameter", "Sequential") else ""
        return f"{means}{more}. Take several steps, and layers that are used twice."
    seen = [_CHECKER[c.name] for c in CHECKERS if c.claims(ROWS[mutant.operation], mutant)]
    means = f"Seen by {_listed(seen)}." if seen else ""
    if mutant.kind is Kind.KINK:
        return f"{means} Random numbers never hit the kink: plant zeros and ties."
    if mutant.kind is Kind.STATE:
        return f"{means} No gradient of this step is wrong: compare the running statistics."
    if mutant.kind is Kind.PRECISION:
        return f"{means} The mathematics is right: only digits are lost."
    if effect in ("converges", "no trace", "slower"):
        return f"{means} Not by the loss: look at the gradient itself."
    return means


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
