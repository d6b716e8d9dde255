#!/usr/bin/env bash
# PyAV's `packet.opaque` with `copy_opaque` loses small integers: `frame.opaque` becomes None while the frame is still held.
#
# Guess: what is put on a packet comes out on its frame, whatever it is; so numbering packets tells frames apart.
# Behaviour: PyAV keeps the object in one table of the process, by its address. Python has one object for each integer up
# to 256, so equal small numbers on two packets (two decoders, two passes over one file, two threads) are one entry, and
# the first of them that is freed takes it out for all. Frames that are held then say None: no error, and which frames it
# hits depends on when others are freed. Larger integers, or a fresh tuple for each packet, come out as they went in.
#
# Versions: av 18.1.0, numpy 2.4.6, Python 3.11 (CPython), Linux x86_64.
# Output seen:
#   small integers: 0 of 20 frames know their packet
#   large integers: 20 of 20 frames know their packet
#   fresh tuples: 20 of 20 frames know their packet
# Exits 1 if it is otherwise.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys

import av
import numpy as np

with av.open("clip.avi", "w") as made:
    stream = made.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for level in range(20):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 * level, np.uint8), format="rgb24")
        made.mux(stream.encode(frame))
    made.mux(stream.encode())


def decode(mark):
    frames = []
    with av.open("clip.avi") as clip:
        stream = clip.streams.video[0]
        stream.codec_context.copy_opaque = True
        for number, packet in enumerate(clip.demux(stream)):
            if packet.size:
                packet.opaque = mark(number)
            frames += stream.codec_context.decode(packet if packet.size else None)
    return frames


kept = {}
for name, mark in {
    "small integers": lambda number: number,
    "large integers": lambda number: 1000 + number,
    "fresh tuples": lambda number: (number,),
}.items():
    first, second = decode(mark), decode(mark)
    del first  # another pass over the same file, whose frames nobody needs any more
    kept[name] = sum(frame.opaque is not None for frame in second)
    print(f"{name}: {kept[name]} of {len(second)} frames know their packet")
sys.exit(0 if kept == {"small integers": 0, "large integers": 20, "fresh tuples": 20} else 1)
PY
