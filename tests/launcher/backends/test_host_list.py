"""Lists of hosts and host files."""

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends.host_list import HostEntry, fill_slots, parse_host_file, parse_hosts


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("a", [HostEntry("a")]),
        ("a,b.c-d", [HostEntry("a"), HostEntry("b.c-d")]),
        ("10.0.0.7", [HostEntry("10.0.0.7")]),
        ("me@a:2222, b", [HostEntry("a", user="me", port=2222), HostEntry("b")]),
    ],
)
def test_hosts_flag_is_parsed(text, entries):
    assert list(parse_hosts(text)) == entries


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' cannot be the name"),
        ("a,,b", "'' cannot be the name"),
        ("a,a", "'a' is named twice"),
        ("-oProxyCommand=x", "cannot be the name"),
        ("a;b", "cannot be the name"),
        ("-l@a", "cannot be the user"),
        ("a:0", "port=0"),
        ("a:65536", "port=65536"),
        ("a:ssh", "port=ssh"),
    ],
)
def test_malformed_hosts_flag_is_refused(text, words):
    with pytest.raises(UserError) as caught:
        parse_hosts(text)
    assert words in str(caught.value)


FILE = """
# two large ones
a slots=2   # and a remark
b slots=2 user=train port=2222 address=192.168.7.7 python=/opt/a\\ b/python

10.0.0.9 address=fe80::1
"""


def test_host_file_is_parsed():
    a, b, c = parse_host_file(FILE.replace("\\ ", "_"), where="f")
    assert a == HostEntry("a", slots=2)
    assert b == HostEntry("b", 2, "192.168.7.7", "train", 2222, "/opt/a_b/python")
    assert c == HostEntry("10.0.0.9", address="fe80::1")
    assert [entry.name for entry in fill_slots([a, b, c], 4)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# nothing", "f names no host"),
        ("a\nb slot=2", "f, line 2: 'slot=2' is not a setting: did you mean 'slots=…'?"),
        ("a slots", "'slots' is not a setting"),
        ("a slots=0", "slots=0 is not a whole number"),
        ("a address=$(id)", "'$(id)' cannot be the address"),
        ("a\na", "named twice"),
    ],
)
def test_malformed_host_file_is_refused(text, words):
    with pytest.raises(UserError) as caught:
        parse_host_file(text, where="f")
    assert words in str(caught.value)


def test_too_few_slots_are_refused():
    with pytest.raises(
        UserError, match=r"3 workers need as many slots, the hosts have 2 \(a: 2\)"
    ):
        fill_slots([HostEntry("a", slots=2)], 3)
