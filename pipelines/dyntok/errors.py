"""Every error that dyntok raises on purpose.

::

    DyntokError                  what happened, and a hint that mends it
    |-- UsageError               the call or the command line is wrong            (exit code 2)
    |   |-- ConfigError          a setting is invalid or contradicts another
    |   |-- InputError           the inputs cannot be listed, or their ids clash
    |   `-- StoreMismatchError   the store was made with other settings or inputs
    |-- CheckpointError          a model folder cannot be used
    |-- MergeError               the operator was given something it cannot answer
    |-- VideoError               one video failed; the run goes on                (exit code 3)
    |-- StoreError               a store cannot be read or written
    |   |-- StoreVersionError    the store is newer than this dyntok
    |   |-- StoreLockedError     another process is writing
    |   `-- DamageError          the bytes are not those that were written        (exit code 4)
    `-- RunError                 the run cannot go on

A `VideoError` carries a `code` (one of `VIDEO_ERROR_CODES`), which is what the index and the completion
records call the *error class*.
"""

from __future__ import annotations

VIDEO_ERROR_CODES: dict[str, str] = {
    "not_found": "the file does not exist or cannot be listed",
    "unreadable": "reading the file failed (permissions, network, device)",
    "changed": "the file is not the one that was planned",
    "empty": "the file has no bytes",
    "not_a_video": "the first bytes are of no known video container",
    "playlist": "the file is a playlist or script, which would make the decoder open other files",
    "no_video_stream": "the container holds no video stream that can be decoded",
    "unsupported_codec": "no decoder for this codec",
    "no_frames": "the video stream presents no frame",
    "too_large": "width x height, duration or frame count is beyond the limits",
    "truncated": "fewer frames could be decoded than the container claims",
    "corrupt": "a sampled frame could not be decoded without errors",
    "timeout": "decoding took longer than the limit",
    "memory": "decoding needed more memory than the limit",
    "worker_died": "the process that decoded or encoded it died (crash or kill)",
    "non_finite": "the model gave non-finite features for a frame",
    "decoder": "the decoder gave up for another reason",
}


class DyntokError(Exception):
    """Base of all errors. `message` says what happened, `hint` the command or change that mends it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[DyntokError], args: tuple[object, ...], state: dict[str, object]) -> DyntokError:
    error = cls.__new__(cls, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class UsageError(DyntokError):
    """The call or the command line is wrong."""


class ConfigError(UsageError):
    """A setting is invalid or contradicts another."""


class InputError(UsageError):
    """The inputs cannot be listed, or their ids clash."""


class StoreMismatchError(UsageError):
    """The store was made with other settings or other inputs."""


class CheckpointError(DyntokError):
    """A model folder or hub id cannot be used."""


class MergeError(DyntokError):
    """The operator was given something it cannot answer."""


class NonFiniteFeatureError(MergeError):
    """A frame's features hold a NaN or an infinity. `frame` is its position in the tensor."""

    def __init__(self, frame: int) -> None:
        super().__init__(
            f"frame {frame} has non-finite features",
            hint="use a wider dtype (float32 or bfloat16) for the model, or check the checkpoint",
        )
        self.frame = frame


class VideoError(DyntokError):
    """One video failed; `code` is one of `VIDEO_ERROR_CODES`."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        if code not in VIDEO_ERROR_CODES:
            raise ValueError(f"unknown video error code {code!r}")
        super().__init__(message, hint=hint)
        self.code = code


class StoreError(DyntokError):
    """A store cannot be read or written."""


class StoreVersionError(StoreError):
    """The store is newer than this dyntok."""


class StoreLockedError(StoreError):
    """Another process is writing to the store."""


class DamageError(StoreError):
    """The bytes are not those that were written."""


class RunError(DyntokError):
    """The run cannot go on."""
