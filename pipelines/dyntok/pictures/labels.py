"""Lines of text as pixels, by Pillow."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from dyntok.errors import UsageError
from dyntok.pictures.drawing import Image

INK, PAPER = (24, 24, 27), (255, 255, 255)
_SMALLEST = 7


def check_pillow() -> None:
    """Raise UsageError if text cannot be drawn."""
    try:
        import PIL.ImageFont  # noqa: F401
    except ImportError:
        raise UsageError(
            "pictures need Pillow for their labels, and it is not installed",
            hint="pip install 'dyntok[pictures]'",
        ) from None


def label(text: str, width: int, height: int) -> Image:
    """One line of text on a white bar `[height, width, 3]`, in the largest size that fits, left aligned."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    bar = Pillow.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(bar)
    margin = max(1, height // 6)
    size = max(_SMALLEST, round(height * 0.68))
    while size > _SMALLEST and draw.textlength(text, font=_font(size)) > width - 2 * margin:
        size -= 1
    draw.text((margin, height / 2), text, fill=INK, font=_font(size), anchor="lm")
    return np.asarray(bar, np.uint8).copy()


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
