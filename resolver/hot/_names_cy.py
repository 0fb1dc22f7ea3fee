"""A name, or any of its ancestors, found among millions in a table that all workers map from one file.

Sections, in file order, for n names in b buckets (b is odd, about a quarter of n):

```
key       24 octets      prime u64le, seed 16 octets: both drawn from a digest of all the names
marks     4 a bucket     u32; each name of the bucket sets three bits or fewer
starts    4 a bucket     u32[b + 1]; the records of bucket i are those from starts[i] up to starts[i + 1]
records   14 a name      tag 1, digest 9, claim set u32le; bucket after bucket
pool      wire names     sorted, one after another
```

That is 15.92 octets a name beside the pool, which only `listed` reads, so that it never is in a worker's memory. Most
look-ups miss, and of those 95 in 100 end at `marks`, one octet a name: little memory has to be near, so that a longer
list costs little. Nanoseconds for a whole name of four labels, at random over all of the table; `screen` with 64
names of five labels, one of them listed:

```
names                        1,000   100,000   1,000,000   10,000,000
compiled, nothing listed        75        80          95          140
compiled, one label listed     350       370         440          540
compiled, screen               125       135         180          235
plain, nothing listed          990     1,060       1,050        1,280
plain, one label listed      1,920     1,960       2,130        2,570
```

The fingerprint of a name is its wire form read as one big-endian number, modulo the prime, which has 30 bits. In plain
Python that is one `&` and one `%` a label, in C one pass over the whole name. It chooses the bucket, the bits of the
mark and the tag, and is never believed: what counts is the digest, 72 bits of BLAKE2s (RFC 7693) over the whole name.

**Two names are not confused.** A stranger is taken for a listed name only where a record of its bucket has its tag and
its digest.

- By chance that is 4.2 records * 2**-80 = 2**-78 a label. A million questions a second, five labels each and none ever
  asked twice, are 2**47 a year: one confusion in two thousand million years. Memory hands out a wrong octet sooner,
  which no comparison of names would survive either.
- By craft the fingerprint is easily met, the digest is not: a second preimage takes 2**72 computations. The seed that
  salts the digest is itself a digest of all listed names, so no name can be prepared for a list that it is not yet on:
  a name that enters a list to take a stranger down changes the seed as it enters.
- Two listed names of one digest, so that one is judged by the claims of the other, are 2**-56 likely among ten million.
- Nor can a list be stuffed with names of one bucket, to make look-ups slow: where a bucket holds more than `DEEPEST`,
  another seed is taken.

This file has so many lines because a look-up has two bodies, and the compiled one its own BLAKE2s: C functions of a
second module could not be called without objects in between.
"""

import hashlib
import struct
from array import array
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resolver.hot import cython_shim as cython
else:
    try:
        import cython
    except ModuleNotFoundError:
        from resolver.hot import cython_shim as cython

    if cython.compiled:
        from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
        from cython.cimports.libc.string import memcpy, memset

SECTIONS = ("key", "marks", "starts", "records", "pool")

SCREENED = 64  # names that `NameTable.screen` looks up at one time
SCREENED_OCTETS = 256  # room for one of them
SCREENED_LABELS = 16  # of a name with more of them nothing is found by `screen`
SCREENED_WORDS = 4  # of what it is told and tells of one of them: size; offset, claim set, listed names that cover it

