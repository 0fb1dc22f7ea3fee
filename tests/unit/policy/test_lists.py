"""A list as octets: every pitfall met in the wild, the sums, and what is no list at all."""

import gzip
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resolver.policy import lists
from resolver.policy.documents import Action
from resolver.policy.lines import ListFormat, Refusal
from resolver.policy.lists import EmptyList, ListError, ListReport, read_list, sniff
from resolver.policy.patterns import PatternSet
from resolver.policy.zone import PolicyZone, Reach, Rule
from resolver.wire.name import from_text, is_at_or_below, to_text

EXACT, SUFFIX, BELOW = Reach.EXACT, Reach.SUFFIX, Reach.BELOW

Blocked = tuple[dict[str, dict[Reach, Rule]], set[tuple[str, Rule]]]


def blocked(zone: PolicyZone) -> Blocked:
    """What a zone holds, without the numbers that depend on the order of reading."""
    names = {to_text(name): {reach: zone.rules[rule] for reach, rule in held} for name, held in zone.names.items()}
    return names, {(expression, zone.rules[rule]) for expression, rule in zone.patterns}


def reaches(octets: bytes, form: ListFormat | None = None) -> tuple[dict[str, Reach], dict[Refusal, int]]:
    """How far each name of a list reaches, and what was refused; the names are none where nothing could be taken."""
    try:
        zone, report = read_list(octets, form=form, tolerance=1.0)
    except ListError as error:
        return {}, dict(error.report.refused) if error.report else {}
    return {to_text(name): held[0][0] for name, held in zone.names.items()}, dict(report.refused)


def adds_up(report: ListReport) -> bool:
    """Whether the four sums make up the file."""
    return report.lines == report.taken + report.duplicates + report.comments + report.refused_lines


