"""The options of --backend=join, whose members are started on each host by somebody else.

A member runs on its own host only, so there is no `Backend` here: see
`launcher.cli.jobs.run_member`.
"""

from collections.abc import Mapping
from typing import Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Backend, Option

OPTIONS: Final = (
    Option(
        "host_address",
        "this host's name or IP address for the other workers (default: that of its route)",
    ),
)


def create(options: Mapping[str, str]) -> Backend:
    """Refuse to look at hosts: there is only this one.

    Raises:
      UserError: always.
    """
    del options
    raise UserError(
        "--backend=join: every worker is started on its own host; check one there with "
        "--backend=local --num_workers=1"
    )
