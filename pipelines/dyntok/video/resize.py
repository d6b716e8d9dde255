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

    torch's uint8 kernel works on the channels-last view as it is: 0.7 ms for a 720p frame, where PIL takes 8 ms. It
    rounds its weights to 16 bits: about 0.5 % of the values are one level off PIL's, and a few in a million two, at
    hard edges (three where a picture is stretched fivefold one way only).
    """
    # With the batch in front first, torch sees that channels come last; else it would take them apart and back.
    image = torch.from_numpy(rgb).unsqueeze(0).permute(0, 3, 1, 2)
    resized: Any = torch.nn.functional.interpolate(
        image, size=(height, width), mode=resample, align_corners=False, antialias=True
    )
    result: npt.NDArray[np.uint8] = resized.permute(0, 2, 3, 1).squeeze(0).numpy()
    return result