# Pitfalls that public lists have, each with what becomes of it: the lines, the names that are held, what is refused.
PITFALLS: list[tuple[str, bytes, dict[str, Reach], dict[Refusal, int]]] = [
    (
        "an address in the name column is refused",
        b"0.0.0.0\t161.117.70.136\n0.0.0.0 a.example\n",
        {"a.example": EXACT},
        {Refusal.ADDRESS: 1},
    ),
    (
        "an address between bars is refused, with and without the end mark",
        b"||161.117.70.136\n||161.117.70.137^\n||a.example^\n",
        {"a.example": SUFFIX},
        {Refusal.ADDRESS: 2},
    ),
    (
        "lines of a second format are taken as what they are",
        b"||a.example^\n||b.example^\n0.0.0.0 tiktokcdn-us.com\n",
        {"a.example": SUFFIX, "b.example": SUFFIX, "tiktokcdn-us.com": EXACT},
        {},
    ),
    (
        "upper case is lowered",
        b"pull-hls-f01-SG01.tiktokcdn.com\nAUSpolice.com\n",
        {"pull-hls-f01-sg01.tiktokcdn.com": EXACT, "auspolice.com": EXACT},
        {},
    ),
    (
        "labels may have underscores",
        b"client_monitor.isnssdk.com\n_analytics.synonym.to\nntp_dyzl_ipc_address_1.cloudbirds.cn\n",
        {
            "client_monitor.isnssdk.com": EXACT,
            "_analytics.synonym.to": EXACT,
            "ntp_dyzl_ipc_address_1.cloudbirds.cn": EXACT,
        },
        {},
    ),
    (
        "labels may begin or end with a hyphen",
        b"-container.supertms.com\nclientperipherals-.dell.com\n",
        {"-container.supertms.com": EXACT, "clientperipherals-.dell.com": EXACT},
        {},
    ),
    (
        "a mistyped name is taken as written, and so not as the stranger's domain above it",
        b"clinent_monitor.isnssdk.com\ntencentmap.wechat.com.com\n",
        {"clinent_monitor.isnssdk.com": EXACT, "tencentmap.wechat.com.com": EXACT},
        {},
    ),
    (
        "what broken conversions leave is refused",
        b"0.0.0.0.beeglivesex.com\npull-cmaf-f16.tiktokcdn.com.localdomain\na.example\n",
        {"a.example": EXACT},
        {Refusal.CONVERSION: 1, Refusal.SPECIAL_NAME: 1},
    ),
    (
        "dnsmasq's server= blocks with nothing behind the name and is refused where it forwards",
        b"server=/0pbxmo.xzcs3zlph.com/\nserver=/wechat.com/114.114.114.114\n",
        {"0pbxmo.xzcs3zlph.com": SUFFIX},
        {Refusal.FORWARD: 1},
    ),
    (
        "substrings are refused",
        b"DOMAIN-KEYWORD,tiktok\nDOMAIN-KEYWORD,telegram\nDOMAIN-SUFFIX,a.example\nwx.\n",
        {"a.example": SUFFIX},
        {Refusal.SUBSTRING: 2, Refusal.TOP_LEVEL: 1},
    ),
    ("a suffix ends at a label", b"||t.me^\n", {"t.me": SUFFIX}, {}),
    (
        "whole top-level domains are refused",
        b"yandex\nalipay\nfull:a.example\n||org^\n",
        {"a.example": EXACT},
        {Refusal.TOP_LEVEL: 3},
    ),
    (
        "a name marked as exact stays exact",
        b"full:bytedance.map.fastly.net\nfull:roovza.inapps.appsflyersdk.com @ads\nbytedance.example\n",
        {
            "bytedance.map.fastly.net": EXACT,
            "roovza.inapps.appsflyersdk.com": EXACT,
            "bytedance.example": SUFFIX,
        },
        {},
    ),
    (
        "a list's own test name is a name like others",
        b"h4g3z1-native.tiktok.web.app\n",
        {"h4g3z1-native.tiktok.web.app": EXACT},
        {},
    ),
    ("a byte order mark is no part of a name", b"\xef\xbb\xbfa.example\n", {"a.example": EXACT}, {}),
    ("a byte order mark before a comment makes no rule", b"\xef\xbb\xbf# x\na.example\n", {"a.example": EXACT}, {}),
    (
        "a byte order mark in the middle, where two files were joined, is no part of a name",
        b"a.example\n\xef\xbb\xbfb.example\n\xef\xbb\xbf# x\n",
        {"a.example": EXACT, "b.example": EXACT},
        {},
    ),
    (
        "UTF-16 with its mark is read",
        "a.example\nbücher.example\n".encode("utf-16"),
        {
            "a.example": EXACT,
            "xn--bcher-kva.example": EXACT,
        },
        {},
    ),
    (
        "carriage returns end lines with newlines",
        b"a.example\r\nb.example\r\n",
        {
            "a.example": EXACT,
            "b.example": EXACT,
        },
        {},
    ),
    ("carriage returns end lines alone", b"a.example\rb.example\r", {"a.example": EXACT, "b.example": EXACT}, {}),
    ("the last line needs no newline", b"a.example\nb.example", {"a.example": EXACT, "b.example": EXACT}, {}),
    (
        "remarks of all kinds are no rules",
        b"#  ___ |_| <art>\n! x\n; x\n// x\n[Adblock Plus]\n||a.example^$important #I despise them\nb.example # x\n",
        {"a.example": SUFFIX, "b.example": EXACT},
        {},
    ),
    (
        "the unspecified address is an address",
        b"::  # dns.lihj.example\na.example\n",
        {"a.example": EXACT},
        {
            Refusal.ADDRESS: 1,
        },
    ),
    (
        "addresses, shared or not, are no names",
        b"100.69.180.29\n104.16.0.0/13\na.example\n",
        {"a.example": EXACT},
        {
            Refusal.ADDRESS: 2,
        },
    ),
    (
        "addresses of pages are refused",
        b"://[2604:2dc0:100:4ed8::]\nhttps://www.example.org/x\n0.0.0.0 a.example\n0.0.0.0 b.example\n",
        {"a.example": EXACT, "b.example": EXACT},
        {Refusal.URL: 2},
    ),
    (
        "a name below a CDN's is not cut to the CDN's",
        b"||tiktok.com.edgekey.net^\n||www-temu-com.trafficmanager.net^\n||www.temu.com.cdn.cloudflare.net^\n",
        {
            "tiktok.com.edgekey.net": SUFFIX,
            "www-temu-com.trafficmanager.net": SUFFIX,
            "www.temu.com.cdn.cloudflare.net": SUFFIX,
        },
        {},
    ),
    ("a placeholder cannot be told from a name", b"action.brand.qbrand.com\n", {"action.brand.qbrand.com": EXACT}, {}),
    (
        "a routing rule that names a way is no block",
        b"DOMAIN-SUFFIX,qpic.cn,DIRECT\nDOMAIN-SUFFIX,map.qq.com,PROXY\nDOMAIN-SUFFIX,a.example,REJECT\n",
        {"a.example": SUFFIX},
        {Refusal.FORWARD: 2},
    ),
    (
        "a hosts line without a name is refused",
        b"0.0.0.0  #[server down.all]\n0.0.0.0 a.example\n",
        {
            "a.example": EXACT,
        },
        {Refusal.BAD_NAME: 1},
    ),
    (
        "Windows-1252 in a remark is passed over, in a name refused",
        b"# caf\xe9\ncaf\xe9.example\na.example\n",
        {"a.example": EXACT},
        {Refusal.ENCODING: 1},
    ),
]


