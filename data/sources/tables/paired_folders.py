"""Folders of images beside folders of what belongs to each image: ``images/7.jpg, masks/7.png``.

Files belong together if they have the same path below their folders, without the suffix. The
bytes of all files are stored unchanged.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.splits.split_names import split_folders
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.image_folders.image_tree import (
    Tree,
    is_image_name,
    paired_names,
)
from tenfold.data.sources.image_folders.list_folders import Listing, shown_path
from tenfold.data.units import plural

if TYPE_CHECKING:
    from tenfold.data.format.columns import Column
    from tenfold.data.sources.tables.table_source import TableSource

_MASKS: Final = frozenset({"mask", "masks"})
_MASK: Final = "mask"
# Reasons for single files are kept in memory, and go to every writing process.
_MAX_ALONE: Final = 10_000
# Examples stored at once.
_BLOCK: Final = 1 << 14

# Full path, size in bytes and version (see `Files`) of an image.
_Found: TypeAlias = tuple[bytes, int, int]
_NOTHING: Final[_Found] = (b"", 0, 0)


def scan_pairs(tree: Tree, scratch: Path, options: SourceOptions) -> "TableSource | None":
    """Scan folders whose images belong together; return None if a tree holds none.

    Args:
      tree: The tree; its folders are ``images`` and ``masks``, or have similar names.
      scratch: Local folder for the result of the scan.
      options: With classes that the user gives, folders are classes.

    Raises:
      UserError: no files belong together, more than `_MAX_ALONE` have no partner, two files of
        a folder differ only in their suffix, or some folders below are splits and others not.
    """
    images, partners = paired_names(tree.classes())
    if options.classes is not None or len(images) != 1 or not partners:
        return None
    listed = dict(zip((*images, *partners), tree.listings([*images, *partners]), strict=True))
    parts = [
        _Part(tree.root, name, listing, is_first=name in images)
        for name, listing in listed.items()
    ]
    used = [part for part in parts if part.files]
    if len(used) < 2 or used[0] is not parts[0]:
        return None
    ignored = sorted({*tree.classes()} - {part.folder for part in used})
    return _Pairs(tree, used, ignored).source(scratch)


class _Part:
    """The images of one folder, which become one feature.

    Attributes:
      folder: The folder's name.
      feature: The feature's name.
      files: The images by their paths below the folder, without suffix.
      others: Paths of all other files.
    """

    def __init__(self, root: str, folder: str, listing: Listing, *, is_first: bool) -> None:
        self.folder = folder
        self.feature = IMAGE if is_first else _MASK if folder.lower() in _MASKS else folder
        self.files: dict[bytes, _Found] = {}
        self.others = list(listing.others)
        base = len(os.fsencode(folder)) + 1
        for path, size, version in sorted(listing.images):
            if not (is_first or is_image_name(path)):  # only `image` can have another format
                self.others.append(path)
                continue
            stem = os.path.splitext(path[base:])[0]
            full = os.fsencode(f"{root}/") + path
            if stem in self.files:
                raise UserError(
                    f"source '{root}': '{shown_path(self.files[stem][0])}' and "
                    f"'{shown_path(full)}' differ only in their suffix: rename or remove one"
                )
            self.files[stem] = (full, size, version)


@dataclass(frozen=True)
class _Pairs:
    """The folders of images that belong together.

    Attributes:
      tree: The tree that holds them.
      parts: The folders, that of the images first.
      ignored: The names of other folders in the tree.
    """

    tree: Tree
    parts: Sequence[_Part]
    ignored: Sequence[str]

    def source(self, scratch: Path) -> "TableSource":
        """Store the places of all files, and return them as a source."""
        from tenfold.data.sources.tables.columns.column_store import ColumnStore, ColumnStoreWriter
        from tenfold.data.sources.tables.columns.stored_sizes import record_sizes, rows_digest
        from tenfold.data.sources.tables.columns.table_images import (
            NamedImages,
            image_columns,
            image_specs,
        )
        from tenfold.data.sources.tables.table_source import TablePart, TableSource

        splits = self._splits()
        stems = [stem for stems in splits.values() for stem in stems]
        unusable = self._alone(stems)
        specs = [spec for part in self.parts for spec in image_specs(part.feature)]
        with ColumnStoreWriter(scratch, specs) as writer:
            for begin in range(0, len(stems), _BLOCK):
                block = stems[begin : begin + _BLOCK]
                columns: dict[str, Column] = {}
                for part in self.parts:
                    found = [part.files.get(stem, _NOTHING) for stem in block]
                    columns |= image_columns(part.feature, found)
                writer.append(columns, len(block))
        store = ColumnStore(scratch, specs)
        total, largest = record_sizes(store)
        stats = SourceStats(
            num_examples=len(stems),
            total_bytes=total,
            max_record_bytes=largest,
            num_classes=0,
            fingerprint=f"pairs-{rows_digest(store)}{writer.digest.hexdigest()}",
        )
        firsts, first = [], 0
        for split, members in splits.items():
            firsts.append(TablePart(self.tree.root, first, split))
            first += len(members)
        origins = {part.feature: f"folder '{part.folder}'" for part in self.parts}
        return TableSource(
            store, stats, firsts, notes=tuple(self._notes(len(stems), unusable)),
            unusable=unusable, images=NamedImages(self.tree.files, origins), is_table=False,
        )  # fmt: skip

    def _splits(self) -> Mapping[str, list[bytes]]:
        """Return the sorted stems of each split that has a folder below the parts'; "" for all.

        Raises:
          UserError: some of these folders are splits and others are not.
        """
        stems = sorted({stem for part in self.parts for stem in part.files})
        tops = {stem: os.fsdecode(stem.rpartition(b"/")[0].partition(b"/")[0]) for stem in stems}
        try:
            folders = split_folders(self.tree.root, sorted({*tops.values()}))
        except UserError:
            raise UserError(
                f"source '{self.tree.root}': of the folders below '{self.parts[0].folder}', some "
                "are splits and others are none, or two are one split: rename or move them"
            ) from None
        if not folders:
            return {"": stems}
        members: dict[str, list[bytes]] = {folder: [] for folder in folders.values()}
        for stem in stems:
            members[tops[stem]].append(stem)
        return {split: members[folder] for split, folder in folders.items()}

    def _alone(self, stems: Sequence[bytes]) -> dict[int, str]:
        """Return why files without partner cannot be used, by the number of their record.

        Raises:
          UserError: they are too many, or no file has a partner.
        """
        lacking = {
            part.folder: [n for n, stem in enumerate(stems) if stem not in part.files]
            for part in self.parts
        }
        alone = {number: folder for folder, numbers in lacking.items() for number in numbers}
        if len(alone) == len(stems) or len(alone) > _MAX_ALONE:
            raise self._too_many(stems, sorted(alone))
        reasons = {
            folder: f"folder '{folder}' has no image of the same name without suffix "
            f"({plural(len(numbers), 'file')} without partner)"
            for folder, numbers in lacking.items()
        }
        return {number: reasons[folder] for number, folder in alone.items()}

    def _too_many(self, stems: Sequence[bytes], alone: Sequence[int]) -> UserError:
        """Return the error for files without partner, by the numbers of their records."""
        names = " and ".join(f"'{part.folder}'" for part in self.parts)
        stem = stems[alone[0]]
        first, _, _ = next(part.files[stem] for part in self.parts if stem in part.files)
        return UserError(
            f"source '{self.tree.root}': {len(alone):,} of {len(stems):,} files in {names} have "
            f"no partner of the same name without suffix, as '{shown_path(first)}': rename or "
            f"remove them, give --source={self.tree.root}/{self.parts[0].folder} for the images "
            "alone, or yield pairs in a function of your own, module:function"
        )

    def _notes(self, records: int, unusable: Mapping[int, str]) -> Iterator[str]:
        for part in self.parts:
            yield (
                f"folder '{part.folder}': {plural(len(part.files), 'image')}, stored as "
                f"'{part.feature}'"
            )
        if unusable:
            yield f"{plural(len(unusable), 'file')} of {records:,} without partner"
        if self.ignored:
            yield f"ignored folders, neither images nor their partners: {', '.join(self.ignored)}"
        others = [path for part in self.parts for path in sorted(part.others)]
        others = [*(path for path, _, _ in self.tree.strays().images), *others]
        if others:
            more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
            yield f"ignored files: {self.tree.root}/{shown_path(others[0])}{more}"
