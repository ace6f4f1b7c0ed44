"""Folders of Google Cloud Storage, ``gs://bucket/prefix``.

The requests are those of the JSON API (cloud.google.com/storage/docs/json_api). One request
uploads a whole object, which therefore appears completely or not at all. The request states the
object's CRC32C, which the server checks; the CRC32C in its answer is compared again. A generation
precondition makes the request safe to retry, and lets only one of several writers succeed.
"""

import base64
import json
import mimetypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from tenfold.data.errors import UserError
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.storage.folder import Conflict, Entry, LocalPart, conflict_text
from tenfold.data.storage.gcs.download_process import fetch_in_process
from tenfold.data.storage.gcs.gcs_client import client
from tenfold.data.storage.gcs.response_trace import Answer
from tenfold.data.storage.retry import TransientError, with_retries

Receiver = TypeVar("Receiver", "_MemoryParts", LocalPart)

_BOUNDARY: Final = "==tenfold=="
_known_buckets: set[str] = set()


class GcsFolder:
    """A folder of a bucket; see `Folder`. It holds no connection, so pickling it is cheap."""

    def __init__(self, path: str) -> None:
        bare = path.split("://", 1)[1]
        self._bucket, _, prefix = bare.partition("/")
        self._prefix = prefix.strip("/")
        if not self._bucket:
            raise UserError(f"'{path}' names no bucket: give gs://BUCKET/PREFIX")
        self.path = f"gs://{self._bucket}/{self._prefix}".rstrip("/")

    def read(self, name: str, *, version: str = "") -> bytes | None:
        """Return an object's bytes, checked against the server's CRC32C; None if missing.

        With a `version`, also returns None if the object has another generation.
        """

        def once() -> bytes | None:
            answer = self._get(name)
            if answer.status == 404:
                self._expect_bucket()
                return None
            expected = _crc32c_of_headers(answer.headers)
            if expected is not None and crc32c(answer.body) != expected:
                raise TransientError("the body was damaged on the way (CRC32C)")
            found = answer.headers.get("X-Goog-Generation", version)
            return answer.body if found == version or not version else None

        return with_retries(once, what=self._path_of(name))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a range of an object; see `Folder`.

        Only the number of bytes is checked: the server's CRC32C covers the whole object.
        """
        return b"".join(self._receive(name, offset, length, _MemoryParts).parts)

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Copy a range to a local file; see `Folder`."""
        found = fetch_in_process(self.path, name, offset, length, descriptor)
        return self.download_range(name, offset, length, descriptor) if found is None else found

    def download_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Do what `fetch_range` does, in this process."""
        return self._receive(name, offset, length, partial(LocalPart, descriptor)).crc32c

    def _receive(
        self, name: str, offset: int, length: int, make: Callable[[], Receiver]
    ) -> Receiver:
        """Return the receiver that took the range; each attempt makes a new one by `make`."""
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}

        def once() -> Receiver:
            receiver = make()
            if length > 0:
                body = _RangeBody(receiver.take, offset, length)
                answer = self._get(
                    name, headers=headers, answer_bytes=length, receive=body.receive
                )
                if answer.status == 404:
                    raise FileNotFoundError(f"there is no {self._path_of(name)}")
                if answer.status != 416:  # beyond the end
                    body.check(answer.headers)
            return receiver

        return with_retries(once, what=self._path_of(name))

    def write(
        self, name: str, data: bytes, *, replaces: str | None = None, durable: bool = True
    ) -> None:
        """Create or replace a whole object in one request; see `Folder`."""
        del durable
        self._upload(name, data, replaces)

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Upload a local file to `name` in one request, and remove it."""
        del synced
        self._upload(name, local.read_bytes(), replaces)
        local.unlink()

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Return the objects directly in the folder `prefix`, by name."""
        within = self._within(prefix)
        return {
            name[len(within) :]: entry
            for page in self._pages(within, delimiter="/")
            for name, entry in _named_entries(page)
            if name != within  # a folder's marker
        }

    def entry(self, name: str) -> Entry | None:
        """Return the entry of one object, or None if there is no such object."""
        found = with_retries(lambda: self._entry(name), what=self._path_of(name))
        if found is None:
            with_retries(self._expect_bucket, what=self.path)
        return found

    def folders(self) -> list[str]:
        """Return the names of the folders directly in this folder, sorted."""
        within = self._within("")
        pages = self._pages(within, delimiter="/")
        found = {name for page in pages for name in page.get("prefixes", [])}
        return sorted(str(name)[len(within) :].removesuffix("/") for name in found)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Yield every object below the folder `prefix`, at any depth, sorted by name."""
        base = len(self._within(""))
        for page in self._pages(self._within(prefix)):
            for name, entry in _named_entries(page):
                if not name.endswith("/"):  # a folder's marker
                    yield name[base:], entry

    def _within(self, prefix: str) -> str:
        """Return the common beginning of the names of all objects below `prefix`."""
        return f"{self._name(prefix)}/".lstrip("/")

    def _pages(self, within: str, *, delimiter: str = "") -> Iterator[dict[str, Any]]:
        """Yield the pages of the listing of all objects whose names begin with `within`."""
        token = ""
        while True:
            page = with_retries(
                lambda: self._list(within, token, delimiter),  # noqa: B023
                what=f"gs://{self._bucket}/{within}",
            )
            yield page
            token = str(page.get("nextPageToken") or "")
            if not token:
                return

    def _list(self, within: str, token: str = "", delimiter: str = "/") -> dict[str, Any]:
        params = {
            "prefix": within,
            "fields": "items(name,size,crc32c,generation),prefixes,nextPageToken",
            **({"delimiter": delimiter} if delimiter else {}),
            **({"pageToken": token} if token else {}),
        }
        answer = self._ask("GET", self._objects(), params=params)
        if answer.status == 404:
            raise self._no_bucket()
        return answer.json()

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the sizes in bytes of the objects directly in the folder `prefix`."""
        return {name: entry.bytes for name, entry in self.entries(prefix).items()}

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        with_retries(
            lambda: self._ask("DELETE", self._object(name)),
            what=f"{self._path_of(name)}: removing it",
        )

    def remove_folder(self, name: str) -> None:
        """Do nothing: object stores have no folders."""

    def scratch(self) -> Path | None:
        """Return None: the folder is not on a local disk."""
        return None

    # --- uploads ---

    def _upload(self, name: str, data: bytes, replaces: str | None) -> None:
        """Upload `data` as one object; retry until the server has it or reports a conflict."""
        upload = _Upload(len(data), crc32c(data), replaces)
        body = _multipart(self._name(name), upload.crc32c, data)

        def once() -> None:
            answer = self._post(body, upload.replaces)
            if answer.status == 404:
                raise self._no_bucket()
            if answer.status != 412:
                upload.check_stored(_entry(answer.json()))
            elif not upload.matches(self._entry(name)):
                raise Conflict(conflict_text(self._path_of(name)))

        with_retries(once, what=f"{self._path_of(name)}: writing it")

    def _post(self, body: Sequence[bytes], replaces: str | None) -> Answer:
        params = {"uploadType": "multipart", "fields": "size,crc32c,generation"}
        if replaces is not None:
            params["ifGenerationMatch"] = replaces or "0"
        content = f'multipart/related; boundary="{_BOUNDARY}"'
        path = f"/upload{self._objects()}"
        return self._ask("POST", path, params=params, headers={"Content-Type": content}, body=body)

    def _entry(self, name: str) -> Entry | None:
        answer = self._ask("GET", self._object(name))
        return None if answer.status == 404 else _entry(answer.json())

    # --- requests ---

    def _ask(self, method: str, path: str, **request: Any) -> Answer:
        return client().request(method, path, bucket=self._bucket, **request)

    def _get(self, name: str, **request: Any) -> Answer:
        path = f"/download{self._object(name)}"
        return self._ask("GET", path, params={"alt": "media"}, **request)

    def _name(self, name: str) -> str:
        return f"{self._prefix}/{name}".strip("/")

    def _path_of(self, name: str) -> str:
        return f"{self.path}/{name}".rstrip("/")

    def _objects(self) -> str:
        return f"/storage/v1/b/{quote(self._bucket, safe='')}/o"

    def _object(self, name: str) -> str:
        return f"{self._objects()}/{quote(self._name(name), safe='')}"

    def _expect_bucket(self) -> None:
        """Raise UserError if the whole bucket, not only an object, is missing."""
        if self._bucket not in _known_buckets:
            self._list("?")
            _known_buckets.add(self._bucket)

    def _no_bucket(self) -> UserError:
        return UserError(
            f"there is no bucket '{self._bucket}': create it first ('gcloud storage buckets "
            f"create gs://{self._bucket}'), or correct the path {self.path}"
        )


@dataclass
class _Upload:
    """An upload in progress, over its attempts.

    `replaces` is the generation that the next attempt may replace, as in `Folder`.
    """

    num_bytes: int
    crc32c: int
    replaces: str | None

    def check_stored(self, stored: Entry) -> None:
        """Compare the object that the server reports to have created with the upload.

        Raises:
          TransientError: it differs; the next attempt replaces it.
        """
        if not self._is_ours(stored):
            if self.replaces is not None:
                self.replaces = stored.version
            raise TransientError("the server has received something else (CRC32C)")

    def matches(self, found: Entry | None) -> bool:
        """Whether the object that failed the precondition is this upload.

        It is if an earlier attempt succeeded and only its answer was lost.

        Raises:
          TransientError: the object is gone; the next attempt creates it.
        """
        if found is None:
            self.replaces = ""
            raise TransientError("it was removed meanwhile")
        return self._is_ours(found)

    def _is_ours(self, entry: Entry) -> bool:
        return (entry.bytes, entry.crc32c) == (self.num_bytes, self.crc32c)


def _multipart(name: str, crc: int, data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the parts of an upload's body (RFC 2387): the object's resource, then its bytes."""
    resource = {"name": name, "crc32c": base64.b64encode(crc.to_bytes(4, "big")).decode()}
    kind, encoding = mimetypes.guess_type(name)
    kind = "application/octet-stream" if encoding or not kind else kind
    if kind == "text/html":  # a report is rewritten while it is open in a browser
        resource["cacheControl"] = "no-cache"
    head = (
        f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        f"{json.dumps(resource)}\r\n"
        f"--{_BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n"
    )
    return head.encode(), data, f"\r\n--{_BOUNDARY}--\r\n".encode()


