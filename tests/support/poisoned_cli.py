"""The command line with a model that plain magenta kills: `python -m tests.support.poisoned_cli encode ...`."""

from __future__ import annotations

from dyntok_cli.main import main
from tests.support.poison import poison_local

if __name__ == "__main__":
    poison_local()
    main()
