"""Pictures: reading them as RGB, and telling them apart by their pixels."""

from __future__ import annotations

import hashlib
import io
import warnings

from medvlt_lib.core.errors import UserError


def load_image(image):
    """An image given as a path, as encoded bytes or as a PIL image, in RGB. Raises UserError when it cannot be read."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    name = f"of {len(image)} bytes" if isinstance(image, bytes) else image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
        if opened.width * opened.height > Image.MAX_IMAGE_PIXELS:  # checked before anything is unpacked
            raise Image.DecompressionBombError(f"{opened.width} x {opened.height} pixels")
        return opened.convert("RGB")
    except Image.DecompressionBombError as error:
        raise UserError(
            f"the image {name} unpacks to too many pixels ({error}); shrink it below {Image.MAX_IMAGE_PIXELS}."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # PIL's errors for files that are torn or no images
        raise UserError(f"cannot read the image {name}: {error}; give a readable PNG or JPEG file.") from error


def pixel_id(image) -> str:
    """SHA-256 of an image's size and RGB pixels, so that the same picture in another file form has the same id."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()
