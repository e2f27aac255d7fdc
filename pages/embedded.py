"""Images inside a page: as data URIs, so that the page is one file."""

import base64
import io

from PIL import Image

SMALL = 64  # pixels; up to this size an image is stored exactly
LARGEST = 128  # pixels; larger images are reduced to this size
QUALITY = 88  # of WebP


def image_uri(image):
    """A `data:` URI of an image, uint8 [C, H, W] with C 1 or 3."""
    image = image.transpose(1, 2, 0)
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    return picture_uri(picture)


def picture_uri(picture):
    """A `data:` URI of a Pillow image, in gray or RGB, at its own size."""
    data, small = io.BytesIO(), max(picture.size) <= SMALL
    if small:
        picture.save(data, "PNG", optimize=True)
    else:
        picture.save(data, "WEBP", quality=QUALITY)
    return f"data:image/{'png' if small else 'webp'};base64,{base64.b64encode(data.getvalue()).decode()}"
