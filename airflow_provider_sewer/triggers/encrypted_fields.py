"""Encryption of secrets in trigger arguments, which Airflow stores in its database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SlurmUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_sewer.slurm.job_directory import JobDirectory


def encrypt_secrets(secrets: Collection[str], directory: JobDirectory) -> str | None:
    """Encrypt secrets for the arguments of a trigger; the key goes into the job directory.

    :param secrets: the values.
    :param directory: the job directory, which only its owner can read.
    :returns: a text for :func:`decrypt_secrets`; ``None`` if there are no secrets.
    :raises SlurmUnavailable: if the key cannot be written.
    """
    if not secrets:
        return None
    from cryptography.fernet import Fernet

    key = Fernet.generate_key()
    with directory.writing():
        directory.write_key(key)
    return Fernet(key).encrypt(json.dumps(list(secrets)).encode()).decode()


def decrypt_secrets(text: str | None, directory: JobDirectory) -> tuple[str, ...]:
    """Decrypt the text returned by :func:`encrypt_secrets`.

    :raises SlurmUnavailable: if the key cannot be read, or does not match.
    """
    if text is None:
        return ()
    from cryptography.fernet import Fernet, InvalidToken

    try:
        return tuple(json.loads(Fernet(directory.read_key()).decrypt(text)))
    except (OSError, ValueError, InvalidToken) as error:
        raise SlurmUnavailable(
            f"the key to the task's secrets in {directory.path} cannot be used: {error!r}", run_directory=directory.path
        ) from None