@pytest.mark.parametrize(("_", "octets", "names", "refused"), PITFALLS, ids=[pitfall[0] for pitfall in PITFALLS])
def test_what_goes_wrong_in_lists_has_a_decided_end(
    _: str, octets: bytes, names: dict[str, Reach], refused: dict[Refusal, int]
) -> None:
    """Each pitfall met in a public list ends in these names and these refusals, and in nothing else."""
    assert reaches(octets) == (names, refused)


NO_LISTS = [
    ("page", b"<!DOCTYPE html>\n<html><body>github.com</body></html>\n", "HTML"),
    ("page behind blanks", b"\n\n  <html>", "HTML"),
    ("feed", b'<?xml version="1.0"?><feed/>', "HTML or XML"),
    ("gzip", gzip.compress(b"a.example\n"), "gzip"),
    ("zip", b"PK\x03\x04\x14\0", "zip"),
    ("xz", b"\xfd7zXZ\0\0", "xz"),
    ("zstd", b"\x28\xb5\x2f\xfd\x24", "zstd"),
    ("bzip2", b"BZh91AY", "bzip2"),
    ("tar", b"domains".ljust(257, b"\0") + b"ustar\0", "tar"),
    ("pdf", b"%PDF-1.7\n", "PDF"),
    (
        "git-lfs pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "git-lfs",
    ),
    ("binary", b"a.example\n\0\1\2\n", "binary"),
    ("UTF-16 without its mark", "a.example\n".encode("utf-16-le"), "UTF-16 without its mark"),
    ("half of UTF-16", b"\xff\xfea\0\xd8", "UTF-16"),
    ("JSON object", b'{ "wx.": "WeChat"}', "JSON"),
    ("JSON array", b'\n["a.example", "b.example"]', "JSON"),
    ("endless line", b"a.example\n" + b"x" * (lists.MAX_LINE_OCTETS + 1), "longer than"),
    (
        "response policy zone",
        b"$TTL 3600\n@ SOA localhost. root.localhost. 1 2 3 4 5\na.example CNAME .\n",
        "policy zone",
    ),
    ("response policy rows", b"acr.roku.example CNAME .\n*.acr.roku.example CNAME .\n", "policy zone"),
]


@pytest.mark.parametrize(("_", "octets", "told"), NO_LISTS, ids=[no_list[0] for no_list in NO_LISTS])
def test_what_is_no_list_is_an_error_that_says_what_it_is(_: str, octets: bytes, told: str) -> None:
    """A page, an archive, a pointer or a binary in place of a list names no names, whatever the tolerance."""
    with pytest.raises(ListError, match=told) as error:
        read_list(octets, tolerance=1.0)
    assert not isinstance(error.value, EmptyList)


@pytest.mark.parametrize(
    "octets",
    [b"", b"\n \n", b"# nothing today\n", b"\xff\xfe", b"[Adblock Plus]\n", b"127.0.0.1 localhost\n", b"server:\n"],
)
def test_an_empty_list_is_told_apart(octets: bytes) -> None:
    """A list without a fault and without a name is an error of its own kind."""
    with pytest.raises(EmptyList):
        read_list(octets)


