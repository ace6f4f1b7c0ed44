"""Other outputs and inputs of commands on gs://: plots, images, reports, models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import UserError

pytestmark = pytest.mark.timeout(120)
PNG = b"\x89PNG"


def test_plan_plot_is_saved_to_bucket(bucket: Any, tenfold: Callable[..., Any]) -> None:
    done = tenfold("plan", "--dataset_size=1GB", f"--plot={bucket.url}/plans/plan.svg")
    assert done.status == 0, done.err
    assert done.err.splitlines()[-1] == f"saved {bucket.url}/plans/plan.svg"
    assert b"</svg>" in bucket.read("plans/plan.svg")
    done = tenfold("plan", "--dataset_size=1GB", f"--plot={bucket.url}.png")
    assert done.status == 2
    assert "names no file" in done.err
    done = tenfold("plan", "--dataset_size=1GB", "--plot=gs://no-such-bucket/plan.png")
    assert done.status == 2
    assert "there is no bucket 'no-such-bucket'" in done.err


def test_inspect_saves_images_to_bucket(
    bucket: Any, digit_shards: Path, tenfold: Callable[..., Any]
) -> None:
    done = tenfold(
        "inspect", f"--shards={digit_shards}", "--records=2", f"--save_images={bucket.url}/some"
    )
    assert done.status == 0, done.err
    assert len(bucket.names()) == 2
    assert all(bucket.read(name)[:4] == PNG for name in bucket.names())


def test_report_is_saved_to_bucket(
    bucket: Any, tenfold: Callable[..., Any], tmp_path: Path
) -> None:
    run = tenfold("launch", "--num_workers=1", f"--run_dir={tmp_path / 'run'}", "--", "true")
    assert run.status == 0, run.err
    done = tenfold("report", str(tmp_path / "run"), f"--output={bucket.url}/a/page.html")
    assert (done.status, done.out) == (0, f"{bucket.url}/a/page.html\n")
    assert b"</html>" in bucket.read("a/page.html")
    (page,) = bucket.items()
    assert (page["contentType"], page["cacheControl"]) == ("text/html", "no-cache")
    done = tenfold("report", str(tmp_path / "run"), f"--output={tmp_path}/no/page.html")
    assert done.status == 2
    assert f"cannot write '{tmp_path}/no/page.html' (there is no folder" in done.err


def test_embed_loads_model_from_bucket(
    bucket: Any, make_image: Callable[..., bytes], tmp_path: Path
) -> None:
    import keras

    from tenfold.data.transforms.embed import Embed

    local = tmp_path / "backbone.keras"
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")
    keras.Sequential([keras.Input((8, 8, 3)), pooled, keras.layers.Dense(2)]).save(local)
    bucket.write("models/backbone.keras", local.read_bytes())
    records = [{"image": make_image(form="PNG", seed=seed)} for seed in range(3)]
    found = []
    for path in (local, f"{bucket.url}/models/backbone.keras"):
        transform = Embed(f"embed:{path}:pooled")
        results: list[Any] = transform.apply(records, [])
        found.append((transform.key, [record["embedding"].tolist() for record in results]))
    assert found[0] == found[1]
    assert len({tuple(embedding) for embedding in found[0][1]}) == 3
    with pytest.raises(UserError, match=r"there is no model 'gs://.*/other.keras'"):
        Embed(f"embed:{bucket.url}/models/other.keras")
