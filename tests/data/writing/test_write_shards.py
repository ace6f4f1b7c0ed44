"""Writing: equal bytes for any number of processes or writers, and after any kill."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.example import decode_example
from tenfold.data.format.manifest import Feature
from tenfold.data.format.tfrecord import read_records
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.tfds_metadata import NAMES as TFDS_NAMES
from tenfold.data.writing.write_shards import WriteOptions, write_shards
from tenfold.launcher.worker.python_argv import module_argv

MakeFolder = Callable[..., Path]
POLICY = LayoutPolicy(num_workers=2, min_shard_bytes=1)
SPLITS = {"train": 0.75, "validation": 0.25}


def write(source: Path, output: Path, **options: Any) -> Any:
    chosen = WriteOptions(policy=POLICY, splits=SPLITS, **options)
    return write_shards(str(source), output, options=chosen)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def records_of(folder: Path, split: str) -> list[dict[str, Any]]:
    found = []
    for shard in read_manifest(str(folder)).split(split).shards:
        with open(folder / shard.name, "rb") as file:
            found += [decode_example(data) for _, data in read_records(file, shard.bytes)]
    return found


def test_every_image_is_in_one_shard_unchanged(
    make_class_folder: MakeFolder, tmp_path: Path
) -> None:
    source = make_class_folder(classes=3, each=30)
    manifest = write(source, tmp_path / "out", processes=2).manifest
    found = [r for split in ("train", "validation") for r in records_of(tmp_path / "out", split)]
    pairs = sorted((r["label"][1][0], r["image"][1][0]) for r in found)
    files = sorted(source.rglob("*.png"))
    names = sorted({file.parent.name for file in files})
    assert pairs == sorted((names.index(f.parent.name), f.read_bytes()) for f in files)
    assert manifest.label_names == tuple(names)
    assert manifest.features == (Feature("image", "image", (8, 8, 1)), Feature("label", "int64"))
    assert [split.num_records for split in manifest.splits] == [67, 22]
    for split in manifest.splits:
        records = [shard.records for shard in split.shards]
        assert max(records) - min(records) <= 1
        labels = [r["label"][1][0] for r in records_of(tmp_path / "out", split.name)]
        assert split.label_counts == tuple(labels.count(label) for label in range(3))
        assert labels != sorted(labels), "the order is not shuffled"
    assert sorted(os.listdir(tmp_path / "out")) == sorted(
        [
            "manifest.json",
            *TFDS_NAMES,
            *(shard.name for s in manifest.splits for shard in s.shards),
        ]
    )


def test_process_count_changes_no_byte(make_class_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_class_folder(each=20)
    for processes in (1, 2, 5):
        write(source, tmp_path / str(processes), processes=processes)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "5")


def test_place_of_the_source_changes_no_byte(
    make_class_folder: MakeFolder, tmp_path: Path
) -> None:
    here = make_class_folder(12)
    stray = min(path for path in here.iterdir() if path.is_dir()) / "notes.txt"
    stray.write_text("no image")
    there = tmp_path / "another place"
    shutil.copytree(here, there)
    result = write(here, tmp_path / "a")
    assert str(stray) in "\n".join(result.notes)
    write(there, tmp_path / "b")
    assert "notes.txt" in (tmp_path / "a" / "manifest.json").read_text()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_seed_changes_only_the_order(make_class_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_class_folder(each=20)
    orders = []
    for seed in (0, 1):
        output = tmp_path / str(seed)
        write_shards(str(source), str(output), policy=POLICY, shuffle_seed=seed)
        orders.append([r["image"][1][0] for r in records_of(output, "train")])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_finished_write_is_not_repeated(make_class_folder: MakeFolder, tmp_path: Path) -> None:
    source, output = make_class_folder(), tmp_path / "out"
    first = write(source, output)
    assert first.written == 24
    assert first.kept == 0
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    again = write(source, output)
    assert again.written == 0
    assert again.manifest == first.manifest
    assert before == {path: path.stat().st_mtime_ns for path in output.iterdir()}
    # A removed shard is written again with the same bytes.
    shard = output / first.manifest.splits[0].shards[0].name
    data = shard.read_bytes()
    shard.unlink()
    assert write(source, output).written > 0
    assert shard.read_bytes() == data


def test_other_data_is_replaced_by_overwrite_only(
    make_class_folder: MakeFolder, tmp_path: Path
) -> None:
    source, output = make_class_folder(), tmp_path / "out"
    write(source, output)
    before = contents(output)
    (source / "class 0" / "new.png").write_bytes((source / "class 0" / "0000.png").read_bytes())
    with pytest.raises(UserError, match=r"different source.*--overwrite"):
        write(source, output)
    assert contents(output) == before
    manifest = write(source, output, overwrite=True).manifest
    assert sum(split.num_records for split in manifest.splits) == 30
    # The shards of the old layout are removed.
    names = {shard.name for split in manifest.splits for shard in split.shards}
    assert {name for name in os.listdir(output) if name.endswith(".tfrecord")} == names


def test_shards_of_unknown_origin_are_kept(make_class_folder: MakeFolder, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "train-00000-of-00004.tfrecord").write_bytes(b"precious")
    with pytest.raises(UserError, match="no manifest says what it is"):
        write(make_class_folder(), output)
    assert contents(output) == {"train-00000-of-00004.tfrecord": b"precious"}


def break_text(folder: Path) -> str:
    (folder / "0003.png").write_text("this is text")
    return "neither JPEG nor PNG"


def break_cut(folder: Path) -> str:
    data = (folder / "0003.png").read_bytes()
    (folder / "0003.png").write_bytes(data[: len(data) // 2])
    return "cut"


def break_empty(folder: Path) -> str:
    (folder / "0003.png").write_bytes(b"")
    return "it is empty"


@pytest.mark.parametrize("damage", [break_text, break_cut, break_empty])
def test_broken_image_is_named_or_skipped(
    damage: Callable[[Path], str], make_class_folder: MakeFolder, tmp_path: Path
) -> None:
    source, output = make_class_folder(), tmp_path / "out"
    reason = damage(source / "class 1")
    with pytest.raises(JobError, match=rf"class 1/0003\.png: .*{reason}"):
        write(source, output, processes=2)
    assert not (output / "manifest.json").exists()
    # Skipped, it is listed in the quarantine, and the counts add up.
    result = write(source, output, max_bad_records=1)
    assert result.manifest.quarantined == 1
    assert sum(split.num_records for split in result.manifest.splits) == 28
    listed = [json.loads(line) for line in (output / "quarantine.jsonl").read_text().splitlines()]
    assert [os.path.basename(entry["record"]) for entry in listed] == ["0003.png"]
    assert reason in listed[0]["reason"]


def test_check_decode_finds_undecodable_images(
    make_class_folder: MakeFolder, break_jpeg: Callable[[Path], None], tmp_path: Path
) -> None:
    source, output = make_class_folder(form="JPEG"), tmp_path / "out"
    victim, stray = sorted(path for path in source.rglob("*") if path.is_file())[:2]
    break_jpeg(victim)
    whole = stray.read_bytes()
    stray.write_bytes(whole[:-2] + bytes(range(24)) + whole[-2:])  # decodable, with a warning
    assert write(source, output, max_bad_records=1).manifest.quarantined == 0
    with pytest.raises(UserError, match="different transforms or --check"):
        write(source, output, check="decode", max_bad_records=1)
    output = tmp_path / "checked"
    with pytest.raises(JobError, match=f"{victim.name}: it cannot be decoded: "):
        write(source, output, check="decode")
    manifest = write(source, output, check="decode", max_bad_records=1, processes=2).manifest
    assert manifest.quarantined == 1
    (entry,) = [json.loads(line) for line in (output / "quarantine.jsonl").open()]
    assert entry["record"] == str(victim)


def test_image_of_absurd_size_is_broken(make_class_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_class_folder(form="JPEG")
    victim = next(path for path in sorted(source.rglob("*")) if path.is_file())
    data = bytearray(victim.read_bytes())
    sides = data.index(b"\xff\xc0") + 5
    data[sides : sides + 4] = (20_000).to_bytes(2, "big") * 2
    victim.write_bytes(data)
    with pytest.raises(JobError, match="20,000 × 20,000 pixels, more than the 150,000,000"):
        write(source, tmp_path / "out")


def test_too_many_broken_records_fail_the_write(
    make_class_folder: MakeFolder, tmp_path: Path
) -> None:
    source = make_class_folder()
    for number in range(4):
        (source / "class 1" / f"{number:04d}.png").write_text("text")
    with pytest.raises(JobError, match=r"4 broken records, more than --max_bad_records=3"):
        write(source, tmp_path / "out", max_bad_records=3)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert write(source, tmp_path / "out", max_bad_records=4).manifest.quarantined == 4


@pytest.mark.parametrize("change", ["touch", "grow", "shrink", "remove"])
def test_source_changed_while_writing_is_named(
    change: str, make_class_folder: MakeFolder, tmp_path: Path
) -> None:
    source = make_class_folder()
    victim = source / "class 2" / "0004.png"

    def meddle(plan: Any) -> None:
        data = victim.read_bytes()
        if change == "remove":
            victim.unlink()
        elif change == "touch":
            os.utime(victim, ns=(1, 1))
        else:
            victim.write_bytes(data + b"x" if change == "grow" else data[:-1])

    with pytest.raises(JobError, match=r"class 2/0004\.png has (changed|gone)"):
        write_shards(str(source), str(tmp_path / "out"), policy=POLICY, on_plan=meddle)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_three_writers_write_the_bytes_of_one(
    make_class_folder: MakeFolder, tmp_path: Path
) -> None:
    source = make_class_folder(each=20)
    write(source, tmp_path / "one")
    three = tmp_path / "three"
    for index in (2, 0):
        assert write(source, three, writer_index=index, num_writers=3).manifest is None
        assert not (three / "manifest.json").exists()
    last = write(source, three, writer_index=1, num_writers=3)
    assert last.manifest == read_manifest(str(tmp_path / "one"))
    assert contents(three) == contents(tmp_path / "one")


@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small tmpfs")
def test_full_disk_fails_and_a_larger_resumes(
    make_class_folder: MakeFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, output = make_class_folder(classes=2, each=200), tmp_path / "out"
    output.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(output)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this account may not mount a file system")
    try:
        with pytest.raises(JobError, match=r"No space left on device"):
            write(source, output, processes=2)
        assert "Traceback" not in capfd.readouterr().err
        assert not (output / "manifest.json").exists()
        assert not [name for name in os.listdir(output) if name.endswith(".tmp")]
        subprocess.run(["mount", "-o", "remount,size=10m", str(output)], check=True)
        assert write(source, output).kept > 0
        write(source, tmp_path / "whole")
        assert contents(output) == contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(output)], check=True)


def test_ledger_note_without_space_fails_the_write(
    make_class_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = make_class_folder()
    with monkeypatch.context() as patched:
        patched.setattr("tenfold.data.writing.shard_writer.record_finished", full)
        message = (
            r"out/train-\d+-of-\d+\.tfrecord could not be written: .* No space left on device"
        )
        with pytest.raises(JobError, match=message):
            write(source, tmp_path / "out", processes=1)
    write(source, tmp_path / "out")
    write(source, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def command(source: Path, output: Path, processes: int) -> tuple[str, ...]:
    return module_argv("tenfold", arguments(source, output, processes))


def arguments(source: Path, output: Path, processes: int) -> list[str]:
    return [
        *("write", f"--source={source}", f"--output={output}", "--num_workers=4"),
        *("--min_shard_size=1B", "--split=train:0.75,validation:0.25"),
        f"--processes={processes}",
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_forty_kills_change_no_byte(make_class_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_class_folder(classes=4, each=1500, form="JPEG")
    started = time.monotonic()
    subprocess.run(command(source, tmp_path / "whole", 2), check=True, capture_output=True)
    whole_s = time.monotonic() - started
    expected = contents(tmp_path / "whole")
    rng = random.Random(7)
    kills = progress = 0
    while kills < 40:
        output = tmp_path / "killed"
        shutil.rmtree(output, ignore_errors=True)
        status = -1
        while status != 0:
            process = subprocess.Popen(
                command(source, output, rng.choice([1, 2, 3])),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            # Half of the kills wait for shards, so that a stall of the machine cannot bring all
            # kills before the first shard.
            awaited = rng.choice([0, rng.randint(1, 60)])
            end = time.monotonic() + (600 if awaited else rng.uniform(0.1, 1.1) * whole_s)
            while process.poll() is None and time.monotonic() < end:
                if awaited and len(list(output.glob("*.tfrecord"))) >= awaited:
                    break
                time.sleep(0.001)
            process.kill()
            status = process.wait()
            kills += status != 0
            progress += status != 0 and any(output.glob("*.tfrecord"))
        assert contents(output) == expected
    assert progress > 5, "too few kills came while shards were written"
    leftover = [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert not leftover


@pytest.mark.timeout(240)
def test_killed_process_fails_the_write(make_class_folder: MakeFolder, tmp_path: Path) -> None:
    source, output = make_class_folder(), tmp_path / "out"
    code = (
        "import os, sys\n"
        "from tenfold.data.writing import shard_writer\n"
        "shard_writer.fingerprint64 = lambda data: os.kill(os.getpid(), 9)\n"
        "from tenfold.launcher.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments(source, output, 2)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "a process of the pool was lost (signal SIGKILL)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (output / "manifest.json").exists()
    assert subprocess.run(command(source, output, 2), check=False).returncode == 0
