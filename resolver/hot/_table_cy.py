"""A name, or any of its ancestors, found in an open-addressing hash table that all workers map from one file.

A slot holds a fingerprint (u64, 0 = empty), and beside it, in arrays of their own so that a miss touches nothing else,
the number of a claim set (u32) and the place of the name in a pool (u32). The fingerprint of a name is its wire form
read as one big-endian number, modulo a prime of 55 bits, plus one. Why this hash: in plain Python it is two calls into
C (`int.from_bytes`, `%`), and in C it can be carried from each suffix to the next longer one, right to left, in one
pass.

A fingerprint that matches is never believed: the name itself is compared in the pool, so a listed name can not take a
stranger's name down with it. 8 + 4 + 4 octets a slot at a load of at most 5/6, of which lookups that miss touch the
first 8.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resolver.hot import cython_shim as cython
else:
    try:
        import cython
    except ModuleNotFoundError:
        from resolver.hot import cython_shim as cython

PRIME = 36028797018963913  # the largest prime below 2**55: an octet times a residue fits 63 bits


def fingerprint(name: bytes) -> int:
    """The number a lower-cased wire name is filed under; never 0."""
    return int.from_bytes(name, "big") % PRIME + 1


@cython.cclass
class NameTable:
    """A read-only table over three buffers of equal length and a pool of names."""

    if cython.compiled:
        fingerprints: cython.ulonglong[:]
        claim_sets: cython.uint[:]
        places: cython.uint[:]
        pool: object
    else:
        fingerprints: memoryview
        claim_sets: memoryview
        places: memoryview
        pool: memoryview
    slots: cython.ulonglong

    def __init__(self, fingerprints: memoryview, claim_sets: memoryview, places: memoryview, pool: memoryview) -> None:
        """Look into buffers that somebody else owns.

        Args:
            fingerprints: Format "Q"; at least one slot is empty, or a search would never end.
            claim_sets: Format "I".
            places: Format "I"; offsets into the pool.
            pool: Lower-cased wire names, one after another.
        """
        self.fingerprints = fingerprints
        self.claim_sets = claim_sets
        self.places = places
        self.pool = pool
        self.slots = len(fingerprints)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def find(self, name: bytes) -> int:
        """The claim set of exactly this name, or -1."""
        return self._probe(fingerprint(name), name)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.ccall
    def _probe(self, wanted: cython.ulonglong, name: bytes) -> cython.longlong:
        slot: cython.ulonglong = wanted % self.slots
        held: cython.ulonglong
        while True:
            held = self.fingerprints[slot]
            if held == 0:
                return -1
            if held == wanted:
                place = self.places[slot]
                if self.pool[place : place + len(name)] == name:
                    return self.claim_sets[slot]
            slot += 1
            if slot == self.slots:
                slot = 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def covering(self, name: bytes) -> list[tuple[int, int]]:
        """Every listed name that equals `name` or stands above it.

        Args:
            name: Lower-cased wire form, root label included.

        Returns:
            (offset, claim set) pairs, longest listed name first; `name[offset:]` is the listed name.
        """
        found: list[tuple[int, int]] = []
        i: cython.Py_ssize_t = 0
        n: cython.Py_ssize_t
        claim_set: cython.longlong
        if cython.compiled:
            starts: cython.Py_ssize_t[128]
            sums: cython.ulonglong[128]
            labels: cython.int = 0
            k: cython.int
            j: cython.Py_ssize_t
            residue: cython.ulonglong = 0
            prime: cython.ulonglong = PRIME
            weight: cython.ulonglong = 256  # 256 ** (octets already to the right); the root label adds nothing
            while i < len(name) and name[i] != 0 and labels < 128:
                starts[labels] = i
                labels += 1
                i += name[i] + 1
            n = len(name) - 1
            for k in range(labels - 1, -1, -1):
                j = n - 1
                while j >= starts[k]:
                    residue = (residue + cython.cast(cython.uchar, name[j]) * weight) % prime
                    weight = (weight << 8) % prime
                    j -= 1
                n = starts[k]
                sums[k] = residue + 1
            for k in range(labels):
                slot: cython.ulonglong = sums[k] % self.slots
                if self.fingerprints[slot] == 0:
                    continue
                claim_set = self._probe(sums[k], name[starts[k] :])
                if claim_set >= 0:
                    found.append((starts[k], claim_set))
            return found
        while (n := name[i]) != 0:
            suffix = name[i:]
            claim_set = self._probe(fingerprint(suffix), suffix)
            if claim_set >= 0:
                found.append((i, claim_set))
            i += n + 1
        return found


def slots_for(names: int) -> int:
    """How many slots a table of so many names needs: five sixths full, where a search still looks at two or three."""
    return names + names // 5 + 8


def fill(
    slots: int, names: list[bytes], claim_sets: list[int]
) -> tuple[memoryview, memoryview, memoryview, memoryview]:
    """Build the buffers of a table: (fingerprints, claim sets, places, pool).

    Args:
        slots: From `slots_for(len(names))`.
        names: Distinct lower-cased wire names.
        claim_sets: The claim set of each.
    """
    fingerprints = memoryview(bytearray(8 * slots)).cast("Q")
    sets = memoryview(bytearray(4 * slots)).cast("I")
    places = memoryview(bytearray(4 * slots)).cast("I")
    place = 0
    for name, claim_set in zip(names, claim_sets, strict=True):
        wanted = fingerprint(name)
        slot = wanted % slots
        while fingerprints[slot]:
            slot = (slot + 1) % slots
        fingerprints[slot] = wanted
        sets[slot] = claim_set
        places[slot] = place
        place += len(name)
    return fingerprints, sets, places, memoryview(b"".join(names))
