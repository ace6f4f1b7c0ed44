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


def test_exit_noise_is_not_the_traceback():
    """Refused callbacks and ignored exceptions follow the last words of a program."""
    refused = "W0000 op_kernel.cc:1845] UNKNOWN: RuntimeError: the process is about to end"
    catcher = TracebackCatcher()
    lines = [
        *trace("ValueError: the cause"),
        "second line",
        refused,
        *trace("RuntimeError: the process is about to end"),
        "",
        "Exception ignored in: <function Handle.__del__ at 0x7f>",
        *trace("AttributeError: 'NoneType' object has no attribute 'close'"),
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *trace("TypeError: 'NoneType' object is not callable"),
    ]
    for number, line in enumerate(lines):
        catcher.feed(line, float(number))
    assert catcher.error == "ValueError: the cause"
    assert catcher.text == "\n".join([*trace("ValueError: the cause"), "second line", refused])
    assert catcher.time == 0.0


def test_traceback_after_exit_noise_is_kept():
    catcher = TracebackCatcher()
    lines = [
        "Exception ignored in: <function Handle.__del__ at 0x7f>",
        *trace("AttributeError: early"),
        "training goes on",
        *trace("ValueError: the cause"),
    ]
    for number, line in enumerate(lines):
        catcher.feed(line, float(number))
    assert catcher.error == "ValueError: the cause"
    assert catcher.text == "\n".join(trace("ValueError: the cause"))
    assert catcher.time == 5.0
