"""The files with which TensorFlow Datasets reads a folder of our shards.

``dataset_info.json`` and ``features.json`` are the JSON forms of the messages DatasetInfo and
Feature (tensorflow_datasets/core/proto); ``tfds.builder_from_directory(folder)`` reads them.
"""

import json
from typing import Any, Final

from tenfold.data.format.manifest import LABEL, Feature, Manifest, Split

INFO_NAME: Final = "dataset_info.json"
FEATURES_NAME: Final = "features.json"
LABELS_NAME: Final = f"{LABEL}.labels.txt"
NAMES: Final = (INFO_NAME, FEATURES_NAME, LABELS_NAME)

_MODULE: Final = "tensorflow_datasets.core.features"
_DTYPES: Final = {"int64": "int64", "float": "float32", "bytes": "string"}


def tfds_files(manifest: Manifest) -> dict[str, str]:
    """Return the text of each file, by name; none if TFDS cannot express a feature.

    TFDS takes Examples only, an unknown dimension only as the first of a tensor, class names of
    one line, and features that all records have.
    """
    if any(f.optional or f.sequence for f in manifest.features):
        return {}
    if any(None in f.shape[1:] for f in manifest.features if f.kind != "image"):
        return {}
    if any(None in f.shape[2:] for f in manifest.features if f.kind == "image"):
        return {}
    names = manifest.label_names
    if any(name != " ".join(name.splitlines()) for name in names):
        return {}
    features = {f.name: _feature(f, names) for f in manifest.features}
    tree = {"pythonClassName": f"{_MODULE}.features_dict.FeaturesDict"}
    files = {
        INFO_NAME: _json(_info(manifest)),
        FEATURES_NAME: _json({**tree, "featuresDict": {"features": features}}),
    }
    if names:
        files[LABELS_NAME] = "".join(f"{name}\n" for name in names)
    return files


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _info(manifest: Manifest) -> dict[str, Any]:
    return {
        "fileFormat": "tfrecord",
        "moduleName": "tenfold",
        "name": "tenfold_shards",
        "version": "1.0.0",
        "splits": [_split(split) for split in manifest.splits],
    }


def _split(split: Split) -> dict[str, Any]:
    return {
        "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
        "name": split.name,
        "numBytes": str(split.num_bytes),
        "shardLengths": [str(shard.records) for shard in split.shards],
    }


def _feature(feature: Feature, label_names: tuple[str, ...]) -> dict[str, Any]:
    shape = {"dimensions": [str(-1 if size is None else size) for size in feature.shape]}
    if feature.kind == "image":
        return {
            "pythonClassName": f"{_MODULE}.image_feature.Image",
            "image": {"dtype": "uint8", "shape": shape},
        }
    if feature.name == LABEL and feature.shape == () and label_names:
        return {
            "pythonClassName": f"{_MODULE}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(label_names))},
        }
    return {
        "pythonClassName": f"{_MODULE}.tensor_feature.Tensor",
        "tensor": {
            "dtype": _DTYPES[feature.kind],
            "encoding": "none",
            "shape": shape if feature.shape else {},
        },
    }
