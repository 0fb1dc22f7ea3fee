"""Below which names strangers register."""

import pytest

from resolver.policy.suffixes import Shared, public_suffixes, shared, wildcard_parents


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("com", Shared.REGISTRY),
        ("co.uk", Shared.REGISTRY),
        ("gc.ca", Shared.REGISTRY),
        ("xn--p1ai", Shared.REGISTRY),  # рф
        ("anything.ck", Shared.REGISTRY),  # *.ck
        ("www.ck", None),  # !www.ck
        ("cloudfront.net", Shared.PROVIDER),
        ("edgekey.net", Shared.PROVIDER),
        ("akamaized.net", Shared.PROVIDER),
        ("trafficmanager.net", Shared.PROVIDER),
        ("cdn.cloudflare.net", Shared.PROVIDER),
        ("github.io", Shared.PROVIDER),
        ("amazonaws.com", Shared.ESTATE),
        ("core.windows.net", Shared.ESTATE),
        ("tiktokcdn.com.akamaized.net", None),
        ("d111111abcdef8.cloudfront.net", None),
        ("example.com", None),
        ("corp", None),
    ],
)
def test_who_shares_a_name_is_told(name: str, who: Shared | None) -> None:
    """Registries, providers, what lies above a provider's customers; a customer's own name is nobody else's."""
    assert shared(name) is who


def test_every_suffix_of_the_list_is_shared() -> None:
    """What the list spells out, and each child of a wildcard's parent, is a public suffix, in ASCII."""
    suffixes = list(public_suffixes())

    assert len(suffixes) > 9000
    assert all(shared(name) in (Shared.REGISTRY, Shared.PROVIDER) for name in suffixes[::50])
    assert all(name.isascii() for name in suffixes)
    assert all(shared(f"zz9.{parent}") in (Shared.REGISTRY, Shared.PROVIDER) for parent in wildcard_parents())