def test_a_list_of_which_nothing_can_be_taken_is_no_empty_list() -> None:
    """Refused lines make the difference between an emptied list and a broken one."""
    with pytest.raises(ListError) as error:
        read_list(b"192.0.2.1\n192.0.2.2\n", tolerance=1.0)
    assert not isinstance(error.value, EmptyList)


SNIFFED = [
    (b"a.example\nb.example\n", ListFormat.NAMES),
    (b"# x\n127.0.0.1 localhost\n0.0.0.0 a.example\n", ListFormat.HOSTS),
    (b"[Adblock Plus]\n! x\n||a.example^\n@@||b.example^$important\n", ListFormat.ADBLOCK),
    (b"*.a.example\n.b.example\nc.example\n", ListFormat.WILDCARD),
    (b"# x\naddress=/a.example/#\nserver=/b.example/\n", ListFormat.DNSMASQ),
    (b'server:\nlocal-zone: "a.example." always_null\n', ListFormat.UNBOUND),
    (b"(\\.|^)bytecdn\\.cn$\n^ads[0-9]+\\.\n", ListFormat.REGEX),
    (b"payload:\n  - DOMAIN-SUFFIX,a.example\n", ListFormat.ROUTING),
    (b"a.example\nb.example\nfull:c.example\ninclude:d\n", ListFormat.ROUTING),
    (b"$TTL 3600\n@ SOA localhost. root. 1 2 3 4 5\n  NS localhost.\na.example CNAME .\n", ListFormat.RPZ),
    (b"a.example CNAME .\n*.a.example CNAME .\n", ListFormat.RPZ),
    (b"\xef\xbb\xbf||a.example^\n", ListFormat.ADBLOCK),
]


@pytest.mark.parametrize(("octets", "form"), SNIFFED)
def test_the_format_is_that_of_most_lines(octets: bytes, form: ListFormat) -> None:
    """What a list is written in is told from the look of its lines."""
    assert sniff(octets) is form


def test_a_list_is_mixed_only_where_its_format_was_not_given() -> None:
    """With a format given, a line of another is refused as such; with none it is taken, and the report says so."""
    octets = b"a.example\nb.example\n||c.example^\n"
    zone, report = read_list(octets)
    assert (report.form, report.mixed, len(zone.names)) == (ListFormat.NAMES, True, 3)
    zone, report = read_list(octets, form=ListFormat.NAMES, tolerance=0.5)
    assert (report.mixed, len(zone.names), dict(report.refused)) == (False, 2, {Refusal.OTHER_FORMAT: 1})
    assert "adblock" in report.examples[0].why


def test_an_expression_among_names_is_not_guessed_at() -> None:
    """`ads[0-9]*` is one thing as an expression and another as a wildcard, so it wants a list of its own."""
    assert reaches(b"a.example\nb.example\nads[0-9]*\n")[1] == {Refusal.OTHER_FORMAT: 1}


def test_a_line_that_its_own_format_understands_and_refuses_is_not_tried_as_another() -> None:
    """dnscrypt-proxy's `@work` is a time in a wildcard list, whatever it would be elsewhere."""
    octets = b"*.a.example\n*.b.example\nfacebook.com @work\n"
    assert reaches(octets) == ({"a.example": SUFFIX, "b.example": SUFFIX}, {Refusal.MODIFIER: 1})


def test_a_browsers_list_does_not_block_the_pages_that_it_tidies() -> None:
    """`name##.banner` is no name with a remark."""
    assert reaches(b"a.example##.banner\nb.example#@#.banner\nc.example\n") == (
        {"c.example": EXACT},
        {Refusal.NOT_DNS: 2},
    )


def test_a_suffix_blocks_no_name_that_merely_ends_like_it() -> None:
    """`t.me` does not reach gotomeet.me."""
    zone, _ = read_list(b"||t.me^\n")
    (name,) = zone.names
    assert is_at_or_below(from_text("x.t.me"), name)
    assert not is_at_or_below(from_text("gotomeet.me"), name)


def test_an_exception_becomes_a_passthru_rule_of_the_lists_own_zone() -> None:
    """What a list excepts is told apart from what it blocks, so that who compiles it can keep it within the list."""
    zone, _ = read_list(b"||a.example^\n@@||b.a.example^\n")
    assert blocked(zone)[0] == {
        "a.example": {SUFFIX: Rule(Action.NXDOMAIN)},
        "b.a.example": {SUFFIX: Rule(Action.PASSTHRU)},
    }


