"""``python -m tenfold``: the same as the ``tenfold`` command."""

from tenfold.launcher.cli.main import console

console()
