"""Random numbers by address: pure functions of a seed, a purpose and an index."""

import hashlib

import numpy as np


def generator(seed, purpose, *index):
    """A NumPy generator that is a pure function of its address, whatever was drawn before or elsewhere.

    Philox is counter-based (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011): `seed` and
    `purpose` (a word such as "noise") make its key, up to three integers of `index` its counter; each address has
    2^64 blocks of numbers of its own.
    """
    if len(index) > 3:
        raise ValueError(f"an address has at most three integers, not {len(index)}")
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest(), "little")
    counter = sum(int(value) << (64 * place) for place, value in enumerate(index, start=1))
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
