"""Statistics that add up: gathered in parts, combined in any order, then described.

Counts are integers of a size that does not grow with the number of videos, so that parts gathered by one worker or by
fifty give the same bytes. Imports numpy, pyarrow and `dyntok.boundaries`, and nothing else of dyntok.
"""

from dyntok.stats.distribution import Distribution
from dyntok.stats.maps import MapShape, MapStatistics
from dyntok.stats.totals import Totals
from dyntok.stats.videos import Example, VideoStatistics

__all__ = ["Distribution", "Example", "MapShape", "MapStatistics", "Totals", "VideoStatistics"]
