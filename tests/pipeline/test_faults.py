"""Words for what obstore raises, and what of a URL is shown."""

import pytest
from obstore.exceptions import GenericError

from amdim.errors import UsageError, redacted
from amdim.pipeline.object_store_errors import explain
from amdim.pipeline.url import is_url, parse

TEXTS = {
    "PUT http://169.254.169.254/latest/api/token in 4.2ms - HTTP error": "no credentials were found; set AWS_ACCESS_KEY_ID",
    'GET http://h/a, after 3 retries - HTTP error | "dns error"': "cannot be reached: there is no host of that name, also when",
    "GET https://host/a - invalid peer certificate: UnknownIssuer": "cannot be reached: its certificate is not trusted",
    "status code: 301 Moved: <Error><Code>PermanentRedirect</Code>": "the bucket is in another region; set AWS_REGION",
    "Generic S3 error: new, at https://me:hush@host/a?hush": "cannot be read: Generic S3 error: new, at https://host/a",
    "": "cannot be read: no reason was given",
    'GET https://h/metadata/certificate/a, after 6 retries - "Connection refused"': "cannot be reached: connection refused, also",
}


@pytest.mark.parametrize(("text", "words"), TEXTS.items())
def test_the_cause_in_words(text, words):
    found = explain(GenericError(text), "s3")
    assert found.words.startswith(words)
    assert not found.broken
    assert "hush" not in found.words


def test_what_is_secret_in_a_text_is_not_shown():
    shown = {
        "at https://me:a@b@host:8080/set?sig=x&y=z, twice": "at https://host:8080/set twice",
        "python train.py --data 'http://u:p@h/a?x' --run a": "python train.py --data 'http://h/a' --run a",
        "--data=s3://key:secret@bucket/set#part": "--data=s3://bucket/set",
        "mail me@host?subject=x": "mail me@host?subject=x",
        "s3://KEY:se/cr?et@bucket/set is": "s3://bucket/set is",
    }
    assert {text: redacted(text) for text in shown} == shown


def test_urls():
    assert parse("S3://bucket/some/prefix/").shown == "s3://bucket/some/prefix"
    assert parse("https://host/a/set?x=1").name == "set"
    assert parse("https://host:80").name == "host:80"
    assert parse(" gs://b/s ").scheme == "gs"
    assert [is_url(each) for each in ("s3://a", "data/x", "C://x", "./a://b", "shapes")] == [True, False, True, False, False]


@pytest.mark.parametrize(
    "url",
    ["s3://KEY:hu/sh@bucket/set", "https://u:hu?sh@h/set", "https://u:h#ush@h/set", "https://u:hu[sh]@h/set", "https://[hush/a"],
)
def test_a_url_whose_password_ends_it_too_soon_is_refused_in_words_of_our_own(url):
    with pytest.raises(UsageError, match="in a password write / as %2F") as refused:
        parse(url)
    assert "sh" not in str(refused.value).replace("should", "")
    assert "hu" not in str(refused.value)
