"""Members of a joined job meet through files, also beside those of earlier starts."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.job_spec import ClusterSpec
from tenfold.launcher.job.members.judge_members import judge_members
from tenfold.launcher.job.members.member_files import (
    ROSTER_FILE,
    Introduction,
    MemberResult,
    Roster,
    introduction_file,
    member_result_file,
    to_json,
)
from tenfold.launcher.job.members.member_run_dir import MemberDir
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.members import peer_watch
from tenfold.launcher.supervisor.members.meeting import Meeting, new_nonce
from tenfold.launcher.supervisor.members.member_results import collect_results, read_results
from tenfold.launcher.supervisor.members.peer_watch import PeerWatch
from tenfold.launcher.supervisor.verdict import to_failure

pytestmark = pytest.mark.timeout(150)


def own(index: int, number: int, **more: Any) -> Introduction:
    address = more.pop("address", f"host-{index}:{4000 + index}")
    return Introduction(new_nonce(), "", number, f"host-{index}", address, **more)


def meet(folder: Path, members: dict[int, Introduction], timeout_s: float = 30) -> dict[int, Any]:
    """Let the members meet, each on a thread; return each one's cluster or error."""
    ended: dict[int, Any] = {}

    def run(index: int) -> None:
        meeting = Meeting(open_folder(str(folder)), index, members[index], timeout_s)
        try:
            ended[index] = meeting.run()
        except JobError as error:
            ended[index] = str(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_members_meet_beside_files_of_an_earlier_start(tmp_path: Path) -> None:
    old = {index: own(index, 3, address=f"old:{index + 1}") for index in range(3)}
    meet(tmp_path, old)
    # A chief that has not removed them yet: the roster and all introductions are old.
    ended = meet(tmp_path, {index: own(index, 3) for index in (2, 1, 0)})
    cluster = ClusterSpec(("host-0:4000", "host-1:4001", "host-2:4002"))
    assert ended == dict.fromkeys(range(3), cluster)


def test_stale_roster_with_the_chiefs_nonce_admits_nobody(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path))
    chief = Introduction("n0", "n0", 2, "a", "a:1")
    folder.write(introduction_file(0), to_json(chief))
    folder.write(ROSTER_FILE, to_json(Roster("n0", ("n0", "n1"), ("a:1", "b:1"))))
    ended = meet(tmp_path, {1: own(1, 2)}, timeout_s=0.5)
    assert "started without this worker 1" in ended[1]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({0: own(0, 2)}, "worker 1 did not come within 0.5 s"),
        ({0: own(0, 4), 2: own(2, 4)}, "workers 1, 3 did not come"),
        ({1: own(1, 2)}, "the chief (worker 0) has not come"),
        ({0: own(0, 2), 1: own(1, 3)}, "worker 1 on host-1 counts 3 workers"),
        ({0: own(0, 2), 1: own(1, 2, job="x")}, "worker 1 on host-1 runs another program"),
        ({0: own(0, 2), 1: own(1, 2, address="host-0:4000")}, "two workers have one address"),
    ],
)
def test_failed_meeting_is_explained_to_all(
    tmp_path: Path, members: dict[int, Introduction], message: str
) -> None:
    for error in meet(tmp_path, members, timeout_s=0.5).values():
        assert message in error


def failed(index: int, time: float, status: int, error: str = "ValueError: no") -> MemberResult:
    record = WorkerRecord(index, exit_code=1, exit_time=time, note=error)
    return MemberResult(index, 1, status, failure=to_failure(record), seconds=time)


def test_cause_comes_before_consequences_that_were_told_earlier(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path))
    for index in (1, 2):
        folder.write(introduction_file(index), to_json(own(index, 4)))
    old = failed(2, 1.0, 1)
    folder.write(member_result_file(1), to_json(failed(1, 3.0, 1)))
    folder.write(member_result_file(2), to_json(old))
    members = collect_results(
        folder, failed(0, 2.0, 75), num_workers=4, earlier={2: old}, timeout_s=0.2
    )
    assert sorted(members) == [0, 1]
    result = judge_members(members, 4)
    assert result.state == "failed"
    assert result.first_failure is not None
    assert result.first_failure.worker == 1
    assert [failure.worker for failure in result.consequences] == [0]
    assert result.exit_codes == (1, 1, None, None)
    assert result.notes == ("no result from 2 workers: 2, 3",)


@pytest.mark.parametrize(("ran_s", "workers"), [(0.1, [0, 1]), (3600.0, [0])])
def test_short_job_waits_for_members_that_come_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran_s: float, workers: list[int]
) -> None:
    """A member that has not come for an hour writes elsewhere, and is not waited for."""
    folder = open_folder(str(tmp_path))
    late = iter(
        [
            lambda: folder.write(introduction_file(1), to_json(own(1, 2))),
            lambda: folder.write(member_result_file(1), to_json(MemberResult(1, 0, 0))),
        ]
    )
    monkeypatch.setattr("time.sleep", lambda _: next(late)())
    chief = MemberResult(0, 0, 0, seconds=ran_s)
    assert sorted(collect_results(folder, chief, num_workers=2, earlier={})) == workers


def test_peer_watch_ignores_results_of_earlier_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_watch, "LOCAL_INTERVAL_S", 0.01)
    monkeypatch.setattr(peer_watch, "OWN_ERROR_S", 0.0)
    folder = open_folder(str(tmp_path))
    folder.write(member_result_file(1), to_json(failed(1, 1.0, 1, "old")))
    watch = PeerWatch(folder, index=0, num_workers=2, earlier=read_results(folder, 2))
    record = WorkerRecord(0)
    watch.act((record,), None)  # type: ignore[arg-type]
    assert not record.echo
    folder.write(member_result_file(1), to_json(failed(1, 2.0, 1, "new")))
    while not record.echo:
        watch.act((record,), None)  # type: ignore[arg-type]
    assert record.echo == "stopped because worker 1 failed: new"
    watch.close()


def test_late_member_of_a_short_program_may_still_run(tmp_path: Path) -> None:
    """Where members do not meet, the chief may have succeeded before this member starts."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "result.json").write_text('{"state": "succeeded"}')
    MemberDir(str(run_dir), 1, note=lambda _: None).close()
    with pytest.raises(UserError, match="holds a job that succeeded"):
        MemberDir(str(run_dir), 0, note=lambda _: None)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        MemberDir(str(tmp_path / "other"), 1, note=lambda _: None)