DEEPEST = 40  # names in a bucket; among ten million names the fullest has about twenty
_SEEDS = 8  # how many are tried before a deep bucket is put up with: it costs time, never truth
_KEY = struct.Struct("<Q16s")
_RECORD = struct.Struct("<B9sI")
_EVIDENCE = 10  # octets of a record that must match: tag and digest
_LEAST_PRIME, _PRIME_LIMIT = 15 << 26, 1 << 30  # so that the bits of a fingerprint are about equally often set
# BLAKE2s (RFC 7693 §2.6, §2.7) for the compiled build, where an object for each digest would cost more than the digest,
# and where those of four names are made side by side.
_INITIAL = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
_SIGMA = bytes.fromhex(
    "000102030405060708090a0b0c0d0e0f0e0a0408090f0d06010c00020b0705030b080c0005020f0d0a0e030607010904"
    "070903010d0c0b0e0206050a04000f080900050702040a0f0e010b0c0608030d020c060a000b0803040d07050f0e0109"
    "0c05010f0e0d040a000706030902080b0d0b070e0c01030905000f040806020a060f0e090b0300080c020d0701040a05"
    "0a020804070601050f0b090e030c0d00"
)
_TAGS = tuple(bytes((tag,)) for tag in range(256))
_SUFFIX_MASKS = tuple((1 << 8 * octets) - 1 for octets in range(256))


def _mark(top: int) -> int:
    spread = top * 0x9E3779B1 & 0xFFFFFFFF
    return 1 << (spread >> 27) | 1 << (spread >> 22 & 31) | 1 << (spread >> 17 & 31)


_MARKS = tuple(_mark(top) for top in range(1024))  # by the upper ten bits of a fingerprint


def build(names: Mapping[bytes, int], deepest: int = DEEPEST) -> dict[str, memoryview]:
    """Lay out a table.

    Args:
        names: Lower-cased wire names, each with the number of its claim set (u32). Their order does not matter.
        deepest: Names in a bucket that are not thought too many.

    Returns:
        The octets of each section.
    """
    ordered = sorted(names)
    pool = b"".join(ordered)
    content = hashlib.blake2b(pool, digest_size=32).digest()
    buckets = len(ordered) * 6 // 25 | 1  # odd: numbers of short names are multiples of 256
    fingerprints = array("I")
    starts = array("I")
    for attempt in range(_SEEDS):
        seed = hashlib.blake2b(content, digest_size=16, salt=attempt.to_bytes(16, "little")).digest()
        prime = _prime_from(seed)
        fingerprints = array("I", [int.from_bytes(name, "big") % prime for name in ordered])
        starts = array("I", bytes(4 * (buckets + 1)))
        for fingerprint in fingerprints:
            starts[fingerprint % buckets + 1] += 1
        if max(starts) <= deepest:
            break
    starts = array("I", accumulate(starts))
    cursors = starts[:-1]
    marks = array("I", bytes(4 * buckets))
    records = bytearray(_RECORD.size * len(ordered))
    salted = _salted(seed)
    for name, fingerprint in zip(ordered, fingerprints, strict=True):
        bucket = fingerprint % buckets
        marks[bucket] |= _MARKS[fingerprint >> 20]
        place = cursors[bucket]
        cursors[bucket] = place + 1
        digest = salted.copy()
        digest.update(name)
        _RECORD.pack_into(records, _RECORD.size * place, fingerprint >> 12 & 255, digest.digest(), names[name])
    laid_out: tuple[bytes | bytearray, ...] = (_KEY.pack(prime, seed), marks.tobytes(), starts.tobytes(), records, pool)
    return {section: memoryview(octets) for section, octets in zip(SECTIONS, laid_out, strict=True)}


def listed(sections: Mapping[str, memoryview]) -> Iterator[bytes]:
    """Every listed name, wire form, sorted.

    Raises:
        ValueError: The pool is cut short.
    """
    pool = sections["pool"]
    start = i = 0
    while i < len(pool):
        octets = pool[i]
        i += octets + 1
        if not octets:
            yield bytes(pool[start:i])
            start = i
    if start < len(pool):
        raise ValueError("the pool of names ends within a name")


def screens() -> bool:
    """Whether this build has `NameTable.screen`."""
    return bool(cython.compiled)


def _salted(seed: bytes) -> "hashlib.blake2s":
    """The digest of a name before the name: copying it is cheaper than making it anew."""
    return hashlib.blake2s(digest_size=_EVIDENCE - 1, salt=seed[:8], person=seed[8:])


def _prime_from(seed: bytes) -> int:
    candidate = _LEAST_PRIME + int.from_bytes(seed[:8], "big") % (_PRIME_LIMIT - _LEAST_PRIME - 1000) | 1
    while not _is_prime(candidate):
        candidate += 2
    return candidate