OWN = from_text("lists.example.org")


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("lists.example.org", ListFormat.NAMES),
        ("||lists.example.org^", ListFormat.ADBLOCK),
        ("||example.org^", ListFormat.ADBLOCK),
        ("||*.example.org^", ListFormat.ADBLOCK),
        ("||list*.example.org^", ListFormat.ADBLOCK),
        (r"^lists\.", ListFormat.REGEX),
    ],
)
def test_a_list_cannot_block_the_host_that_it_comes_from(line: str, form: ListFormat) -> None:
    """A list that blocks its own host could never be updated again, so that line is refused."""
    _, report = read_list(f"a.example\n{line}\n".encode(), form=form, own_host=OWN, tolerance=0.5)
    assert dict(report.refused) == {Refusal.OWN_HOST: 1}


@pytest.mark.parametrize(
    "line",
    [
        "||www.example.org^",
        "example.org",
        "||*.lists.example.org^",
        "@@||example.org^",
        "||example.org^$denyallow=lists.example.org",
    ],
)
def test_names_about_the_lists_host_that_leave_it_open_are_taken(line: str) -> None:
    """Only what reaches the host itself is refused."""
    _, report = read_list(f"{line}\n".encode(), form=ListFormat.ADBLOCK, own_host=OWN)
    assert report.taken == 1


A, AAAA = 1, 28
SETTLED = [
    (["||x.example^", "@@||x.example^"], Rule(Action.PASSTHRU)),
    (["||x.example^", "@@||x.example^", "||x.example^$important"], Rule(Action.NXDOMAIN, important=True)),
    (["||x.example^$important", "@@||x.example^$important"], Rule(Action.PASSTHRU, important=True)),
    (["||x.example^$dnstype=A", "||x.example^$dnstype=AAAA"], Rule(Action.NXDOMAIN, qtypes=(A, AAAA))),
    (["||x.example^$dnstype=A", "||x.example^"], Rule(Action.NXDOMAIN)),
    (["||x.example^$dnstype=A", "||x.example^$dnstype=~A"], Rule(Action.NXDOMAIN)),
    (
        ["||x.example^$dnstype=~A|~AAAA", "||x.example^$dnstype=A"],
        Rule(Action.NXDOMAIN, qtypes=(AAAA,), but_qtypes=True),
    ),
    (
        ["||x.example^$dnstype=~A|~AAAA", "||x.example^$dnstype=~A"],
        Rule(Action.NXDOMAIN, qtypes=(A,), but_qtypes=True),
    ),
    (["||x.example^$denyallow=a.x.example", "||x.example^$denyallow=b.x.example"], Rule(Action.NXDOMAIN)),
    (
        ["||x.example^$denyallow=a.x.example", "||x.example^$denyallow=c.a.x.example|b.x.example"],
        Rule(Action.NXDOMAIN, spares=(from_text("c.a.x.example"),)),
    ),
    (["||x.example^$dnsrewrite=REFUSED", "||x.example^"], Rule(Action.REFUSED)),
]


@pytest.mark.parametrize(("lines", "rule"), SETTLED)
def test_lines_about_one_name_come_to_one_rule_in_any_order(lines: list[str], rule: Rule) -> None:
    """Important before exception before block; what covers the name in parts is put together."""
    for order in permutations(lines):
        zone, report = read_list("\n".join(order).encode())
        assert blocked(zone)[0] == {"x.example": {SUFFIX: rule}}
        assert (report.taken, report.refused_lines) == (len(lines), 0)


def test_what_one_rule_cannot_hold_is_refused_as_a_conflict() -> None:
    """An exception for one type beside a block of all: the exception stands, and the loss is told."""
    for order in permutations(["||x.example^", "@@||x.example^$dnstype=A"]):
        zone, report = read_list("\n".join(order).encode(), tolerance=0.5)
        assert blocked(zone)[0] == {"x.example": {SUFFIX: Rule(Action.PASSTHRU, qtypes=(A,))}}
        assert (report.taken, dict(report.refused)) == (1, {Refusal.CONFLICT: 1})
        assert "x.example" in report.examples[0].why


