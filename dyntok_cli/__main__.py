"""`python -m dyntok_cli` is `dyntok`."""

from dyntok_cli.main import main

if __name__ == "__main__":
    main()
