"""interdict.yaml: defaults, units, and every mistake at its place."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.config import KINDS, Config, ConfigError, Upstream, json_schema, read
from resolver.policy.documents import Action, Mode
from resolver.policy.source import Problem, read_page
from resolver.policy.values import Endpoint

SCHEMAS = Path(__file__).parents[2] / "blocklists" / "schemas"
REGENERATE = "PYTHONPATH=. python tests/unit/test_config.py"


def schema_text(kind: str) -> str:
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, "i.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "{}", "policy: {}\ncache: {}"])
def test_the_empty_file_is_the_default_configuration(text: str) -> None:
    """Nothing has to be written."""
    assert read(text, "i.yaml") == Config()


def test_the_defaults_enforce_the_canadian_orders_for_everyone_on_unprivileged_local_ports() -> None:
    """What a node does that nobody configured."""
    config = read("", "i.yaml")

    assert config.listen == (Endpoint("127.0.0.1", 5300), Endpoint("::1", 5300))
    assert (config.node, config.nsid, config.workers, config.upstreams) == ("auto", "auto", "auto", "system")
    assert [(order.order, order.groups, order.mode, order.action) for order in config.policy.orders] == [
        ("ca-tbs-2023-02-28", ("everyone",), Mode.ENFORCE, Action.NXDOMAIN),
        ("ca-tbs-2023-10-30", ("everyone",), Mode.ENFORCE, Action.NXDOMAIN),
    ]
    assert [(g.name, g.networks) for g in config.groups] == [
        ("everyone", (ip_network("0.0.0.0/0"), ip_network("::/0")))
    ]
    assert config.cache.size == 64 * 1024 * 1024
    assert config.forwarder.try_timeout == 0.8
    assert config.hits.keep == 400 * 86400.0


def test_the_default_configuration_answers_private_networks_and_nobody_else() -> None:
    """An address of the Internet, and one behind carrier-grade NAT, are not served until somebody says so."""
    allowed = Config().allowed_networks

    def is_allowed(address: str) -> bool:
        asked = ip_network(address)
        return any(asked.version == n.version and asked.subnet_of(n) for n in allowed)  # type: ignore[arg-type]

    private = ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.9.9", "::1", "fd00::1", "fe80::1"]
    assert [a for a in private if not is_allowed(a)] == []
    assert [a for a in ["192.0.2.1", "100.64.0.1", "172.32.0.1", "2001:db8::1"] if is_allowed(a)] == []


def test_a_full_configuration_is_read() -> None:
    """Each section takes values of its kind, in the units people write."""
    config = read(
        """
node: ottawa-1
listen: ["192.0.2.1:53", "[2001:db8::1]:53"]
allowed_networks: [192.0.2.0/24, "2001:db8::/32", 198.51.100.7]
workers: 4
user: interdict
upstreams:
  - {address: 192.0.2.53}
  - {address: "2001:db8::53", port: 5353, trust_ad: true}
  - address: 192.0.2.54
    transport: tls
    name: dns.example.org
    pins: ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
encrypted:
  name: dns.example.net
  certificate: chain.pem
  key: key.pem
  dot: ["192.0.2.1:853"]
  doq: ["192.0.2.1:853"]
  doh: ["192.0.2.1:443"]
identity: {unknown: rest}
proxies: [192.0.2.9]
forwarder: {try_timeout: 500ms, deadline: 3s, sockets: 4}
groups:
  - {name: phones, networks: [192.0.2.0/25]}
  - {name: rest, networks: [0.0.0.0/0, "::/0"], listeners: ["192.0.2.1:443"]}
policy:
  documents: [shipped, /etc/interdict/policy]
  orders:
    - {order: ca-tbs-2023-10-30, groups: [phones], action: sinkhole}
    - {order: ca-tbs-2023-10-30, groups: [rest], mode: observe}
  block_ttl: 5m
  sinkhole: {ipv4: [192.0.2.80], ipv6: ["2001:db8::80"]}
