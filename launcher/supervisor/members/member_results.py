"""The results of a joined job's members, as its chief collects them."""

import time
from collections.abc import Mapping
from typing import Final

from tenfold.data.storage.folder import Folder, is_url
from tenfold.launcher.job.members.member_files import (
    Introduction,
    MemberResult,
    introduction_file,
    member_result_file,
    read_value,
)
from tenfold.launcher.supervisor.members.meeting import LOCAL_POLL_S, REMOTE_POLL_S

# How long the chief waits at its end for the results of the other members. TensorFlow tells a
# worker of a lost peer after up to 20 s, but the chief should not outlive a platform's grace.
COLLECT_S: Final = 10.0
# Members are started together. One that has not introduced itself this long after the chief's
# worker began writes into a folder that is not shared; before that it may only be late.
ARRIVE_S: Final = 10.0


def read_results(folder: Folder, num_workers: int) -> dict[int, MemberResult]:
    """Return the results in the run directory, by worker index."""
    results = (
        (index, read_value(folder, member_result_file(index), MemberResult))
        for index in range(num_workers)
    )
    return {index: result for index, result in results if result is not None}


def collect_results(
    folder: Folder,
    own: MemberResult,
    *,
    num_workers: int,
    earlier: Mapping[int, MemberResult],
    timeout_s: float = COLLECT_S,
) -> dict[int, MemberResult]:
    """Return the results by worker index, of all members that end within `timeout_s`.

    Args:
      folder: the run directory.
      own: the result of the calling member.
      num_workers: the number of members.
      earlier: results of an earlier start, which do not count.
      timeout_s: how long to wait.
    """
    found = {own.worker: own}
    began = time.monotonic()
    while True:
        now = time.monotonic()
        has_room_to_arrive = own.seconds + now - began < ARRIVE_S
        missing = sorted(set(range(num_workers)) - set(found))
        for index in missing:
            result = read_value(folder, member_result_file(index), MemberResult)
            if result is not None and result != earlier.get(index):
                found[index] = result
        is_awaited = any(
            has_room_to_arrive
            or read_value(folder, introduction_file(index), Introduction) is not None
            for index in missing
            if index not in found
        )
        if not is_awaited or now - began >= timeout_s:
            return found
        time.sleep(REMOTE_POLL_S if is_url(folder.path) else LOCAL_POLL_S)
