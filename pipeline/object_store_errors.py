"""What went wrong with an endpoint, in words for people.

obstore's own texts hold URLs, with all that is secret in them: none is passed on but through ``redacted``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from amdim.errors import redacted
from amdim.pipeline.url import CREDENTIALS

# Error codes in the XML of S3, Google Cloud and Azure.
CODES = {
    "NoSuchBucket": "there is no such bucket",
    "ContainerNotFound": "there is no such container",
    "ExpiredToken": "the credentials have expired; renew them, and the same command goes on from the last checkpoint",
    "InvalidAccessKeyId": "the credentials are not known there",
    "SignatureDoesNotMatch": "the credentials are wrong",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
}
REASONS = {
    "Connection refused": "connection refused",
    "dns error": "there is no host of that name",
    "TimedOut": "no answer in time",
    "kind: Timeout": "no answer in time",
    "certificate": "its certificate is not trusted",
}


class Fault(NamedTuple):
    """``broken`` where the transfer broke off: another try may end well, and obstore has made none."""

    words: str
    broken: bool = False


def explain(error: Exception, scheme: str) -> Fault:
    """The cause of what obstore raised."""
    text = str(error)
    words = without_urls(text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if code and code[1] in CODES:
        return Fault(CODES[code[1]])
    if isinstance(error, FileNotFoundError):
        return Fault("there is no such file")
    how = CREDENTIALS["https" if scheme == "http" else scheme]
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return Fault(f"access is denied ({status(text)}); for credentials, {how}")
    if "//169.254.169.254" in text or "//metadata.google.internal" in text or "metadata" in words or "MissingAccount" in words:
        return Fault(f"no credentials were found; {how}")
    if "response body" in words or "Interrupted" in words or "Range request not supported" in words:
        silent = "TimedOut" in words
        return Fault("the server fell silent" if silent else "the connection broke off", broken=True)
    return Fault(reached(text))


def reached(text: str) -> str:
    """Of a request that failed as often as obstore tried it."""
    tries = re.search(r"after (\d+) retries", text)
    often = f", also when asked {tries[1]} times more" if tries and tries[1] != "0" else ""
    if code := status(text):
        return f"the server answers {code}{often}"
    words = without_urls(text)
    for sign, reason in REASONS.items():
        if sign in words:
            return f"cannot be reached: {reason}{often}"
    return f"cannot be read: {redacted(text.strip().splitlines()[0] if text.strip() else 'no reason was given')[:200]}"


def status(text: str) -> str | None:
    found = re.search(r"status code: (\d+(?: [A-Z][A-Za-z-]+)*)", text)
    return found[1] if found else None


def without_urls(text: str) -> str:
    """The text without its URLs, whose own words say nothing of the fault."""
    return re.sub(r"\w+://[^\s'\"<>]*", "", text)
