"""S3 uploads in parts: each part is tried again by itself, and no parts are left behind where that can be helped.

s3fs can do it too, but gives up the whole upload with the first part that fails, and holds ten parts of 50 MiB in
memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from dyntok.objects.faults import ObjectStoreError, is_lost_upload
from dyntok.objects.retries import Patience, try_again

PART_BYTES = 16 * 2**20
_MOST_PARTS = 9_000  # S3 takes 10,000
_PARTS_AT_ONCE = 4
_PART_LIMIT_S = 600.0
_RESTARTS = 2
_ABORT_PATIENCE = Patience(tries=4, longest_wait_s=2.0, total_s=20.0)


def upload(fs: Any, local: Path, path: str, patience: Patience, stop: Callable[[], bool]) -> None:
    """Upload a file that is larger than one part. The object shows when all of it is there.

    Parts that an interrupted upload to the same path left are aborted first, and this one's if it fails; a process
    that is killed leaves its own to the next upload to that path. Raises ObjectStoreError.
    """
    for restart in range(_RESTARTS + 1):
        try:
            return _Upload(fs, local, path, patience, stop).run()
        except ObjectStoreError as error:
            # Somebody else aborted it: another writer of the same shard, or a rule of the bucket.
            if not is_lost_upload(error) or restart == _RESTARTS:
                raise
    return None


class _Upload:
    def __init__(self, fs: Any, local: Path, path: str, patience: Patience, stop: Callable[[], bool]) -> None:
        self._fs, self._local, self._path = fs, local, path
        self._patience, self._stop = patience, stop
        bucket, key, _ = fs.split_path(path)
        self._where = {"Bucket": bucket, "Key": key}
        self._size = local.stat().st_size
        mebibytes = -(-self._size // (_MOST_PARTS * 2**20))
        self._part_bytes = max(PART_BYTES, mebibytes * 2**20)
        self._parts = -(-self._size // self._part_bytes)
        self._failed = False

    def run(self) -> None:
        self._abort_left_behind()
        upload_id = str(self._call("create_multipart_upload", **self._where)["UploadId"])
        try:
            etags = self._send(upload_id)
            self._complete(upload_id, etags)
        except BaseException:
            self._abort(upload_id)
            raise

    def _send(self, upload_id: str) -> list[str]:
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool, self._local.open("rb") as file:
            futures = [
                pool.submit(self._send_part, file.fileno(), upload_id, number) for number in range(1, self._parts + 1)
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                self._failed = True
                raise
            finally:
                for future in futures:
                    future.cancel()

    def _send_part(self, descriptor: int, upload_id: str, number: int) -> str:
        if self._gives_up():
            raise ObjectStoreError("the upload was interrupted")
        data = os.pread(descriptor, self._part_bytes, (number - 1) * self._part_bytes)
        answer = self._call(
            "upload_part",
            **self._where,
            UploadId=upload_id,
            PartNumber=number,
            Body=data,
            timeout=_PART_LIMIT_S,
        )
        return str(answer["ETag"])

    def _complete(self, upload_id: str, etags: list[str]) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            self._call(
                "complete_multipart_upload",
                **self._where,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                timeout=_PART_LIMIT_S,
            )
        except ObjectStoreError as error:
            # The answer to an earlier try was lost on the way, and the upload is there.
            if not (is_lost_upload(error) and self._is_there()):
                raise

    def _is_there(self) -> bool:
        try:
            head = self._call("head_object", **self._where)
        except ObjectStoreError:
            return False
        return bool(
            head["ContentLength"] == self._size and str(head.get("ETag", "")).strip('"').endswith(f"-{self._parts}")
        )

    def _abort_left_behind(self) -> None:
        """Where the credentials do not allow it, a rule of the bucket has to do it."""
        with suppress(ObjectStoreError):
            listed = self._call("list_multipart_uploads", Bucket=self._where["Bucket"], Prefix=self._where["Key"])
            for left in listed.get("Uploads", []):
                if left["Key"] == self._where["Key"]:
                    self._abort(left["UploadId"])

    def _abort(self, upload_id: str) -> None:
        """Not held up by `stop`: this is what has to be done then."""
        with suppress(ObjectStoreError):
            try_again(
                lambda: self._fs.call_s3("abort_multipart_upload", **self._where, UploadId=upload_id),
                _ABORT_PATIENCE,
            )

    def _gives_up(self) -> bool:
        return self._failed or self._stop()

    def _call(self, method: str, **arguments: Any) -> Any:
        return try_again(lambda: self._fs.call_s3(method, **arguments), self._patience, give_up=self._gives_up)
