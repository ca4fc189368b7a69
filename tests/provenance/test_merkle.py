"""The trees are those of RFC 9162: its recursive definitions, and its own numbers, against ours."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.provenance.merkle import (
    EMPTY,
    Growing,
    consistency_proof,
    consistent,
    includes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
)

LEAVES = [leaf_hash(b"%d" % number) for number in range(70)]


def head(leaves: list[bytes]) -> bytes:
    """MTH(D[n]), as section 2.1.1 defines it."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaves[0]
    k = max(2**i for i in range(7) if 2**i < len(leaves))
    return node_hash(head(leaves[:k]), head(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]), as section 2.1.3.1 defines it."""
    if len(leaves) == 1:
        return []
    k = max(2**i for i in range(7) if 2**i < len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), head(leaves[k:])]
    return [*path(m - k, leaves[k:]), head(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b), as section 2.1.4.1 defines it."""
    if m == len(leaves):
        return [] if whole else [head(leaves)]
    k = max(2**i for i in range(7) if 2**i < len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), head(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), head(leaves[:k])]


def test_hashes_that_are_published() -> None:
    """SHA-256 of nothing, of one zero byte, and of the well-known tree of two such leaves."""
    assert EMPTY.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    # the tree of certificate transparency's own test data
    data = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    hashes = [leaf_hash(bytes.fromhex(each)) for each in data]
    assert root_of(hashes).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("size", range(len(LEAVES)))
def test_roots_and_proofs_are_those_of_the_rfc(size: int) -> None:
    leaves = LEAVES[:size]
    hashes = b"".join(leaves)
    root = root_of(leaves)
    assert root == head(leaves)
    growing = Growing()
    for place, leaf in enumerate(leaves):
        assert growing.root() == head(leaves[:place])
        growing.append(leaf)
        proof = inclusion_proof(hashes, place)
        assert proof == path(place, leaves)
        assert len(proof) <= math.ceil(math.log2(size)) if size > 1 else not proof
        assert includes(root, size, place, leaf, proof)
    for earlier in range(1, size + 1):
        proof = consistency_proof(hashes, earlier)
        assert proof == subproof(earlier, leaves, True)
        assert consistent(head(leaves[:earlier]), earlier, root, size, proof)
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(hashes, size)
    for earlier in (0, size + 1):
        with pytest.raises(ValueError, match="no earlier state"):
            consistency_proof(hashes, earlier)


@given(st.data())
def test_no_other_leaf_place_size_or_root_passes(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    hashes = b"".join(LEAVES[:size])
    root = root_of(LEAVES[:size])
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(hashes, index)
    leaf = LEAVES[index]
    other = data.draw(st.integers(0, len(LEAVES) - 1).filter(lambda place: place != index))
    assert not includes(root, size, index, LEAVES[other], proof)
    assert not includes(root, size, other, leaf, proof)
    assert not includes(leaf_hash(root), size, index, leaf, proof)
    assert not includes(root, size, index, leaf, [*proof, root])
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        assert not includes(root, size, index, leaf, [*proof[:place], leaf_hash(b"x"), *proof[place + 1 :]])
        assert not includes(root, size, index, leaf, proof[:-1])


@given(st.data())
def test_no_other_history_passes(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, len(LEAVES)))
    earlier = data.draw(st.integers(1, size - 1))
    leaves = LEAVES[:size]
    changed = list(leaves)
    changed[data.draw(st.integers(0, earlier - 1))] = leaf_hash(b"changed")
    proof = consistency_proof(b"".join(changed), earlier)
    assert consistent(root_of(changed[:earlier]), earlier, root_of(changed), size, proof)
    assert not consistent(root_of(leaves[:earlier]), earlier, root_of(changed), size, proof)
    true = consistency_proof(b"".join(leaves), earlier)
    before, root = root_of(leaves[:earlier]), root_of(leaves)
    assert not consistent(before, earlier, root, size, true[:-1])
    assert not consistent(before, earlier, root, size, [*true, root])
    assert not consistent(before, earlier, leaf_hash(root), size, true)
    assert not consistent(before, size, root, size, true)
