"""The two errors that the command line turns into one line and an exit status."""


class UserError(ValueError):
    """What the user gave us is wrong: one line that names the thing, the rule and the way out.

    The command line prints it without a traceback and exits with status 2.
    """


class JobError(RuntimeError):
    """What was asked for is right but failed (a full disk, a lost worker): exit status 1."""
