"""What is checked and said before a training starts, on shards of many kinds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import UserError
from tenfold.data.reading.feeding.feed_options import FeedOptions
from tenfold.launcher.cli.prepare.preflight import check_resume, check_training, training_notes
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.job.run_dir import RunDir
from tenfold.models.train_config import TrainConfig


@pytest.fixture(scope="module")
def odd_shards(tenfold: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of images of 20 to 60 pixels a side, without validation."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("odd")
    for index in range(24):
        place = folder / "source" / f"class{index % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + index, 60 - index), (index, 0, 0)).save(place / f"{index}.png")
    flags = (f"--source={folder}/source", f"--output={folder}/shards", "--num_workers=1")
    done = tenfold("write", *flags)
    assert done.status == 0, done.err
    return folder / "shards"


def test_notes_name_missing_validation_and_odd_sizes(odd_shards: Path, digit_shards: Path) -> None:
    config = TrainConfig(str(odd_shards), "run")
    validation, sizes = training_notes(config, num_workers=1)
    assert validation.startswith("no validation: these shards have the splits train; write them")
    assert sizes == "images vary from 20 to 60 px: using 224×224, see --image_size"
    assert training_notes(replace(config, image_size=(8, 8)), num_workers=1) == [validation]
    digits = TrainConfig(str(digit_shards), "run")
    assert training_notes(digits, num_workers=4) == []
    (uneven,) = training_notes(digits, num_workers=3)
    assert uneven.startswith("3 workers share 4 lanes: a step waits for a worker with 2 of them")
    assert "1.50 times as long" in uneven
    assert uneven.endswith("; 2 or 4 workers would share them evenly")


def test_unlabelled_shards_are_refused_for_built_in_models(tenfold: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("value,other\n" + "1.5,2.5\n" * 64)
    flags = (f"--source={tmp_path}/rows.csv", f"--output={tmp_path}/shards", "--num_workers=1")
    done = tenfold("write", *flags)
    assert done.status == 0, done.err
    config = TrainConfig(f"{tmp_path}/shards", "run", model="mlp")
    with pytest.raises(UserError, match=r"no feature 'label' .they have other, value"):
        check_training(config, num_workers=1)
    with pytest.raises(UserError, match="'cnn' needs images; these shards hold other, value"):
        check_training(replace(config, model="cnn"), num_workers=1)
    with pytest.raises(UserError, match="'keras:ResNet50' needs images; these shards hold"):
        check_training(replace(config, model="keras:ResNet50"), num_workers=1)
    check_training(replace(config, model="own.py:build"), num_workers=1)


def test_mask_models_need_a_mask(digit_shards: Path) -> None:
    config = TrainConfig(str(digit_shards), "run", model="unet:2")
    with pytest.raises(UserError, match=r"'unet:2' predicts a mask.*targets are label: name the"):
        check_training(config, num_workers=1)
    check_training(replace(config, model="keras:MobileNet"), num_workers=1)


def test_changed_batch_is_refused_on_resume(tmp_path: Path) -> None:
    config = TrainConfig("shards", str(tmp_path))
    held = RunDir(tmp_path)
    held.write_job(JobSpec(("x",), 1, str(tmp_path), train=config), ClusterSpec(("a:1",)))
    held.close()
    changed = replace(config, global_batch_size=32)
    check_resume(changed)  # nothing was trained yet
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint-00001-00000000.npz").touch()
    check_resume(config)
    with pytest.raises(UserError, match="global_batch_size 64, this run has 32: give --global_b"):
        check_resume(changed)
    with pytest.raises(UserError, match="remainder drop, this run has pad: give --remainder=drop"):
        check_resume(replace(config, remainder="pad"))
    with pytest.raises(UserError, match="with seed 0, this run has 7: give --seed=0"):
        check_resume(replace(config, seed=7))


def test_note_names_inputs_that_an_image_model_leaves_unused(
    digit_shards: Path, tmp_path: Path
) -> None:
    document = json.loads((digit_shards / "manifest.json").read_text())
    document["features"].append({"name": "age", "kind": "float", "shape": []})
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    config = TrainConfig(str(tmp_path), str(tmp_path / "run"), model="cnn")
    notes = [note for note in training_notes(config, num_workers=1) if "alone" in note]
    assert notes == [
        "model 'cnn' uses 'image' alone, and not age: give --inputs=image to read no more than "
        "that, or a --model of your own"
    ]
    lone = replace(config, feed=FeedOptions(inputs=("image",)))
    assert not [note for note in training_notes(lone, num_workers=1) if "alone" in note]
