"""Pictures of every depth, orientation and transparency come out as arithmetic says; ordinary ones are untouched."""

import hashlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import DEPTH, ORIENTATION, TRANSPARENCY, load_image, open_picture, pixel_id

FILM = np.random.default_rng(0).integers(40, 4096, (48, 64))  # 12 bits


def encode(picture: Image.Image, form: str = "PNG", **kwargs) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **kwargs)
    return buffer.getvalue()


def scaled(values: np.ndarray) -> np.ndarray:
    """What the rule says: the lowest value is black, the highest white."""
    low, high = values.min(), values.max()
    return np.floor((values - low) / (high - low) * 255 + 0.5).astype(int)


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (FILM.astype(np.uint16), "PNG"),
        (FILM.astype(np.uint16), "TIFF"),
        (FILM.astype(np.uint16), "JPEG2000"),
        (FILM.astype(np.uint16) * 16, "PNG"),
        (FILM.astype(np.uint16), "PPM"),
        (FILM.astype(np.int32) - 1024, "TIFF"),  # Hounsfield units
        ((FILM / 4095).astype(np.float32), "TIFF"),
    ],
)
def test_deep_pictures_keep_their_shades(values, form):
    picture = open_picture(encode(Image.fromarray(values), form))
    got = np.asarray(picture.pixels).astype(int)
    assert picture.changes == (DEPTH,) and picture.pixels.mode == "RGB"
    assert np.abs(got - scaled(values.astype(float))[..., None]).max() <= 1  # a half may round either way
    assert (got == 255).mean() < 0.01  # clipped, 94 % of this film was white


def test_values_that_fit_8_bits_stay_and_odd_numbers_are_black():
    small = np.arange(200, dtype=np.uint16).reshape(10, 20)
    picture = open_picture(encode(Image.fromarray(small)))
    assert picture.changes == () and (np.asarray(picture.pixels)[..., 0] == small).all()
    odd = np.array([[np.nan, -np.inf, 1.0], [3.0, 2.0, np.inf]], dtype=np.float32)
    assert np.asarray(load_image(encode(Image.fromarray(odd), "TIFF")))[..., 1].tolist() == [[0, 0, 0], [255, 128, 255]]
    plain = np.full((4, 4), 5000, dtype=np.uint16)
    assert not np.asarray(load_image(encode(Image.fromarray(plain)))).any()


# What each EXIF orientation asks for, as the standard words it: which way the stored rows and columns run.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_exif_turns_a_picture_upright(orientation, form):
    stored = np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(encode(Image.fromarray(stored), form, exif=exif))
    assert (np.asarray(picture.pixels) == TURNS[orientation](stored)).all()
    assert picture.changes == ((ORIENTATION,) if orientation > 1 else ())


def test_a_deep_film_on_its_side_is_scaled_and_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = open_picture(encode(Image.fromarray(FILM.astype(np.uint16)), exif=exif))
    assert picture.changes == (ORIENTATION, DEPTH)
    assert np.abs(np.asarray(picture.pixels)[..., 0] - TURNS[6](scaled(FILM))).max() <= 1


def test_transparency_is_laid_on_white():
    rng = np.random.default_rng(2)
    colour, alpha = rng.integers(0, 256, (6, 8, 3)), rng.integers(0, 256, (6, 8, 1))
    on_white = (colour * alpha + 255 * (255 - alpha)) / 255
    rgba = Image.fromarray(np.concatenate([colour, alpha], 2).astype(np.uint8))
    picture = open_picture(encode(rgba))
    assert np.abs(np.asarray(picture.pixels) - on_white).max() <= 1 and picture.changes == (TRANSPARENCY,)
    grey = Image.fromarray(np.concatenate([colour[..., :1], alpha], 2).astype(np.uint8))
    assert grey.mode == "LA"
    assert np.abs(np.asarray(load_image(encode(grey)))[..., :1] - on_white[..., :1]).max() <= 1
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    assert load_image(encode(palette, transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(encode(palette, transparency=0)).getpixel((0, 0)) == (200, 0, 0)
    keyed = Image.new("RGB", (4, 4), (10, 20, 30))
    assert load_image(encode(keyed, transparency=(10, 20, 30))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA"])
def test_ordinary_pictures_are_read_as_pillow_reads_them(mode):
    stored = Image.fromarray(np.random.default_rng(3).integers(0, 256, (9, 7, 3)).astype(np.uint8)).convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    picture = open_picture(encode(stored, form))
    assert picture.changes == () and picture.pixels.tobytes() == stored.convert("RGB").tobytes()
    truth = hashlib.sha256(b"7x9:" + stored.convert("RGB").tobytes()).hexdigest()
    assert pixel_id(stored) == pixel_id(picture.pixels) == truth


def test_broken_exif_data_are_a_sentence():
    def entry(tag, kind, value):
        return struct.pack("<HHI", tag, kind, 1) + value

    # A description that is said to be a floating-point number, and an orientation of 6.
    entries = entry(0x010E, 11, b"abcd") + entry(0x0112, 3, struct.pack("<HH", 6, 0))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    with pytest.raises(UserError, match="broken EXIF data"):
        load_image(encode(Image.new("RGB", (20, 10)), "JPEG", exif=exif))