cache: {size: 1GiB, min_ttl: 5s}
metrics: {listen: null}
special_use: {forward: [local, 10.in-addr.arpa]}
""",
        "i.yaml",
    )

    assert config.upstreams == (
        Upstream(address="192.0.2.53"),
        Upstream(address="2001:db8::53", port=5353, trust_ad=True),
        Upstream(address="192.0.2.54", transport="tls", name="dns.example.org", pins=(f"sha256/{'A' * 43}=",)),
    )
    assert config.upstreams[2].pins == (bytes(32),)  # type: ignore[union-attr]
    assert (config.encrypted.name, config.identity.unknown) == ("dns.example.net", "rest")
    assert config.encrypted.dot == config.encrypted.doq == (Endpoint("192.0.2.1", 853),)
    assert config.proxies == (ip_network("192.0.2.9/32"),)
    assert config.allowed_networks[2] == ip_network("198.51.100.7/32")
    assert [order.mode for order in config.policy.orders] == [Mode.ENFORCE, Mode.OBSERVE]
    assert [str(a) for a in (*config.policy.sinkhole.ipv4, *config.policy.sinkhole.ipv6)] == [
        "192.0.2.80",
        "2001:db8::80",
    ]
    assert (config.policy.block_ttl, config.cache.size, config.cache.min_ttl) == (300.0, 1 << 30, 5.0)
    assert config.metrics.listen is None
    assert config.special_use.forward == ("local", "10.in-addr.arpa")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lisen: []", 'i.yaml:1:1: unknown key "lisen"; did you mean "listen"?'),
        ("cache:\n  sizes: 1MiB", 'i.yaml:2:3: unknown key "sizes"; did you mean "size"?'),
        ("cache: {size: 64MB}", 'i.yaml:1:15: "64MB" is not a size; write a whole number and a unit, such as 256KiB'),
        ("cache: {size: 1KiB}", 'i.yaml:1:15: "1KiB" is out of range; write 1MiB to 64GiB'),
        (
            "policy: {block_ttl: 30}",
            "i.yaml:1:21: 30 is not a duration; write a whole number and a unit, such as 500ms",
        ),
        ("cache: {min_ttl: 1h, max_ttl: 30m}", 'i.yaml:1:18: min_ttl "1h" is over max_ttl "30m"; write at most 30m'),
        ("forwarder: {try_timeout: 5s}", 'i.yaml:1:26: try_timeout "5s" is over deadline "4s"; write at most 4s'),
        ("hits: {sqlite: yes}", 'i.yaml:1:16: "yes" is neither true nor false; write true or false, without quotes'),
        ("hits:", "i.yaml:1:6: this is empty; write a value, or delete the line"),
        ("workers: 65", "i.yaml:1:10: 65 is not a number of workers; write a whole number from 1 to 64, or auto"),
        ("workers: true", "i.yaml:1:10: true is not a number of workers"),
        ("tcp: {connections: 0}", "i.yaml:1:20: 0 is too small; write at least 1"),
        ("tcp: {connections: '9'}", 'i.yaml:1:20: "9" is not a whole number; write digits without quotes'),
        (
            "listen: ['::1:53']",
            'i.yaml:1:10: "::1:53" is not an address with a port; write "127.0.0.1:53" or "[::1]:53"',
        ),
        ("listen: []", "i.yaml:1:9: this is empty; write at least one"),
        ("listen: ['[::1]:53', '[0::1]:53']", "i.yaml:1:22: [::1]:53 is listed twice; delete this one"),
        (
            "allowed_networks: [192.0.2.1/24]",
            'i.yaml:1:20: "192.0.2.1/24" has bits set after the prefix; write "192.0.2.0/24"',
        ),
        ("upstreams: sytem", 'i.yaml:1:12: "sytem" is unknown here; write system, or a list'),
        ("upstreams: []", "i.yaml:1:12: this is empty; write at least one"),
        ("upstreams: [{address: dns.example}]", 'i.yaml:1:23: "dns.example" is not an IP address; write for example'),
        ("upstreams: [{address: 192.0.2.1, port: 65536}]", "i.yaml:1:40: 65536 is too large; write at most 65535"),
        (
            "groups: [{name: My Group, networks: [192.0.2.0/24]}]",
            'i.yaml:1:17: "My Group" is not a group name; write 1',
        ),
        (
            "special_use: {forward: [Home.Arpa.]}",
            'i.yaml:1:25: "Home.Arpa." is not how a name is written here; write "home.',
        ),
        (
            "upstreams: [{address: 192.0.2.1, transport: tls}]",
            "i.yaml:1:45: nothing tells whether it is the right one; write its name, or pins, or strict: false",
        ),
        (
            "upstreams: [{address: 192.0.2.1, name: dns.example}]",
            "i.yaml:1:40: name is for tls and https; write transport, or delete this line",
        ),
        (
            "upstreams: [{address: 192.0.2.1, transport: tls, pins: [sha256/abc]}]",
            'i.yaml:1:57: "sha256/abc" is not a pin; write "sha256/" and the base64',
        ),
        ("encrypted: {dot: ['127.0.0.1:853']}", "i.yaml:1:18: nobody can be served without a certificate; write cert"),
        ("encrypted: {certificate: c.pem}", "i.yaml:1:26: nobody can be served without a key; write key: PATH"),
        (
            "encrypted: {certificate: c, key: k, doq: ['127.0.0.1:5300']}",
            "i.yaml:1:43: 127.0.0.1:5300 is listed under listen already; choose another port",
        ),
        ("encrypted: {path: dns-query}", 'i.yaml:1:19: "dns-query" is not a path; write one such as "/dns-query"'),
        (
            "groups: [{name: everyone, listeners: ['127.0.0.1:53']}]",
            "i.yaml:1:39: nothing listens on 127.0.0.1:53; name it under listen or encrypted too",
        ),
        (
            "groups: [{name: everyone, listeners: ['[::1]:5300']}, {name: phones, listeners: ['[::1]:5300']}]",
            'i.yaml:1:82: [::1]:5300 is group "everyone"\'s already; keep it in one place',
        ),
        (
            "identity: {unknown: everyon}",
            'i.yaml:1:21: no group is called "everyon"; write refused, or the name of a group; did you mean "everyone"',
        ),
    ],
)
def test_a_mistake_is_told_at_its_place_with_the_mend(text: str, expected: str) -> None:
    """file:line:column, what is wrong, what to write."""
    assert any(problem.startswith(expected) for problem in problems_of(text)), problems_of(text)


def test_an_order_for_an_unknown_group_is_told_where_the_group_is_named() -> None:
    """The nearest name is offered, and a mistake elsewhere hides nothing."""
    text = """