def test_a_name_said_twice_is_a_duplicate_and_said_at_two_reaches_is_not() -> None:
    """Duplicates are counted, whichever way the lines were read."""
    zone, report = read_list(b"||x.example^\n ||X.example^\n|x.example^\n||x.example^\n/^x/\n/^x/\n")
    assert (report.taken, report.duplicates) == (3, 3)
    assert blocked(zone)[0] == {"x.example": {EXACT: Rule(Action.NXDOMAIN), SUFFIX: Rule(Action.NXDOMAIN)}}


def test_a_refused_line_is_shown_safely_with_its_place() -> None:
    """Line, column, a text that cannot harm a terminal, the reason and the mend."""
    bad = "a.example\n0.0.0.0 x\x1b[31m\u202e" + "y" * 100 + ".example\n"
    _, report = read_list(bad.encode(), tolerance=0.5)
    (refused,) = report.examples
    assert (refused.line, refused.column, refused.reason) == (2, 9, Refusal.BAD_NAME)
    assert refused.text.startswith("0.0.0.0 x\\x1b[31m\\u202eyyy")
    assert refused.text.isprintable()
    assert len(refused.text) == 80


def test_more_refusals_than_tolerated_make_an_error_that_names_the_commonest() -> None:
    """The message has the share, the reasons in order, and a line of each."""
    octets = b"a.example\n" * 3 + b"192.0.2.1\n192.0.2.2\norg\n"
    with pytest.raises(ListError, match=r"3 of 6 .*50\.0%.*2 × address, as line 4 \(192\.0\.2\.1\).*1 × top-level"):
        read_list(octets, tolerance=0.49)
    _, report = read_list(octets, tolerance=0.5)
    assert (report.taken, report.duplicates, report.refused_lines) == (1, 2, 3)


def test_strict_means_not_one_line() -> None:
    """At 0.0 a single refused line in a thousand names is an error."""
    octets = b"".join(b"n%d.example\n" % i for i in range(1000))
    assert read_list(octets, tolerance=0.0)[1].taken == 1000
    with pytest.raises(ListError):
        read_list(octets + b"org\n", tolerance=0.0)


def test_only_the_first_refusals_are_kept_and_all_are_counted() -> None:
    """A list of junk does not fill the memory with its faults."""
    octets = b"a.example\n" + b"192.0.2.1\n" * (lists.KEPT_REFUSALS + 5)
    _, report = read_list(octets, tolerance=1.0)
    assert len(report.examples) == lists.KEPT_REFUSALS
    assert report.refused[Refusal.ADDRESS] == lists.KEPT_REFUSALS + 5


def test_expressions_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit expressions are refused, and twice past it the list is."""
    monkeypatch.setattr(lists, "MAX_PATTERNS", 3)
    zone, report = read_list(b"^a1\\.\n^a2\\.\n^a3\\.\n^a4\\.\n^a5\\.\n", tolerance=1.0)
    assert (len(zone.patterns), dict(report.refused)) == (3, {Refusal.LIMIT: 2})
    with pytest.raises(ListError, match="more than 6 lines are expressions"):
        read_list(b"^a1\\.\n" * 7, tolerance=1.0)


def test_a_lists_expressions_fit_into_one_set() -> None:
    """Wildcards without end are refused past the size that one set of expressions can have, and the set is made."""
    octets = b"".join(b"||p%d-*.host%d.example^\n" % (i, i) for i in range(4_000))
    zone, report = read_list(octets, tolerance=1.0)
    assert report.taken + report.refused[Refusal.LIMIT] == 4_000
    assert PatternSet(zone.patterns).match("p7-x.host7.example") == [(r"(^|\.)p7-.*\.host7\.example$", 0)]


def test_rules_that_differ_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list may have many names, not many kinds of rule; a kind that it has already goes on."""
    monkeypatch.setattr(lists, "MAX_RULES", 2)
    octets = b" ||a.example^\n||b.example^$dnstype=A\n||c.example^$dnstype=AAAA\n||d.example^$dnstype=A\n||e.example^\n"
    zone, report = read_list(octets, tolerance=1.0)
    assert {to_text(name) for name in zone.names} == {f"{letter}.example" for letter in "abde"}
    assert dict(report.refused) == {Refusal.LIMIT: 1}


