#!/usr/bin/env bash
# PyAV's AV1 encoder (SVT-AV1) makes a root process real-time, and it stays so: everything it starts later inherits that.
#
# Guess: encoding a clip changes nothing about the process that asked for it; at most the encoder's own threads.
# Behaviour: opening libsvtav1 as root (or with CAP_SYS_NICE) puts the calling thread into SCHED_FIFO at priority 99. The
# encoder's end does not undo it. Threads and child processes started afterwards are real-time too, data loader workers
# and decode processes among them: ordinary processes on the same cores get next to nothing, and `nice` has no effect any
# more. A root process is what most containers and CI jobs are; without the capability there is only a line of warning.
# A process that makes AV1 clips beside other work should do it in a child, or reset its scheduler afterwards.
#
# Versions: av 18.1.0 (SVT-AV1 4.1.0), numpy 2.4.6, Python 3.11, Linux x86_64, as root.
# Output seen:
#   before: policy 0, priority 0
#   after libx264: policy 0, priority 0
#   after libsvtav1: policy 1, priority 99
#   a child process: policy 1, priority 99
# Exits 1 if it is otherwise, 2 where the process may not raise its priority at all.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$work"
venv/bin/python - 2> /dev/null <<'PY'
import os
import subprocess
import sys

import av
import numpy as np


def state():
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


def encode(codec):
    with av.open(f"{codec}.mp4", "w") as made:
        stream = made.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * level, np.uint8), format="rgb24")
            made.mux(stream.encode(frame))
        made.mux(stream.encode())


def show(when, found):
    print(f"{when}: policy {found[0]}, priority {found[1]}", flush=True)
    return found


try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
except PermissionError:
    sys.exit(2)
ordinary = show("before", state())
encode("libx264")
film = show("after libx264", state())
encode("libsvtav1")
after = show("after libsvtav1", state())
child = "import os; print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)"
said = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout.split()
inherited = show("a child process", tuple(map(int, said)))
sys.exit(0 if ordinary == film == (os.SCHED_OTHER, 0) and after == inherited == (os.SCHED_FIFO, 99) else 1)
PY
