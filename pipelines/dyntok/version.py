"""The version of dyntok, which the package itself and what it writes both name."""

__version__ = "0.1.0"
