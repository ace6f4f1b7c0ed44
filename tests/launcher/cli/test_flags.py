"""Flags in groups, their help, and hints for names that there are not."""

import contextlib

import pytest
from absl import flags

from tenfold.data.errors import UserError
from tenfold.launcher.cli.commands import doctor, launch
from tenfold.launcher.cli.flags import (
    GENERAL,
    FlagValues,
    define_flagfile,
    flags_help,
    in_group,
    parse_flags,
    peek_flag,
)


def defined(command) -> FlagValues:
    fv = FlagValues()
    command.define_flags(fv)
    define_flagfile(fv)
    command.define_argv_flags(fv, ["--help"])
    return fv


@pytest.mark.parametrize("command", [launch, doctor])
def test_every_flag_of_launch_is_in_a_group(command):
    groups = defined(command).groups()
    assert groups[GENERAL] == ["flagfile"]
    assert {"Data", "Writing", "Training", "Job", "Back end ssh"} <= set(groups)


@pytest.mark.parametrize("command", [launch, doctor])
def test_most_used_flags_exist_and_are_shown_once(command):
    fv = defined(command)
    assert len(command.MOST_USED) == 10
    assert set(command.MOST_USED) <= set(fv)
    shown = flags_help(fv, most_used=command.MOST_USED)
    assert shown.startswith("Most used\n  --shards=…")
    for name in fv:
        prefix = "[no]" if fv[name].boolean else ""
        ends = (" ", "=")
        assert sum(shown.count(f"\n  --{prefix}{name}{end}") for end in ends) == 1, name


def test_inner_group_wins():
    @in_group("Outer")
    def define(fv: FlagValues) -> None:
        flags.DEFINE_string("a", "", "", flag_values=fv)
        with fv.group("Inner"):
            flags.DEFINE_string("b", "", "", flag_values=fv)
        flags.DEFINE_string("c", "", "", flag_values=fv)

    fv = FlagValues()
    define(fv)
    flags.DEFINE_string("d", "", "", flag_values=fv)
    with contextlib.suppress(ZeroDivisionError), fv.group("Failed"):
        raise ZeroDivisionError
    flags.DEFINE_string("e", "", "", flag_values=fv)
    assert fv.groups() == {"Outer": ["a", "c"], "Inner": ["b"], GENERAL: ["d", "e"]}


def test_flags_of_a_single_group_have_no_title():
    fv = FlagValues()
    flags.DEFINE_string("a", "x", "what it is", flag_values=fv)
    assert flags_help(fv).split() == ["--a=…", "what", "it", "is", "(default:", "x)"]


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--lr=0.1", "unknown flag --lr: did you mean --learning_rate?"),
        ("--batch_size=8", "unknown flag --batch_size: did you mean --global_batch_size?"),
        ("--gpus=8", "unknown flag --gpus: did you mean --num_workers?"),
        ("--nproc=8", "unknown flag --nproc: did you mean --num_workers?"),
        ("--workers=8", "unknown flag --workers: did you mean --num_workers?"),
        ("--epoch=8", "unknown flag --epoch: did you mean --epochs?"),
        ("--xyzzy", "unknown flag --xyzzy: --help lists the flags"),
    ],
)
def test_unknown_flag_gets_a_hint(argument, hint):
    with pytest.raises(UserError) as caught:
        parse_flags(defined(launch), [argument])
    assert str(caught.value) == hint


def test_hints_name_only_flags_of_the_command():
    with pytest.raises(UserError, match="unknown flag --lr: --help lists the flags"):
        parse_flags(FlagValues(), ["--lr=3"])


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], None),
        (["--backend=a.py"], "a.py"),
        (["--other", "x", "--backend", "a.py"], "a.py"),
        (["--backend=a", "--backend=b"], "b"),
        (["--backend"], None),
        (["--flagfile=/no/such/file", "--backend=a"], None),
    ],
)
def test_peek_reads_a_flag_before_the_others_exist(argv, value):
    assert peek_flag("backend", argv) == value
