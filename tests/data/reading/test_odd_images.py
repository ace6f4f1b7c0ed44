"""Image folders with odd sizes, modes and names, and with files that are no images."""

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold.data.format.example import decode_example
from tenfold.data.format.tfrecord import read_records

HEIGHT, WIDTH = 24, 36
# Levels of 255 between libjpeg-turbo's fast transform, which TensorFlow and the turbo decoder use,
# and Pillow's exact transform.
JPEG_LEVELS = 8


def waves(height: int, width: int, channels: int) -> Any:
    """Return a smooth image, uint8 [height, width, channels], different everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 90 * np.sin(x / (7 + k) + y / (11 + k)) for k in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def save(path: Path | bytes, image: Image.Image, form: str, **options: Any) -> None:
    with open(path, "wb") as file:
        image.save(file, form, **options)


def grey(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    return Image.fromarray(waves(height, width, 1)[..., 0])


def color(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    return Image.fromarray(waves(height, width, 3))


def sixteen_bits() -> Image.Image:
    return Image.fromarray(waves(HEIGHT, WIDTH, 1)[..., 0].astype(np.uint16) * 257)


def rotated() -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees
    return {"exif": exif}


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(100)
    return image


# name -> (image, format, options)
ODD: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    "one.png": (color(1, 1), "PNG", {}),
    "wide.jpg": (color(3, 5000), "JPEG", {"quality": 95}),
    "tall.png": (color(4000, 2), "PNG", {}),
    "large.jpg": (color(1500, 2000), "JPEG", {"quality": 60}),
    "cmyk.jpg": (color().convert("CMYK"), "JPEG", {"quality": 95}),
    "grey.jpg": (grey(), "JPEG", {"quality": 95}),
    "one-bit.png": (grey().convert("1"), "PNG", {}),
    "palette.png": (color().convert("P"), "PNG", {}),
    "see-through palette.png": (color().convert("P"), "PNG", {"transparency": 3}),
    "sixteen bits.png": (sixteen_bits(), "PNG", {}),
    "alpha.png": (with_alpha(color()), "PNG", {}),
    "grey alpha.png": (with_alpha(grey()), "PNG", {}),
    "PROGRESSIVE.JPEG": (color(), "JPEG", {"progressive": True, "quality": 95}),
    "Rotated.JPG": (color(), "JPEG", {"quality": 95, **rotated()}),
    "-dash.jpg": (color(), "JPEG", {"keep_rgb": True, "quality": 95}),
    "new\nline.jpg": (color(), "JPEG", {"quality": 95, "subsampling": 0}),
    "日本 ñ.png": (color(), "PNG", {}),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes: odd images, some in nested folders, and plain images."""
    root = tmp_path / "images"
    deep = root / "odd" / "deep er" / "down"
    (root / "plain").mkdir(parents=True)
    deep.mkdir(parents=True)
    for number, (name, (image, form, options)) in enumerate(ODD.items()):
        save((deep if number % 3 else root / "odd") / name, image, form, **options)
    save(os.fsencode(deep) + b"/lat\xe9n.png", color(), "PNG")
    os.symlink("../one.png", root / "odd" / "deep er" / "link.png")
    for number in range(4):
        save(root / "plain" / f"{number}.png", grey(), "PNG")
    return root


def images_of(root: Path) -> list[bytes]:
    return sorted(place.read_bytes() for place in root.rglob("*") if place.is_file())


def images_in(shards: Path) -> list[bytes]:
    found = []
    for path in shards.glob("*.tfrecord"):
        with path.open("rb") as file:
            for _, payload in read_records(file, path.stat().st_size):
                found.append(decode_example(payload)["image"][1][0])
    return sorted(found)


