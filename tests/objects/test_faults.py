"""Which errors pass by themselves, and what is said of them."""

from __future__ import annotations

import errno
import http.client
import pickle
import socket
import ssl

import aiohttp
import botocore.exceptions
import pytest
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error
from yarl import URL

from dyntok.objects import DeniedObjectError, MissingObjectError, ObjectStoreError, fault_of
from dyntok.objects.faults import describe, error_of, is_lost_upload


def client_error(code: str, status: int, message: str = "no") -> botocore.exceptions.ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(response, "GetObject")  # type: ignore[arg-type]


def web_error(status: int) -> aiohttp.ClientResponseError:
    request = aiohttp.RequestInfo(URL("https://h/a?sig=SECRET"), "GET", None, URL("https://h/a?sig=SECRET"))  # type: ignore[arg-type]
    return aiohttp.ClientResponseError(request, (), status=status)


def cut_short() -> aiohttp.ClientPayloadError:
    """As aiohttp raises it in the middle of a body; the 400 is its parser's word for what came, not a server's."""
    error = aiohttp.ClientPayloadError("Response payload is not completed")
    error.__cause__ = aiohttp.http_exceptions.ContentLengthError("Not enough data")
    assert error.__cause__.code == 400
    return error


class GoogleHttpError(Exception):
    """gcsfs keeps the status as text."""

    code = "503"


ENDPOINT = {"endpoint_url": "https://KEY:SECRET@host/a?sig=SECRET", "error": "x"}
BUSY = [
    client_error("SlowDown", 503),
    client_error("503", 503),
    client_error("InternalError", 200),
    client_error("RequestTimeout", 400),
    client_error("Throttling", 400),
    client_error("TooManyRequests", 429),
    client_error("OperationAborted", 409),
    client_error("ConditionalRequestConflict", 409),
    web_error(500),
    web_error(502),
    web_error(429),
    GoogleHttpError(),
    botocore.exceptions.EndpointConnectionError(**ENDPOINT),
    botocore.exceptions.ConnectTimeoutError(**ENDPOINT),
    botocore.exceptions.ReadTimeoutError(**ENDPOINT),
    botocore.exceptions.ConnectionClosedError(**ENDPOINT),
    botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    aiohttp.ClientPayloadError("cut"),
    cut_short(),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ServerTimeoutError(),
    http.client.IncompleteRead(b""),
    FSTimeoutError(),
    TimeoutError(),
    ConnectionResetError(),
    BrokenPipeError(),
    socket.gaierror(socket.EAI_AGAIN, "again"),
    ssl.SSLEOFError(),
    OSError(errno.EHOSTUNREACH, "no route"),
    OSError(errno.EBUSY, "slow down"),
]
MISSING = [
    client_error("NoSuchKey", 404),
    client_error("404", 404),
    client_error("NoSuchBucket", 404),
    web_error(404),
    FileNotFoundError("a"),
    NotADirectoryError("a"),
]
DENIED = [
    client_error("AccessDenied", 403),
    client_error("403", 403),
    client_error("ExpiredToken", 400),
    client_error("InvalidAccessKeyId", 403),
    web_error(401),
    PermissionError("no"),
    botocore.exceptions.NoCredentialsError(),
]
BROKEN = [
    client_error("InvalidRange", 416),
    client_error("PreconditionFailed", 412),
    web_error(400),
    ssl.SSLCertVerificationError(),
    botocore.exceptions.ParamValidationError(report="x"),
    ValueError("odd"),
    OSError(errno.ENOSPC, "full"),
    KeyError("a"),
]


@pytest.mark.parametrize(
    ("fault", "errors"), [("busy", BUSY), ("missing", MISSING), ("denied", DENIED), ("broken", BROKEN)]
)
def test_what_an_error_means(fault: str, errors: list[Exception]) -> None:
    for error in errors:
        assert fault_of(error) == fault, repr(error)
        if isinstance(error, botocore.exceptions.ClientError):
            assert fault_of(translate_boto_error(error)) == fault, repr(error)


def test_the_cause_decides_where_the_error_itself_says_little() -> None:
    wrapped = OSError(errno.EIO, "odd")
    wrapped.__cause__ = client_error("Throttling", 400)
    assert fault_of(wrapped) == "busy"
    looped = OSError(errno.EIO, "odd")
    looped.__cause__ = looped
    assert fault_of(looped) == "broken"


def test_the_errors_that_are_raised() -> None:
    missing, refused = error_of(FileNotFoundError("s3://a")), error_of(PermissionError("no"))
    assert isinstance(missing, MissingObjectError) and isinstance(missing, FileNotFoundError)
    assert isinstance(refused, DeniedObjectError) and isinstance(refused, PermissionError)
    busy = error_of(ConnectionResetError(errno.ECONNRESET, "reset"), tries=3)
    assert busy.fault == "busy" and str(busy) == "reset (3 tries)"
    for error in (missing, refused, busy, ObjectStoreError("x")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(again), str(again), again.fault) == (type(error), str(error), error.fault)
        assert error.errno and error.strerror


def test_no_secret_is_repeated() -> None:
    for error in (*BUSY, *MISSING, *DENIED, *BROKEN):
        assert "SECRET" not in describe(error), repr(error)
    assert len(describe(OSError(errno.EIO, "x" * 9999))) == 200


def test_a_lost_upload_is_known() -> None:
    assert is_lost_upload(translate_boto_error(client_error("NoSuchUpload", 404)))
    assert not is_lost_upload(translate_boto_error(client_error("NoSuchKey", 404)))
