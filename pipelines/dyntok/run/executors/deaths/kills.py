"""Processes that were killed from outside, which says nothing of the video they had."""

from __future__ import annotations

from contextlib import suppress

# Times that a process may be killed over one video before that counts against it.
KILLS_FORGIVEN = 4


def kernel_kills() -> int:
    """Processes that the kernel has killed for want of memory, in any control group; 0 where it does not say."""
    with suppress(OSError), open("/proc/vmstat", encoding="ascii") as counters:
        return next((int(line.split()[1]) for line in counters if line.startswith("oom_kill ")), 0)
    return 0
