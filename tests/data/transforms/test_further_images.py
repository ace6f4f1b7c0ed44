"""Records with several images: masks are resized with the image, but never smoothed."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold.data.errors import UserError
from tenfold.data.format.example import decode_example
from tenfold.data.format.image_header import image_format
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.transforms.base import RecordSeed
from tenfold.data.transforms.chain import parse_chain

# Four classes, each in a quarter of 48 × 64 pixels.
CLASSES = np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.uint8), 24, axis=0), 32, axis=1)
PALETTE = [9, 9, 9, 255, 0, 0, 0, 255, 0, 0, 0, 255]


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def palette_image() -> Image.Image:
    image = Image.fromarray(CLASSES)
    image.putpalette(PALETTE)
    return image


def apply(text: str, record: dict[str, Any]) -> dict[str, Any]:
    [[result]] = parse_chain([text]).apply([record], [RecordSeed(0, 0, 0)])
    if isinstance(result, UnusableRecord):
        raise result
    return {name: values[0] for name, (_, values) in decode_example(result.payload).items()}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


PHOTO = encoded(Image.effect_noise((64, 48), 50), "JPEG")
MASKS: dict[str, Any] = {
    "palette": encoded(palette_image()),
    "grey": encoded(Image.fromarray(CLASSES * 80)),
    "colour": encoded(palette_image().convert("RGB")),
    "deep": encoded(Image.fromarray(CLASSES.astype(np.uint16) * 20_000)),
    "bit": encoded(Image.fromarray(CLASSES > 1)),
    "array": CLASSES,
    "channel": CLASSES[..., None],
}


@pytest.mark.parametrize("text", ["resize:7x9", "resize:96x128", "resize:30x30,fit=crop"])
@pytest.mark.parametrize("kind", MASKS)
def test_masks_are_resized_unsmoothed(kind: str, text: str) -> None:
    before = MASKS[kind]
    done = apply(text, {"image": PHOTO, "mask": before, "label": 3})
    image, mask = opened(done["image"]), opened(done["mask"])
    assert image.size == mask.size != (64, 48)
    assert done["label"] == 3
    old = before.reshape(48, 64) if isinstance(before, np.ndarray) else np.asarray(opened(before))
    new = np.asarray(mask)
    levels = np.unique(old.reshape(48 * 64, -1), axis=0).tolist()
    assert np.unique(new.reshape(mask.width * mask.height, -1), axis=0).tolist() == levels
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):  # each quarter keeps its class
        assert (new[y, x] == old[y, x]).all()
    if isinstance(before, bytes):
        assert (mask.mode, mask.getpalette()) == (opened(before).mode, opened(before).getpalette())


def test_further_photos_are_smoothed_as_the_image_is() -> None:
    done = apply("resize:12x16", {"image": PHOTO, "right": PHOTO})
    assert done["right"] == done["image"]
    assert image_format(done["right"]) == "jpeg"


def test_encode_leaves_masks_as_they_are() -> None:
    done = apply("encode:jpeg", {"image": encoded(Image.effect_noise((9, 9), 9)), "mask": PHOTO})
    assert image_format(done["image"]) == "jpeg"
    assert done["mask"] == PHOTO


@pytest.mark.parametrize("text", ["resize:8x8", "encode:png"])
def test_image_that_exif_turns_is_refused_beside_a_mask(text: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.effect_noise((64, 48), 50), "JPEG", exif=exif)
    with pytest.raises(UnusableRecord, match="EXIF turns the image, but not 'mask'"):
        apply(text, {"image": turned, "mask": MASKS["grey"]})
    assert set(apply(text, {"image": turned, "right": turned})) == {"image", "right"}


def test_broken_mask_names_its_feature() -> None:
    broken = MASKS["grey"][:60] + bytes(40)
    with pytest.raises(UnusableRecord, match="feature 'mask': it cannot be decoded"):
        apply("resize:8x8", {"image": PHOTO, "mask": broken})


def test_augment_beside_a_mask_is_refused() -> None:
    with pytest.raises(UserError, match="augment changes the feature 'image' alone, and 'mask'"):
        apply("augment:copies=2", {"image": PHOTO, "mask": MASKS["grey"]})
