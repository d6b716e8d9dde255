"""Nothing that may be a secret is left of a URL; everything else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyntok.records import PlanEntry, SourceRef
from dyntok.urls import is_http, redact, redact_text, secrets_of, url_protocol


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no URL here, user@host neither", "no URL here, user@host neither"),
        ("cannot read s3://bucket/a b", "cannot read s3://bucket/a b"),
        ("url='https://u:SECRET@h/a?sig=SECRET', 403", "url='https://h/a', 403"),
        ('"https://h/a?X-Amz-Signature=SECRET&x=1" and ftp://SECRET@h/b', '"https://h/a" and ftp://h/b'),
        ("(https://h/a?t=SECRET) <abfs://c@acc/a?sig=SECRET>", "(https://h/a) <abfs://c@acc/a>"),
        ("URL(https://[::1]:8/a?b=SECRET)", "URL(https://[::1]:8/a)"),
        ("zip://a.mp4::https://u:SECRET@h/x.zip?t=SECRET", "zip://a.mp4::https://h/x.zip"),
    ],
)
def test_urls_in_a_text(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@given(
    before=st.text("ab :'(", max_size=5),
    secret=st.from_regex(r"TOKEN[a-z0-9%+=.~_-]{0,10}TOKEN", fullmatch=True),
    after=st.sampled_from(["", "'", ")", " x", ">", '"']),
)
def test_no_secret_survives_in_a_text(before: str, secret: str, after: str) -> None:
    text = f"{before}https://u:{secret}@host/p?x={secret}&y={secret}#{secret}{after}"
    assert "TOKEN" not in redact_text(text)


def test_parts() -> None:
    assert url_protocol("S3://b/a") == "s3" and url_protocol("a/b") is None
    assert is_http("https://a") and not is_http("s3://a")
    assert redact("/a/b?c") == "/a/b?c"


def test_records_show_no_secret() -> None:
    ref = SourceRef("https://u:SECRET@h/a?t=SECRET", 1, 2)
    entry = PlanEntry(0, 0, "a", "a", ref, 1, None)
    assert "SECRET" not in repr(ref) + str(ref) + repr(entry)
    assert "https://h/a" in repr(entry)


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("s3://bucket/a.mp4", ()),
        ("/data/user@home?x", ()),
        ("https://user:hidden@h/a", ("user:hidden", "hidden")),
        ("https://h/a?sig=hidden&x=1&y=alsohidden", ("sig=hidden&x=1&y=alsohidden", "alsohidden", "hidden")),
        ("abfs://container@account/a", ()),
    ],
)
def test_what_is_secret(url: str, secrets: tuple[str, ...]) -> None:
    assert secrets_of(url) == secrets
