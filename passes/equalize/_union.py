"""Groups of labels whose factors are equal, or the inverse of each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SignedUnion"]


class SignedUnion:
    """Disjoint sets in which every member has the sign +1 or -1 relative to its set's root.

    ``factor(label) = factor(root) ** sign(label)``.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._sign: list[int] = []
        self._broken: list[int] = []

    def grow(self, count: int) -> None:
        """Have at least so many labels, each alone at first."""
        self._parent.extend(range(len(self._parent), count))
        self._sign.extend([1] * (count - len(self._sign)))

    def find(self, label: int) -> tuple[int, int]:
        """The root of a label and its sign relative to it."""
        path = []
        while self._parent[label] != label:
            path.append(label)
            label = self._parent[label]
        sign = 1
        for item in reversed(path):
            sign *= self._sign[item]
            self._parent[item], self._sign[item] = label, sign
        return label, sign if path else 1

    def tie(self, one: NDArray[np.int64], two: NDArray[np.int64], *, inverse: bool) -> None:
        """Let the factors of labels be equal, or the inverse of each other, pair by pair."""
        wanted = -1 if inverse else 1
        for first, second in dict.fromkeys(zip(one.tolist(), two.tolist(), strict=True)):
            (root, sign), (other, other_sign) = self.find(first), self.find(second)
            if root == other:
                if sign * other_sign != wanted:
                    self._broken.append(root)
                continue
            self._parent[other], self._sign[other] = root, sign * other_sign * wanted

    def contradictions(self) -> list[int]:
        """Labels whose factor would have to be its own inverse."""
        roots = {self.find(item)[0] for item in self._broken}
        return [label for label in range(len(self._parent)) if self.find(label)[0] in roots] if roots else []
