"""What each rank does in test_trainer.py: `python -m torch.distributed.run ... train_in_ranks.py STORE OUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.utils.data import DataLoader

from dyntok.adapters.trainer import TokenTrainer
from tests.adapters.test_trainer import arguments, batches, token_lm


def main(store: str, out: Path) -> None:
    settings = arguments(out, max_steps=6, activation_checkpointing=True, save_steps=6)
    stream = batches(store)
    lm = token_lm()
    seen: list[list[int]] = []
    lm.register_forward_pre_hook(lambda _, __, given: seen.append(given["position"].tolist()), with_kwargs=True)
    loader = DataLoader(stream, batch_size=None, num_workers=1)
    TokenTrainer(lm, settings, train_loader=loader).train()
    result = {"seen": seen, "share": stream.state_dict()["share"][:2]}
    result["weights"] = sum(float(parameter.double().sum()) for parameter in lm.parameters())
    (out / f"rank-{distributed.get_rank()}.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
