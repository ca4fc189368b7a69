"""Keys that sign manifests: ed25519, in PEM files of the user's own configuration, and the DSSE envelope."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.errors import UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

DEFAULT = "default"
VARIABLE = "SYNTHGEN_SIGNING_KEY"
MOST_BYTES = 100_000  # of a key


def keys_folder(environ: Mapping[str, str]) -> Path:
    """Where keys are: `keys/` beside the user's configuration file."""
    from synthgen.engines.keys import config_path

    return config_path(environ).parent / "keys"


def new_key(file: Path) -> str:
    """Make a key pair: FILE.pem, for its owner alone, and FILE.pub. Gives the public key's id.

    Raises UsageError where there is one already, or the folder cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )
    from securesystemslib.signer import SSlibKey

    secret, public = file.with_suffix(".pem"), file.with_suffix(".pub")
    for path in (secret, public):
        if path.exists():
            raise UsageError(f"{path} is there already", hint="give the new key another name")
    key = Ed25519PrivateKey.generate()
    try:
        secret.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise UsageError(f"{secret} cannot be written: {error.strerror}") from None
    return str(SSlibKey.from_crypto(key.public_key()).keyid)


def signing_key(environ: Mapping[str, str]) -> CryptoSigner | None:
    """The key that SYNTHGEN_SIGNING_KEY names, else the user's default one, else None.

    Raises UsageError where it cannot be read, or is no ed25519 key.
    """
    named = environ.get(VARIABLE)
    file = Path(named) if named else keys_folder(environ) / f"{DEFAULT}.pem"
    if not named and not file.is_file():
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        key = load_pem_private_key(_read(file), None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"the signing key {file} cannot be read: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"the signing key {file} is no ed25519 key", hint="`synthgen keys new` makes one")
    return CryptoSigner(key)


def public_key(file: Path) -> SSlibKey:
    """The public key in a PEM file. Raises UsageError where there is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        key = load_pem_public_key(_read(file))
    except (OSError, ValueError) as error:
        raise UsageError(f"the public key {file} cannot be read: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{file} is no public ed25519 key")
    return SSlibKey.from_crypto(key)


def _read(file: Path) -> bytes:
    """Raises ValueError at what is no file: a pipe may never begin, and a device never end."""
    if file.exists() and not file.is_file():
        raise ValueError("it is no regular file")
    with file.open("rb") as pem:
        return pem.read(MOST_BYTES)


def signatures(payload: bytes, payload_type: str, signer: CryptoSigner | None) -> list[dict[str, str]]:
    """The signatures of an envelope: one, or none without a key."""
    if signer is None:
        return []
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, payload_type, {})
    envelope.sign(signer)
    return [dict(each) for each in envelope.to_dict()["signatures"]]


def signed_by(envelope: Mapping[str, Any], key: SSlibKey) -> bool:
    """Whether the envelope bears a valid signature of this key."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError, VerificationError

    try:
        mine = [each for each in envelope["signatures"] if each["keyid"] == key.keyid]
        read = Envelope.from_dict({**envelope, "signatures": [dict(each) for each in mine]})
        return key.keyid in read.verify([key], 1)
    except (VerificationError, FormatError, ValueError, LookupError, TypeError):
        return False
