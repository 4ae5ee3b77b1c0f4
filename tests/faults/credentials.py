"""Credentials that a profile gets from a program of its user's, and that can be changed at any moment."""

from pathlib import Path

from s3_servers.processes import SECRET_KEY

PROGRAM = """#!/bin/sh
printf '{{"Version": 1, "AccessKeyId": "%s", "SecretAccessKey": "%s", "Expiration": "%s"}}' \
    "$(cat {key})" {secret} "$(date -u -d '+{lasts_s} seconds' +%FT%TZ)"
"""
PROFILE = """[profile changing]
credential_process = {program}
region = us-east-1
"""


class Credentials:
    """Access keys, one after the other; each is said to last for some seconds from when it is asked for."""

    def __init__(self, folder: Path, lasts_s: int) -> None:
        self._key = folder / "key"
        self._number = 0
        program, profile = folder / "credentials", folder / "profile"
        program.write_text(PROGRAM.format(key=self._key, secret=SECRET_KEY, lasts_s=lasts_s))
        program.chmod(0o755)
        profile.write_text(PROFILE.format(program=program))
        self.environment = {
            "AWS_CONFIG_FILE": str(profile),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_PROFILE": "changing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.renew()

    def renew(self) -> str:
        """Have the next key given out from now on; the one before it."""
        self._number += 1
        new = self._key.with_suffix(".new")
        new.write_text(name_of(self._number))
        new.rename(self._key)
        return name_of(self._number - 1)


def name_of(number: int) -> str:
    return f"test:key{number}"
