"""Flags become one complete `Launch` before anything starts."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from tenfold.data import LayoutPolicy, WriteOptions, write_shards
from tenfold.data.errors import UserError
from tenfold.launcher.cli.commands import launch as command
from tenfold.launcher.cli.flags import Arguments, FlagValues, parse_flags
from tenfold.launcher.cli.prepare.prepare_launch import (
    Launch,
    check_shards,
    host_notes,
    prepare_launch,
)
from tenfold.launcher.cli.prepare.submit import prepare_submission


def prepare(*argv: str, program: tuple[str, ...] = ()) -> Launch:
    fv, positional = parsed(*argv)
    return prepare_launch(fv, Arguments(positional, program))


def parsed(*argv: str) -> tuple[FlagValues, tuple[str, ...]]:
    fv = FlagValues()
    command.define_flags(fv)
    command.define_argv_flags(fv, argv)
    return fv, tuple(parse_flags(fv, argv))


def test_launch_of_a_program_holds_every_decision(tmp_path: Path) -> None:
    launch = prepare(
        f"--run_dir={tmp_path}/run", "--num_workers=3", "--min_workers=2", "--max_restarts=4",
        "--grace=1.5", "--hang_timeout=7", "--inject=kill:worker=1,step=5", "--port=4000",
        "--format=json", "--show_tf_logs", program=("true",),
    )  # fmt: skip
    assert launch.spec.argv == ("true",)
    assert launch.spec.run_dir == f"{tmp_path}/run"
    assert launch.supervision.counts == (3, 2)
    assert launch.supervision.restarts.max_restarts == 4
    assert launch.supervision.grace_s == 1.5
    assert [fault.kind for fault in launch.faults] == ["kill"]
    assert (launch.as_json, launch.show_tf_logs, launch.write_first) == (True, True, None)
    workers = launch.choose_cluster(launch.hosts).workers
    assert workers == ("127.0.0.1:4000", "127.0.0.1:4001", "127.0.0.1:4002")
    with pytest.raises(dataclasses.FrozenInstanceError):
        launch.first_port = 1  # type: ignore[misc]


def test_launch_of_a_source_holds_its_write(tmp_path: Path) -> None:
    launch = prepare(
        f"--source={tmp_path}", f"--output={tmp_path}/shards", f"--run_dir={tmp_path}/run",
        "--on_bad_record=skip", "--max_bad_records=7", "--transform=resize:8x8",
    )  # fmt: skip
    assert launch.write_first is not None
    assert launch.write_first.output == f"{tmp_path}/shards"
    assert launch.write_first.transforms == ("resize:8x8",)
    assert launch.write_first.options.max_bad_records == 7
    assert launch.max_bad_records == 7
    with pytest.raises(UserError, match=r"manifest\.json"):
        check_shards(launch)  # the write has not run
    assert not (tmp_path / "run").exists()


def test_validation_shards_are_checked_before_start(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    options = WriteOptions(policy=LayoutPolicy(num_workers=2), processes=1)
    for name, classes in (("train", 2), ("held_out", 2), ("other", 3)):
        write_shards(make_class_folder(name=name, classes=classes), tmp_path / f"{name}.shards",
                     options=options)  # fmt: skip
    flags = [f"--shards={tmp_path}/train.shards", "--num_workers=2", f"--run_dir={tmp_path}/run",
             "--global_batch_size=4"]  # fmt: skip
    launch = prepare(*flags, f"--validation_shards={tmp_path}/held_out.shards")
    assert launch.spec.train is not None
    assert launch.spec.train.validation_shards == f"{tmp_path}/held_out.shards"
    with pytest.raises(UserError, match="the classes are class 0, class 1, class 2, those of"):
        prepare(*flags, f"--validation_shards={tmp_path}/other.shards")
    with pytest.raises(UserError, match=r"nowhere.*manifest\.json"):
        prepare(*flags, f"--validation_shards={tmp_path}/nowhere")


def test_sources_of_splits_are_written_first(tmp_path: Path) -> None:
    launch = prepare(
        f"--split=train={tmp_path}/a.csv,val={tmp_path}/b.csv", f"--output={tmp_path}/shards",
        f"--run_dir={tmp_path}/run",
    )  # fmt: skip
    assert launch.write_first is not None
    assert launch.write_first.source == {
        "train": f"{tmp_path}/a.csv", "validation": f"{tmp_path}/b.csv"
    }  # fmt: skip
    assert launch.write_first.options.splits == {}
    with pytest.raises(UserError, match="names a source for each split, and --source another"):
        prepare(f"--split=train={tmp_path}", f"--source={tmp_path}", "--output=x")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--inject=bad_shard"], "--inject=bad_shard is for the built-in trainer"),
        (["--min_workers=9"], "min_workers 9 is above num_workers 4"),
        (["--num_workers=0"], "num_workers is 0"),
        (
            ["--regrow_after=soon"],
            "--regrow_after=soon: write a time as 600 .seconds., .*or never",
        ),
        (["--spare_hosts=1"], "--spare_hosts=1 needs 1 host besides those of the 4 workers, and"),
        (["--epochs=3"], "--epochs is for the built-in trainer"),
        (["train.py"], "a program goes after '--' .tenfold launch … -- train.py true."),
    ],
)
def test_wrong_flags_are_refused_before_start(tmp_path: Path, argv, words) -> None:
    with pytest.raises(UserError, match=words):
        prepare(f"--run_dir={tmp_path}/run", *argv, program=("true",))
    assert not (tmp_path / "run").exists()


def test_spare_hosts_follow_those_of_the_workers(tmp_path: Path) -> None:
    """All slots of a spare host stand by; further slots of a worker's host do not."""
    (tmp_path / "hosts").write_text("a slots=2\nb slots=2\nc slots=2\nd\ne\n")
    flags = ("--backend=ssh", f"--host_file={tmp_path}/hosts", "--num_workers=3")
    run = (f"--run_dir={tmp_path}/run", "--regrow_after=2min", "--max_restarts=1")
    launch = prepare(*flags, *run, "--spare_hosts=2", program=("true",))
    assert [host.name for host in launch.hosts] == ["a", "a", "b"]
    assert [host.name for host in launch.spares] == ["c", "c", "d"]
    assert launch.supervision.regrow_after_s == 120
    assert host_notes(launch) == ()
    with pytest.raises(UserError, match="and there are 3: name more hosts, or lower"):
        prepare(*flags, *run, "--spare_hosts=4", program=("true",))
    without = prepare(*flags, *run[:2], "--min_workers=2", program=("true",))
    assert [note.partition(":")[0] for note in host_notes(without)] == ["--max_restarts is 0"]


@pytest.mark.parametrize("flag", ["--min_workers=1", "--spare_hosts=1", "--regrow_after=1h"])
def test_platforms_refuse_hosts_that_come_and_go(flag: str) -> None:
    fv, _ = parsed("--backend=kubernetes", "--image=x", flag)
    with pytest.raises(UserError, match=f"{flag.partition('=')[0]} is for hosts that a launch"):
        prepare_submission(fv, Arguments((), ("true",)))


def test_only_platforms_get_a_submission() -> None:
    assert prepare_submission(parsed()[0], Arguments((), ("true",))) is None
