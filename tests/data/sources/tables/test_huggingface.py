"""Data sets as `datasets.DatasetDict.save_to_disk` lays them out."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tenfold.data.errors import UserError
from tenfold.data.sources.base import Source
from tenfold.data.sources.open_source import open_source


@pytest.fixture
def saved(tmp_path: Path, make_image: Callable[..., bytes]) -> Path:
    features = {
        "img": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split, labels in (("train", [1, 0, 1]), ("test", [0])):
        rows = [{"img": {"bytes": make_image(seed=n), "path": None}, "label": n} for n in labels]
        table = pa.Table.from_pylist(rows).replace_schema_metadata(metadata)
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
        (folder / "cache-0123.arrow").write_bytes(b"of map")
        (folder / "state.json").write_text("{}")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return tmp_path / "saved"


def open_spec(spec: str, tmp_path: Path) -> Source:
    scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    return open_source(spec, scratch)


def test_saved_data_set_keeps_splits_images_and_class_names(
    saved: Path, tmp_path: Path, make_image: Callable[..., bytes]
) -> None:
    source = open_spec(f"hf:{saved}", tmp_path)
    assert source.stats.label_names == ("cat", "dog")
    splits = [(split.name, split.examples) for split in source.splits]  # type: ignore[attr-defined]
    assert splits == [("train", 3), ("test", 1)]
    assert source.features(1) == {"image": make_image(seed=0), "label": 0}
    assert open_spec(f"hf:{saved}:test", tmp_path).stats.num_examples == 1


def test_name_is_found_in_the_cache_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout that `hf download me/pets --repo-type=dataset` makes."""
    revision = "0123456789" * 4
    cached = tmp_path / "home" / "hub" / "datasets--me--pets"
    for name, rows in (("train", 3), ("validation", 2)):
        blob = cached / "blobs" / name
        blob.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": range(rows), "label": [0] * rows}), blob)
        link = cached / "snapshots" / revision / "data" / f"{name}-00000-of-00001.parquet"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revision)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    source = open_spec("hf:me/pets", tmp_path)
    splits = [(split.name, split.examples) for split in source.splits]  # type: ignore[attr-defined]
    assert splits == [("train", 3), ("validation", 2)]
    assert open_spec("hf:me/pets:validation", tmp_path).stats.num_examples == 2
    (cached / "refs" / "main").write_text("../../elsewhere")
    with pytest.raises(UserError, match=r"no data set of this name in .*home/hub: 'hf download"):
        open_spec("hf:me/pets", tmp_path)


def test_unknown_folder_and_split_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no split 'tests': did you mean 'test'"):
        open_spec(f"hf:{saved}:tests", tmp_path)
    with pytest.raises(UserError, match="hf download"):
        open_spec("hf:mnist", tmp_path)
