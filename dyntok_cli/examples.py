"""What the end of each command's help shows: command lines to begin with."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "encode": (
        "dyntok encode videos/ --out tokens/ --model llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "dyntok encode list.jsonl --out s3://bucket/tokens --model models/llava --fps 1 --max-frames 64",
        "dyntok encode --out tokens/ --retry-failed",
    ),
    "plan": (
        "dyntok plan videos/ --model llava-hf/llava-onevision-qwen2-7b-ov-hf --frames 32",
        "dyntok plan videos/ --model demo --out tokens/",
    ),
    "status": (
        "dyntok status tokens/ --failed",
        "dyntok status tokens/ --watch 30",
        "dyntok status tokens/ --finalize",
    ),
    "logs": ("dyntok logs tokens/ --failed", "dyntok logs tokens/ --shard 3 --json"),
    "verify": ("dyntok verify tokens/ --jobs 4", "dyntok verify tokens/ --repair"),
    "stats": (
        "dyntok stats tokens/ --html report.html",
        "dyntok stats tokens/ --by source --json",
        "dyntok stats tokens/ other/ --parquet videos.parquet",
    ),
    "inspect": (
        "dyntok inspect tokens/ --ids",
        "dyntok inspect tokens/ clips/a.mp4 --threshold 0.5",
        "dyntok inspect tokens/ clips/a.mp4 --budget 8000",
    ),
    "convert": ("dyntok convert tokens/ tokens-zarr/ --format zarr",),
    "demo": ("dyntok demo", "dyntok demo clip.mp4 --out try/ --frames 8"),
    "config": (
        "dyntok config init settings.yaml",
        "dyntok config show settings.yaml --fps 1",
    ),
    "doctor": ("dyntok doctor", "dyntok doctor /data/tokens --json"),
}


def epilog(command: str) -> str:
    """The examples of a command as the end of its help; `\\b` keeps them from being filled."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in EXAMPLES[command])))
