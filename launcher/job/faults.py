"""Faults on purpose: what `launch --inject` puts into a job, and how a worker carries it out.

A fault hits one worker in one attempt, when it reports the step: ``kill:worker=1,step=50``.
Standard library alone: workers import it.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final

# kind -> (who carries it out, what it does)
IN_WORKER: Final = {
    "raise": "raises an exception",
    "exit0": "exits with 0, too early",
    "slow": "waits `seconds` at every step from then on",
}
BY_SUPERVISOR: Final = {
    "kill": "is killed (SIGKILL)",
    "stop": "is stopped (SIGSTOP), as a host that hangs",
    "preempt": "gets SIGTERM, as from a host that is taken away with notice",
    "disk_full": "cannot write to files any more",
    "port": "finds its port taken",
    "bad_shard": "reads a shard with a flipped bit",
    "lose": "is killed, and its host stays away for the next `restarts` starts",
}
AT_HOST: Final = {
    "unplug": "its host loses the network, for `seconds` or until the next start",
    "freeze": "all of its host stands still, for `seconds` or until the next start",
}
# Who is to be killed when it reports a step goes no further, however late the supervisor is: else
# training might be over before that.
WAITED_FOR: Final = ("kill", "lose")
WAIT_S: Final = 20.0
KINDS: Final = {**IN_WORKER, **BY_SUPERVISOR, **AT_HOST}
VARIABLE: Final = "TENFOLD_INJECT"


class InjectedError(RuntimeError):
    """What the fault ``raise`` raises."""


@dataclass(frozen=True)
class Fault:
    """One fault: `kind` of KINDS, for `worker`, when it reports `step` (or a later one; 0: as
    soon as it runs) in attempt `restart`, counted from 0.

    `seconds` is for slow (1), unplug and freeze, `restarts` for lose.
    """

    kind: str
    worker: int = 0
    step: int = 0
    restart: int = 0
    seconds: float | None = None
    restarts: int = 1


def faults_to_env(faults: tuple[Fault, ...], *, worker: int, restart: int) -> dict[str, str]:
    """Returns what tells worker `worker` its faults in attempt `restart`."""
    own = [
        asdict(fault)
        for fault in faults
        if fault.kind in (*IN_WORKER, *WAITED_FOR)
        and (fault.worker, fault.restart) == (worker, restart)
    ]
    return {VARIABLE: json.dumps(own)} if own else {}


class WorkerFaults:
    """The faults that this process has to carry out."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        names = {field.name for field in fields(Fault)}
        self._faults = [
            Fault(**{name: value for name, value in entry.items() if name in names})
            for entry in json.loads(environ.get(VARIABLE) or "[]")
        ]

    def at_step(self, step: int) -> None:
        """Called at every report of a step."""
        for fault in self._faults:
            if step >= fault.step and fault.kind in IN_WORKER:
                _carry_out(fault, step)

    def after_telling(self, step: int) -> None:
        """Called when the supervisor has been told of a step."""
        if any(step >= fault.step and fault.kind in WAITED_FOR for fault in self._faults):
            time.sleep(WAIT_S)


def _carry_out(fault: Fault, step: int) -> None:
    if fault.kind == "raise":
        raise InjectedError(f"injected at step {step}")
    if fault.kind == "exit0":
        os._exit(0)
    time.sleep(1.0 if fault.seconds is None else fault.seconds)
