"""URLs as they may be shown: without user, password, query or anything else that may be a secret. Imports nothing."""

from __future__ import annotations

import re

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)
# In a running text a URL ends at white space, quotes or brackets; what follows a comma may be another one.
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`|\\^{}()]+", re.ASCII)
# fsspec's chained URLs: `zip://a.mp4::s3://bucket/x.zip`.
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)", re.ASCII)
_SHORTEST_SECRET = 4
_HTTP = frozenset({"http", "https"})
# Here the part before the @ names a container; elsewhere it is a user, perhaps with a password.
_CONTAINER_BEFORE_AT = frozenset({"abfs", "abfss", "wasb", "wasbs"})


def url_protocol(path: str) -> str | None:
    """The protocol of a URL in lower case, None for a local path."""
    match = _URL.match(path) if "://" in path else None  # most are local
    return match[1].lower() if match else None


def is_local(path: str) -> bool:
    """Whether a path is no URL."""
    return url_protocol(path) is None


def is_http(path: str) -> bool:
    """Whether a path is a web address: those can be read, and not listed."""
    return url_protocol(path) in _HTTP


def redact(path: str) -> str:
    """A path that may be shown and stored: a URL without user, password, query and (http) fragment."""
    links = _CHAIN.split(path)
    if len(links) > 1:
        return "::".join(redact(link) for link in links)
    protocol = url_protocol(path)
    if protocol is None:
        return path
    scheme, _, rest = path.partition("://")
    host, slash, tail = rest.partition("/")
    if protocol not in _CONTAINER_BEFORE_AT or ":" in host.partition("@")[0]:
        host = host.rpartition("@")[2]
    host = host.partition("?")[0]
    if not re.fullmatch(r"[^:]*(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?", host):
        host, tail = "***", tail.rpartition("@")[2]  # a password with a slash in it
    tail = tail.partition("?")[0]
    if protocol in _HTTP:
        tail = tail.partition("#")[0]
    return f"{scheme}://{host}{slash}{tail}"


def secrets_of(url: str) -> tuple[str, ...]:
    """What `redact` takes out of a URL, in one piece and in its parts, longest first: to be looked for elsewhere."""
    rest = url.partition("://")[2] if url_protocol(url) else ""
    user = rest.rpartition("@")[0] if redact(url).count("@") < url.count("@") else ""
    query = url.partition("?")[2] if redact(url).count("?") < url.count("?") else ""
    parts = [user, user.partition(":")[2], query, *(pair.partition("=")[2] for pair in query.split("&"))]
    return tuple(sorted({part for part in parts if len(part) >= _SHORTEST_SECRET}, key=len, reverse=True))


def redact_text(text: str) -> str:
    """A text in which every URL is redacted: messages of drivers quote the addresses they were given."""
    return _URL_IN_TEXT.sub(lambda match: redact(match[0]), text)
