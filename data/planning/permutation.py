"""A seeded shuffle of n items in O(√n) memory.

A Feistel network over the two digits of a number in mixed radix (a, b), a·b >= n, with
modular addition; a result of n or above is permuted again until it falls below n (cycle walking;
Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002, methods 2 and 3). The round
functions are tables of random digits. Equal (n, seed) give equal orders on every machine and
Python version: `random.Random(seed).random()` is documented never to change.
"""

import math
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

_ROUND_PAIRS: Final = 3


class Permutation:
    """A pseudo-random permutation of range(n), a pure function of `n` and `seed`."""

    def __init__(self, n: int, seed: int) -> None:
        assert n >= 1, n
        self.n = n
        self._radix_a = math.isqrt(n - 1) + 1
        self._radix_b = -(-n // self._radix_a)
        # Seeded by text, so that neighbouring seeds and sizes give unrelated tables.
        digits = random.Random(f"tenfold permutation {n} {seed}").random
        self._tables = [
            (
                [int(digits() * self._radix_a) for _ in range(self._radix_b)],
                [int(digits() * self._radix_b) for _ in range(self._radix_a)],
            )
            for _ in range(_ROUND_PAIRS)
        ]

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return (self[index] for index in range(self.n))

    def __getitem__(self, index: int) -> int:
        """Return the item at position `index`; raises IndexError outside range(n)."""
        if not 0 <= index < self.n:
            raise IndexError(index)
        radix_a, radix_b, n = self._radix_a, self._radix_b, self.n
        number = index
        while True:
            a, b = divmod(number, radix_b)
            for table_a, table_b in self._tables:
                a = (a + table_a[b]) % radix_a
                b = (b + table_b[a]) % radix_b
            number = a * radix_b + b
            if number < n:
                return number

    def take(self, positions: "np.ndarray") -> "np.ndarray":
        """Return the items at `positions`, both int64 [k]."""
        import numpy as np

        assert not len(positions) or 0 <= positions.min() <= positions.max() < self.n
        tables = [(np.array(table_a), np.array(table_b)) for table_a, table_b in self._tables]
        items = positions.astype(np.int64)
        pending = np.arange(len(items))  # those that still have to fall below n
        while len(pending):
            a, b = np.divmod(items[pending], self._radix_b)
            for table_a, table_b in tables:
                a = (a + table_a[b]) % self._radix_a
                b = (b + table_b[a]) % self._radix_b
            items[pending] = a * self._radix_b + b
            pending = pending[items[pending] >= self.n]
        return items
