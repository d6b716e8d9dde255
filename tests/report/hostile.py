"""Stores whose every text wants to be code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from dyntok.records import Grid
from dyntok.store import (
    StoreRoot,
    build_index,
    commit_shard,
    failed_row,
    open_shard_writer,
    plan_digest,
    sample_key,
    write_manifest,
)
from tests.support.samples import make_info, make_plan, make_sample, write_plan

TEXTS = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    '" onmouseover="window.hacked = 3" x="',
    "<!--<script>",
    "{{data}} {{script}} &lt;b&gt; &amp;",
    "\u202egnp.exe \u2028 \x1b[31m \\u003c/script>",
    "javascript:window.hacked=4",
    "<style>*{display:none}</style>",
    "https://example.org/?q=<svg/onload=window.hacked=5>",
]


def hostile_store(out: Path, *, grid: Grid | None = None) -> StoreRoot:
    """Ids, error texts, error classes, column values and settings are all of `TEXTS`; every third video failed."""
    info = make_info(grid=grid)
    info = replace(info, config={**info.config, TEXTS[0]: TEXTS[1]}, software={TEXTS[2]: TEXTS[3]})
    root = StoreRoot.open(str(out), create=True)
    info.save(root)
    entries = [
        replace(entry, extra=json.dumps({"kind": TEXTS[number], "<b>": 1}))
        for number, entry in enumerate(make_plan(0, TEXTS))
    ]
    write_plan(root, entries)
    writer = open_shard_writer(root, info, 0)
    rows = []
    for number, entry in enumerate(entries):
        if number % 3 == 2:
            rows.append(failed_row(entry, sample_key(entry.id), TEXTS[number - 1], TEXTS[number]))
            continue
        sample = make_sample(info, entry.id, frames=5 + number, seed=number)
        sample.meta["video"] = {"width": 640, "height": 360}
        rows.append(writer.add(sample, position=entry.position, source=entry.source, decoder="pyav", seconds=2.5))
    commit_shard(root, info, writer.finish(), rows, plan_digest(entries))
    build_index(root, iter(entries))
    write_manifest(root)
    return root
