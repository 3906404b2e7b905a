"""Orthogonal matrices that spread what a few channels hold over all of them.

A Hadamard matrix has entries ``±1`` and orthogonal rows. Sylvester: ``H_2n = [[H, H], [H, -H]]``. Paley: with
``chi`` the quadratic character modulo a prime ``q`` and ``Q[i, j] = chi(i - j)``, there is one of size ``q + 1`` where
``q`` is 3 modulo 4, and one of size ``2 (q + 1)`` where ``q`` is 1 modulo 4 (Paley, "On orthogonal matrices", 1933).
Kronecker products of both give every size that transformers have; where there is none, blocks of the largest size that
divides it are set along the diagonal.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["hadamard", "keeping_ones", "principal", "random_hadamard"]

_Floats = NDArray[np.float64]
_LARGEST: Final = 512
"""Largest factor that is looked for among Paley's."""


def hadamard(size: int) -> _Floats:
    """Orthonormal Hadamard matrix, or blocks of the largest one whose size divides ``size``."""
    block = next(part for part in range(size, 0, -1) if size % part == 0 and _exists(part))
    signs = _signs(block)
    return np.kron(np.eye(size // block), signs / np.sqrt(block))


def random_hadamard(size: int, seed: int) -> _Floats:
    """A Hadamard matrix whose rows have random signs: ``diag(±1) H``."""
    signs = np.random.default_rng([seed, size]).choice([-1.0, 1.0], size)
    return signs[:, None] * hadamard(size)


def principal(moment: _Floats) -> _Floats:
    """Eigenvectors of a matrix of second moments as columns, largest first (Karhunen-Loeve); signs are fixed."""
    _, vectors = np.linalg.eigh((moment + moment.T) / 2)
    vectors = vectors[:, ::-1]
    strongest = vectors[np.abs(vectors).argmax(0), np.arange(len(vectors))]
    found: _Floats = vectors * np.where(strongest < 0, -1.0, 1.0)
    return found


def keeping_ones(matrix: _Floats) -> _Floats:
    """The orthogonal matrix behind one reflection, so that a vector of ones stays what it is.

    LayerNormalization takes the mean out. ``mean(x Q) = mean(x)`` for all ``x``, and the rest turns as a whole, exactly
    where ``Q 1 = 1``. With ``e = 1 / sqrt(n)`` and ``a = Q e``, the Householder reflection along ``a - e`` takes ``a``
    to ``e``: of rank 1, it leaves the matrix as spread out as it was.
    """
    ones = np.full(len(matrix), 1 / np.sqrt(len(matrix)))
    along = matrix @ ones - ones
    length = float(along @ along)
    if length < 1e-24:
        return matrix
    return matrix - (2 / length) * np.outer(along, along @ matrix)


def _exists(size: int) -> bool:
    while size % 2 == 0 and size > 2 and not _paley(size):
        size //= 2
    return size <= 2 or _paley(size) > 0


def _paley(size: int) -> int:
    """The prime from which Paley builds this size; 0 where there is none."""
    if size % 4 or size > _LARGEST:
        return 0
    for prime, residue in ((size - 1, 3), (size // 2 - 1, 1)):
        if prime % 4 == residue and _is_prime(prime):
            return prime
    return 0


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _signs(size: int) -> _Floats:
    if size == 1:
        return np.ones((1, 1))
    if size & (size - 1) and (prime := _paley(size)):
        return _paley_signs(prime, size)
    return np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), _signs(size // 2))


def _paley_signs(prime: int, size: int) -> _Floats:
    squares = {(number * number) % prime for number in range(1, prime)}
    character = np.array([0.0, *(1.0 if number in squares else -1.0 for number in range(1, prime))])
    index = np.arange(prime)
    core = np.zeros((prime + 1, prime + 1))
    core[1:, 1:] = character[(index[:, None] - index[None, :]) % prime]
    core[0, 1:] = 1.0
    core[1:, 0] = -1.0 if prime % 4 == 3 else 1.0
    if size == prime + 1:
        return np.eye(size) + core
    return np.kron(core, np.array([[1.0, 1.0], [1.0, -1.0]])) + np.kron(
        np.eye(prime + 1), np.array([[1.0, -1.0], [-1.0, -1.0]])
    )
