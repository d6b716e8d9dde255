"""What an error of a storage driver means: is it worth another try, and what may be said of it.

Drivers raise errors of every kind (OSError, botocore's, aiohttp's, Google's, Azure's), mostly with an HTTP status in
one attribute or another. They are told apart by that status, by S3's error code, and by the names of their classes, so
that no driver has to be imported.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterable, Iterator
from typing import Literal

from dyntok.urls import redact_text

Fault = Literal["missing", "denied", "busy", "broken"]
"""`missing`: there is no such object. `denied`: no permission, or no credentials. `busy`: the next try may work
(throttling, server errors, cut connections, time limits). `broken`: anything else; it will not pass by itself."""

_LONGEST_REASON = 200
_BUSY_STATUS = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 598, 599})
# Also sent with status 200 or 400.
_BUSY_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "OperationTimedOut",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerBusy",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
        "XAmzContentSHA256Mismatch",
    }
)
_MISSING_CODES = frozenset({"NoSuchBucket", "NoSuchKey", "NoSuchVersion", "BlobNotFound", "ContainerNotFound"})
_DENIED_CODES = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "AuthenticationFailed",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
# By the name of the class or of one it derives from.
_BUSY_CLASSES = frozenset(
    {
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "ConnectionClosedError",  # botocore
        "ConnectTimeoutError",
        "EndpointConnectionError",
        "FSTimeoutError",  # fsspec
        "HTTPClientError",
        "IncompleteRead",  # http.client, urllib3
        "IncompleteReadError",
        "ProtocolError",
        "ReadTimeoutError",
        "ResponseParserError",
        "ResponseStreamingError",
        "ServiceRequestError",  # azure.core
        "ServiceResponseError",
        "TransportError",  # google.auth
    }
)
_DENIED_CLASSES = frozenset(
    {
        "ClientAuthenticationError",
        "CredentialRetrievalError",
        "GoogleAuthError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "TokenRetrievalError",
    }
)
_BUSY_ERRNO = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
        getattr(errno, "EREMOTEIO", errno.ETIMEDOUT),
    }
)


class ObjectStoreError(OSError):
    """An operation on an object store failed for good. Its text holds no secrets.

    An OSError, since that is what callers of files expect; `MissingObjectError` is a FileNotFoundError and
    `DeniedObjectError` a PermissionError too. Packages turn it into their own errors.
    """

    fault: Fault = "broken"

    def __init__(self, reason: str, fault: Fault = "broken") -> None:
        super().__init__(_ERRNO[fault], reason)
        self.fault = fault

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.strerror, self.fault)


class MissingObjectError(ObjectStoreError, FileNotFoundError):
    """There is no such object."""

    def __init__(self, reason: str = "there is no such object", fault: Fault = "missing") -> None:
        super().__init__(reason, fault)


class DeniedObjectError(ObjectStoreError, PermissionError):
    """The store refuses access, or there are no credentials."""

    def __init__(self, reason: str, fault: Fault = "denied") -> None:
        super().__init__(reason, fault)


_ERRNO: dict[Fault, int] = {
    "missing": errno.ENOENT,
    "denied": errno.EACCES,
    "busy": errno.ETIMEDOUT,
    "broken": errno.EIO,
}


def fault_of(error: BaseException) -> Fault:
    """What an error of a driver means. The most telling link of its chain of causes decides."""
    if isinstance(error, ObjectStoreError):
        return error.fault
    chain = list(_chain(error))
    for link in chain:
        told = _by_response(link)
        if told is not None:
            return told
    for link in chain:
        told = _by_class(link)
        if told is not None:
            return told
    return "broken"


def error_of(error: BaseException, *, tries: int = 1, secrets: Iterable[str] = ()) -> ObjectStoreError:
    """The error to raise for what a driver raised; after several tries, it says how many. `secrets` are left out."""
    fault = fault_of(error)
    if fault == "missing":
        return MissingObjectError()
    reason = describe(error)
    for secret in secrets:
        reason = reason.replace(secret, "***")
    if tries > 1:
        reason = f"{reason} ({tries} tries)"
    return DeniedObjectError(reason) if fault == "denied" else ObjectStoreError(reason, fault)


def describe(error: BaseException) -> str:
    """One short line on an error without addresses' secrets."""
    if isinstance(error, ObjectStoreError):
        return str(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(redact_text(text).split())
    if len(text) > _LONGEST_REASON:
        text = text[: _LONGEST_REASON - 3] + "..."
    name = type(error).__name__
    if not text:
        return name
    return text if isinstance(error, OSError) else f"{name}: {text}"


def is_lost_upload(error: BaseException) -> bool:
    """Whether the server no longer knows a multipart upload: finished, aborted, or expired."""
    return any(_code_of(link) == "NoSuchUpload" for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _code_of(error: BaseException) -> str:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return str(getattr(error, "error_code", "") or "")  # Azure


def _status_of(error: BaseException) -> int | None:
    if any(parent.__name__ == "HttpProcessingError" for parent in type(error).__mro__):
        return None  # aiohttp's parser says 400 of answers that are cut short; no server did
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        names = ("status", "status_code", "code")
        status = next((value for name in names if (value := getattr(error, name, None)) is not None), None)
    text = str(status)
    return int(text) if text.isascii() and text.isdecimal() and len(text) == 3 else None


def _by_response(error: BaseException) -> Fault | None:
    code, status = _code_of(error), _status_of(error)
    if code.isdecimal() and len(code) == 3:  # the answer to HEAD has no body, so S3 drivers repeat the status
        status = int(code)
    if code in _BUSY_CODES or status in _BUSY_STATUS:
        return "busy"
    if code in _MISSING_CODES or status in (404, 410):
        return "missing"
    if code in _DENIED_CODES or status in (401, 403, 407):
        return "denied"
    return "broken" if status is not None and 300 <= status < 600 else None


def _by_class(error: BaseException) -> Fault | None:
    names = {parent.__name__ for parent in type(error).__mro__}
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "broken"
    if isinstance(error, TimeoutError | ConnectionError | ssl.SSLError | socket.gaierror):
        return "busy"
    if names & _BUSY_CLASSES:
        return "busy"
    if isinstance(error, PermissionError) or names & _DENIED_CLASSES:
        return "denied"
    if isinstance(error, OSError) and error.errno in _BUSY_ERRNO:
        return "busy"
    return None
