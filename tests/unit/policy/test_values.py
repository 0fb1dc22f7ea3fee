"""How values are written: every unit, and any other value told with the mend."""

from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from resolver.policy.additions import parse_network
from resolver.policy.values import Endpoint, HttpPath, Pin, parse_duration, parse_endpoint, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"), [("500ms", 0.5), ("0s", 0.0), ("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("1d", 86400.0)]
)
def test_a_duration_is_read_as_seconds(written: str, seconds: float) -> None:
    """Every unit."""
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(("written", "octets"), [("1B", 1), ("256KiB", 262144), ("64MiB", 67108864), ("1GiB", 1 << 30)])
def test_a_size_is_read_as_octets(written: str, octets: int) -> None:
    """Every unit, powers of 1024."""
    assert parse_size(written) == octets


@given(
    st.one_of(
        st.text(), st.integers(), st.none(), st.booleans(), st.floats(), st.from_regex(r"[0-9.:\[\]/a-fms]{1,20}")
    )
)
def test_any_value_is_read_or_refused(written: object) -> None:
    """A parser of written values returns or raises ValueError, nothing else."""
    for parse in (parse_duration, parse_size, parse_endpoint, parse_network):
        with suppress(ValueError):
            parse(written)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_endpoint_prints_as_it_is_written(address: object, port: int) -> None:
    """Read and printed back it is the same."""
    endpoint = Endpoint(str(address), port)

    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize("written", ["/dns-query", "/a/b", "/v1.0/dns_query~x"])
def test_a_path_is_read_as_it_is_written(written: str) -> None:
    """One or more segments of characters that need no escape."""
    assert TypeAdapter(HttpPath).validate_python(written) == written


@pytest.mark.parametrize("written", ["", "/", "dns-query", "/dns-query/", "/a//b", "/a?b", "/ä", "/a b", 7])
def test_what_is_no_path_is_refused(written: object) -> None:
    """A slash at the end would be the beginning of a token."""
    with pytest.raises(ValidationError, match="is not a path"):
        TypeAdapter(HttpPath).validate_python(written)


@given(st.binary(min_size=0, max_size=40))
def test_a_pin_is_the_digest_in_it(digest: bytes) -> None:
    """32 octets in base64 behind sha256/, and nothing else."""
    written = f"sha256/{b64encode(digest).decode()}"
    if len(digest) == 32:
        assert TypeAdapter(Pin).validate_python(written) == digest
    else:
        with pytest.raises(ValidationError, match="is not a pin"):
            TypeAdapter(Pin).validate_python(written)
