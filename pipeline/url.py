"""URLs of shard sets. What in them is secret is shown to nobody: not in messages, in config.json, or in a traceback."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from amdim.errors import UsageError

SCHEMES = ("s3", "gs", "az", "https", "http")
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, the path of a key, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    "https": "write USER:PASSWORD@ before the host, or a signature behind the path",
}


class Url(NamedTuple):
    """Where a set is: ``shown`` is the URL without its secrets, ``query`` and ``authorization`` are those."""

    scheme: str
    shown: str
    query: str = ""
    authorization: str = ""

    @property
    def name(self) -> str:
        """The last part of the path, or of the host."""
        return self.shown.rsplit("/", 1)[-1]

    def __repr__(self) -> str:
        return self.shown


def is_url(data: object) -> bool:
    return isinstance(data, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", data) is not None


def parse(text: str) -> Url:
    """
    Raises:
        UsageError: no set can be there: another scheme, no bucket or host, or secrets where they would not be used.
    """
    parts = split(text.strip())
    host = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    if parts.scheme not in SCHEMES:
        raise UsageError(f"--data {shown}: give a directory, or a URL that begins with {', '.join(f'{s}://' for s in SCHEMES)}")
    if re.search(r"\s", text.strip()):
        raise UsageError(f"--data {shown}: a blank in a URL is written %20")
    if not host:
        raise UsageError(f"--data {shown}: names no {'host' if parts.scheme.startswith('http') else 'bucket'}")
    if not parts.scheme.startswith("http"):
        if "@" in parts.netloc or parts.query:
            raise UsageError(f"--data {shown}: credentials are not read from such a URL; {CREDENTIALS[parts.scheme]}")
        return Url(parts.scheme, shown)
    user, _, password = map(unquote, parts.netloc.rpartition("@")[0].partition(":"))
    word = f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}" if user or password else ""
    return Url(parts.scheme, shown, parts.query, word)


def split(text: str) -> SplitResult:
    """
    Raises:
        UsageError: a password ends the host too soon, or a bracket is alone. The words hold nothing of what may be secret.
    """
    odd = "--data: this URL cannot be taken apart; in a password write / as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D, @ as %40"
    _, _, rest = text.partition("://")
    if "@" in rest[len(re.split("[/?#]", rest)[0]) :]:
        raise UsageError(f"{odd}; and an @ in a path, too")
    try:
        return urlsplit(text)
    except ValueError:
        raise UsageError(odd) from None
