"""`tenfold inspect`: show the content of a folder of shards."""

import json
import sys
from typing import Final

from absl import flags

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.image_header import image_format
from tenfold.data.format.manifest import Manifest, Split, manifest_to_json
from tenfold.data.format.schema import describe_feature
from tenfold.data.integrity.compare_sets import compare_sets
from tenfold.data.integrity.inspect_shards import (
    first_records,
    image_of,
    reading_code,
    sample_file_name,
    show_label,
    show_sample,
)
from tenfold.data.integrity.show_statistics import statistics_lines
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.units import format_size, plural
from tenfold.launcher.cli.flags import Arguments, FlagValues

USAGE: Final = "--shards=PATH [--flag=value …]"

_MAX_SHOWN_CLASSES: Final = 20


def define_flags(fv: FlagValues) -> None:
    """Define the flags of `inspect`."""
    flags.DEFINE_string("shards", "", "folder of shards: a path or gs://…", flag_values=fv)
    flags.DEFINE_string(
        "split", "", "name of the split to show records of; by default the first", flag_values=fv
    )
    flags.DEFINE_integer(
        "records", 3, "number of records to show, and to save the images of", flag_values=fv
    )
    flags.DEFINE_string(
        "save_images", "", "folder to save sample images to: a path or gs://…", flag_values=fv
    )
    flags.DEFINE_string(
        "against", "",
        "data set to compare with, as PATH or PATH:SPLIT; the exit status is 1 if they differ",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "format", "table", ["table", "json"], "format of the printed result", flag_values=fv
    )


def run(fv: FlagValues, args: Arguments) -> int:
    """Print the content of the data set; return the exit status."""
    args.expect_none()
    if not fv.shards:
        raise UserError("--shards is missing: name the folder that holds manifest.json")
    if fv.records < 0:
        raise UserError(f"--records={fv.records}: it must be at least 0")
    manifest = read_manifest(fv.shards)
    split = manifest.split(fv.split) if fv.split else manifest.splits[0]
    if fv.against:
        return _compare(fv, manifest, split)
    if fv.format == "json":
        print(manifest_to_json(manifest), end="")
    else:
        print(to_text(manifest, split))
        print(f"\nrecords of {split.name}")
        for sample in first_records(fv.shards, split, fv.records):
            print(f"  {show_sample(sample, manifest)}")
        print("\nread it with plain tf.data\n")
        print(_indented(reading_code(fv.shards.rstrip("/"), manifest)))
    if fv.save_images:
        saved = save_images(fv.shards, manifest, split, fv.records, fv.save_images)
        print(f"{plural(saved, 'image')} saved in {fv.save_images}", file=sys.stderr)
    return 0


def _compare(fv: FlagValues, manifest: Manifest, split: Split) -> int:
    """Print the differences from --against; return 1 if there are any."""
    path, name = _path_and_split(fv.against)
    other = read_manifest(path)
    if name:
        against = other.split(name)
    else:
        against = other.split(split.name) if other.has_split(split.name) else other.splits[0]
    found = list(compare_sets(manifest, other, split, against))
    places = (f"{fv.shards}:{split.name}", f"{path}:{against.name}")
    if fv.format == "json":
        print(json.dumps({"shards": places[0], "against": places[1], "differences": found}))
    else:
        count = plural(len(found), "difference") if found else "no difference"
        print(f"{places[0]} against {places[1]}: {count}")
        for line in found:
            print(f"  {line}")
    return 1 if found else 0


def _path_and_split(text: str) -> tuple[str, str]:
    """Return the path and the split of ``PATH:SPLIT``; the split is "" if none is named."""
    path, _, name = text.rpartition(":")
    return (path, name) if path and name.isidentifier() else (text, "")


def to_text(manifest: Manifest, split: Split | None = None) -> str:
    """Return schema, counts, class balance, and the statistics of a split, as text."""
    lines = ["features"]
    lines += [f"  {feature.name:<16} {describe_feature(feature)}" for feature in manifest.features]
    lines += ["", "splits"]
    lines += [
        f"  {each.name:<16} {plural(each.num_records, 'record')}, "
        f"{format_size(each.num_bytes)} in {plural(len(each.shards), 'shard')}"
        for each in manifest.splits
    ]
    lines.append(f"  {plural(manifest.num_lanes, 'lane')}, planned for {_worker_counts(manifest)}")
    if manifest.quarantined:
        lines.append(f"  {plural(manifest.quarantined, 'broken record')} left out")
    if any(each.label_counts for each in manifest.splits):
        lines += ["", "classes", *_class_balance(manifest)]
    if table := statistics_lines(manifest, split or manifest.splits[0]):
        lines += ["", *table]
    return "\n".join(lines)


def _worker_counts(manifest: Manifest) -> str:
    counts = ", ".join(f"{count:,}" for count in manifest.worker_counts)
    return f"{counts} {'worker' if manifest.worker_counts == (1,) else 'workers'}"


def _class_balance(manifest: Manifest) -> list[str]:
    """Return a line for each class: the number and share of its records in every split."""
    num_classes = max(len(split.label_counts) for split in manifest.splits)
    head = "".join(f"{split.name:>14}" for split in manifest.splits)
    lines = [f"  {'':<24}{head}"]
    for label in range(min(num_classes, _MAX_SHOWN_CLASSES)):
        cells = "".join(f"{_class_share(split, label):>14}" for split in manifest.splits)
        lines.append(f"  {show_label(label, manifest):<24}{cells}")
    if num_classes > _MAX_SHOWN_CLASSES:
        more = num_classes - _MAX_SHOWN_CLASSES
        lines.append(f"  and {more:,} more (--format=json shows all)")
    return lines


def _class_share(split: Split, label: int) -> str:
    count = split.label_counts[label] if label < len(split.label_counts) else 0
    return f"{count:,} {100 * count / max(split.num_records, 1):4.1f} %"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def save_images(shards: str, manifest: Manifest, split: Split, count: int, folder: str) -> int:
    """Save the images of the first records as PNG files, and return their number.

    Args:
      shards: The folder of shards.
      manifest: Its manifest.
      split: The split to take records from.
      count: Number of records.
      folder: The folder to save to, a local path or a URL.

    Raises:
      UserError: the data set has no images, or `folder` cannot be written to.
      JobError: an image cannot be decoded, or the storage could not be reached.
    """
    if not any(feature.kind == "image" for feature in manifest.features):
        raise UserError(f"--save_images: the features of {shards} include no image")
    target = open_folder(folder)
    saved = 0
    for number, sample in enumerate(first_records(shards, split, count)):
        data = image_of(sample, manifest)
        if data is not None:
            name = sample_file_name(sample, manifest, number, ".png")
            try:
                target.write(name, _as_png(data))
            except ValueError as error:
                raise JobError(f"{name} cannot be decoded: {error}") from error
            except OSError as error:
                raise UserError(f"--save_images={folder}: {error.strerror or error}") from error
            saved += 1
    return saved


def _as_png(data: bytes) -> bytes:
    if image_format(data) == "png":
        return data
    from tenfold.data.format.image_codec import decode_image, encode_image

    return encode_image(decode_image(data), "png")
