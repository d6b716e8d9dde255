"""Precompressed visual tokens for video LLMs."""

__version__ = "0.1.0"
