"""Kubernetes' strategic merge of a patch into a pod template. Pure.

As `kubectl patch` does it: objects merge field by field, null removes a field, and lists of
objects merge by a key where Kubernetes defines one; other lists are replaced.
Format: kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch; the
keys are the `x-kubernetes-patch-merge-key` of the API's schema.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tenfold.data.errors import UserError

# The lists of a pod template that merge, and the field that identifies an entry.
_MERGE_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}
_DIRECTIVE: Final = "$patch"


def merge(original: Any, patch: Any, *, field: str = "") -> Any:
    """Return `original` with `patch` merged into it; neither is changed.

    Args:
      original: a parsed JSON value.
      patch: the changes.
      field: the name of the field whose values these are.

    Raises:
      UserError: an entry of a list lacks the key by which the list is merged, or a directive is
        unknown.
    """
    if isinstance(patch, Mapping):
        return _merge_objects(original if isinstance(original, Mapping) else {}, patch)
    if isinstance(patch, list) and field in _MERGE_KEYS:
        entries = original if isinstance(original, list) else []
        return _merge_lists(entries, patch, field, _MERGE_KEYS[field])
    return patch


def _merge_objects(original: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    if _directive(patch) == "replace":
        return {name: value for name, value in patch.items() if name != _DIRECTIVE}
    merged = dict(original)
    for name, value in patch.items():
        if value is None or (isinstance(value, Mapping) and _directive(value) == "delete"):
            merged.pop(name, None)
        elif name != _DIRECTIVE:
            merged[name] = merge(original.get(name), value, field=name)
    return merged


def _directive(patch: Mapping[str, Any]) -> str:
    found = patch.get(_DIRECTIVE, "merge")
    if found not in ("merge", "replace", "delete"):
        raise UserError(f"{_DIRECTIVE}: '{found}' is none of merge, replace, delete")
    return str(found)


def _merge_lists(original: Sequence[Any], patch: Sequence[Any], field: str, key: str) -> list[Any]:
    for entry in patch:
        if not isinstance(entry, Mapping) or key not in entry:
            raise UserError(f"{field}: an entry has no '{key}', by which {field} are merged")
    changes = {entry[key]: entry for entry in patch}
    merged: dict[Any, Any] = {entry[key]: entry for entry in original}
    for name, entry in changes.items():
        if _directive(entry) == "delete":
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), entry)
    return list(merged.values())
