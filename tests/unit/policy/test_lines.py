"""One line of a list: what it holds in each format, and what is refused for which reason."""

import re

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.documents import Action
from resolver.policy.lines import (
    BLOCK,
    MAX_PATTERN_CHARACTERS,
    Hold,
    LineRefused,
    ListFormat,
    Pattern,
    Refusal,
    finds,
    name_of,
    pattern_of,
    read_line,
)
from resolver.policy.zone import Reach, Rule
from resolver.wire.name import from_text

NAMES, HOSTS, ADBLOCK, WILDCARD, DNSMASQ, UNBOUND, REGEX, ROUTING, RPZ = ListFormat
EXACT, SUFFIX, BELOW = Reach.EXACT, Reach.SUFFIX, Reach.BELOW

# (format, line, name, reach): lines that hold one name, most of them as they stand in public lists.
ONE_NAME = [
    (NAMES, "003153.xyz", "003153.xyz", EXACT),
    (NAMES, "philadelphia_cbslocal.us.intellitxt.com", "philadelphia_cbslocal.us.intellitxt.com", EXACT),
    (NAMES, "kh.ua.", "kh.ua", EXACT),
    (NAMES, "Donoyo.net", "donoyo.net", EXACT),
    (NAMES, "xn--durhre-yxa.de", "xn--durhre-yxa.de", EXACT),
    (NAMES, "cdn.ampproject.org #281", "cdn.ampproject.org", EXACT),
    (NAMES, "a.example#remark", "a.example", EXACT),
    (NAMES, "a.example ## remark", "a.example", EXACT),
    (NAMES, "a.example // remark", "a.example", EXACT),
    (NAMES, "a.example,", "a.example", EXACT),
    (NAMES, "-container.supertms.com", "-container.supertms.com", EXACT),
    (NAMES, "clientperipherals-.dell.com", "clientperipherals-.dell.com", EXACT),
    (HOSTS, "0.0.0.0 0pbxmo-useast2a.xzcs3zlph.com", "0pbxmo-useast2a.xzcs3zlph.com", EXACT),
    (HOSTS, ":: a-0001.a-msedge.net", "a-0001.a-msedge.net", EXACT),
    (HOSTS, "::1\ta.example", "a.example", EXACT),
    (HOSTS, "::ffff:0.0.0.0 a.example", "a.example", EXACT),
    (HOSTS, "0.0.0.1 a.example", "a.example", EXACT),
    (HOSTS, "127.0.0.2 a.example", "a.example", EXACT),
    (HOSTS, "0.0.0.0 adultfriendfinder.com  #[Tracking.Cookie]", "adultfriendfinder.com", EXACT),
    (HOSTS, "127.0.0.1 localhost localhost.localdomain a.example", "a.example", EXACT),
    (ADBLOCK, "||wechat.com^", "wechat.com", SUFFIX),
    (ADBLOCK, "||wechat.com^|", "wechat.com", SUFFIX),
    (ADBLOCK, "||wechat.com|", "wechat.com", SUFFIX),
    (ADBLOCK, "|p16-tiktokcdn-com.akamaized.net^", "p16-tiktokcdn-com.akamaized.net", EXACT),
    (ADBLOCK, "||*.example.org^", "example.org", BELOW),
    (ADBLOCK, "*.example.org^", "example.org", BELOW),
    (ADBLOCK, "example.org", "example.org", EXACT),
    (ADBLOCK, "0.0.0.0 tiktokcdn-us.com", "tiktokcdn-us.com", EXACT),
    (WILDCARD, "*.012proxy.ga", "012proxy.ga", SUFFIX),
    (WILDCARD, "*.2mdn.net;", "2mdn.net", SUFFIX),
    (WILDCARD, ".akamaiedge.net", "akamaiedge.net", SUFFIX),
    (WILDCARD, "+.deepseek.com", "deepseek.com", SUFFIX),
    (WILDCARD, "=example.com", "example.com", EXACT),
    (WILDCARD, "example.com", "example.com", EXACT),
    (DNSMASQ, "address=/10xcryptotrade.uk/#", "10xcryptotrade.uk", SUFFIX),
    (DNSMASQ, "address=/a.example/", "a.example", SUFFIX),
    (DNSMASQ, "address=/a.example/0.0.0.0", "a.example", SUFFIX),
    (DNSMASQ, "address=/a.example/::", "a.example", SUFFIX),
    (DNSMASQ, "address=/.a.example/127.0.0.1 # remark", "a.example", SUFFIX),
    (DNSMASQ, "server=/0pbxmo.xzcs3zlph.com/", "0pbxmo.xzcs3zlph.com", SUFFIX),
    (DNSMASQ, "local=/a.example/", "a.example", SUFFIX),
    (DNSMASQ, "local=/*.a.example/", "a.example", BELOW),
    (UNBOUND, 'local-zone: "012proxy.ga." always_null', "012proxy.ga", SUFFIX),
    (UNBOUND, "local-zone: a.example static", "a.example", SUFFIX),
    (UNBOUND, "local-zone: 'a.example' always_nxdomain # remark", "a.example", SUFFIX),
    (UNBOUND, 'local-zone: "a.example" inform_deny', "a.example", SUFFIX),
    (UNBOUND, 'local-data: "a.example. A 0.0.0.0"', "a.example", EXACT),
    (UNBOUND, "local-data: 'a.example 3600 IN AAAA ::'", "a.example", EXACT),
    (ROUTING, "DOMAIN-SUFFIX,weixin.qq.com", "weixin.qq.com", SUFFIX),
    (ROUTING, "DOMAIN,dldir1.qq.com", "dldir1.qq.com", EXACT),
    (ROUTING, "HOST-SUFFIX,a.example,REJECT", "a.example", SUFFIX),
    (ROUTING, "  - DOMAIN-SUFFIX,a.example,REJECT-DROP", "a.example", SUFFIX),
    (ROUTING, "- '+.a.example'", "a.example", SUFFIX),
    (ROUTING, ".a.example", "a.example", BELOW),
    (ROUTING, "full:dnl-00.geo.kaspersky.com @cn", "dnl-00.geo.kaspersky.com", EXACT),
    (ROUTING, "domain:a.example:@ads", "a.example", SUFFIX),
    (ROUTING, "wetv.vip @!cn", "wetv.vip", SUFFIX),
    (ROUTING, "a.example &group # remark", "a.example", SUFFIX),
]