def _is_prime(n: int) -> bool:
    """Miller and Rabin's test of an odd n; four bases settle it for all below 3,215,031,751."""
    twos = (n - 1 & 1 - n).bit_length() - 1
    for base in (2, 3, 5, 7):
        power = pow(base, n - 1 >> twos, n)
        if power in (1, n - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % n
            if power == n - 1:
                break
        else:
            return False
    return True


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cclass
class NameTable:
    """A read-only table over the sections of one file."""

    if cython.compiled:
        marks: cython.const[cython.uint][::1]
        starts: cython.const[cython.uint][::1]
        records: cython.const[cython.uchar][::1]
        weights: cython.uint[256]  # weights[255 - k] is 256 ** k modulo the prime
        sigma: cython.uchar[160]
        initial: cython.uint[8]
        salted_initial: cython.uint[8]
        touched: cython.uint
        prime: cython.ulonglong
        prime_inverse: cython.ulonglong  # 2**62 over the prime
        buckets: cython.uint
        buckets_inverse: cython.ulonglong  # 2**32 over the buckets
        count: cython.uint
    else:
        marks: memoryview
        starts: memoryview
        records: memoryview
        salted: "hashlib.blake2s"
        prime: int
        buckets: int
        count: int

    def __init__(self, sections: Mapping[str, memoryview]) -> None:
        """Look into buffers that somebody else owns.

        Args:
            sections: The octets of each section, as `build` laid them out; the pool is not looked into.

        Raises:
            ValueError: They are no table.
        """
        try:
            key, marks, starts, records = (sections[section] for section in SECTIONS[:4])
            self.prime, seed = _KEY.unpack(key)
            self.marks = marks.cast("I")
            self.starts = starts.cast("I")
            self.records = records
        except (KeyError, TypeError, struct.error) as error:
            raise ValueError(f"the sections are no table of names: {error}") from None
        self.buckets = len(self.marks)
        self.count = len(records) // _RECORD.size
        if (
            not _LEAST_PRIME < self.prime < _PRIME_LIMIT
            or not self.buckets
            or len(self.starts) != self.buckets + 1
            or len(records) % _RECORD.size
            or self.starts[self.buckets] != self.count
        ):
            raise ValueError("the sections are no table of names: their lengths do not fit each other")
        if cython.compiled:
            weight: cython.ulonglong = 1
            k: cython.int
            for k in range(255, -1, -1):
                self.weights[k] = weight
                weight = (weight << 8) % self.prime
            self.prime_inverse = (1 << 62) // self.prime
            self.buckets_inverse = (1 << 32) // self.buckets
            for k in range(160):
                self.sigma[k] = _SIGMA[k]
            # The parameter block (RFC 7693 §2.5): digest length, no key, fanout 1, depth 1, then salt and person.
            parameters = struct.unpack("<8I", struct.pack("<BBBB12x16s", _EVIDENCE - 1, 0, 1, 1, seed))
            for k in range(8):
                self.initial[k] = _INITIAL[k]
                self.salted_initial[k] = _INITIAL[k] ^ parameters[k]
        else:
            self.salted = _salted(seed)

    if cython.compiled:

        @cython.cfunc
        @cython.inline
        @cython.exceptval(check=False)
        def _sum(
            self,
            octets: cython.p_const_uchar,
            start: cython.Py_ssize_t,
            end: cython.Py_ssize_t,
            size: cython.Py_ssize_t,
        ) -> cython.ulonglong:
            """What a part of a name of `size` octets adds to its number, less multiples of the prime; below 2**46."""
            total: cython.ulonglong = 0
            j: cython.Py_ssize_t
            for j in range(start, end):
                total += cython.cast(cython.ulonglong, octets[j]) * self.weights[256 - size + j]
            return total

        @cython.cfunc
        @cython.inline
        @cython.exceptval(check=False)
        def _fingerprint(self, total: cython.ulonglong) -> cython.uint:
            """`total`, below 2**46, modulo the prime, without a division.

            What is cut off makes the quotient smaller by 2**16 / prime + 2**-16 at most before it is rounded down: so
            it is at most one too small.
            """
            rest: cython.ulonglong = total - ((total >> 16) * self.prime_inverse >> 46) * self.prime
            return rest - self.prime if rest >= self.prime else rest

        @cython.cfunc
        @cython.inline
        @cython.exceptval(check=False)
        def _bucket(self, fingerprint: cython.uint) -> cython.uint:
            """A fingerprint modulo the buckets in the same way; here the quotient gets smaller by 2**-2 at most."""
            rest: cython.uint = fingerprint - (fingerprint * self.buckets_inverse >> 32) * self.buckets
            return rest - self.buckets if rest >= self.buckets else rest

    def find(self, name: bytes) -> int:
        """The claim set of exactly this name (lower-cased wire form), or -1."""
        if cython.compiled:
            size: cython.Py_ssize_t = PyBytes_GET_SIZE(name)
            if size > 255:
                return -1
            octets: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(name))
            asked: cython.uint[4]
            held: cython.longlong = -1
            asked[0] = 0
            asked[1] = size
            asked[2] = self._fingerprint(self._sum(octets, 0, size, size))
            if _is_marked(self.marks[self._bucket(asked[2])], asked[2]):
                self._claim_sets(octets, asked, 1, cython.address(held))
            return held
        fingerprint = int.from_bytes(name, "big") % self.prime
        mark = _MARKS[fingerprint >> 20]
        if self.marks[fingerprint % self.buckets] & mark != mark:
            return -1
        return self._listed_set(fingerprint, name)

    def covering(self, name: bytes) -> list[tuple[int, int]]:
        """Every listed name that equals `name` or stands above it.

        Args:
            name: Lower-cased wire form, root label included; at most 255 octets.

        Returns:
            (offset, claim set) pairs, longest listed name first; `name[offset:]` is the listed name.
        """
        found: list[tuple[int, int]] = []
        claim_set: cython.longlong
        if cython.compiled:
            octets: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(name))
            size: cython.Py_ssize_t = PyBytes_GET_SIZE(name)
            offsets: cython.uchar[128]
            asked: cython.uint[128 * 4]
            held: cython.longlong[128]
            labels: cython.int = 0
            passes: cython.int = 0
            k: cython.int
            i: cython.Py_ssize_t = 0
            end: cython.Py_ssize_t = size - 1
            total: cython.ulonglong = 0
            f: cython.uint
            if size > 255:
                return found
            while i < end and octets[i] != 0 and labels < 128:
                offsets[labels] = i
                labels += 1
                i += octets[i] + 1
            for k in range(labels - 1, -1, -1):
                total += self._sum(octets, offsets[k], end, size)
                end = offsets[k]
                f = self._fingerprint(total)
                # No branch on what memory says, so that the loads of all labels are under way at once.
                asked[4 * passes] = end
                asked[4 * passes + 1] = size - end
                asked[4 * passes + 2] = f
                passes += _is_marked(self.marks[self._bucket(f)], f)
            self._claim_sets(octets, asked, passes, held)
            for k in range(passes - 1, -1, -1):
                if held[k] >= 0:
                    found.append((asked[4 * k], held[k]))
            return found
        marks, prime, buckets, every = self.marks, self.prime, self.buckets, _MARKS
        rest = len(name)
        value = int.from_bytes(name, "big")
        offset = 0
        while n := name[offset]:
            fingerprint = value % prime
            mark = every[fingerprint >> 20]
            if marks[fingerprint % buckets] & mark == mark:
                claim_set = self._listed_set(fingerprint, name[offset:])
                if claim_set >= 0:
                    found.append((offset, claim_set))
            offset += n + 1
            value &= _SUFFIX_MASKS[rest - offset]
        return found

    def _listed_set(self, fingerprint: int, name: bytes) -> int:
        """The claim set of the one record in the bucket that is this name's, or -1."""
        bucket = fingerprint % self.buckets
        starts = self.starts
        records = self.records[_RECORD.size * starts[bucket] : _RECORD.size * starts[bucket + 1]].tobytes()
        digest = self.salted.copy()
        digest.update(name)
        wanted = _TAGS[fingerprint >> 12 & 255] + digest.digest()
        at = records.find(wanted)
        while at > 0 and at % _RECORD.size:  # not where a record begins
            at = records.find(wanted, at + 1)
        return int.from_bytes(records[at + _EVIDENCE : at + _RECORD.size], "little") if at >= 0 else -1

    if cython.compiled:

        @cython.cfunc
        @cython.exceptval(check=False)
        def _claim_sets(
            self, names: cython.p_const_uchar, asked: cython.p_uint, count: cython.Py_ssize_t, held: cython.p_longlong
        ) -> cython.void:
            """The same as `_listed_set` of up to 1,024 names, with nothing made.

            Args:
                names: Where all of them are.
                asked: Of each: where it begins there, its octets, its fingerprint, and one number more.
                count: How many.
                held: Where to write the claim sets.
            """
            firsts: cython.uint[1024]
            ends: cython.uint[1024]
            lot: cython.uint[4]
            found: cython.uint[4]
            lanes: cython.int = 0
            touched: cython.uint = 0
            tag: cython.uint
            bucket: cython.uint
            record: cython.uint
            records: cython.p_uchar = cython.cast(cython.p_uchar, cython.address(self.records[0]))
            j: cython.Py_ssize_t
            # Each loop has little in it but loads, so that those for all names are under way at once.
            for j in range(count):
                bucket = self._bucket(asked[4 * j + 2])
                firsts[j] = self.starts[bucket]
                ends[j] = self.starts[bucket + 1]
                held[j] = -1
            for j in range(count):
                if ends[j] > self.count:  # a damaged file
                    ends[j] = self.count
                if firsts[j] < ends[j]:
                    touched += records[14 * cython.cast(cython.Py_ssize_t, firsts[j])]
                    touched += records[14 * cython.cast(cython.Py_ssize_t, ends[j]) - 1]
            self.touched = touched  # so that no compiler leaves the loads out
            for j in range(count):
                tag = asked[4 * j + 2] >> 12 & 255
                for record in range(firsts[j], ends[j]):
                    if records[14 * cython.cast(cython.Py_ssize_t, record)] != tag:
                        continue
                    lot[lanes] = j
                    found[lanes] = record
                    lanes += 1
                    if lanes == 4:
                        self._settle(names, asked, lot, found, lanes, held)
                        lanes = 0
            if lanes:
                self._settle(names, asked, lot, found, lanes, held)

        @cython.cfunc
        @cython.exceptval(check=False)
        def _settle(
            self,
            names: cython.p_const_uchar,
            asked: cython.p_uint,
            lot: cython.p_uint,
            found: cython.p_uint,
            lanes: cython.int,
            held: cython.p_longlong,
        ) -> cython.void:
            """Compare up to four names with a record each, and write the claim sets of those whose digests match."""
            h: cython.uint[32]
            lane: cython.int
            at: cython.Py_ssize_t
            for lane in range(lanes, 4):
                lot[lane] = lot[0]
            self._digest(names, asked, lot, h)
            for lane in range(lanes):
                at = 14 * cython.cast(cython.Py_ssize_t, found[lane])
                if (
                    _word(cython.address(self.records[at + 1])) == h[lane]
                    and _word(cython.address(self.records[at + 5])) == h[4 + lane]
                    and self.records[at + 9] == h[8 + lane] & 255
                    and held[lot[lane]] < 0
                ):
                    held[lot[lane]] = _word(cython.address(self.records[at + 10]))

        @cython.cfunc
        @cython.exceptval(check=False)
        def _digest(
            self, names: cython.p_const_uchar, asked: cython.p_uint, lot: cython.p_uint, h: cython.p_uint
        ) -> cython.void:
            """BLAKE2s of four names side by side (RFC 7693 §3.3), so that loops over lanes become vectors."""
            m: cython.uint[64]
            ends: cython.uint[12]
            block: cython.uchar[64]
            lane: cython.int
            k: cython.int
            octets: cython.int
            left: cython.int
            longest: cython.int = 0
            done: cython.int = 0
            for k in range(8):
                for lane in range(4):
                    h[4 * k + lane] = self.salted_initial[k]
            while done == 0 or done < longest:
                for lane in range(4):
                    left = cython.cast(cython.int, asked[4 * lot[lane] + 1]) - done
                    if left > longest:
                        longest = left
                    octets = 64 if left > 64 else left if left > 0 else 0
                    ends[lane] = done + octets
                    ends[4 + lane] = 0xFFFFFFFF if left <= 64 else 0
                    ends[8 + lane] = 0xFFFFFFFF if left > 0 or done == 0 else 0
                    memset(block, 0, 64)
                    memcpy(block, names + asked[4 * lot[lane]] + done, octets)
                    for k in range(16):
                        m[4 * k + lane] = _word(block + 4 * k)
                self._compress(h, m, ends)
                done += 64

        @cython.cfunc
        @cython.exceptval(check=False)
        def _compress(self, h: cython.p_uint, m: cython.p_uint, ends: cython.p_uint) -> cython.void:
            """A block of each of four names (RFC 7693 §3.2).

            Args:
                h: What was reached so far, four times eight words; here as below, the four of one word lie together.
                m: The block.
                ends: How many octets were read; all bits where the block is the last one; all bits where there is one.
            """
            v: cython.uint[64]
            s: cython.p_uchar
            k: cython.int
            lane: cython.int
            for k in range(8):
                for lane in range(4):
                    v[4 * k + lane] = h[4 * k + lane]
                    v[32 + 4 * k + lane] = self.initial[k]
            for lane in range(4):
                v[48 + lane] ^= ends[lane]
                v[56 + lane] ^= ends[4 + lane]
            for k in range(10):
                s = cython.address(self.sigma[16 * k])
                for lane in range(4):
                    _mix(v, lane, 16 + lane, 32 + lane, 48 + lane, m[4 * s[0] + lane], m[4 * s[1] + lane])
                    _mix(v, 4 + lane, 20 + lane, 36 + lane, 52 + lane, m[4 * s[2] + lane], m[4 * s[3] + lane])
                    _mix(v, 8 + lane, 24 + lane, 40 + lane, 56 + lane, m[4 * s[4] + lane], m[4 * s[5] + lane])
                    _mix(v, 12 + lane, 28 + lane, 44 + lane, 60 + lane, m[4 * s[6] + lane], m[4 * s[7] + lane])
                    _mix(v, lane, 20 + lane, 40 + lane, 60 + lane, m[4 * s[8] + lane], m[4 * s[9] + lane])
                    _mix(v, 4 + lane, 24 + lane, 44 + lane, 48 + lane, m[4 * s[10] + lane], m[4 * s[11] + lane])
                    _mix(v, 8 + lane, 28 + lane, 32 + lane, 52 + lane, m[4 * s[12] + lane], m[4 * s[13] + lane])
                    _mix(v, 12 + lane, 16 + lane, 36 + lane, 56 + lane, m[4 * s[14] + lane], m[4 * s[15] + lane])
            for k in range(8):
                for lane in range(4):
                    h[4 * k + lane] ^= (v[4 * k + lane] ^ v[32 + 4 * k + lane]) & ends[8 + lane]

        def screen(self, names: bytes, words: bytes, count: cython.Py_ssize_t) -> None:
            """Look up many names at one time, so that what memory has to bring for all of them is under way at once.

            It is what `covering` finds, told in a few numbers; buffers go in and out, so that no object is made a name.

            Args:
                names: Room written elsewhere: name k, lower-cased and well formed, from `SCREENED_OCTETS` * k on.
                words: Room for `SCREENED_WORDS` numbers (i64) a name. The first is its size in octets; the others are
                    written here: where the longest listed name that covers it begins; the claim set, -1 where no listed
                    name covers it, or listed names of several claim sets; how many listed names cover it.
                count: How many names, at most `SCREENED`.
            """
            room: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(names))
            told: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(words))
            asked: cython.uint[64 * 16 * 4]
            buckets: cython.uint[64 * 16]
            marks: cython.uint[64 * 16]
            held: cython.longlong[64 * 16]
            octets: cython.p_const_uchar
            offsets: cython.uchar[16]
            labels: cython.int
            made: cython.int = 0
            passes: cython.int = 0
            f: cython.uint
            k: cython.int
            j: cython.int
            i: cython.Py_ssize_t
            end: cython.Py_ssize_t
            size: cython.Py_ssize_t
            total: cython.ulonglong
            if count > 64:
                count = 64
            for k in range(count):
                octets = room + 256 * k
                size = told[4 * k]
                told[4 * k + 1] = 0
                told[4 * k + 2] = -1
                told[4 * k + 3] = 0
                labels = 0
                i = 0
                while i < size - 1 and labels < 16:
                    offsets[labels] = i
                    labels += 1
                    i += octets[i] + 1
                if i != size - 1:
                    continue
                total = 0
                end = size - 1
                for j in range(labels - 1, -1, -1):
                    total += self._sum(octets, offsets[j], end, size)
                    end = offsets[j]
                    f = self._fingerprint(total)
                    asked[4 * made] = 256 * k + end
                    asked[4 * made + 1] = size - end
                    asked[4 * made + 2] = f
                    buckets[made] = self._bucket(f)
                    made += 1
            for j in range(made):  # nothing else, so that the loads of all are under way at once
                marks[j] = self.marks[buckets[j]]
            for j in range(made):
                f = asked[4 * j + 2]
                asked[4 * passes] = asked[4 * j]
                asked[4 * passes + 1] = asked[4 * j + 1]
                asked[4 * passes + 2] = f
                passes += _is_marked(marks[j], f)
            self._claim_sets(room, asked, passes, held)
            for j in range(passes):
                if held[j] < 0:
                    continue
                k = asked[4 * j] >> 8
                told[4 * k + 1] = asked[4 * j] & 255
                told[4 * k + 2] = held[j] if told[4 * k + 3] == 0 or told[4 * k + 2] == held[j] else -1
                told[4 * k + 3] += 1