def test_odd_images_pass_through_every_command(
    folder: Path, tenfold: Callable[..., Any], tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    done = tenfold("write", f"--source={folder}", f"--output={shards}", "--num_workers=1")
    assert done.status == 0, done.err
    manifest = json.loads((shards / "manifest.json").read_text())
    assert manifest["features"][0]["shape"] == [None, None, None]
    assert images_in(shards) == images_of(folder)
    done = tenfold("inspect", f"--shards={shards}", "--records=99", f"--save_images={tmp_path}/s")
    assert done.status == 0, done.err
    assert len(list((tmp_path / "s").glob("*.png"))) == len(ODD) + 2 + 4
    assert tenfold("verify", f"--shards={shards}").status == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("decoder", ["tf", "turbo"])
def test_odd_images_are_decoded_as_by_pillow(decoder: str, channels: int) -> None:
    import tensorflow as tf

    from tenfold.data.reading.decoding.decoders import PythonDecoder, make_decoder

    for name, (image, form, options) in ODD.items():
        if form == "JPEG" and image.mode == "CMYK" and channels == 1:
            continue  # libjpeg does not make CMYK grey
        out = io.BytesIO()
        image.save(out, form, **options)
        whole: Image.Image = Image.open(io.BytesIO(out.getvalue()))
        if whole.mode.startswith("I"):
            whole = Image.fromarray((np.asarray(whole) >> 8).astype(np.uint8))
        want = np.asarray(whole.convert("L" if channels == 1 else "RGB"), np.int16)
        shape = (image.height, image.width, channels)
        made = make_decoder(decoder, shape)
        if isinstance(made, PythonDecoder):
            got = made.decode_batch([out.getvalue()], None, str)[0]
        else:
            got = made(tf.constant([out.getvalue()]), None).numpy()[0]
        levels = np.abs(got.astype(np.int16) - want.reshape(shape)).max()
        assert levels <= (JPEG_LEVELS if form == "JPEG" else 1), name


def test_decoding_keeps_16_bits_and_exif_rotation() -> None:
    from tenfold.data.format.image_codec import decode_image

    out = io.BytesIO()
    sixteen_bits().save(out, "PNG")
    assert np.array_equal(
        np.asarray(decode_image(out.getvalue())), waves(HEIGHT, WIDTH, 1)[..., 0]
    )
    for min_size in (None, (9, 6)):
        out = io.BytesIO()
        color(240, 360).save(out, "JPEG", quality=95, **rotated())
        upright = decode_image(out.getvalue(), at_least=min_size)
        assert upright.height > upright.width >= (min_size or (0, 240))[1]
        want = color(240, 360).transpose(Image.Transpose.ROTATE_270).resize(upright.size)
        levels = np.abs(np.asarray(upright, np.int16) - np.asarray(want, np.int16))
        assert levels.mean() < 4


def test_files_that_are_no_images_are_quarantined(
    folder: Path, tenfold: Callable[..., Any], tmp_path: Path
) -> None:
    odd = folder / "odd"
    whole = {"JPEG": odd / "deep er/down/wide.jpg", "PNG": odd / "deep er/down/alpha.png"}
    broken = {
        "empty.jpg": (b"", "it is empty"),
        "text.jpg": (
            b"this is text",
            "neither JPEG nor PNG but something that begins with 'this is '",
        ),
        "cut.jpg": (whole["JPEG"].read_bytes()[:900], "the JPEG"),
        "cut.png": (whole["PNG"].read_bytes()[:90], "the PNG ends"),
    }
    for form, name in (("GIF", "gif.png"), ("WEBP", "webp.jpg"), ("BMP", "bmp.png")):
        out = io.BytesIO()
        color().save(out, form)
        shown = {"WEBP": "WebP"}.get(form, form)
        broken[name] = (
            out.getvalue(),
            f"neither JPEG nor PNG but {shown}: --transform=encode:jpeg",
        )
    for name, (data, _) in broken.items():
        (odd / name).write_bytes(data)
    (odd / ".hidden.jpg").write_bytes(b"x")
    for other in (odd / "Thumbs.db", odd / "clip.gif", folder / "stray.jpg"):
        other.write_bytes(b"x")
    os.symlink("nowhere.jpg", odd / "dangling.jpg")
    (Path(os.fsdecode(os.fsencode(odd) + b"/\xe9.webp"))).write_bytes(b"x")
    write = ("write", f"--source={folder}", f"--output={tmp_path}/shards", "--num_workers=1")
    assert tenfold(*write).status == 1
    done = tenfold(*write, "--on_bad_record=skip", PYTHONIOENCODING="utf-8:strict")
    assert done.status == 0, done.err
    assert "left out, images of other formats: " in done.out
    assert "odd/clip.gif and 1 more; --transform=encode:jpeg writes them too" in done.out
    assert "ignored, not a .jpg, .jpeg, .png file in a class folder: " in done.out
    assert "and 2 more" in done.out
    lines = (tmp_path / "shards" / "quarantine.jsonl").read_text().splitlines()
    reasons = {Path(entry["record"]).name: entry["reason"] for entry in map(json.loads, lines)}
    assert reasons.keys() == broken.keys()
    for name, (_, reason) in broken.items():
        assert reason in reasons[name]


def test_circular_link_is_refused(
    folder: Path, tenfold: Callable[..., Any], tmp_path: Path
) -> None:
    os.symlink("..", folder / "odd" / "deep er" / "loop")
    done = tenfold("plan", f"--source={folder}")
    assert done.status == 2
    assert "deep er/loop' is a link to a folder that contains it" in done.err


def test_empty_class_is_refused(folder: Path, tenfold: Callable[..., Any]) -> None:
    (folder / "empty class").mkdir()
    (folder / "empty class" / "a.webp").write_bytes(b"x")
    done = tenfold("plan", f"--source={folder}")
    assert done.status == 2
    assert "empty class' has no images (.jpg, .jpeg, .png): 'empty class/a.webp' is" in done.err
    assert "--transform=encode:jpeg" in done.err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_on_odd_images(
    folder: Path, tenfold: Callable[..., Any], read_metrics: Callable[..., Any], tmp_path: Path
) -> None:
    write = (
        f"--source={folder}",
        f"--output={tmp_path}/shards",
        "--split=train:0.7,validation:0.3",
    )
    run = (f"--run_dir={tmp_path}/run", "--image_size=32x48", "--global_batch_size=4")
    done = tenfold("launch", *write, *run, "--num_workers=2", "--augment=flip,crop")
    assert done.status == 0, done.err
    (epoch,) = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "epoch"]
    assert epoch["receipt"]["exact"]
    assert tenfold("report", f"{tmp_path}/run").status == 0