@pytest.mark.parametrize(("form", "line", "name", "reach"), ONE_NAME)
def test_a_line_holds_its_name_as_far_as_its_format_says(form: ListFormat, line: str, name: str, reach: Reach) -> None:
    """Each format's ways to write a name come to that name, blocked, with that format's reach."""
    assert list(read_line(line, form)) == [Hold(from_text(name), reach, BLOCK)]


# (format, line, expression, found in, not found in)
EXPRESSIONS = [
    (
        ADBLOCK,
        "||p16-tiktok-*.ibyteimg.com^",
        ["p16-tiktok-a.ibyteimg.com", "x.p16-tiktok-.ibyteimg.com", "p16-tiktok-a.b.ibyteimg.com"],
        ["xp16-tiktok-a.ibyteimg.com", "p16-tiktok-a.ibyteimg.com.example", "p16-tiktok-axibyteimg.com"],
    ),
    (ADBLOCK, "||v*.tiktokcdn-eu.com^", ["v16.tiktokcdn-eu.com"], ["tiktokcdn-eu.com", "av16.tiktokcdn-eu.com"]),
    (ADBLOCK, "|ads*.a.example^", ["ads1.a.example"], ["x.ads1.a.example"]),
    (
        ADBLOCK,
        "||aax-*.amazon.*^",
        ["aax-eu.amazon.de", "x.aax-eu.amazon.co.uk"],
        ["aax.amazon.de", "saax-eu.amazon.de"],
    ),
    (ADBLOCK, "||ads*^", ["ads7.example", "x.adsl.example"], ["roads.example"]),
    (ADBLOCK, "/^ads[0-9]+\\.a\\.example$/", ["ads7.a.example"], ["x.ads7.a.example"]),
    (WILDCARD, "ads.*", ["ads.example"], ["x.ads.example", "adsl.example"]),
    (WILDCARD, "ads*.a.example", ["ads1.a.example"], ["x.ads1.a.example"]),
    (DNSMASQ, "address=/*google.example/", ["supergoogle.example"], ["google.example.org"]),
    (REGEX, r"(\.|^)bytecdn\.cn$", ["bytecdn.cn", "x.bytecdn.cn"], ["xbytecdn.cn", "bytecdn.cn.example"]),
    (REGEX, r"^ad([sxv]?[0-9]*|system)[_.-]([^.[:space:]]+\.){1,}", ["ads1.a.example"], ["x.example"]),
    (REGEX, "/^ADS\\.EXAMPLE$/", ["ads.example"], ["x.ads.example"]),
    (ROUTING, r"regexp:(^|\.)13mei[5-7]\.buzz$", ["13mei6.buzz", "x.13mei5.buzz"], ["13mei8.buzz", "a13mei5.buzz"]),
    (ROUTING, r"regexp:^a{1,3}\.example$", ["aa.example"], ["aaaa.example"]),
    (ROUTING, r"DOMAIN-REGEX,^a+\.example$", ["aa.example"], ["b.example"]),
]


