"""What a worker record keeps of a worker's output."""

from tenfold.launcher.job.worker_record import TracebackCatcher


def trace(error):
    return ("Traceback (most recent call last):", '  File "a.py", line 1, in <module>', error)


def test_traceback_keeps_chain_and_message():
    catcher = TracebackCatcher()
    lines = [
        *trace("KeyError: 'handled long ago'"),
        "training goes on",
        *trace("KeyError: 'a'"),
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *trace("ValueError: first line"),
        "second line",
    ]
    for number, line in enumerate(lines):
        catcher.feed(line, float(number))
    assert catcher.error == "ValueError: first line"
    assert catcher.text.startswith("Traceback")
    assert "KeyError: 'a'" in catcher.text
    assert catcher.text.endswith("second line")
    assert "long ago" not in catcher.text
    assert catcher.time == 4.0
