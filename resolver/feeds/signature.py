"""Signatures in the form of minisign: whose key signed a list, whatever server it came from.

A signature file has four lines: a comment that anyone may change, the signature with its algorithm and key id, a
comment that is signed, and a signature over the first signature and that comment. Both algorithms are read: `Ed` signs
the list itself, `ED` its BLAKE2b-512 digest.

Source: the description of the format on minisign's own site, "Signature format" and "Public key format".
"""

import minisign  # type: ignore[import-untyped]  # It is typed, and does not say so.

from resolver.feeds.copies import FeedError

MOST_SIGNATURE_OCTETS = 16 << 10  # The longest comment that the program reads has 8 KiB.


class SignatureError(FeedError):
    """A list is not signed by the key that is asked for, or the key cannot be read."""


def check_key(key: str) -> None:
    """Hold what stands in a configuration against the form of a public key.

    Raises:
        SignatureError: It is none.
    """
    _read_key(key)


def verify(octets: bytes, signature: bytes, key: str) -> str:
    """Check that a list is signed by a key, and return the signed comment.

    Args:
        octets: The list as it was signed.
        signature: The octets of its `.minisig` file.
        key: The second line of a minisign public key file: base64, 56 characters that begin with RW.

    Raises:
        SignatureError: The signature is not of this list, this comment and this key, or it or the key is damaged.
    """
    public_key = _read_key(key)
    if len(signature) > MOST_SIGNATURE_OCTETS:
        raise SignatureError(
            f"the signature has more than {MOST_SIGNATURE_OCTETS} octets; ask for the file that minisign wrote"
        )
    try:
        signed = minisign.Signature.from_bytes(signature)
    except minisign.Error as error:
        raise SignatureError(f"the signature is no minisign file ({error}); ask its publisher for it anew") from None
    try:
        public_key.verify(octets, signed)
    except minisign.Error:
        raise SignatureError(
            "the signature is not of this list and this key; if its publisher has a new key, write that as the"
            " public key, otherwise tell him: somebody else may have changed the list"
        ) from None
    return str(signed.trusted_comment)


def _read_key(key: str) -> minisign.PublicKey:
    try:
        return minisign.PublicKey.from_base64(key.strip())
    except minisign.Error as error:
        raise SignatureError(
            f"the public key cannot be read ({error}); write the line of 56 characters that begins with RW, from the"
            " file minisign.pub or the publisher's site"
        ) from None
