"""How many frames at which threshold a context takes: counted in a store, or expected from published ratios.

Imports `load`, `store` and `merging`, and of `run` the published ratios.
"""

from dyntok.advice.expected import expect
from dyntok.advice.report import BudgetAdvice, FramesRow
from dyntok.advice.stored import advise, advise_each

__all__ = ["BudgetAdvice", "FramesRow", "advise", "advise_each", "expect"]