def test_progress_is_told_up_to_the_end() -> None:
    """Who waits hears of octets done and octets in all, the last time with both the same."""
    octets = b"".join(b"n%d.example\n" % i for i in range(140_000))
    told: list[tuple[int, int]] = []
    read_list(octets, progress=lambda done, whole: told.append((done, whole)))
    assert len(told) >= 3
    assert told == sorted(told)
    assert told[-1] == (len(octets), len(octets))


def test_a_plain_name_reaches_as_far_as_asked() -> None:
    """The parameter is for formats without a word for reach; a hosts file stays exact."""
    zone, _ = read_list(b"a.example\nb.example\n0.0.0.0 c.example\n", plain_reach=SUFFIX)
    assert {name: set(held) for name, held in blocked(zone)[0].items()} == {
        "a.example": {SUFFIX},
        "b.example": {SUFFIX},
        "c.example": {EXACT},
    }


def test_the_same_octets_give_the_same_zone() -> None:
    """Nothing but the octets decides, so what changed in a zone is what somebody changed in the list."""
    octets = b"||a.example^\n@@||b.example^\n/^c/\n"
    assert blocked(read_list(octets)[0]) == blocked(read_list(octets)[0])


# Lines of all formats, whole and broken, for stories that mix them.
LINES = [
    "",
    "# x",
    "a.example",
    " a.example",
    "A.example.",
    "b.a.example # x",
    "0.0.0.0 a.example",
    "127.0.0.1 localhost",
    "0.0.0.0 c.example d.example",
    "||a.example^",
    "@@||a.example^",
    "||a.example^$important",
    "||a.example^$dnstype=A",
    "||a.example^$dnstype=~AAAA",
    "@@||a.example^$dnstype=A",
    "||a.example^$denyallow=b.a.example",
    "||a.example^$dnsrewrite=REFUSED",
    "|a.example^",
    "||*.a.example^",
    "||ads*.example^",
    "/^ads/",
    "@@/^ads/",
    "*.a.example",
    "=a.example",
    "address=/a.example/#",
    "server=/a.example/192.0.2.1",
    'local-zone: "a.example." static',
    "DOMAIN-SUFFIX,a.example",
    "full:a.example",
    "192.0.2.1",
    "org",
    "caf\u00e9.example",
    "a..example",
    "\ufeffe.example",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=12), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_lines_means_nothing(lines: list[str], random: object, given_form: bool) -> None:
    """Shuffled lines block the same names by the same rules, and every line is accounted for."""
    form = ListFormat.ADBLOCK if given_form else None
    shuffled = list(lines)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ends: list[Blocked | None] = []
    for story in (lines, shuffled):
        try:
            zone, report = read_list("\n".join(story).encode(), form=form, tolerance=1.0)
        except ListError:
            ends.append(None)
        else:
            assert adds_up(report)
            ends.append(blocked(zone))
    assert ends[0] == ends[1]


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400),
        st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(LINES).map(str.encode))).map(b"\n".join),
    ),
    st.sampled_from([None, *ListFormat]),
)
@example(b"\xff\xfe\x00", None)
@example(b"a.example\r", None)
@example(b"\xef\xbb\xbf\xef\xbb\xbf", ListFormat.REGEX)
def test_any_octets_are_a_list_with_an_account_or_an_error(octets: bytes, form: ListFormat | None) -> None:
    """Whatever comes, it ends in a zone whose report adds up or in a ListError."""
    try:
        zone, report = read_list(octets, form=form, tolerance=1.0, own_host=OWN)
    except ListError as error:
        zone, report = PolicyZone(), error.report
    assert report is None or adds_up(report)
    assert bool(report and report.taken) >= any(count for _, count in zone.triggers())


LABEL = st.text(alphabet="abcxyz019-_", min_size=1, max_size=12)
# What begins as a sink address does is told apart as what a broken conversion leaves (`Refusal.CONVERSION`).
NAME = (
    st.lists(LABEL, min_size=1, max_size=4)
    .map(lambda labels: ".".join([*labels, "example"]))
    .filter(lambda name: not name.startswith(("0.0.0.0.", "127.0.0.1.")))
)

