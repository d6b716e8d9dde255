"""The command line: parses, calls the library, renders; nothing else.

Modules here import nothing heavy when they are loaded, so that `dyntok --help` answers at once: the library is
imported inside the commands. Everything that is printed goes through `output`.
"""
