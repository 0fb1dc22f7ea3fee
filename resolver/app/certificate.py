"""What a certificate has to be good for, found out from its file: one more room of what `doctor` looks at.

Nothing is asked of an authority. Who may read a file is told by its mode and those of the folders above it.
"""

import itertools
import os
import pwd
import ssl
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from resolver.app.doctor import Finding, Outcome

_ENDING = 21 * 86400.0  # seconds: a certificate that is renewed by itself was renewed before


@dataclass(frozen=True, slots=True)
class Certified:
    """What a certificate has to be good for.

    Attributes:
        certificate: Its file, with those between it and an authority.
        key: The file of its private key.
        name: What clients call the server.
        has_devices: Whether devices ask below that name, a label each.
        addresses: Where the server listens; clients that discover it by address (RFC 9462) want them covered.
    """

    certificate: Path
    key: Path
    name: str | None = None
    has_devices: bool = False
    addresses: tuple[str, ...] = ()


def certificate(wanted: Certified, account: str | None, at: float) -> Iterator[Finding]:
    """Whether a certificate can be read, fits its key, is in its term, is whole, and covers what clients ask for.

    Args:
        wanted: What it has to be good for.
        account: Who has to read it again when it is renewed; None for whoever runs this.
        at: Unix seconds.
    """
    check = f"certificate {wanted.certificate}"
    for path in (wanted.certificate, wanted.key):
        if (why := unreadable(path, account)) is not None:
            yield Finding(check, Outcome.FAIL, f"{path} {why[0]}", why[1])
            return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(wanted.certificate, wanted.key)
        chain = x509.load_pem_x509_certificates(wanted.certificate.read_bytes())
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        is_other = "MISMATCH" in str(reason)
        found = f"{wanted.key} is the key of another certificate" if is_other else f"it can not be used ({reason})"
        yield Finding(check, Outcome.FAIL, found, "write the pair that the authority gave, in PEM and without password")
        return
    yield _term(check, chain[0], at)
    yield _chain(f"{check} chain", chain)
    yield from _names(f"{check} names", chain[0], wanted)


def _term(check: str, leaf: x509.Certificate, at: float) -> Finding:
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    until = time.strftime("%Y-%m-%d", time.gmtime(end))
    if at >= end:
        return Finding(check, Outcome.FAIL, f"it ended {until}", "have it renewed; it is taken up without a restart")
    if at < begin:
        since = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(begin))
        return Finding(check, Outcome.FAIL, f"it begins {since}", "see that the clock is right, and wait")
    if end - at < _ENDING:
        found = f"it fits its key and ends {until}, in {int((end - at) // 86400)} days"
        return Finding(check, Outcome.WARN, found, "see that whatever renews it still runs")
    return Finding(check, Outcome.OK, f"fits its key, until {until}")


def _chain(check: str, chain: list[x509.Certificate]) -> Finding:
    for lower, upper in itertools.pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except (InvalidSignature, ValueError, TypeError):
            found = f"{_called(lower)} is not signed by the one that follows it, {_called(upper)}"
            mend = "write the server's certificate first, then each one's issuer (`fullchain.pem` of most clients)"
            return Finding(check, Outcome.FAIL, found, mend)
    top = chain[-1]
    if len(chain) == 1 and top.issuer != top.subject:
        mend = "add the certificates between it and the root (`fullchain.pem`), unless that one is the root itself"
        return Finding(check, Outcome.WARN, f"it is alone, issued by {_text(top.issuer)}", mend)
    return Finding(check, Outcome.OK, f"{len(chain)} in order, up to {_called(top)}")


def _called(one: x509.Certificate) -> str:
    return _text(one.subject) or f"serial {one.serial_number:x}"


def _text(name: x509.Name) -> str:
    return ", ".join(str(attribute.value) for attribute in name)


def _names(check: str, leaf: x509.Certificate, wanted: Certified) -> Iterator[Finding]:
    try:
        said = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        mend = "have it issued with subjectAltName: clients look at nothing else"
        yield Finding(check, Outcome.FAIL, "it names nobody", mend)
        return
    names = {name.lower() for name in said.get_values_for_type(x509.DNSName)}
    addresses = {str(address) for address in said.get_values_for_type(x509.IPAddress)}
    missing = [name for name in [wanted.name] if name is not None and not _covers(names, name.lower())]
    if wanted.has_devices and wanted.name is not None and f"*.{wanted.name.lower()}" not in names:
        missing.append(f"*.{wanted.name}")
    if missing:
        mend = "clients will not connect under these names: have them added"
        yield Finding(check, Outcome.FAIL, f"it does not name {', '.join(missing)}", mend)
    else:
        yield Finding(check, Outcome.OK, f"names {', '.join(sorted(names | addresses)) or 'nobody'}")
    unnamed = [address for address in wanted.addresses if address not in addresses]
    if unnamed:
        mend = "clients that find this server by its address (DDR, RFC 9462) want it: have it added as IP address"
        yield Finding(check, Outcome.WARN, f"it does not name {', '.join(unnamed)}", mend)


def _covers(names: set[str], name: str) -> bool:
    """Whether a name is named, or covered by a wildcard in the first label (RFC 9525)."""
    return name in names or f"*.{name.partition('.')[2]}" in names


def unreadable(path: Path, account: str | None) -> tuple[str, str] | None:
    """Why an account may not read a file, and the mend; None where it may. Access control lists are not looked at."""
    try:
        steps = [folder.stat() for folder in reversed(path.absolute().parents)]
        file = path.stat()
    except FileNotFoundError:
        return "is not there", "write the path of a file that is"
    except OSError as error:
        return f"can not be looked at ({error.strerror})", "run this as root, or give it to the account that serves"
    if not stat.S_ISREG(file.st_mode):
        return "is no file", "write the path of a file"
    if account is None or os.getuid() != 0:
        may = os.access(path, os.R_OK)
    else:
        who = pwd.getpwnam(account)
        groups = {who.pw_gid}  # a server that changes to an account keeps no other group
        may = all(_may(step, who.pw_uid, groups, 1) for step in steps) and _may(file, who.pw_uid, groups, 4)
    whom = account or "this account"
    return None if may else (f"can not be read by {whom}", f"`chgrp {whom} {path}` and `chmod g+r {path}`")


def _may(what: os.stat_result, uid: int, groups: set[int], bit: int) -> bool:
    shift = 6 if what.st_uid == uid else 3 if what.st_gid in groups else 0
    return uid == 0 or bool(what.st_mode >> shift & bit)
