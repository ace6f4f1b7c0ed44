"""The commands plan, write, verify and inspect, run as a user would."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Path]


def test_plan_of_the_rule_of_thumb(tenfold: Any) -> None:
    done = tenfold("plan", "--dataset_size=10GB", "--num_workers=4", "--format=json")
    plan = json.loads(done.out)
    assert (plan["num_shards"], plan["shards_per_worker"]) == (40, 10)
    assert plan["shard_bytes_mean"] == plan["shard_bytes_max"] == 250_000_000
    assert plan["warnings"] == []
    assert plan["num_lanes"] == 20
    assert plan["imbalance"]["3"] == 0.05
    assert plan["imbalance"]["5"] == 0
    assert {"num_lanes", "num_workers", "worker_counts"} < set(plan)
    assert {"records_per_shard_min", "records_per_shard_max"} < set(plan)
    text = tenfold("plan", "--dataset_size=10GB", "--num_workers=4").out
    assert "40 of 250 MB" in text


def test_plan_of_a_source_equals_its_write(
    tenfold: Any, make_class_folder: Make, tmp_path: Path
) -> None:
    source = make_class_folder(classes=2, each=50)
    flags = [f"--source={source}", "--num_workers=2", "--worker_counts=1,2,3"]
    plan = json.loads(tenfold("plan", *flags, "--format=json").out)
    done = tenfold("write", *flags, f"--output={tmp_path / 'out'}")
    assert done.status == 0, done.err
    shards = sorted((tmp_path / "out").glob("*.tfrecord"))
    assert len(shards) == plan["num_shards"] == 6
    assert sum(path.stat().st_size for path in shards) == plan["total_bytes"]
    assert (plan["records_per_shard_min"], plan["records_per_shard_max"]) == (16, 17)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_plan_is_drawn_as_svg_and_png(tenfold: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plan{suffix}"
    done = tenfold("plan", "--dataset_size=10GB", "--worker_counts=8", f"--plot={path}")
    assert done.status == 0, done.err
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        assert b"worker 3" in data


def test_plan_is_drawn_at_a_path_or_url(tenfold: Any, tmp_path: Path) -> None:
    for place in (f"file://{tmp_path}/one.png", "~/two.png"):
        done = tenfold("plan", "--dataset_size=10GB", f"--plot={place}", HOME=str(tmp_path))
        assert done.status == 0, done.err
        assert done.err.splitlines()[-1] == f"saved {place}"
    assert {path.name for path in tmp_path.glob("*.png")} == {"one.png", "two.png"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["plan"], "either --source=PATH or --dataset_size"),
        (["plan", "--source=x", "--dataset_size=1GB"], "either --source=PATH or --dataset_size"),
        (["plan", "--source=nowhere"], "'nowhere' does not exist"),
        (["plan", "--dataset_size=0"], "nothing to plan"),
        (["plan", "--dataset_size=-1"], "not a number with a unit"),
        (["plan", "--dataset_size=10GB", "--num_workers=0"], "num_workers is 0"),
        (["plan", "--dataset_size=1GB", "--num_examples=3"], "cannot fill the 4 lanes"),
        (["plan", "--dataset_size=1GB", "--min_shard_size=1GB"], "above max_shard_size"),
        (["plan", "--dataset_size=1GB", "--plot=x.gif"], ".svg or .png"),
        (["plan", "--dataset_size=1GB", "--plot=no/where.svg"], "no folder"),
        (["write"], "--source is missing"),
        (["write", "--source=nowhere"], "--output is missing"),
        (["write", "--source=nowhere", "--output=out"], "'nowhere' does not exist"),
        (["write", "--source=.", "--output=out", "--writer_index=2"], "numbered from 0"),
        (["write", "--source=.", "--output=out", "--max_bad_records=-1"], "at least 0"),
        (["write", "--source=.", "--output=out", "--processes=-1"], "processes is -1"),
        (["write", "--source=.", "--output=out", "--transform=x"], "unknown"),
        (["write", "--source=.", "--output=out", "--split=a:2"], "fraction"),
        (["write", "--source=.", "--output=out", "--", "x"], "unexpected argument 'x'"),
        (["verify"], "--shards is missing"),
        (["verify", "--shards=nowhere"], "there is no"),
        (["inspect"], "--shards is missing"),
        (["inspect", "--shards=nowhere"], "there is no"),
    ],
)
def test_wrong_flag_is_one_line_on_stderr(
    tenfold: Any, flags: list[str], words: str, tmp_path: Path
) -> None:
    done = tenfold(*flags, cwd=tmp_path)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("tenfold: ")
    assert done.err.count("\n") == 1
    assert words in done.err
    assert os.listdir(tmp_path) == []


def test_unusable_sources_are_refused(
    tenfold: Any, make_class_folder: Make, tmp_path: Path
) -> None:
    def refused(words: str, name: str, **more: Any) -> None:
        done = tenfold("write", f"--source={tmp_path / name}", f"--output={tmp_path / 'out'}")
        assert (done.status, words in done.err) == (2, True), done.err
        assert "Traceback" not in done.err
        assert not (tmp_path / "out").exists()

    make_class_folder(name="empty class")
    (tmp_path / "empty class" / "none").mkdir()
    refused("none' has no images", "empty class")
    (tmp_path / "flat").mkdir()
    refused("no class folders", "flat")
    make_class_folder(name="odd")
    (tmp_path / "odd" / "class 0").rename(tmp_path / "odd" / "two\nlines")
    refused("cannot be shown", "odd")
    (tmp_path / "odd" / "two\nlines").rename(os.fsdecode(os.fsencode(tmp_path / "odd") + b"/\xff"))
    refused("cannot be shown", "odd")


def test_odd_names_are_labels(tenfold: Any, make_class_folder: Make, tmp_path: Path) -> None:
    source, output = make_class_folder(), tmp_path / "a'; echo foo; 'ö [x]*"
    names = ['été "q" $HOME', "日本", "a;b'c"]
    for index, name in enumerate(names):
        (source / f"class {index}").rename(source / name)
    assert tenfold("write", f"--source={source}", f"--output={output}").status == 0
    assert json.loads((output / "manifest.json").read_text())["label_names"] == sorted(names)
    shown = tenfold("inspect", f"--shards={output}")
    assert all(name in shown.out for name in names), shown
    assert tenfold("verify", f"--shards={output}").status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="uses /proc")
def test_unwritable_output_is_refused(
    tenfold: Any, make_class_folder: Make, tmp_path: Path
) -> None:
    source = make_class_folder()
    (tmp_path / "file").write_text("")
    for output in ("/proc/tenfold", str(tmp_path / "file")):
        done = tenfold("write", f"--source={source}", f"--output={output}")
        assert done.status == 2
        assert f"output '{output}' cannot be written to" in done.err
        assert "Traceback" not in done.err


def test_write_prints_its_result(tenfold: Any, make_class_folder: Make, tmp_path: Path) -> None:
    source = make_class_folder(classes=2, each=10)
    (source / "class 0" / "notes.txt").write_text("not an image")
    flags = [f"--source={source}", f"--output={tmp_path / 'out'}"]
    done = tenfold("write", *flags, "--split=train:0.7,validation:0.3")
    assert "19 records" in done.out
    assert "features: image (image 8 × 8 × 1), label (int64 scalar)" in done.out
    assert "ignored, not a .jpg, .jpeg, .png file in a class folder:" in done.out
    assert "train: 13 records in 4 shards" in done.err
    again = tenfold("write", *flags, "--split=train:0.7,validation:0.3")
    assert "nothing to do" in again.out
    other = tenfold("write", *flags)
    assert other.status == 2
    assert "different layout" in other.err
    shared = [f"--source={source}", f"--output={tmp_path / 'shared'}"]
    first = tenfold("write", *shared, "--num_writers=2")
    assert "other writers have not finished" in first.out
    # The former names of the flags still work.
    last = tenfold("write", *shared, "--num_tasks=2", "--task_index=1")
    assert "19 records" in last.out


def test_dry_run_changes_nothing(tenfold: Any, make_class_folder: Make, tmp_path: Path) -> None:
    source, output = make_class_folder(), tmp_path / "out"
    flags = [f"--source={source}", f"--output={output}"]
    done = tenfold("write", *flags, "--dry_run")
    assert done.status == 0, done.err
    assert done.out == f"{output}: 4 shards would be written; nothing was changed\n"
    assert "train: 29 records in 4 shards" in done.err
    assert not output.exists()
    written = json.loads(tenfold("write", *flags, "--format=json").out)
    assert (written["complete"], written["records"], written["written"]) == (True, 29, 4)
    (output / "train-00001-of-00004.tfrecord").unlink()
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    again = json.loads(tenfold("write", *flags, "--dry_run", "--format=json").out)
    assert (again["complete"], again["written"], again["kept"]) == (False, 1, 3)
    refused = tenfold("write", *flags, "--dry_run", "--shuffle_seed=1")
    assert refused.status == 2
    assert "holds other shards, made with a different layout" in refused.err
    replaced = tenfold("write", *flags, "--dry_run", "--shuffle_seed=1", "--overwrite")
    assert "4 shards would be written; nothing" in replaced.out
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before


def test_dry_run_counts_an_unfinished_write(
    tenfold: Any, make_class_folder: Make, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    flags = [f"--source={make_class_folder()}", f"--output={output}", "--dry_run"]
    tenfold("write", *flags[:2], "--num_writers=2")
    assert ": 2 shards would be written, 2 would be kept" in tenfold("write", *flags).out
    assert ": 4 shards would be written; " in tenfold("write", *flags, "--noresume").out
    other = tenfold("write", *flags, "--shuffle_seed=1")
    assert (other.status, "holds unfinished shards" in other.err) == (2, True)
    shutil.rmtree(output / ".tenfold-write")
    foreign = tenfold("write", *flags)
    assert (foreign.status, "no manifest says what it is" in foreign.err) == (2, True)


def test_verify_names_the_damaged_record(
    tenfold: Any, make_class_folder: Make, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    tenfold("write", f"--source={make_class_folder()}", f"--output={output}")
    done = tenfold("verify", f"--shards={output}")
    assert (done.status, done.out.count("29 records")) == (0, 1)
    sound = tenfold("verify", f"--shards={output}", "--format=json")
    found = json.loads(sound.out)
    assert (sound.status, found["sound"], found["num_shards"], found["records"]) == (
        0,
        True,
        4,
        29,
    )
    shard = output / "train-00002-of-00004.tfrecord"
    data = bytearray(shard.read_bytes())
    data[30] ^= 1
    shard.write_bytes(data)
    done = tenfold("verify", f"--shards={output}")
    assert done.status == 1
    assert "train-00002-of-00004.tfrecord: record 0 at byte 0: the checksum" in done.out
    assert "1 shard of" in done.err
    damaged = tenfold("verify", f"--shards={output}", "--format=json")
    found = json.loads(damaged.out)
    assert (damaged.status, found["sound"], found["damaged_shards"]) == (1, False, 1)
    assert found["problems"] == done.out.splitlines()
    # The remedy of the message: remove the shard, write again.
    shard.unlink()
    tenfold("write", f"--source={tmp_path / 'source'}", f"--output={output}")
    assert tenfold("verify", f"--shards={output}").status == 0


def test_statistics_are_those_of_the_split_in_question(tenfold: Any, tmp_path: Path) -> None:
    for name, rows in (("train", range(30)), ("validation", range(100, 120))):
        text = "".join(f"{row},{row % 2}\n" for row in rows)
        (tmp_path / f"{name}.csv").write_text("x,label\n" + text)
    split = f"--split=train={tmp_path}/train.csv,validation={tmp_path}/validation.csv"
    done = tenfold("write", split, f"--output={tmp_path}/out", "--num_workers=1")
    assert done.status == 0, done.err
    kept = "splits: train, validation, as the source has them"
    assert (done.out + done.err).count(kept) == 1, "said with the plan alone"
    shown = tenfold("inspect", f"--shards={tmp_path}/out").out
    assert "statistics of train, 30 records" in shown
    assert "statistics of validation" not in shown
    shown = tenfold("inspect", f"--shards={tmp_path}/out", "--split=validation").out
    assert "statistics of validation, 20 records" in shown


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_code_printed_by_inspect_runs(
    tenfold: Any, make_class_folder: Make, tmp_path: Path
) -> None:
    source, output = make_class_folder(form="JPEG"), tmp_path / "shards [1]"
    tenfold("write", f"--source={source}", f"--output={output}")
    done = tenfold("inspect", f"--shards={output}", f"--save_images={tmp_path / 'png'}")
    assert done.status == 0, done.err
    assert "image 8 × 8 × 1" in done.out
    assert "10 34.5 %" in done.out
    saved = sorted((tmp_path / "png").iterdir())
    assert len(saved) == 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in saved)
    code = done.out.split("plain tf.data\n")[1]
    code = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    check = (
        "\nfound = list(dataset)\nassert len(found) == 29\n"
        "assert {tuple(e['image'].shape) for e in found} == {(8, 8, 1)}\n"
        "assert sorted({int(e['label']) for e in found}) == [0, 1, 2]\nprint('fine')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code + check], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "fine\n", ran.stderr


def test_writing_unchanged_images_imports_nothing_heavy(
    make_class_folder: Make, tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom tenfold.launcher.cli.main import main\n"
        "status = main(sys.argv[1:])\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'PIL', 'fsspec'} & set(sys.modules)\n"
        "print(status, heavy or '')\n"
    )
    source = make_class_folder()
    for last in ([], ["--transform=resize:4"]):
        output = tmp_path / f"out{len(last)}"
        done = subprocess.run(
            [sys.executable, "-c", code, "write", f"--source={source}",
             f"--output={output}", "--processes=1", *last],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        # Proves that the probe can fail: a transform of pixels needs Pillow, never TensorFlow.
        expected = "0 {'PIL'}" if last else "0"
        assert done.stdout.splitlines()[-1].strip() == expected
