"""YAML text of parsed JSON values, as Kubernetes and gcloud read it. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tenfold.data.errors import UserError

# Other strings are quoted: 1e3, y and 0o17 are text to PyYAML, but not to Kubernetes' parser.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./:@-]+")
# YAML 1.1 has further line breaks, which a literal block would turn into "\n".
_OTHER_BREAK: Final = re.compile("[\r\x85\u2028\u2029]")


def import_yaml() -> Any:
    """Return the module yaml.

    Raises:
      UserError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise UserError("manifests need PyYAML: pip install 'tenfold[kubernetes]'") from error
    return yaml


def to_yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return one YAML text of several documents in block style, keys in their given order.

    Raises:
      UserError: PyYAML is not installed.
    """
    yaml = import_yaml()

    class Dumper(yaml.SafeDumper):  # type: ignore[name-defined]
        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True  # a list that stands twice is written twice, without anchors

    def represent_text(dumper: Any, text: str) -> Any:
        is_block = "\n" in text and not _OTHER_BREAK.search(text)
        style = "|" if is_block else None if _PLAIN.fullmatch(text) else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    text: str = yaml.dump_all(
        documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text
