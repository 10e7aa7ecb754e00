"""A seeded order of any number of rows without a table: the n-th row is worked out from n alone."""

import hashlib

import numpy as np

FEISTEL_ROUNDS = 4


def shuffled_rows(seed: int, numbers: np.ndarray, num_rows: int) -> np.ndarray:
    """Return the row that the n-th read visits, for running numbers n of any size (uint64).

    Each block of `num_rows` numbers (an epoch) visits every row once, each in another order.
    """
    epochs, positions = np.divmod(numbers, np.uint64(num_rows))
    rows = np.empty_like(positions)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        rows[mine] = permute(positions[mine], num_rows, f"{seed}/{int(epoch)}")
    return rows


def permute(positions: np.ndarray, size: int, key: str) -> np.ndarray:
    """Return a bijection of [0, size) drawn by `key`, applied to each of `positions`.

    Reference: Feistel network with cycle walking (Black and Rogaway, 2002): a permutation of the
    next power of four, repeated for values that fall outside.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    digest = hashlib.sha256(key.encode()).digest()
    keys = np.frombuffer(digest, dtype="<u8")[:FEISTEL_ROUNDS]
    out = positions.astype(np.uint64)
    todo = np.ones(len(out), dtype=bool)
    while todo.any():
        left, right = out[todo] >> half, out[todo] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        out[todo] = (left << half) | right
        todo &= out >= size
    return out


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words (the finaliser of SplitMix64, Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
