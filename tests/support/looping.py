"""Long videos from short ones, without re-encoding."""

from __future__ import annotations

from pathlib import Path

import av


def loop_clip(source: Path, target: Path, seconds: float, slower: int = 1, **format_options: str) -> int:
    """Repeat the packets of `source`, so much slower, until `target` is so long; gives the number of frames."""
    with av.open(str(source)) as given:
        stream = given.streams.video[0]
        packets = [(p.pts * slower, p.dts * slower, bytes(p), p.is_keyframe) for p in given.demux(stream) if p.size]
        span = stream.duration * slower
        loops = int(seconds / float(span * stream.time_base)) + 1
        with av.open(str(target), "w", options=format_options) as made:
            out = made.add_stream_from_template(stream)
            for number in range(loops):
                for pts, dts, data, key in packets:
                    packet = av.Packet(data)
                    packet.stream = out
                    packet.time_base = stream.time_base
                    packet.pts, packet.dts = pts + number * span, dts + number * span
                    packet.is_keyframe = key
                    made.mux(packet)
    return loops * len(packets)
