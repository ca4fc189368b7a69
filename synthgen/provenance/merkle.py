"""Merkle trees after RFC 6962 and RFC 9162: roots, inclusion proofs and consistency proofs.

A tree is given by its leaves' hashes, 32 bytes each, one after the other in one bytes object, so that a
million leaves take 32 MB. Whole subtrees are hashed a level at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SIZE = 32
EMPTY = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256 of 0x00 and the leaf's data."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Growing:
    """The root of leaves that come one after the other, in memory that grows with the logarithm of them."""

    size: int = 0
    _peaks: list[bytes] = field(default_factory=list)  # roots of whole subtrees, the largest first

    def append(self, leaf: bytes) -> None:
        """One more leaf hash."""
        self._peaks.append(leaf)
        number = self.size
        while number & 1:
            right = self._peaks.pop()
            self._peaks.append(node_hash(self._peaks.pop(), right))
            number >>= 1
        self.size += 1

    def root(self) -> bytes:
        """The root of what was appended so far."""
        if not self._peaks:
            return EMPTY
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root of leaf hashes."""
    growing = Growing()
    for leaf in leaves:
        growing.append(leaf)
    return growing.root()


def _span(hashes: bytes, start: int, end: int) -> bytes:
    """The root of the leaves from `start` to before `end`."""
    return root_of(hashes[place * SIZE : (place + 1) * SIZE] for place in range(start, end))


def _split(size: int) -> int:
    """The largest power of two that is smaller than the size."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(hashes: bytes, index: int) -> list[bytes]:
    """The hashes that lead from a leaf to the root (RFC 9162, 2.1.3.1), the lowest first."""
    size = len(hashes) // SIZE
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_span(hashes, middle, end))
            end = middle
        else:
            proof.append(_span(hashes, start, middle))
            start = middle
    return proof[::-1]


def includes(root: bytes, size: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that the tree of that root and size has this leaf there (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(step, found)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, step)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def consistency_proof(hashes: bytes, earlier: int) -> list[bytes]:
    """The hashes that show that the first `earlier` leaves are still the same (RFC 9162, 2.1.4.1)."""
    size = len(hashes) // SIZE
    if not 0 < earlier <= size:
        raise ValueError(f"a tree of {size} has no earlier state of {earlier}")
    proof: list[bytes] = []
    start, end, whole = 0, size, True
    while start + earlier < end:  # `earlier` counts from `start`
        middle = start + _split(end - start)
        if start + earlier <= middle:
            proof.append(_span(hashes, middle, end))
            end = middle
        else:
            proof.append(_span(hashes, start, middle))
            earlier -= middle - start
            start, whole = middle, False
    if not whole:
        proof.append(_span(hashes, start, end))
    return proof[::-1]


def consistent(before: bytes, earlier: int, root: bytes, size: int, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that the tree of `size` extends the one of `earlier` (RFC 9162, 2.1.4.2)."""
    if not 0 < earlier <= size:
        return False
    if earlier == size:
        return not proof and before == root
    path = list(proof)
    if earlier & (earlier - 1) == 0:
        path.insert(0, before)
    if not path:
        return False
    node, last = earlier - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, step)
        node, last = node >> 1, last >> 1
    return last == 0 and old == before and new == root
