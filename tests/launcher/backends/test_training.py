"""The built-in trainer on other hosts: TensorFlow's own servers over the hosts' network."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("where", ["netns", "ssh"])
def test_training_reads_every_record_once(launch, request, where, digit_shards, read_metrics):
    place = request.getfixturevalue(f"{where}_place")
    launch.prefix = place.prefix
    launch.start(*place.flags, "--num_workers=2", f"--shards={digit_shards}", "--epochs=2")
    launch.finish(timeout_s=280)
    assert launch.status == 0, launch.err
    assert launch.result["final"]["metrics"]["val_accuracy"] > 0.8
    epochs = [line for line in read_metrics(launch.run_dir) if line["kind"] == "epoch"]
    assert [line["receipt"]["exact"] for line in epochs] == [True, True]
    assert (launch.run_dir / "model.keras").exists()
