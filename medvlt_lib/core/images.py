"""Pictures: reading them as 8-bit RGB, and telling them apart by their pixels.

Three things may have to change on the way, and `CHANGES` says how each is done. Everything else is Pillow's own
conversion; of colour with 16 bits a channel it keeps the upper 8.
"""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps

from medvlt_lib.core.errors import UserError

DEPTH, ORIENTATION, TRANSPARENCY = "bit depth", "orientation", "transparency"
CHANGES = {
    DEPTH: "a picture of one channel with more than 8 bits is scaled by its own range: its lowest value becomes black, "
    "its highest white (whole numbers that all lie in 0 to 255 stay as they are)",
    ORIENTATION: "a picture is turned upright where its EXIF data say how",
    TRANSPARENCY: "what is transparent is laid on white",
}


@dataclass(frozen=True)
class Picture:
    """A decoded picture in 8-bit RGB, and which of CHANGES was made to it."""

    pixels: Image.Image
    changes: tuple[str, ...] = ()


def open_picture(image: str | Path | bytes | Image.Image) -> Picture:
    """Decode a path, encoded bytes or a PIL image. Raises UserError when it cannot be read."""
    if isinstance(image, Image.Image):
        return _as_rgb(image)
    name = f"of {len(image)} bytes" if isinstance(image, bytes) else image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
        if opened.width * opened.height > (
            Image.MAX_IMAGE_PIXELS or float("inf")
        ):  # checked before anything is unpacked
            raise Image.DecompressionBombError(f"{opened.width} x {opened.height} pixels")
        return _as_rgb(opened)
    except Image.DecompressionBombError as error:
        raise UserError(
            f"the image {name} unpacks to too many pixels ({error}); shrink it below {Image.MAX_IMAGE_PIXELS}."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # PIL's errors for files that are torn or no images
        raise UserError(f"cannot read the image {name}: {error}; give a readable PNG or JPEG file.") from error
    except (struct.error, TypeError, AttributeError, OverflowError) as error:  # PIL's errors for torn EXIF data
        raise UserError(f"the image {name} has broken EXIF data ({error}); save it again without them.") from error


def load_image(image: str | Path | bytes | Image.Image) -> Image.Image:
    """The pixels of a path, of encoded bytes or of a PIL image, in 8-bit RGB. Raises UserError as `open_picture`."""
    return open_picture(image).pixels


def png(image: Image.Image, **options: Any) -> bytes:
    """A picture as the bytes of a PNG file; `options`: Pillow's for that format."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def png_address(image: Image.Image, **options: Any) -> str:
    """A picture as an address that holds it, a PNG in base64."""
    return f"data:image/png;base64,{base64.b64encode(png(image, **options)).decode()}"


def pixel_id(image: Image.Image) -> str:
    """SHA-256 of an image's size and RGB pixels, so that the same picture in another file form has the same id."""
    rgb = load_image(image)
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


def _as_rgb(image: Image.Image) -> Picture:
    changes = []
    if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):  # 1 is upright
        image = ImageOps.exif_transpose(image)
        changes.append(ORIENTATION)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image, scaled = _in_8_bits(image)
        changes += [DEPTH] if scaled else []
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            changes.append(TRANSPARENCY)
    return Picture(image.convert("RGB"), tuple(changes))


def _in_8_bits(image: Image.Image) -> tuple[Image.Image, bool]:
    """A picture of one deep channel in 8 bits, and whether that changed its values. What is no number becomes black."""
    import numpy as np

    values = np.asarray(image)
    if values.dtype.kind != "f" and values.min() >= 0 and values.max() <= 255:
        return Image.fromarray(values.astype(np.uint8)), False
    values = values.astype(np.float64)
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), True