groups:
  - {name: phones, networks: [192.0.2.0/24]}
policy:
  orders:
    - {order: ca-tbs-2023-10-30, groups: [phone]}
    - {order: ca-tbs-2023-10-30, groups: [phones, phones], action: sinkhole}
workers: many
"""
    first, second, third, fourth = problems_of(text)

    assert first == 'i.yaml:6:43: no group is called "phone"; did you mean "phones"?'
    assert second.startswith('i.yaml:7:51: order ca-tbs-2023-10-30 is in force for group "phones" already')
    assert third.startswith("i.yaml:7:68: sinkhole needs an address to answer; write policy.sinkhole.ipv4 or ipv6")
    assert fourth.startswith('i.yaml:8:10: "many" is not a number of workers')


def test_a_line_may_follow_another_but_not_overlap_it() -> None:
    """Observed until an instant and enforced from it on is sound; a minute of both is not."""
    line = "{order: ca-tbs-2023-10-30, groups: [everyone], "
    text = f"""policy:
  orders:
    - {line}mode: observe, until: 2026-12-08T00:00:00-05:00}}
    - {line}since: 2026-12-08T00:00:00-05:00}}
"""
    first, second = read(text, "i.yaml").policy.orders

    assert first.until == second.since
    (problem,) = problems_of(text.replace("since: 2026-12-08T00:00", "since: 2026-12-07T23:59"))
    assert problem.startswith('i.yaml:4:43: order ca-tbs-2023-10-30 is in force for group "everyone" already')
    backwards = text.replace("mode: observe,", "since: 2026-12-08T00:00:00-05:00,")
    (problem,) = problems_of(backwards)
    assert "the line ends before it begins" in problem


def test_the_default_orders_need_the_default_group() -> None:
    """Own groups without own orders would leave the orders in force for nobody."""
    found = problems_of("groups: [{name: phones, networks: [192.0.2.0/24]}]")

    assert found
    assert all("by default, which is missing; write policy.orders" in problem for problem in found)


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        (("192.0.2.0/24", "192.0.2.0/24"), '192.0.2.0/24 is in group "a" already; keep it in one place'),
        (("2001:db8::/32", "2001:DB8:0::/32"), '2001:db8::/32 is in group "a" already; keep it in one place'),
    ],
)
def test_a_network_belongs_to_one_group(networks: tuple[str, str], expected: str) -> None:
    """However it is written; a longer prefix inside another group's network is fine."""
    text = "groups: [{name: a, networks: ['%s']}, {name: everyone, networks: ['%s']}]"

    assert [p.split(": ", 1)[1] for p in problems_of(text % networks)] == [expected]
    assert len(read(text % ("192.0.2.0/24", "192.0.2.0/25"), "i.yaml").groups) == 2


KEYS = sorted({key for kind in KINDS.values() for key in kind.model_fields} | {"name", "networks", "orders", "order"})
WORDS = st.sampled_from(
    ["a", "sinkhole", "never", "block", "192.0.2.0/24", "10s", "a.example", "*.b.example", "[::1]:53"]
)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(
    written=st.recursive(
        st.one_of(WORDS, st.none(), st.booleans(), st.integers(-9, 99), st.floats()),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)),
        max_leaves=20,
    )
)
def test_any_value_is_a_document_or_told(kind: str, written: object) -> None:
    """Values of any type in any place of any kind of document, checks across the document included."""
    problems: list[Problem] = []

    page = read_page(json.dumps(written), "x.yaml", KINDS[kind], problems)

    assert (page is None) == bool(problems)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_schema_that_editors_use_is_what_the_product_reads(kind: str) -> None:
    """blocklists/schemas is generated; this says how."""
    file = SCHEMAS / f"{kind}.schema.json"

    assert file.is_file(), f"no {file.name}; run: {REGENERATE}"
    assert file.read_text() == schema_text(kind), f"{file.name} is out of date; run: {REGENERATE}"


def test_every_option_is_described() -> None:
    """The schema tells a person what each key of each section means."""
    schema = json_schema("config")
    sections = {"Config": schema, **schema["$defs"]}
    options = {
        f"{name}.{key}": option
        for name, section in sections.items()
        for key, option in section.get("properties", {}).items()
    }

    assert [path for path, option in options.items() if "description" not in option and "$ref" not in option] == []
    assert options["Cache.size"]["default"] == "64MiB"


if __name__ == "__main__":
    for name in KINDS:
        (SCHEMAS / f"{name}.schema.json").write_text(schema_text(name))