def _entry(item: Mapping[str, Any]) -> Entry:
    """Return an object's resource as an entry.

    Raises:
      TransientError: a field is missing: the answer was damaged on the way.
    """
    try:
        return Entry(int(item["size"]), _crc32c(item["crc32c"]), str(item["generation"]))
    except (KeyError, ValueError) as error:
        raise TransientError(f"the answer describes no object: {str(item)[:80]}") from error


def _named_entries(page: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """Yield the full names and the entries of a page's objects."""
    for item in page.get("items", []):
        yield str(item["name"]), _entry(item)


def _crc32c(text: str) -> int:
    """Return a CRC32C that Cloud Storage writes as Base64 of its big-endian bytes."""
    return int.from_bytes(base64.b64decode(text, validate=True), "big")


def _crc32c_of_headers(headers: Mapping[str, str]) -> int | None:
    """Return the CRC32C of ``X-Goog-Hash: crc32c=…,md5=…``, or None if it is not given."""
    for part in headers.get("X-Goog-Hash", "").split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "crc32c":
            return _crc32c(value)
    return None


@dataclass
class _MemoryParts:
    """A received range in memory."""

    parts: list[bytes] = field(default_factory=list)

    def take(self, offset: int, part: bytes) -> None:
        del offset
        self.parts.append(part)


class _RangeBody:
    """Passes the bytes of a range on to `take`, with their offset, while a body arrives."""

    def __init__(self, take: Callable[[int, bytes], object], offset: int, length: int) -> None:
        self._take = take
        self._offset = offset
        self._length = length
        self._taken = self._skipped = 0

    def receive(self, headers: Mapping[str, str]) -> Callable[[bytes], object]:
        """Return the function that takes the body of an answer with these headers."""
        # Servers may ignore the header Range and send the whole object.
        self._skipped = 0 if "Content-Range" in headers else self._offset
        return self._take_block

    def _take_block(self, block: bytes) -> None:
        skipped = min(self._skipped, len(block))
        self._skipped -= skipped
        part = block[skipped : skipped + self._length - self._taken]
        if part:
            self._take(self._offset + self._taken, part)
            self._taken += len(part)

    def check(self, headers: Mapping[str, str]) -> None:
        """Check that the range arrived whole.

        Raises:
          TransientError: the body ended early.
        """
        if "Content-Range" not in headers:
            return
        if self._taken != _range_bytes(headers, self._offset, self._length):
            raise TransientError("the body was cut short")


def _range_bytes(headers: Mapping[str, str], offset: int, length: int) -> int:
    """Return the expected length of the body: the part of the range within the object.

    Raises:
      TransientError: ``Content-Range: bytes 0-99/1234`` is missing.
    """
    total = headers.get("Content-Range", "").rpartition("/")[2]
    if not total.isdecimal():
        raise TransientError("the answer names no range")
    return min(length, int(total) - offset)