def test_undecodable_sample_is_named(
    make_class_folder: Callable[..., Path], break_jpeg: Callable[[Path], None],
    tenfold: Callable[..., Any], tmp_path: Path,
) -> None:  # fmt: skip
    source, shards = make_class_folder(each=2, classes=1, form="JPEG"), tmp_path / "shards"
    (victim,) = (path for path in source.rglob("*") if path.is_file())
    break_jpeg(victim)
    written = tenfold("write", f"--source={source}", f"--output={shards}", "--num_workers=1")
    assert written.status == 0, written.err
    done = tenfold("inspect", f"--shards={shards}", f"--save_images={tmp_path / 'png'}")
    assert done.status == 1
    message = done.err.splitlines()[-1]
    assert re.match(r"tenfold: .*\.png cannot be decoded: ", message), done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_launch_skips_undecodable_image(
    make_class_folder: Callable[..., Path], break_jpeg: Callable[[Path], None],
    tenfold: Callable[..., Any], read_metrics: Callable[..., Any], tmp_path: Path,
) -> None:  # fmt: skip
    source, shards = make_class_folder(each=20, classes=2, form="JPEG"), tmp_path / "shards"
    victim, stray = sorted(path for path in source.rglob("*") if path.is_file())[:2]
    break_jpeg(victim)
    whole = stray.read_bytes()
    stray.write_bytes(whole[:-2] + bytes(range(24)) + whole[-2:])  # decodable, with a warning
    written = tenfold("write", f"--source={source}", f"--output={shards}", "--num_workers=1")
    assert written.status == 0, written.err
    run = (f"--shards={shards}", "--global_batch_size=3", "--epochs=1", "--num_workers=1")
    done = tenfold("launch", *run, f"--run_dir={tmp_path}/fails")
    assert done.status == 1
    assert "launch with --on_bad_record=skip, or write again with --check=decode" in done.out
    done = tenfold("launch", *run, f"--run_dir={tmp_path}/run", "--on_bad_record=skip")
    assert done.status == 0, done.err
    assert re.search(r"skipped: train-.* record \d+ at byte [\d,]+: cannot be decoded: ", done.err)
    (epoch,) = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "epoch"]
    assert epoch["receipt"]["exact"]
    assert epoch["receipt"]["expected"] == 38
    assert len(epoch["receipt"]["broken"]) == 1