@pytest.mark.parametrize(("form", "line", "found", "missed"), EXPRESSIONS)
def test_a_wildcard_or_expression_finds_what_it_says(
    form: ListFormat, line: str, found: list[str], missed: list[str]
) -> None:
    """A `*` crosses labels, an anchor holds at a label or at the name, and an expression is searched for."""
    (pattern,) = read_line(line, form)
    assert isinstance(pattern, Pattern)
    assert [name for name in found + missed if finds(pattern.expression, name)] == found


# (line, rule): what an Adblock line's marks make of it.
RULES = [
    ("||a.example^$important", Rule(Action.NXDOMAIN, important=True)),
    ("||a.example^$important #I despise them", Rule(Action.NXDOMAIN, important=True)),
    ("||a.example^$important,important", Rule(Action.NXDOMAIN, important=True)),
    ("@@||a.example^", Rule(Action.PASSTHRU)),
    ("@@||a.example^$important", Rule(Action.PASSTHRU, important=True)),
    (
        "||a.example^$denyallow=wx.a.example|weixin.a.example",
        Rule(Action.NXDOMAIN, spares=tuple(sorted(map(from_text, ("wx.a.example", "weixin.a.example"))))),
    ),
    ("||a.example^$dnstype=AAAA|a", Rule(Action.NXDOMAIN, qtypes=(1, 28))),
    ("||a.example^$dnstype=~A|~CNAME", Rule(Action.NXDOMAIN, qtypes=(1, 5), but_qtypes=True)),
    ("||a.example^$dnstype=~A|AAAA", Rule(Action.NXDOMAIN, qtypes=(28,))),
    ("||a.example^$dnstype=TYPE65535", Rule(Action.NXDOMAIN, qtypes=(65535,))),
    ("||a.example^$dnsrewrite=NXDOMAIN;;", Rule(Action.NXDOMAIN)),
    ("||a.example^$dnsrewrite=REFUSED", Rule(Action.REFUSED)),
    ("||a.example^$dnstype=AAAA,dnsrewrite=NOERROR;;", Rule(Action.NODATA, qtypes=(28,))),
]


@pytest.mark.parametrize(("line", "rule"), RULES)
def test_adblock_modifiers_make_the_rule(line: str, rule: Rule) -> None:
    """The modifiers that are known narrow or strengthen the rule as AdGuard documents them."""
    assert list(read_line(line, ADBLOCK)) == [Hold(from_text("a.example"), SUFFIX, rule)]


