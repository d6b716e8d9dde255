"""Pictures of what was merged: patches shaded over their frame, similarity maps, contact sheets, clips.

`drawing`, `layout` and `sheets` are pure functions on `[H, W, 3]` uint8 RGB arrays. `sources` finds and decodes the
frames that were stored, `video_pictures` puts both together, `files` writes. Imports `load`, `merging`, `store`,
`corpus` (the plan, fingerprints) and `video`; labels need Pillow.
"""

from dyntok.pictures.drawing import draw_groups, similarity_map
from dyntok.pictures.files import write_movie, write_png
from dyntok.pictures.layout import GridLayout
from dyntok.pictures.sources import SourceVideo
from dyntok.pictures.video_pictures import VideoPictures, Views

__all__ = [
    "GridLayout",
    "SourceVideo",
    "VideoPictures",
    "Views",
    "draw_groups",
    "similarity_map",
    "write_movie",
    "write_png",
]
