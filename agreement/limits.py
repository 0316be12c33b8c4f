"""How far two correct engines may be apart in a tensor, where rounding does more than usual."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agreement.measures import TensorAgreement, backward_limit, unit_roundoff

Array = npt.NDArray[Any]

# Two tensors further apart than this, if rounding allows it, are neither right nor wrong.
UNDECIDED = 1e-2


@dataclass(frozen=True)
class Limit:
    """How far two engines may be apart in one tensor: ``error`` times its largest value, or ``absolute``.

    The second is 0 but where rounding alone does more than the first allows; ``reason`` then says so.
    ``zero`` marks a tensor that is zero but for rounding, of which no digit need be right.
    """

    error: float
    absolute: float = 0.0
    reason: str = ""
    zero: bool = False

    def apply(self, row: TensorAgreement) -> TensorAgreement:
        """Return the row with this limit, as a share of its largest value."""
        limit = self.error
        if np.isfinite(self.absolute) and np.isfinite(row.largest_value) and row.largest_value:
            limit = max(limit, self.absolute / row.largest_value)
        return replace(row, limit=float(limit))

    def undecided(self, row: TensorAgreement) -> str:
        """Say, of a row within this limit, if that proves nothing; "" if it does.

        Within 1 % the engines agree, whatever rounding may do. Beyond it, in float32, a reference that is
        within 1 % of autograd in float64 is right; else a gradient of zero would pass as well.
        """
        if not row.agrees or self.zero or row.error <= UNDECIDED:
            return ""
        if row.dtype == "float32" and row.reference_error is not None and row.reference_error <= UNDECIDED:
            return ""
        advice = "use float64" if row.dtype == "float32" else "use other inputs"
        return (
            f"{row.name} is undecided: rounding alone may change it by {row.limit:.1g} of its largest value, "
            f"and the two are {row.error:.2g} apart; {advice}"
        )


def conditioned_limits(
    expected: Mapping[str, Array],
    moved: Sequence[Mapping[str, Array]],
    dtype: npt.DTypeLike,
    loss: float = 1.0,
    values: Sequence[str] = ("output",),
    other: Mapping[str, Array] | None = None,
    factor: float | None = None,
) -> dict[str, Limit]:
    """Return the limit of each tensor: `backward_limit`, but where rounding alone does more.

    In float64 the limit is 8 u / loss where the loss is so small (below 9e-4) that this is above 1e-12.

    ``moved`` are the same tensors for inputs and weights one ulp away; ``values`` are the names of those that
    are no gradients; ``other`` is what autograd finds in the other precision, float64 for float32 and float32
    for float64.

    Autograd's own rounding is allowed twice, once for each engine: in float32 its distance from float64, in
    float64 16 times the part of that distance that the finer u leaves. (At a small loss it is the gradient at
    the label, p - 1, that is lost; no mistake of the reference's has a part in it.) And ``factor`` times what
    an ulp changes is allowed, if None 32 times, or 8 times where in float32 that is no more than 16 u.
    Where it changes the tensor beyond its third digit, the tensor is what rounding leaves of zero (the
    gradient of a bias before BatchNorm), and it need only be as small as such remains are: 64 u of the
    largest gradient of all.
    """
    u = unit_roundoff(dtype)
    usual = max(backward_limit(dtype, loss), 8 * u / loss if u < 1e-10 and loss > 0 else 0.0)
    gradients = [name for name in expected if name not in values]
    largest = max((float(np.abs(expected[name]).max(initial=0)) for name in gradients), default=0.0)
    single = u > 1e-10
    share = 1.0 if single else 16 * u / unit_roundoff(np.float32)
    limits = {}
    for name, value in expected.items():
        scale = float(np.abs(value).max(initial=0))
        changed = max((float(np.abs(control[name] - value).max(initial=0)) for control in moved), default=0.0)
        own = 0.0 if other is None else share * float(np.abs(value - other[name]).max(initial=0))
        own = own if np.isfinite(own) else 0.0
        limits[name] = Limit(usual)
        well = single and changed <= 16 * u * scale
        noise = changed * (factor or (8.0 if well else 32.0))
        if not np.isfinite(noise) or not np.isfinite(scale):
            continue
        vanished = not largest and other is not None and any(np.any(other[n]) for n in gradients)
        if name in gradients and changed >= 1e-3 * scale and scale <= 1e-3 * largest and not vanished:
            reason = "zero but for rounding: one ulp in the inputs changes all of its digits"
            limits[name] = Limit(
                usual, max(noise, 64 * u * largest) + own, reason if scale else "", zero=True
            )
        elif scale or vanished:
            limits[name] = Limit(usual, max(noise, usual * scale, own) + own)
    return limits