# (format, line, reason)
REFUSED = [
    (NAMES, "161.117.70.136", Refusal.ADDRESS),
    (NAMES, "192.168.1", Refusal.ADDRESS),
    (NAMES, "::  # dns.lihj.example", Refusal.ADDRESS),
    (NAMES, "192.0.2.0/24", Refusal.ADDRESS),
    (NAMES, "[2001:db8::1]", Refusal.ADDRESS),
    (NAMES, "0.0.0.0.beeglivesex.com", Refusal.CONVERSION),
    (NAMES, "127.0.0.1.a.example", Refusal.CONVERSION),
    (NAMES, "pull-cmaf-f16.tiktokcdn.com.localdomain", Refusal.SPECIAL_NAME),
    (NAMES, "localhost", Refusal.SPECIAL_NAME),
    (NAMES, "yandex", Refusal.TOP_LEVEL),
    (NAMES, "wx.", Refusal.TOP_LEVEL),
    (NAMES, ".", Refusal.EVERYTHING),
    (NAMES, "https://www.example.org/list", Refusal.URL),
    (NAMES, "example.org/path", Refusal.URL),
    (NAMES, "://[2604:2dc0:100:4ed8::]", Refusal.URL),
    (NAMES, "example.org:443", Refusal.BAD_NAME),
    (NAMES, "a..example", Refusal.BAD_NAME),
    (NAMES, "a\\.b.example", Refusal.BAD_NAME),
    (NAMES, "a\x1b[31m.example", Refusal.BAD_NAME),
    (NAMES, "x" * 64 + ".example", Refusal.BAD_NAME),
    (NAMES, ".".join(["x" * 60] * 5), Refusal.BAD_NAME),
    (NAMES, "ü" * 300 + ".example", Refusal.BAD_NAME),
    (NAMES, "i❤.example", Refusal.BAD_NAME),
    (NAMES, "a.example b.example", Refusal.TRAILING_TEXT),
    (NAMES, "a.example##.banner", Refusal.NOT_DNS),
    (HOSTS, "0.0.0.0\t161.117.70.136", Refusal.ADDRESS),
    (HOSTS, "0.0.0.0  #[server down.all]", Refusal.BAD_NAME),
    (HOSTS, "192.0.2.7 a.example", Refusal.MAPPING),
    (HOSTS, "a.example 0.0.0.0", Refusal.BAD_NAME),
    (HOSTS, "0.0.0.0 good.example bad..example", Refusal.BAD_NAME),
    (ADBLOCK, "||161.117.70.136", Refusal.ADDRESS),
    (ADBLOCK, "||1.2.*^", Refusal.ADDRESS),
    (ADBLOCK, "||org^", Refusal.TOP_LEVEL),
    (ADBLOCK, "||*.org^", Refusal.TOP_LEVEL),
    (ADBLOCK, "@@||org^", Refusal.TOP_LEVEL),
    (ADBLOCK, "||*^", Refusal.EVERYTHING),
    (ADBLOCK, "||a*^", Refusal.EVERYTHING),
    (ADBLOCK, "/.*/", Refusal.EVERYTHING),
    (ADBLOCK, "/\\./", Refusal.EVERYTHING),
    (ADBLOCK, "||*googleadservices*^$important", Refusal.SUBSTRING),
    (ADBLOCK, "example.org^", Refusal.SUBSTRING),
    (ADBLOCK, "ads-*.example.org^", Refusal.SUBSTRING),
    (ADBLOCK, "||example.org", Refusal.OPEN_END),
    (ADBLOCK, "||p16-*.example.org", Refusal.OPEN_END),
    (ADBLOCK, "||example.org/path^", Refusal.URL),
    (ADBLOCK, "@@||albert.apple.com^$important | Device activation", Refusal.TRAILING_TEXT),
    (ADBLOCK, "||1degree.com.au^$important$important", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$third-party", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$badfilter", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$client=192.0.2.1", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$ctag=device_tv", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$respgeo=XX", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$important=1", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$dnstype=NOSUCH", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$dnstype=TYPE65536", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$dnsrewrite=192.0.2.1", Refusal.MODIFIER),
    (ADBLOCK, "@@||example.org^$dnsrewrite=REFUSED", Refusal.MODIFIER),
    (ADBLOCK, "||example.org^$denyallow=com", Refusal.TOP_LEVEL),
    (ADBLOCK, "example.org##.banner", Refusal.NOT_DNS),
    (ADBLOCK, "example.org#@#.banner", Refusal.NOT_DNS),
    (ADBLOCK, r"/(a)\1/", Refusal.PATTERN),
    (WILDCARD, "*sex*", Refusal.SUBSTRING),
    (WILDCARD, "ads[0-9]*", Refusal.PATTERN),
    (WILDCARD, "*.local", Refusal.SPECIAL_NAME),
    (WILDCARD, "*.workgroup", Refusal.TOP_LEVEL),
    (WILDCARD, "*.", Refusal.BAD_NAME),
    (WILDCARD, "*", Refusal.EVERYTHING),
    (WILDCARD, "facebook.com @work", Refusal.MODIFIER),
    (DNSMASQ, "server=/wechat.com/114.114.114.114", Refusal.FORWARD),
    (DNSMASQ, "server=/wechat.com/#", Refusal.FORWARD),
    (DNSMASQ, "server=114.114.114.114", Refusal.FORWARD),
    (DNSMASQ, "address=/#/", Refusal.EVERYTHING),
    (DNSMASQ, "address=/#/0.0.0.0", Refusal.EVERYTHING),
    (DNSMASQ, "server=//", Refusal.TOP_LEVEL),
    (DNSMASQ, "address=/a.example/192.0.2.1", Refusal.MAPPING),
    (DNSMASQ, "ipset=/a.example/set", Refusal.DIRECTIVE),
    (DNSMASQ, "conf-file=/etc/more.conf", Refusal.INCLUDE),
    (UNBOUND, 'local-zone: "a.example" transparent', Refusal.DIRECTIVE),
    (UNBOUND, 'local-zone: "a.example" redirect', Refusal.MAPPING),
    (UNBOUND, 'local-data: "a.example A 192.0.2.1"', Refusal.MAPPING),
    (UNBOUND, "local-data: \"a.example TXT 'x'\"", Refusal.MAPPING),
    (UNBOUND, 'local-zone: "." always_null', Refusal.EVERYTHING),
    (UNBOUND, 'include: "more.conf"', Refusal.INCLUDE),
    (UNBOUND, "verbosity: 1", Refusal.DIRECTIVE),
    (REGEX, "(", Refusal.PATTERN),
    (REGEX, r"(a)\1\.example", Refusal.PATTERN),
    (REGEX, r"a(?=\.example)", Refusal.PATTERN),
    (REGEX, r"(?<!x)a\.example", Refusal.PATTERN),
    (REGEX, "a{2000}", Refusal.PATTERN),
    (REGEX, "(((a{20}){20}){20}){20}", Refusal.PATTERN),
    (REGEX, "a" * (MAX_PATTERN_CHARACTERS + 1), Refusal.PATTERN),
    (REGEX, "münchen", Refusal.PATTERN),
    (REGEX, "a b", Refusal.PATTERN),
    (REGEX, ".+", Refusal.EVERYTHING),
    (REGEX, "x*", Refusal.EVERYTHING),
    (REGEX, r"^a\.example$;querytype=A", Refusal.MODIFIER),
    (ROUTING, "DOMAIN-KEYWORD,tiktok", Refusal.SUBSTRING),
    (ROUTING, "DOMAIN-KEYWORD,101.226.211.", Refusal.SUBSTRING),
    (ROUTING, "keyword:tiktok", Refusal.SUBSTRING),
    (ROUTING, "IP-CIDR,101.32.104.4/32,no-resolve", Refusal.ADDRESS),
    (ROUTING, "PROCESS-NAME,com.zhiliaoapp.musically", Refusal.NOT_DNS),
    (ROUTING, "AND,((DOMAIN-SUFFIX,wechat.com),(NOT,((DOMAIN,sgshort.wechat.com))))", Refusal.MODIFIER),
    (ROUTING, "include:qcloud", Refusal.INCLUDE),
    (ROUTING, "GEOSITE,cn", Refusal.INCLUDE),
    (ROUTING, "MATCH,DIRECT", Refusal.EVERYTHING),
    (ROUTING, "DOMAIN-SUFFIX,a.example,DIRECT", Refusal.FORWARD),
    (ROUTING, "DOMAIN-SUFFIX,org", Refusal.TOP_LEVEL),
    (ROUTING, "*.a.example", Refusal.PATTERN),
    (ROUTING, "yandex", Refusal.TOP_LEVEL),
    (ROUTING, "a.example b.example", Refusal.TRAILING_TEXT),
    (ROUTING, "'", Refusal.BAD_NAME),
    (RPZ, "a.example CNAME .", Refusal.OTHER_FORMAT),
]


MEND = re.compile(r"[;:] (anchor|begin|block|delete|give|leave|name|put|read|shorten|split|use|write)\b")


@pytest.mark.parametrize(("form", "line", "reason"), REFUSED)
def test_a_line_that_cannot_be_taken_says_why_and_the_mend(form: ListFormat, line: str, reason: Refusal) -> None:
    """A line is refused with its reason, and the sentence says what to do."""
    with pytest.raises(LineRefused) as refusal:
        read_line(line, form)
    assert refusal.value.reason is reason
    assert MEND.search(refusal.value.why)


SILENT = [
    *((form, line) for form in ListFormat if form is not REGEX for line in ("# x", "! x", "; x", "// x", "[Adblock]")),
    *((form, line) for form in ListFormat for line in ("", " \t", "\ufeff# remark", "#")),
    (HOSTS, "127.0.0.1 localhost"),
    (HOSTS, "::1 ip6-localhost ip6-loopback"),
    (HOSTS, "fe80::1%lo0 localhost"),
    (HOSTS, "255.255.255.255 broadcasthost"),
    (HOSTS, "0.0.0.0 0.0.0.0"),
    (UNBOUND, "server:"),
    (ROUTING, "payload:"),
]


@pytest.mark.parametrize(("form", "line"), SILENT)
def test_comments_headers_and_house_names_hold_nothing(form: ListFormat, line: str) -> None:
    """What a format carries besides its rules is no rule and no fault."""
    assert list(read_line(line, form)) == []


def test_one_line_may_hold_several_names() -> None:
    """Hosts and dnsmasq lines give all their names."""
    wanted = {from_text("a.example"), from_text("b.example")}
    for form, line in ((HOSTS, "0.0.0.0 a.example b.example"), (DNSMASQ, "address=/a.example/b.example/#")):
        assert {hold.name for hold in read_line(line, form) if isinstance(hold, Hold)} == wanted


@pytest.mark.parametrize("form", [NAMES, ADBLOCK, WILDCARD])
def test_a_plain_name_reaches_as_far_as_the_reader_is_told(form: ListFormat) -> None:
    """Programs differ about a name that stands alone, so who reads the list says."""
    assert list(read_line("a.example", form, SUFFIX)) == [Hold(from_text("a.example"), SUFFIX, BLOCK)]


# Under IDNA2003, and so in Python's own codec, the first would be fass.example.
INTERNATIONAL = [
    ("faß.example", "xn--fa-hia.example"),
    ("Bücher.example", "xn--bcher-kva.example"),
    ("пример.example", "xn--e1afmkfd.example"),
    ("_x.bücher.example", "_x.xn--bcher-kva.example"),
    ("例え。example", "xn--r8jz45g.example"),
    ("\uff41\uff42\uff43.example", "abc.example"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
]


@pytest.mark.parametrize(("written", "asked"), INTERNATIONAL)
def test_international_names_become_the_names_that_browsers_ask_for(written: str, asked: str) -> None:
    """U-labels come to A-labels as UTS #46 and IDNA2008 have it; A-labels stay."""
    assert name_of(written) == from_text(asked)


@given(st.text(max_size=300), st.sampled_from(list(ListFormat)))
def test_any_text_is_read_or_refused(text: str, form: ListFormat) -> None:
    """Whatever a line is, it gives holds whose names are names, or a refusal: no third way."""
    try:
        holds = read_line(text, form)
    except LineRefused:
        return
    for hold in holds:
        if isinstance(hold, Hold):
            assert hold.name == hold.name.lower()
            assert hold.name.endswith(b"\0")
            assert hold.name.count(b"\0") >= 1
            assert len(hold.name) <= 255
        else:
            re2.compile(hold.expression)


@given(st.text(alphabet="ab.*|^$/[](){}\\?+,0~=@-_#:; ", max_size=40), st.sampled_from(list(ListFormat)))
def test_any_punctuation_is_read_or_refused(text: str, form: ListFormat) -> None:
    """The formats' own marks in any order end in holds or a refusal too."""
    test_any_text_is_read_or_refused.hypothesis.inner_test(text, form)  # type: ignore[attr-defined]


def test_an_expression_is_kept_once_it_fits() -> None:
    """An expression that RE2 takes is kept as written, marked where letters may be large."""
    assert pattern_of(r"^a\.example$", BLOCK) == Pattern(r"^a\.example$", BLOCK)
    assert pattern_of(r"^A\.example$", BLOCK) == Pattern(r"(?i)^A\.example$", BLOCK)
