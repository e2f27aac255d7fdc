"""Random numbers as pure functions of an address: a seed, a purpose and an index."""

import hashlib

import numpy as np


def rng(seed, purpose, *index):
    """NumPy random numbers that depend only on the address, not on other random numbers drawn before.

    Philox is a counter-based method (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011). Its key
    comes from `seed` and `purpose` (a word such as "noise"). Its counter comes from `index`, up to three integers. Each
    address has its own 2^64 blocks of numbers.
    """
    if len(index) > 3:
        raise ValueError(f"an address has at most three integers, not {len(index)}")
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest(), "little")
    counter = sum(int(value) << (64 * place) for place, value in enumerate(index, start=1))
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
