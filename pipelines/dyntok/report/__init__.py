"""What a store turned out to be: its statistics read together, as tables, and as one page of HTML.

Reads stores; writes nothing into them. Imports `stats`, `store`, `run` (its logs), `video`
(frames of the sources), `pictures` (as JPEG), and `advice` with `load` (what fits a context).
"""

from dyntok.report.gather import StoreStatistics, gather
from dyntok.report.tables import write_tables

__all__ = ["StoreStatistics", "gather", "write_tables"]
