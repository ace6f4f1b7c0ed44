"""Hints for unknown names; messages of the operating system."""

import errno
import os

import pytest

from tenfold.data.errors import did_you_mean, naming_file, os_error_text
from tenfold.data.storage.local_folder import replace_file

KNOWN = ("plan", "write", "verify")


def test_did_you_mean_names_the_nearest() -> None:
    assert did_you_mean("plna", KNOWN) == "did you mean 'plan'?"


def test_did_you_mean_lists_all_without_a_near_name() -> None:
    assert did_you_mean("xyz", KNOWN) == "there are: plan, write, verify"


def test_did_you_mean_prefers_the_callers_hint() -> None:
    assert did_you_mean("xyz", KNOWN, otherwise="see --help") == "see --help"


def test_full_disk_names_the_file_and_the_remedy() -> None:
    with open("/dev/full", "wb", 0) as full:
        with pytest.raises(OSError, match="No space") as caught, naming_file("/data/x"):
            full.write(b"x")
        assert "/data/x" in os_error_text(caught.value)
        assert "free some" in os_error_text(caught.value)
        assert "No space left on device: free" in os_error_text(
            OSError(errno.ENOSPC, "No space left on device")
        )


def test_other_errors_keep_their_message() -> None:
    error = OSError(errno.EACCES, "Permission denied", "/data/x")
    assert os_error_text(error) == str(error)


def test_replacing_a_file_on_a_full_disk_names_it(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=r"target\.json"):
        replace_file(tmp_path / "target.json", b"x")
