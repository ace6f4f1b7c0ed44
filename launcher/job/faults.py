"""Fault injection: the faults that `launch --inject` puts into a job, and their worker side.

A fault strikes one worker in one attempt, once it reports a step: ``kill:worker=1,step=50``.
Workers import this module, so it needs the standard library alone.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from tenfold.data.format.json_fields import from_json_fields

# kind -> effect, grouped by the process that carries it out
IN_WORKER: Final = {
    "raise": "raises an exception",
    "exit0": "exits with 0, too early",
    "slow": "waits `seconds` at every step from then on",
}
BY_SUPERVISOR: Final = {
    "kill": "is killed (SIGKILL)",
    "stop": "is stopped (SIGSTOP), as on a host that hangs",
    "preempt": "gets SIGTERM, as on a host that is taken away with notice",
    "disk_full": "cannot write to files any more",
    "port": "finds its port taken",
    "bad_shard": "reads a shard with a flipped bit",
    "lose": "is killed, and its host stays away for the next `restarts` starts",
}
AT_HOST: Final = {
    "unplug": "its host loses the network, for `seconds`, or until the next start",
    "freeze": "its whole host is frozen, for `seconds` or until the next start",
}
# A worker to be killed at a step blocks after reporting it, so that a slow supervisor cannot miss
# the moment: training might otherwise end first.
BLOCKED_UNTIL_KILLED: Final = ("kill", "lose")
BLOCK_S: Final = 20.0
KINDS: Final = {**IN_WORKER, **BY_SUPERVISOR, **AT_HOST}
VARIABLE: Final = "TENFOLD_INJECT"


class InjectedError(RuntimeError):
    """The exception of the fault ``raise``."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
      kind: one of KINDS.
      worker: the task index of the worker that it strikes.
      step: the fault strikes when the worker reports this step or a later one; 0: as soon as
        the worker runs.
      restart: the attempt in which it strikes, counted from 0.
      seconds: the duration of slow (1 by default), unplug and freeze.
      restarts: for lose, the number of starts for which the host stays away.
    """

    kind: str
    worker: int = 0
    step: int = 0
    restart: int = 0
    seconds: float | None = None
    restarts: int = 1


def faults_to_env(faults: tuple[Fault, ...], *, worker: int, restart: int) -> dict[str, str]:
    """Return the environment variables that give worker `worker` its faults in an attempt."""
    own = [
        asdict(fault)
        for fault in faults
        if fault.kind in (*IN_WORKER, *BLOCKED_UNTIL_KILLED)
        and (fault.worker, fault.restart) == (worker, restart)
    ]
    return {VARIABLE: json.dumps(own)} if own else {}


class WorkerFaults:
    """The faults of this process; its reporter calls the methods, in this order, at each step."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._faults = [
            from_json_fields(Fault, entry, ignore_unknown=True)
            for entry in json.loads(environ.get(VARIABLE) or "[]")
        ]

    def strike(self, step: int) -> None:
        """Carry out the faults of this process that are due at `step`."""
        for fault in self._faults:
            if step >= fault.step and fault.kind in IN_WORKER:
                _carry_out(fault, step)

    def block_until_killed(self, step: int) -> None:
        """Block if the supervisor, which has just been sent `step`, will kill this process."""
        if any(
            step >= fault.step and fault.kind in BLOCKED_UNTIL_KILLED for fault in self._faults
        ):
            time.sleep(BLOCK_S)


def _carry_out(fault: Fault, step: int) -> None:
    if fault.kind == "raise":
        raise InjectedError(f"injected at step {step}")
    if fault.kind == "exit0":
        os._exit(0)
    time.sleep(1.0 if fault.seconds is None else fault.seconds)
