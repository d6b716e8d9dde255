#!/usr/bin/env bash
# accelerate's default for an IterableDataset on several processes cuts packed multimodal batches, without a word.
#
# Guess: `prepare(DataLoader(stream, batch_size=None))` gives each process batches of its own, whole.
# Behaviour: the default (`dispatch_batches`) reads on the first process, concatenates one batch a process, takes the length
# of the first tensor for the batch size, and cuts every tensor to it. Of a batch with one packed row of text and the
# six visual rows that belong to it, each process gets one visual row, and the second gets one that belongs to the first's
# text. No error, no warning; the loss goes on falling. `dispatch_batches=False` gives each process whole batches, the
# same ones to all: the stream must do the splitting.
#
# Versions: accelerate 1.15.0, torch 2.13.0 (CPU, gloo, two processes), Python 3.11.
# Output seen:
#   step 0 rank 0: text of 0, visual rows of [0.0]
#   step 0 rank 1: text of 1, visual rows of [0.0]
#   step 1 rank 0: text of 2, visual rows of [2.0]
#   step 1 rank 1: text of 3, visual rows of [2.0]
# Exits 1 if it is otherwise.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cd "$work"
cat > ranks.py <<'PY'
import pathlib

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, IterableDataset


class Packed(IterableDataset):
    def __iter__(self):
        for number in range(4):
            yield {"input_ids": torch.full((1, 6), number), "visual": torch.full((6, 2), float(number))}


accelerator = Accelerator(cpu=True)
for step, batch in enumerate(accelerator.prepare(DataLoader(Packed(), batch_size=None))):
    text, rows = batch["input_ids"][0, 0].item(), batch["visual"][:, 0].tolist()
    line = f"step {step} rank {accelerator.process_index}: text of {text}, visual rows of {rows}"
    pathlib.Path(f"{step}-{accelerator.process_index}").write_text(line + "\n")
accelerator.wait_for_everyone()
torch.distributed.destroy_process_group()
PY
OMP_NUM_THREADS=1 venv/bin/python -m torch.distributed.run --nproc-per-node 2 --master-port 29612 ranks.py 2> errors.txt || { cat errors.txt; exit 1; }
cat ?-? > seen.txt
cat seen.txt
diff - seen.txt <<'SEEN'
step 0 rank 0: text of 0, visual rows of [0.0]
step 0 rank 1: text of 1, visual rows of [0.0]
step 1 rank 0: text of 2, visual rows of [2.0]
step 1 rank 1: text of 3, visual rows of [2.0]
SEEN
