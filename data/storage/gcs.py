"""Folders of Google Cloud Storage, ``gs://bucket/prefix``.

Requests are those of the JSON interface (cloud.google.com/storage/docs/json_api). An object is
made by one request and so appears whole or not at all; the request names its CRC32C, which the
server checks, and the CRC32C that it answers is compared again. A generation precondition makes
the request safe to repeat and lets only one of several writers win.
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
from tenfold.data.storage.gcs_client import Answer, client
from tenfold.data.storage.retry import TransientError, with_retries

Taker = TypeVar("Taker", "_Parts", LocalPart)

_BOUNDARY: Final = "==tenfold=="
_known_buckets: set[str] = set()


class GcsFolder:
    """A folder of a bucket. It holds no connection, and may go to other processes."""

    def __init__(self, path: str) -> None:
        bare = path.split("://", 1)[1]
        self._bucket, _, prefix = bare.partition("/")
        self._prefix = prefix.strip("/")
        if not self._bucket:
            raise UserError(f"'{path}' names no bucket: give gs://BUCKET/PREFIX")
        self.path = f"gs://{self._bucket}/{self._prefix}".rstrip("/")

    def read(self, name: str, *, version: str = "") -> bytes | None:
        """Returns an object's bytes, checked by the server's CRC32C; None where there is none.

        With a `version` also None where the object is of another generation.
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

        return with_retries(once, what=self._at(name))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes at `offset`, fewer at the end; raises FileNotFoundError.

        Their number is checked; what they are cannot be, because the server's CRC32C is of the
        whole object.
        """
        return b"".join(self._range(name, offset, length, _Parts).parts)

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Writes such bytes to the same place of a local file; returns their CRC32C."""
        return self._range(name, offset, length, partial(LocalPart, descriptor)).crc32c

    def _range(self, name: str, offset: int, length: int, make: Callable[[], Taker]) -> Taker:
        """Returns what `make` has made, after it took a range of an object; every attempt has
        one of its own.
        """

        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}

        def once() -> Taker:
            taker = make()
            if length > 0:
                answer = self._get(name, headers=wanted, answer_bytes=length)
                if answer.status == 404:
                    raise FileNotFoundError(f"there is no {self._at(name)}")
                if answer.status != 416:  # beyond the end
                    _take_range(taker.take, offset, length, answer)
            return taker

        return with_retries(once, what=self._at(name))

    def write(self, name: str, data: bytes, *, replaces: str | None = None) -> None:
        """Makes or replaces a whole object in one request; see `Folder`."""
        self._upload(name, data, replaces)

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Sends a whole local file to `name` in one request, and removes it."""
        del synced
        self._upload(name, local.read_bytes(), replaces)
        local.unlink()

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Returns the objects directly under `prefix`, by name."""
        within = self._within(prefix)
        return {
            name[len(within) :]: entry
            for page in self._pages(within, delimiter="/")
            for name, entry in _named_entries(page)
            if name != within  # a folder's marker
        }

    def entry(self, name: str) -> Entry | None:
        """Returns what is known of one object, None where there is none."""
        found = with_retries(lambda: self._entry(name), what=self._at(name))
        if found is None:
            with_retries(self._expect_bucket, what=self.path)
        return found

    def folders(self) -> list[str]:
        """Returns what comes before the next '/' in the names of deeper objects, sorted."""
        within = self._within("")
        pages = self._pages(within, delimiter="/")
        found = {name for page in pages for name in page.get("prefixes", [])}
        return sorted(str(name)[len(within) :].removesuffix("/") for name in found)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Yields every object below `prefix`, however deep, sorted by name."""
        base = len(self._within(""))
        for page in self._pages(self._within(prefix)):
            for name, entry in _named_entries(page):
                if not name.endswith("/"):  # a folder's marker
                    yield name[base:], entry

    def _within(self, prefix: str) -> str:
        """Returns what the names of all objects below `prefix` begin with."""
        return f"{self._name(prefix)}/".lstrip("/")

    def _pages(self, within: str, *, delimiter: str = "") -> Iterator[dict[str, Any]]:
        """Yields the answers that list the objects whose names begin with `within`."""
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
        """Returns name and bytes of the objects directly under `prefix`."""
        return {name: entry.bytes for name, entry in self.entries(prefix).items()}

    def remove(self, name: str) -> None:
        """Removes an object; it may be gone already."""
        with_retries(
            lambda: self._ask("DELETE", self._object(name)), what=f"{self._at(name)}: removing it"
        )

    def remove_folder(self, name: str) -> None:
        """Does nothing: object stores have no folders."""

    def scratch(self) -> Path | None:
        """Returns None: there is no local folder."""
        return None

    # --- sending ---

    def _upload(self, name: str, data: bytes, replaces: str | None) -> None:
        """Sends `data` as one object, again until the server has it or says who was first."""
        upload = _Upload(len(data), crc32c(data), replaces)
        body = _multipart(self._name(name), upload.crc32c, data)

        def once() -> None:
            answer = self._post(body, upload.replaces)
            if answer.status == 404:
                raise self._no_bucket()
            if answer.status != 412:
                upload.check_made(_entry(answer.json()))
            elif not upload.is_there(self._entry(name)):
                raise Conflict(conflict_text(self._at(name)))

        with_retries(once, what=f"{self._at(name)}: writing it")

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

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}".rstrip("/")

    def _objects(self) -> str:
        return f"/storage/v1/b/{quote(self._bucket, safe='')}/o"

    def _object(self, name: str) -> str:
        return f"{self._objects()}/{quote(self._name(name), safe='')}"

    def _expect_bucket(self) -> None:
        """Checks that what is not there is not the bucket."""
        if self._bucket not in _known_buckets:
            self._list("?")
            _known_buckets.add(self._bucket)

    def _no_bucket(self) -> UserError:
        return UserError(
            f"there is no bucket '{self._bucket}': make it first ('gcloud storage buckets create "
            f"gs://{self._bucket}'), or mend the path {self.path}"
        )


@dataclass
class _Upload:
    """What is sent, and the generation that it may replace (`Folder` says how)."""

    num_bytes: int
    crc32c: int
    replaces: str | None

    def check_made(self, made: Entry) -> None:
        """Checks what the server says that it has made.

        Raises:
          TransientError: it is something else, which the next attempt replaces.
        """
        if not self._is_ours(made):
            if self.replaces is not None:
                self.replaces = made.version
            raise TransientError("the server has received something else (CRC32C)")

    def is_there(self, found: Entry | None) -> bool:
        """Says whether what stood in the way is ours, the answer to an attempt being lost.

        Raises:
          TransientError: it is gone; the next attempt makes it anew.
        """
        if found is None:
            self.replaces = ""
            raise TransientError("it was removed meanwhile")
        return self._is_ours(found)

    def _is_ours(self, entry: Entry) -> bool:
        return (entry.bytes, entry.crc32c) == (self.num_bytes, self.crc32c)


def _multipart(name: str, crc: int, data: bytes) -> tuple[bytes, bytes, bytes]:
    """Returns the parts of an upload's body (RFC 2387): the object's resource, then its bytes."""
    resource = {"name": name, "crc32c": base64.b64encode(crc.to_bytes(4, "big")).decode()}
    kind, encoding = mimetypes.guess_type(name)
    kind = "application/octet-stream" if encoding or not kind else kind
    if kind == "text/html":  # a page that is written anew while somebody looks at it
        resource["cacheControl"] = "no-cache"
    head = (
        f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        f"{json.dumps(resource)}\r\n"
        f"--{_BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n"
    )
    return head.encode(), data, f"\r\n--{_BOUNDARY}--\r\n".encode()


def _entry(item: Mapping[str, Any]) -> Entry:
    """Returns an object's resource as an entry.

    Raises:
      TransientError: it lacks a part: the answer was damaged on the way.
    """
    try:
        return Entry(int(item["size"]), _crc32c(item["crc32c"]), str(item["generation"]))
    except (KeyError, ValueError) as error:
        raise TransientError(f"the answer is no object: {str(item)[:80]}") from error


def _named_entries(page: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """Yields the full names of a page's objects, and what they are."""
    for item in page.get("items", []):
        yield str(item["name"]), _entry(item)


