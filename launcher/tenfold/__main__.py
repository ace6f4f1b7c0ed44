"""``python -m tenfold``: the same as the ``tenfold`` command."""

from tenfold.launcher.main import console

console()
