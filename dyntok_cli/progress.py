"""A run on a terminal: one bar, or a line now and then where there is no terminal."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from dyntok.records import VideoRow, reason
from dyntok.run.tell.observer import RunObserver
from dyntok_cli.output import Output
from dyntok_cli.tables import count, ratio, several

LINE_EVERY_S = 30.0
REFRESH_EVERY_S = 0.2
SKIPPED = {
    "hidden": "hidden",
    "suffix": "without the suffix of a video",
    "special": "no regular files",
    "loop": "links that lead back",
}


class RunProgress(RunObserver):
    """Renders what a run tells; its methods may be called from any thread. Use it as a context manager."""

    def __init__(self, output: Output, line_every_s: float = LINE_EVERY_S) -> None:
        self._output = output
        self._line_every_s = line_every_s
        self._lock = threading.Lock()
        self._bar: Any = None
        self._videos = self._total = self._failed = 0
        self._frames = self._patches = self._tokens = 0
        self._skipped: Counter[str] = Counter()
        self._started = self._last_shown = time.monotonic()

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()
        self._tell_skipped()  # where listing ended in an error

    def listing(self, videos: int) -> None:
        with self._lock:
            if self._bar is None:
                self._bar = self._new_bar(desc="listing", unit="input")
            if self._bar is not None:
                self._bar.update(videos - self._bar.n)

    def skipped(self, name: str, reason: str) -> None:
        self._skipped[reason] += 1

    def waiting(self, reason: str) -> None:
        with self._lock:
            self._say(f"waiting: {reason}")

    def planned(self, videos: int, videos_done: int, shards: int, shards_done: int) -> None:
        with self._lock:
            self._close()
            self._tell_skipped()
            before = f", {count(videos_done)} of them from before" if videos_done else ""
            self._output.note(f"{several(videos, 'video')} in {several(shards, 'shard')}{before}")
            self._total, self._videos = videos, videos_done
            self._started = self._last_shown = time.monotonic()
            if videos_done < videos:
                self._output.note("loading the model")
                self._bar = self._new_bar(total=videos, initial=videos_done, desc="encoding", unit="video")

    def model_loaded(self, name: str, device: str) -> None:
        with self._lock:
            self._say(f"model {name} on {device}")
            self._started = time.monotonic()

    def note(self, text: str) -> None:
        with self._lock:
            self._say(text)

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        with self._lock:
            self._frames += frames
            self._patches += patches
            self._tokens += tokens
            self._show()

    def video(self, row: VideoRow) -> None:
        with self._lock:
            self._videos += 1
            if row.status == "failed":
                self._failed += 1
                self._say(f"failed: {row.id}: {row.error_class}: {reason(row.id, row.error)}")
            if self._bar is not None:
                self._bar.update(1)
            self._show()

    def describe(self) -> str:
        """`210 frames/s, 31.2 % of tokens kept, 1 failed`."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        parts = [
            f"{self._frames / elapsed:.3g} frames/s",
            f"{ratio(self._tokens, self._patches)} of tokens kept",
        ]
        if self._failed:
            parts.append(f"{count(self._failed)} failed")
        return ", ".join(parts)

    def _tell_skipped(self) -> None:
        """What was passed over while the inputs were listed, once."""
        if self._skipped:
            reasons = ", ".join(f"{count(n)} {SKIPPED[reason]}" for reason, n in sorted(self._skipped.items()))
            self._output.note(f"{several(self._skipped.total(), 'file')} passed over: {reasons}")
            self._skipped.clear()

    def _show(self) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(self.describe(), refresh=False)
            if now - self._last_shown >= REFRESH_EVERY_S:
                self._last_shown = now
                self._bar.refresh()
        elif now - self._last_shown >= self._line_every_s:
            self._last_shown = now
            self._output.note(f"{count(self._videos)}/{count(self._total)} videos, {self.describe()}")

    def _say(self, text: str) -> None:
        """A note that does not tear the bar."""
        if self._bar is not None:
            self._bar.clear()
        self._output.note(text)

    def _new_bar(self, **settings: Any) -> Any:
        if not self._output.shows_bars:
            return None
        from tqdm import tqdm

        return tqdm(dynamic_ncols=True, smoothing=0.1, mininterval=0.2, **settings)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class CountingBar:
    """`on_progress(done, total)` as a bar. Use it as a context manager; silent without a terminal."""

    def __init__(self, output: Output, label: str, unit: str) -> None:
        self._output = output
        self._settings: dict[str, Any] = {"desc": label, "unit": unit, "unit_scale": unit == "B"}
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if not self._output.shows_bars:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, dynamic_ncols=True, **self._settings)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> CountingBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
