"""`transformers.Trainer` over a stream that deals itself out to ranks and workers, and that resumes by itself.

Accelerate, which the Trainer uses, deals out every loader of an IterableDataset anew. By default the first process
reads it and cuts each tensor of a batch along its first dimension; with `dispatch_batches=False` every rank keeps only
each n-th sample of what is its own part already. `TokenTrainer` leaves the loader alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from dyntok.errors import ConfigError, UsageError
from dyntok.load.batches import Batch
from dyntok.load.cursor import Resumable

if find_spec("accelerate") is None:
    raise UsageError("the Trainer of transformers needs accelerate", hint="pip install accelerate")

from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

_STATE = "dyntok_stream_{:05d}.json"


class TokenTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose batches come from a loader of your own, as they are.

    The stream counts the epochs: where one ends, the next begins, and to the Trainer it is all one. So `max_steps` says
    how long to train, and saving, logging and evaluation go by steps. Ranks may have different numbers of batches in an
    epoch, as packing gives them. Each checkpoint holds every rank's place in the stream, and
    `train(resume_from_checkpoint=...)` goes on there; with another number of ranks or loader workers too, if all ranks
    were in the same epoch.

    Start one process a GPU (`torchrun`, `accelerate launch`) and make the stream in each of them.

    Args:
        model: a `TokenLM`.
        args: TrainingArguments with `max_steps`. Its batch size says nothing here: the loader has its own.
        train_loader: gives batches of `pad_batch` or `pack_batch`: over a `BatchStream` with `batch_size=None`, or over
            a `TokenStream` of sequences with one of the two as `collate_fn`.
        stream: the loader's stream, if it is not `train_loader.dataset`.
        eval_loader: gives batches for evaluation; every rank must come to equally many.
        settings: those of the Trainer, except for datasets and collator.

    Raises ConfigError: `max_steps` is missing, or the process has several GPUs.
    """

    def __init__(
        self,
        model: Any,
        args: Any,
        *,
        train_loader: DataLoader[Any],
        stream: Resumable | None = None,
        eval_loader: DataLoader[Any] | None = None,
        **settings: Any,
    ) -> None:
        if args.max_steps <= 0:
            raise ConfigError(
                "a stream has no length that could end the training",
                hint="set TrainingArguments(max_steps=...): epochs x batches of an epoch / gradient accumulation",
            )
        if args.n_gpu > 1:
            raise ConfigError(
                f"this process has {args.n_gpu} GPUs, among which the Trainer would cut batches apart",
                hint="start one process a GPU: torchrun --nproc-per-node N ..., or set CUDA_VISIBLE_DEVICES",
            )
        self._train_loader, self._eval_loader = train_loader, eval_loader
        self._stream: Any = train_loader.dataset if stream is None else stream
        eval_dataset = None if eval_loader is None else eval_loader.dataset
        super().__init__(model=model, args=args, eval_dataset=eval_dataset, **settings)
        self.add_callback(_SaveStream(self._stream))

    def get_train_dataloader(self) -> Any:
        return _Endless(self._train_loader, self._stream)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        return self._eval_loader

    def train(self, resume_from_checkpoint: str | bool | None = None, **settings: Any) -> Any:
        """As the Trainer's; the stream goes on where the checkpoint left it.

        Raises UsageError: the checkpoint holds no place in the stream.
        """
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder:
            load_stream_state(self._stream, folder)
            # Nothing is to be read and thrown away: the stream begins in the right place.
            self.args.ignore_data_skip = True
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **settings)


def load_stream_state(stream: Resumable, checkpoint: str | Path) -> None:
    """Put a stream where it stood when a `TokenTrainer` wrote `checkpoint`, whatever the number of ranks then.

    Raises UsageError: the checkpoint holds no place in the stream, or that of another dataset.
    """
    states = [json.loads(path.read_text(encoding="utf-8")) for path in _states(Path(checkpoint))]
    if not states:
        raise UsageError(
            f"{checkpoint} holds no place in the stream ({_STATE.format(0)} and so on)",
            hint="it was not written by a TokenTrainer, or not to its end: resume from an earlier one",
        )
    stream.load_state_dict(states)


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob(_STATE.replace("{:05d}", "*")))


class _Endless:
    """A loader's batches, epoch after epoch. Has no length and no end."""

    def __init__(self, loader: DataLoader[Any], stream: Any) -> None:
        self.dataset = loader.dataset
        self._loader = loader
        self._stream = stream

    def __iter__(self) -> Iterator[Batch]:
        # Workers read ahead, so only here is it known which batches were used.
        marks = self._loader.num_workers > 0
        empty = 0
        while empty < 2:  # what is left of a resumed epoch may be nothing
            empty += 1
            for batch in self._loader:
                empty = 0
                if marks:
                    self._stream.mark(batch)
                yield batch
            self._stream.set_epoch(self._stream.epoch + 1)
        raise UsageError(
            "an epoch of the loader holds no batch",
            hint="there may be fewer samples than ranks and workers; stream.unavailable() lists what is missing",
        )


class _SaveStream(TrainerCallback):  # type: ignore[misc]
    """Writes the rank's place in the stream into each checkpoint."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._stream.state_dict(), sort_keys=True)
        (folder / _STATE.format(args.process_index)).write_text(text + "\n", encoding="utf-8")
        if args.process_index == 0:
            # Of an earlier run with more ranks, into the same folder.
            for path in _states(folder):
                if int(path.stem.rpartition("_")[2]) >= args.world_size:
                    path.unlink(missing_ok=True)
