"""The meeting of a joined job's members in its run directory, where addresses are not known.

Every member writes a file with its address and a nonce, a random text of this start. The chief
collects the replies to its own nonce and answers all with the roster. A member takes a roster
only if its own nonce is in it, and the chief a reply only to its own: files that an earlier
start has left are never taken for those of this one.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from tenfold.data.errors import JobError
from tenfold.data.storage.folder import Folder, is_url
from tenfold.data.units import format_duration
from tenfold.launcher.job.job_spec import ClusterSpec
from tenfold.launcher.job.members.member_files import (
    ROSTER_FILE,
    Introduction,
    Roster,
    introduction_file,
    read_value,
    to_json,
)

LOCAL_POLL_S: Final = 0.1
REMOTE_POLL_S: Final = 2.0
ANSWER_POLLS: Final = 10
NOTE_AFTER_S: Final = 5.0


def new_nonce() -> str:
    """Return a random text for an `Introduction`."""
    return secrets.token_hex(8)


@dataclass
class Meeting:
    """One member's part in the meeting; used by one thread.

    Attributes:
      folder: the run directory.
      index: the member's worker index.
      own: how it introduces itself.
      timeout_s: how long it waits for the others.
      stopped: whether this process was asked to stop.
      note: called with a sentence when the waiting lasts longer.
    """

    folder: Folder
    index: int
    own: Introduction
    timeout_s: float
    stopped: Callable[[], bool] = lambda: False
    note: Callable[[str], None] = lambda _: None
    _began: float = field(default_factory=time.monotonic)
    _noted: bool = False

    def run(self) -> ClusterSpec | None:
        """Return the cluster; None if this process was asked to stop.

        Raises:
          JobError: a member has not come in time, or runs another job; the message names it.
        """
        return self._gather() if self.index == 0 else self._reply()

    def _write(self, own: Introduction) -> None:
        self.folder.write(introduction_file(self.index), to_json(own))

    def _gather(self) -> ClusterSpec | None:
        """As the chief: wait for all replies, and write the roster."""
        self.own = replace(self.own, chief=self.own.nonce)
        self.folder.remove(ROSTER_FILE)
        self._write(self.own)
        come = {0: self.own}
        while len(come) < self.own.num_workers:
            for index in set(range(self.own.num_workers)) - set(come):
                member = read_value(self.folder, introduction_file(index), Introduction)
                if member is not None and member.chief == self.own.nonce:
                    come[index] = member
            problem = self._problem(come)
            if problem or self.stopped():
                self._answer(come, problem or "the chief was asked to stop")
            if problem:
                raise JobError(problem)
            if not self._wait(f"for {_names(self._missing(come))}"):
                return None
        return self._answer(come)

    def _missing(self, come: dict[int, Introduction]) -> list[int]:
        return [index for index in range(self.own.num_workers) if index not in come]

    def _problem(self, come: dict[int, Introduction]) -> str:
        for index, member in come.items():
            if member.num_workers != self.own.num_workers:
                return (
                    f"worker {index} on {member.host} counts {member.num_workers} workers, the "
                    f"chief on {self.own.host} {self.own.num_workers}: start all in one step"
                )
            if member.job != self.own.job:
                return (
                    f"worker {index} on {member.host} runs another program or configuration than "
                    f"the chief on {self.own.host}: start all with the same command"
                )
        addresses = [member.address for member in come.values()]
        if len(set(addresses)) < len(addresses):
            return f"two workers have one address ({', '.join(sorted(addresses))}): start again"
        missing = self._missing(come)
        return f"{_names(missing)} did not come {self._within()}" if self._is_over(missing) else ""

    def _is_over(self, missing: list[int]) -> bool:
        return bool(missing) and time.monotonic() - self._began > self.timeout_s

    def _within(self) -> str:
        return f"within {format_duration(self.timeout_s)} (--rendezvous_timeout)"

    def _answer(self, come: dict[int, Introduction], problem: str = "") -> ClusterSpec | None:
        order = range(self.own.num_workers)
        roster = Roster(
            chief=self.own.nonce,
            nonces=tuple(come[index].nonce if index in come else "" for index in order),
            addresses=tuple(come[index].address if index in come else "" for index in order),
            problem=problem,
        )
        self.folder.write(ROSTER_FILE, to_json(roster))
        return None if problem else ClusterSpec(roster.addresses)

    def _reply(self) -> ClusterSpec | None:
        """Answer the newest chief, again whenever another one has come, until its roster comes."""
        while True:
            chief = read_value(self.folder, introduction_file(0), Introduction)
            if chief is not None and chief.nonce != self.own.chief:
                self.own = replace(self.own, chief=chief.nonce)
                self._write(self.own)
            roster = read_value(self.folder, ROSTER_FILE, Roster)
            if roster is not None and self.own.nonce in roster.nonces:
                if roster.problem:
                    raise JobError(roster.problem)
                return ClusterSpec(roster.addresses)
            # A little later than a chief that came at the same time, who names the missing ones.
            if time.monotonic() - self._began > self.timeout_s + ANSWER_POLLS * self._poll_s:
                raise JobError(self._why_not_admitted(roster))
            if not self._wait("for the chief and the other workers"):
                return None

    def _why_not_admitted(self, roster: Roster | None) -> str:
        if roster is not None and roster.chief == self.own.chief:
            return f"the chief has started without this worker {self.index}: was it started twice?"
        return (
            f"the job did not start {self._within()}: the chief (worker 0) has not come, or waits "
            f"for others in {self.folder.path}; all need the same --run_dir on storage they share"
        )

    @property
    def _poll_s(self) -> float:
        return REMOTE_POLL_S if is_url(self.folder.path) else LOCAL_POLL_S

    def _wait(self, what: str) -> bool:
        """Wait for a moment; return whether to go on."""
        if not self._noted and time.monotonic() - self._began > NOTE_AFTER_S:
            self._noted = True
            self.note(f"waiting {what}")
        time.sleep(self._poll_s)
        return not self.stopped()


def _names(workers: list[int]) -> str:
    return ("worker " if len(workers) == 1 else "workers ") + ", ".join(map(str, workers))
