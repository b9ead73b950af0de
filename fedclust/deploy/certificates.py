"""Certificates and keys of a deployment, on the elliptic curve P-384: made, read and checked."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from graphclust.graph import InputError

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names that every server certificate has: Flower's own processes reach the SuperLink over loopback."""
AUTHORITY_DAYS = 3650
# clocks of other machines may be behind
_SKEW = timedelta(hours=1)
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"


@dataclass(frozen=True)
class Signed:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as PEM (PKCS8)."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_authority(days: int = AUTHORITY_DAYS) -> Signed:
    """A certificate authority that signs server certificates only, valid for ``days``."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedclust federation")])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    draft = _draft(name, name, key, days).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    draft = draft.add_extension(x509.KeyUsage(**usage), critical=True)
    return Signed(draft.sign(key, hashes.SHA384()), key)


def server_certificate(authority: Signed, names: list[str], days: int) -> Signed:
    """A server's certificate, signed by ``authority``.

    Parameters
    ----------
    authority : signs
    names : host names and IP addresses that the server is reached under, the first is its common name; those of
        :data:`LOCAL` are added
    days : that it is valid, and never longer than the authority

    Raises
    ------
    InputError
        A name that is neither a host name nor an IP address; days < 1.
    """
    if days < 1:
        raise InputError(f"days = {days}; a certificate is valid for at least one day")
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    issuer = authority.certificate
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    left = (issuer.not_valid_after_utc - datetime.now(UTC)).days
    draft = _draft(subject, issuer.subject, key, min(days, left))
    alternatives = [general_name(n) for n in dict.fromkeys([*names, *LOCAL])]
    for extension, critical in (
        (x509.SubjectAlternativeName(alternatives), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(**_usage(digital_signature=True)), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), False),
    ):
        draft = draft.add_extension(extension, critical=critical)
    return Signed(draft.sign(authority.key, hashes.SHA384()), key)


def key_pair(comment: str) -> tuple[bytes, bytes]:
    """A SuperNode's private key and public key, both in the format of OpenSSH, as Flower wants them."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return private, public_line(key, comment)


def public_line(key: ec.EllipticCurvePrivateKey, comment: str = "") -> bytes:
    """The public half of a key as one line of OpenSSH."""
    body = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return body + f" {comment}".rstrip().encode() + b"\n"


def general_name(name: str) -> x509.GeneralName:
    """A host name or an IP address as it stands in a certificate; InputError for anything else."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if len(name) > 253 or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", name):
            raise InputError(f"{name!r} is neither a host name nor an IP address; give what the SuperNodes will call, "
                             "without https:// and without a port") from None
        return x509.DNSName(name)


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate of a PEM file; InputError for none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as e:
        raise InputError(f"{path} is no certificate ({e}); take it from the kit again") from e


def read_authority(folder: Path) -> Signed:
    """The authority of a kit; InputError when its key is not there, as in a bundle that was given away."""
    certificate = read_certificate(folder / "ca.crt")
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except (OSError, ValueError, TypeError) as e:
        raise InputError(f"{folder / 'ca.key'} is no private key ({e}); run this where the kit was made") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InputError(f"{folder / 'ca.key'} does not belong to {folder / 'ca.crt'}; restore both from one backup")
    return Signed(certificate, key)


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A SuperNode's private key; InputError for one that Flower would refuse."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise InputError(f"{path} is no private key in the format of OpenSSH ({e}); take it from the kit again") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{path} is not an elliptic-curve key; make one with: ssh-keygen -t ecdsa -b 384 -N '' -f key")
    return key


def read_public_key(path: Path) -> bytes:
    """The type and body of a public key, without its comment; InputError for one that Flower would refuse."""
    try:
        line = path.read_bytes()
        key = serialization.load_ssh_public_key(line)
    except (OSError, ValueError, UnsupportedAlgorithm) as e:
        raise InputError(f"{path} is no public key in the format of OpenSSH ({e}); "
                         "take the client's key.pub again") from e
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError(f"{path} is not an elliptic-curve key; Flower takes no other: ssh-keygen -t ecdsa -b 384")
    return b" ".join(line.split()[:2])


def check_server(
    certificate: x509.Certificate, authority: x509.Certificate, name: str, where: str, *, at: datetime | None = None
) -> int:
    """Days that a server certificate still holds, seen by a SuperNode that calls the server ``name``.

    Parameters
    ----------
    certificate, authority : of the server, and of who should have signed it
    name : host name or IP address
    where : the certificate's place, for the message
    at : time, aware of its zone; None: now

    Raises
    ------
    InputError
        Expired or not valid yet, not for ``name``, or not signed by ``authority``; with the mend.
    """
    now = at or datetime.now(UTC)
    for c, what in ((authority, "the authority's certificate"), (certificate, f"the certificate {where}")):
        if c.not_valid_after_utc <= now:
            raise InputError(f"{what} expired on {c.not_valid_after_utc:%Y-%m-%d}; renew it with: "
                             f"fedclust deploy {'init (a new kit)' if c is authority else 'renew DIR'}")
        if c.not_valid_before_utc > now:
            raise InputError(f"{what} is valid from {c.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on; "
                             "set this machine's clock")
    names = certificate_names(certificate)
    wanted = general_name(name)
    if str(wanted.value) not in names:
        raise InputError(f"the certificate {where} is for {', '.join(names)}, not for {name!r}; call the server by one "
                         f"of these, or add the name with: fedclust deploy renew DIR --san {name}")
    verifier = PolicyBuilder().store(Store([authority])).time(now).build_server_verifier(wanted)  # type: ignore[arg-type]
    try:
        verifier.verify(certificate, [])
    except VerificationError as e:
        raise InputError(f"the certificate {where} is not signed by this kit's authority ({e}); "
                         "take ca.crt and server.crt from one kit") from e
    return (certificate.not_valid_after_utc - now).days


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """The host names and IP addresses that a certificate is for."""
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(n) for kind in (x509.DNSName, x509.IPAddress) for n in held.get_values_for_type(kind)]


def _draft(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    draft = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
    draft = draft.serial_number(x509.random_serial_number()).not_valid_before(now - _SKEW)
    draft = draft.not_valid_after(now + timedelta(days=days))
    return draft.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(**on: bool) -> dict[str, bool]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return {name: on.get(name, False) for name in names}
