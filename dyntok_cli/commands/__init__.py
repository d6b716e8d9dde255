"""One module for each command, imported when it is called. A command takes its arguments, calls the library once, and
reports.
"""

from __future__ import annotations

# What `dyntok --help` says of each, in its order: the first line of the command's own help.
COMMANDS: dict[str, str] = {
    "encode": "Encode videos into a store, or resume it.",
    "plan": "Say what `encode` would do.",
    "status": "Show how far a store is.",
    "logs": "Show what the runs of a store wrote down.",
    "verify": "Find damage in a store.",
    "stats": "Show the figures of whole stores.",
    "inspect": "Show how a store was made, or one video, also in pictures.",
    "convert": "Rewrite a store with shards of another format.",
    "demo": "Encode four short clips with the demo encoder.",
    "config": "Print every setting as a YAML template.",
    "doctor": "Check that this machine can run dyntok.",
}
