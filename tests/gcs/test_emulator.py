"""The fake server that the other tests of this folder rely on."""

import urllib.error
from typing import Any

import pytest


def test_emulator_isolates_buckets(gcs_server: Any, bucket: Any) -> None:
    other = gcs_server.make_bucket()
    assert bucket.names() == other.names() == []
    bucket.write("some/folder/a b", b"12")
    assert (bucket.names(), other.names()) == (["some/folder/a b"], [])
    assert bucket.read("some/folder/a b") == b"12"
    assert bucket.read("a b") is None
    bucket.remove("some/folder/a b")
    assert bucket.names() == []
    with pytest.raises(urllib.error.HTTPError):
        gcs_server.request("/storage/v1/b/no-such-bucket/o")


def test_gcsfs_reads_the_emulator(bucket: Any) -> None:
    import fsspec

    files, path = fsspec.core.url_to_fs(f"{bucket.url}/x/y", use_listings_cache=False)
    files.pipe_file(path, b"hello")
    assert bucket.read("x/y") == b"hello"