WRITTEN_AS_SUFFIX = [
    (ListFormat.ADBLOCK, "||{}^"),
    (ListFormat.ADBLOCK, "||{}^$important,dnstype=A,important"),
    (ListFormat.WILDCARD, "*.{}"),
    (ListFormat.WILDCARD, ".{}"),
    (ListFormat.WILDCARD, "+.{}"),
    (ListFormat.DNSMASQ, "address=/{}/"),
    (ListFormat.DNSMASQ, "address=/{}/#"),
    (ListFormat.DNSMASQ, "local=/{}/"),
    (ListFormat.DNSMASQ, "server=/{}/"),
    (ListFormat.UNBOUND, 'local-zone: "{}." always_nxdomain'),
    (ListFormat.ROUTING, "DOMAIN-SUFFIX,{}"),
    (ListFormat.ROUTING, "domain:{}"),
]
WRITTEN_AS_EXACT = [
    (ListFormat.NAMES, "{}"),
    (ListFormat.NAMES, "{}."),
    (ListFormat.HOSTS, "0.0.0.0 {}"),
    (ListFormat.HOSTS, ":: {} # x"),
    (ListFormat.ADBLOCK, "|{}^"),
    (ListFormat.WILDCARD, "={}"),
    (ListFormat.UNBOUND, 'local-data: "{}. A 0.0.0.0"'),
    (ListFormat.ROUTING, "DOMAIN,{}"),
    (ListFormat.ROUTING, "full:{}"),
]


@settings(deadline=None)
@given(NAME)
def test_a_name_is_the_same_in_every_format(name: str) -> None:
    """However a name is written, in whatever case, what is held is that name at the format's reach."""
    for reach, ways in ((SUFFIX, WRITTEN_AS_SUFFIX), (EXACT, WRITTEN_AS_EXACT)):
        for form, way in ways:
            for written in (way.format(name), way.format(name.upper())):
                for given_form in (form, None):
                    zone, report = read_list(f"{written}\n".encode(), form=given_form)
                    assert {n: set(held) for n, held in blocked(zone)[0].items()} == {name: {reach}}
                    assert report.form is form


# Names at the edge of what the quick way takes, and past it.
EDGY = st.builds(
    lambda before, labels, after: before + ".".join(labels) + after,
    st.sampled_from(
        ["", "0.0.0.0.", "127.0.0.1.", "*.", "-", "_", "x" * 63 + ".", "x" * 64 + ".", ("y" * 60 + ".") * 4]
    ),
    st.lists(st.text(alphabet="aZ09-_", min_size=0, max_size=12), min_size=1, max_size=3),
    st.sampled_from(
        ["", ".", ".local", ".LOCALHOST", ".invalid", ".localdomain", ".7", ".a7", ".7a", ".example", "..", " # x"]
    ),
)
QUICK = [
    "{}",
    "0.0.0.0 {}",
    "::\t{}",
    "||{}^",
    "*.{}",
    ".{};",
    "address=/{}/#",
    "server=/{}/#",
    "local=/{}/",
    "address=/{}/1.1.1.1",
]
QUICK += ['local-zone: "{}." always_null', 'local-zone: "{}" static', "DOMAIN-SUFFIX,{}", "domain:{}", "+.{}"]


@settings(max_examples=300, deadline=None)
@given(EDGY, st.sampled_from(QUICK), st.sampled_from([form for form in ListFormat if form is not ListFormat.RPZ]))
def test_the_quick_way_takes_what_the_full_way_takes(name: str, way: str, form: ListFormat) -> None:
    """A blank before a line sends it the full way: both ways hold the same and refuse for the same reason."""
    ends: list[object] = []
    for before in ("", " "):
        try:
            zone, report = read_list(f"{before}{way.format(name)}\n".encode(), form=form, tolerance=1.0)
        except ListError as error:
            ends.append(error.report and dict(error.report.refused))
        else:
            ends.append((blocked(zone), dict(report.refused)))
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_large_list_is_read_without_an_object_for_each_line() -> None:
    """A hundred thousand names share one tuple of holds and one rule."""
    octets = b"".join(b"||n%d.example^\n" % i for i in range(100_000))
    zone, report = read_list(octets)
    assert report.taken == len(zone.names) == 100_000
    assert len({id(held) for held in zone.names.values()}) == 1
    assert len(zone.rules) == 1
