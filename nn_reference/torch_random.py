"""PyTorch's random numbers without PyTorch: what a seeded run on the CPU starts from, bit for bit.

``torch.manual_seed(s)`` seeds the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), which NumPy has as
well. What remains is how PyTorch turns its 32-bit integers r into numbers:

- a float32 u from 0 to 1 is the low 24 bits of one r, times 2^-24; a float64 the low 53 bits of two;
- it is stretched to [low, high) as ``u (high - low) + low``, rounded once (a fused multiply-add), and low
  is taken for what rounds to high;
- ``randperm(n)`` swaps the elements i and i + r mod (n - i), for i = 0, 1, ..., n - 2 (Fisher and Yates).

The multiply-add is fused where PyTorch uses the processor's instruction for it (tested: x86 with AVX-512).

::

    rng = torch_random.Generator(101)                   # torch.manual_seed(101)
    fc1 = nn.Linear(784, 120, generator=rng)            # torch.nn.Linear(784, 120)
    order = rng.randperm(60_000)                        # torch.randperm(60_000)
"""

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nn_reference._arrays import Array


class Generator:
    """The stream of random numbers that ``torch.manual_seed(seed)`` starts on the CPU."""

    def __init__(self, seed: int) -> None:
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"torch_random: seed={seed}, expected at least -2^63 and less than 2^64")
        # NumPy's other ways of seeding scramble the seed first; this one is Matsumoto's own, as torch's is.
        seeded = np.random.RandomState(seed & 0xFFFFFFFF)
        self.bit_generator = np.random.MT19937()
        self.bit_generator.state = cast(Any, seeded.get_state(legacy=False))

    def uniform(
        self, low: float, high: float, size: tuple[int, ...], dtype: npt.DTypeLike = np.float32
    ) -> Array:
        """Return what ``torch.empty(size, dtype=dtype).uniform_(low, high)`` would hold."""
        if not low <= high:
            raise ValueError(f"torch_random: {low=}, {high=}, expected low <= high")
        n = math.prod(size)
        if np.dtype(dtype) == np.float32:
            u = (self.bit_generator.random_raw(n) & (2**24 - 1)) * 2.0**-24
            low32, width32 = np.float32(low), np.float32(high) - np.float32(low)
            # float64 holds the product of two float32 exactly, and this sum too: only float32 rounds.
            drawn = (u * float(width32) + float(low32)).astype(np.float32)
            return np.where(drawn == np.float32(high), low32, drawn).reshape(size)
        if np.dtype(dtype) == np.float64:
            halves = self.bit_generator.random_raw(2 * n).reshape(n, 2)
            u = (((halves[:, 0] << 32) | halves[:, 1]) & (2**53 - 1)) * 2.0**-53
            drawn = _multiply_add(u, high - low, low)
            return np.where(drawn == high, low, drawn).reshape(size)
        raise TypeError(f"torch_random: dtype is {np.dtype(dtype)}, expected float32 or float64")

    def randperm(self, n: int) -> npt.NDArray[np.int64]:
        """Return ``torch.randperm(n)``."""
        if n < 0:
            raise ValueError(f"torch_random: n={n}, expected at least 0")
        permutation = list(range(n))
        draws = self.bit_generator.random_raw(max(n - 1, 0)) % np.arange(n, 1, -1, dtype=np.uint64)
        for i, offset in enumerate(draws.tolist()):
            j = i + offset
            permutation[i], permutation[j] = permutation[j], permutation[i]
        return np.array(permutation, np.int64)

    def normal(self, *args: object, **kwargs: object) -> Array:
        """Raise NotImplementedError: PyTorch draws these by routines of its own."""
        raise NotImplementedError("torch_random: only uniform and randperm are supported")

    random = normal  # what Dropout would draw its masks from


def _multiply_add(a: Array, b: float, c: float) -> Array:
    """Return ``a b + c`` in float64, rounded once (but for rare ties).

    What product and sum lose in rounding is computed exactly, by the formulas of Dekker (1971) and Knuth.
    """
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(np.float64(b))
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    total = product + c
    part = total - product
    lost += (product - (total - part)) + (c - part)
    return total + lost


def _halves(a: Any) -> tuple[Any, Any]:
    """Split each float64 into two of 26 bits, whose products are exact (Veltkamp 1968)."""
    shifted = a * (2.0**27 + 1)
    high = shifted - (shifted - a)
    return high, a - high
