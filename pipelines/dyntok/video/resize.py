"""Resizing as PIL does it, ten times as fast."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dyntok.video.settings import Resample


def resize_frame(
    rgb: npt.NDArray[np.uint8], height: int, width: int, resample: Resample = "bicubic"
) -> npt.NDArray[np.uint8]:
    """`rgb: [h, w, 3]` uint8 squashed to `[height, width, 3]` with antialiasing, as PIL resizes.

    torch's uint8 kernel works on the channels-last view as it is: 0.9 ms for a 720p frame, where PIL takes 8 ms. It
    rounds its weights to 16 bits: about 0.5 % of the values are one level off PIL's, and a few in a million two, at
    hard edges (three where a picture is stretched fivefold one way only). The result is a view with the channels apart;
    `copy_image` is the fast way to put it into memory of one's own.
    """
    image = torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0)
    resized: Any = torch.nn.functional.interpolate(
        image, size=(height, width), mode=resample, align_corners=False, antialias=True
    )
    result: npt.NDArray[np.uint8] = resized.squeeze(0).permute(1, 2, 0).numpy()
    return result


def copy_image(image: npt.NDArray[np.uint8], into: npt.NDArray[np.uint8]) -> None:
    """Copy `[H, W, 3]` into an array of the same shape, twice as fast as numpy does for views of `resize_frame`."""
    torch.from_numpy(into).copy_(torch.from_numpy(image))
