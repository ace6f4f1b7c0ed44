"""The sentence inside TensorFlow's errors of a graph. Pure.

An error that an operation of a graph raises begins with ``Graph execution error:`` and an empty
line; the lines where the graph was made follow, and the operation's own message comes last:

    Graph execution error:

    Detected at node Equal defined at (most recent call last):
      File "train.py", line 3, in <module>
    Incompatible shapes: [2] vs. [3]
         [[{{node Equal}}]] [Op:__inference_step_10]

If several operations fail, their messages are numbered: ``(0) INVALID_ARGUMENT:  Incompatible …``.
"""

import re
from typing import Final

_HEADLINE: Final = "Graph execution error:"
_NUMBERED: Final = re.compile(r"^\s*\(0\)\s+(?:[A-Z_]+:\s+)?(\S.*)$", re.MULTILINE)
# What follows the sentence in its own line: the node, and the function that was called.
_TRAILER: Final = re.compile(r"\s*(\[\[\{*\w|\[Op:).*$")
# TensorFlow lists all labels of a batch.
_MAX_CHARS: Final = 400
_STACK: Final = ("Detected at node", "Stack trace for op definition", "Original stack trace")


def lift_sentence(error: str, rest: str = "") -> str:
    """Return `error` with the operation's own message in the place of an empty headline.

    Args:
      error: the text of an error, one line or more; other errors are returned unchanged.
      rest: further lines that were printed with it, as a traceback.
    """
    before, mark, after = error.partition(_HEADLINE)
    if not mark or after.split("\n", 1)[0].strip():
        return error
    if not after.strip():
        after = rest.rpartition(_HEADLINE)[2]
    sentence = _sentence(after)
    if len(sentence) > _MAX_CHARS:
        sentence = sentence[:_MAX_CHARS] + "…"
    return f"{before}{sentence}" if sentence else error


def _sentence(text: str) -> str:
    numbered = _NUMBERED.search(text)
    if numbered:
        return _TRAILER.sub("", numbered[1]).strip()
    lines = [_TRAILER.sub("", line) for line in text.splitlines()]
    own = [line.strip() for line in lines if line and not line[0].isspace()]
    own = [line for line in own if not line.startswith(_STACK)]
    return own[-1] if own else ""
