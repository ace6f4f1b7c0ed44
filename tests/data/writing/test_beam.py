"""The Beam pipeline on Beam's local runner: equal shards, and clear errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.write_shards import WriteOptions, write_shards

POLICY = LayoutPolicy(num_workers=2)

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(autouse=True)
def _needs_beam() -> None:
    pytest.importorskip("apache_beam")


def write(source: Any, output: Path, **options: Any) -> Any:
    chosen = WriteOptions(policy=POLICY, **options)
    return write_shards(source, output, options=chosen, transforms=["resize:5"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (
            "--runner=DirectRunner",
            "--direct_num_workers=2",
            "--direct_running_mode=multi_processing",
        ),
    ],
)
def test_beam_writes_the_same_shards(
    arguments: tuple[str, ...], make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = str(make_class_folder(each=20))
    write(source, tmp_path / "here")
    result = write(source, tmp_path / "beam", engine="beam", engine_arguments=arguments)
    assert result.manifest == read_manifest(str(tmp_path / "here"))
    for path in (tmp_path / "here").iterdir():
        assert path.read_bytes() == (tmp_path / "beam" / path.name).read_bytes()
    assert write(source, tmp_path / "beam", engine="beam").written == 0


def test_beam_failure_is_one_clear_error(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_class_folder()
    (source / "class 1" / "0003.png").write_text("text")
    with pytest.raises(JobError, match=r"^/\S.*class 1/0003\.png: .*it cannot be decoded[^\n]*$"):
        write(str(source), tmp_path / "out", engine="beam")
    assert not (tmp_path / "out" / "manifest.json").exists()
    result = write(str(source), tmp_path / "out", engine="beam", max_bad_records=1)
    assert result.manifest.quarantined == 1
    with pytest.raises(UserError, match="by name"):
        write_shards(
            [{"label": 1}] * 4,
            tmp_path / "other",
            options=WriteOptions(policy=POLICY, engine="beam"),
        )
