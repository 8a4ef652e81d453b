"""The gateway's certificate authority, and what a launcher is handed at its start.

One CA per gateway store, one leaf per launcher with the launcher's id as its name. The gateway trusts this CA
and nothing else, and expects the id: so a launcher cannot pose as another, and no public CA can pose as any.
Pure but for the clock and the random numbers; where the CA is kept is the caller's business (``Store.secret``).
"""

from __future__ import annotations

import datetime
import json
import re
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LAUNCHER_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # one DNS label
_DAY = datetime.timedelta(days=1)
_LEAF_VALID = 3653 * _DAY
_CA_VALID = 36525 * _DAY  # a leaf must never outlive its CA


class CertificateAuthority:
    """``create`` once, keep the PEM secret, ``from_pem`` ever after."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @staticmethod
    def create() -> bytes:
        """A new CA: its key and its certificate as one PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "eg gateway")])
        public = key.public_key()
        builder = _builder(name, name, public, valid_from=_now() - 2 * _DAY, valid=_CA_VALID)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        return _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def from_pem(cls, pem: bytes) -> CertificateAuthority:
        """Raises ValueError if ``pem`` is not what ``create`` gave."""
        key = serialization.load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the certificate authority's key and certificate do not belong together")
        return cls(key, certificate)

    def issue(self, launcher_id: str) -> tuple[str, str]:
        """A launcher's certificate and key, as PEM."""
        if not _LAUNCHER_ID.fullmatch(launcher_id):
            raise ValueError("a launcher id is 1 to 63 letters, digits and hyphens")
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, launcher_id)])
        builder = _builder(name, self._certificate.subject, public, valid_from=_now() - _DAY, valid=_LEAF_VALID)
        issuer_id = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(launcher_id)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), _key_pem(key).decode()

    def client_context(self) -> ssl.SSLContext:
        """For all of a gateway's connections: make it once. Connect with the launcher's id as ``server_hostname``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name; holds no public CA
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=self._certificate.public_bytes(serialization.Encoding.PEM).decode())
        return context


def make_credentials(launcher_id: str, token: str, certificate: str | None, key: str | None) -> str:
    """The JSON line that a launcher reads; certificate and key are None on a Unix socket."""
    document = {"launcher_id": launcher_id, "token": token, "certificate": certificate, "key": key}
    return json.dumps(document) + "\n"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    *,
    valid_from: datetime.datetime,
    valid: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(valid_from + valid)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
