"""Read and check the manifest of a folder of shards."""

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import MANIFEST_NAME, Manifest, manifest_from_json
from tenfold.data.format.manifest_fields import MAX_MANIFEST_BYTES
from tenfold.data.storage.open_folder import open_folder


def read_manifest(path: str) -> Manifest:
    """Return the manifest of the folder of shards at `path`, a local path or a URL.

    Raises:
      UserError: there is no such folder, it has no manifest, or the manifest is damaged.
      JobError: the storage could not be read.
    """
    folder = open_folder(path)
    where = f"{folder.path}/{MANIFEST_NAME}"
    try:
        entry = folder.entry(MANIFEST_NAME)
        if entry and entry.bytes > MAX_MANIFEST_BYTES:
            raise UserError(f"{where} has {entry.bytes:,} bytes: it is not a manifest")
        data = folder.read(MANIFEST_NAME)
    except OSError as error:
        raise JobError(f"{where} could not be read: {error}") from error
    if data is None:
        raise UserError(
            f"there is no {where}: --shards names a folder that 'tenfold write' has finished"
        )
    try:
        return manifest_from_json(data.decode(), where=where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not a manifest: it is not UTF-8 text") from error
