"""`tenfold launch` with a run directory on a full disk: a small tmpfs in a mount namespace."""

import json
import subprocess

import pytest

pytestmark = pytest.mark.timeout(120)

# Mounts the disk on the run directory, and copies its files out of the namespace at the end.
ON_SMALL_DISK = (
    'cd "$TENFOLD_TEST_FOLDER" && mkdir run kept || exit 9;'
    "mount -t tmpfs -o size=512k none run || exit 9;"
    '"$@"; status=$?; cp -r run/. kept; exit $status'
)
PREFIX = ("unshare", "-Urm", "sh", "-c", ON_SMALL_DISK, "sh")


@pytest.fixture
def on_small_disk(launch):
    probe = ("unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt")
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces")
    launch.prefix = PREFIX
    return launch


@pytest.mark.parametrize(
    "text",
    [
        # the launcher meets the full disk, at a log
        """
        for number in range(100_000):
            print("a line of output", number)
        time.sleep(60)
        """,
        # a worker fills the disk to the last byte
        """
        with open(os.path.join(run_dir, "fill"), "wb", 0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                pass
        print("x" * 10_000)
        time.sleep(60)
        """,
    ],
)
def test_full_run_dir_is_named_and_leaves_a_result(on_small_disk, text):
    launch = on_small_disk.run("--num_workers=2", text=text)
    assert launch.status == 1, launch.err
    result = json.loads((launch.folder / "kept" / "result.json").read_text())
    assert result["state"] == "failed"
    (note,) = result["notes"]
    assert "No space left on device for" in note
    assert str(launch.run_dir) in note
    assert "run the same command again" in note
    assert note in launch.out
    assert not (launch.folder / "kept" / ".reserve").exists()
    launch.assert_nothing_left()


def test_no_room_at_the_start_is_refused(on_small_disk):
    filler = "dd if=/dev/zero of=run/result.json bs=4096 2> /dev/null;"
    script = ON_SMALL_DISK.replace('"$@"', filler + '"$@"')
    on_small_disk.prefix = (*PREFIX[:4], script, "sh")
    launch = on_small_disk.run("--num_workers=1", text="pass")
    assert launch.status == 2
    assert "No space left on device" in launch.err
    assert "--run_dir" in launch.err