if cython.compiled:

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _is_marked(mark: cython.uint, fingerprint: cython.uint) -> cython.uint:
        """1 where the mark of a bucket has the bits of a fingerprint, else 0."""
        spread: cython.uint = (fingerprint >> 20) * cython.cast(cython.uint, 0x9E3779B1)
        return (mark >> (spread >> 27)) & (mark >> (spread >> 22 & 31)) & (mark >> (spread >> 17 & 31)) & 1

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _word(octets: cython.p_const_uchar) -> cython.uint:
        """Four octets as a number, little-endian whatever the machine."""
        return octets[0] | octets[1] << 8 | octets[2] << 16 | cython.cast(cython.uint, octets[3]) << 24

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _mix(
        v: cython.p_uint, a: cython.int, b: cython.int, c: cython.int, d: cython.int, x: cython.uint, y: cython.uint
    ) -> cython.void:
        """BLAKE2s' G (RFC 7693 §3.1)."""
        v[a] = v[a] + v[b] + x
        v[d] = (v[d] ^ v[a]) >> 16 | (v[d] ^ v[a]) << 16
        v[c] = v[c] + v[d]
        v[b] = (v[b] ^ v[c]) >> 12 | (v[b] ^ v[c]) << 20
        v[a] = v[a] + v[b] + y
        v[d] = (v[d] ^ v[a]) >> 8 | (v[d] ^ v[a]) << 24
        v[c] = v[c] + v[d]
        v[b] = (v[b] ^ v[c]) >> 7 | (v[b] ^ v[c]) << 25