def _crc32c(text: str) -> int:
    """Returns the number that Cloud Storage writes as Base64 of its big-endian bytes."""
    return int.from_bytes(base64.b64decode(text, validate=True), "big")


def _crc32c_of_headers(headers: Mapping[str, str]) -> int | None:
    """Returns the CRC32C of ``X-Goog-Hash: crc32c=…,md5=…``, None where it is not given."""
    for part in headers.get("X-Goog-Hash", "").split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "crc32c":
            return _crc32c(value)
    return None


@dataclass
class _Parts:
    """Bytes that stay in memory."""

    parts: list[bytes] = field(default_factory=list)

    def take(self, at: int, part: bytes) -> None:
        del at
        self.parts.append(part)


def _take_range(
    take: Callable[[int, bytes], object], offset: int, length: int, answer: Answer
) -> None:
    """Give `take` the bytes of the range that the answer holds, and their offset.

    Raises:
      TransientError: they are not all of it.
    """
    if "Content-Range" not in answer.headers:  # a server may disregard ranges
        take(offset, answer.body[offset : offset + length])
    elif len(answer.body) != _range_bytes(answer.headers, offset, length):
        raise TransientError("the body was cut short")
    else:
        take(offset, answer.body)


def _range_bytes(headers: Mapping[str, str], offset: int, length: int) -> int:
    """Returns how long the body must be: what of the range lies within the object.

    Raises:
      TransientError: ``Content-Range: bytes 0-99/1234`` is missing.
    """
    total = headers.get("Content-Range", "").rpartition("/")[2]
    if not total.isdecimal():
        raise TransientError("the answer names no range")
    return min(length, int(total) - offset)
