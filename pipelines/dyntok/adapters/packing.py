"""Whether a language model keeps packed sequences apart: asked of the model itself.

Some read `position_ids` that restart, some `cu_seq_lens_q` or `seq_idx`, and some only with a kernel that is not
installed. Others take all of these, ignore them, and let each sequence see those before it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dyntok.errors import UsageError

_LENGTH = 8
_VARIABLE_LENGTH = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
# How far rounding may move logits, as a share of their scale, in another place of the same row.
_ELSEWHERE = 0.05
_HINT = (
    "train on padded batches: BatchStream(..., packed=False), or pad_batch; or use a model, an attention"
    " implementation or kernels that know packed sequences"
)


def packing_arguments(model: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the sequences of a packed batch apart, as far as the model takes it.

    Returns:
        `position_ids` of the batch, `[1, S]`; and from it where the batch does not have it: `seq_idx`, `[1, S]` int32,
        the number of each position's sequence; `cu_seq_lens_q`, `cu_seq_lens_k`, `max_length_q` and `max_length_k`.
    """
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    positions: Tensor = batch["position_ids"]
    starts = positions == 0
    known = {
        "position_ids": positions,
        "seq_idx": starts.cumsum(-1, dtype=torch.int32) - 1,
        **{name: batch[name] for name in _VARIABLE_LENGTH if name in batch},
    }
    if len(known) < 2 + len(_VARIABLE_LENGTH):
        first = starts.flatten().nonzero().flatten().int()
        splits = torch.cat([first, first.new_tensor([positions.numel()])])
        longest = int(splits.diff().max())
        known |= dict(zip(_VARIABLE_LENGTH, (splits, splits, longest, longest), strict=True))
    return {name: value for name, value in known.items() if takes_any or name in parameters}


def check_packing(model: Any) -> None:
    """Raise UsageError unless a causal LM keeps packed sequences apart, given its `packing_arguments`.

    Four forward passes over two sequences of 8 positions each: exchanging one must not change the logits of the one
    after it, beyond what exchanging one changes in the one before it (rounding, as no causal LM looks ahead), and a
    sequence must be read the same in the second place as in the first. The model is in eval mode meanwhile, and left as
    it was, random state included. All ranks of a sharded model must call this.

    Args:
        model: has `get_input_embeddings()` and takes `inputs_embeds`.
    """
    table = model.get_input_embeddings()
    device = table.weight.device
    positions = torch.arange(_LENGTH, device=device).repeat(2)[None]
    given = packing_arguments(model, {"position_ids": positions})
    # The model's own embeddings: among larger ones, what attention adds would be lost in rounding.
    ids = torch.randint(table.num_embeddings, (3, _LENGTH), generator=torch.Generator().manual_seed(0))

    def logits(*sequences: Tensor) -> tuple[Tensor, Tensor]:
        out = model(inputs_embeds=torch.cat(sequences)[None], use_cache=False, **given)
        first, second = out.logits[0].split(_LENGTH)
        return first, second

    with _undisturbed(model, device):
        a, b, c = table(ids.to(device))
        try:
            (a_first, b_second), (_, b_after_c) = logits(a, b), logits(c, b)
            (a_before_c, _), (b_first, _) = logits(a, c), logits(b, a)
        except (ValueError, NotImplementedError) as error:
            raise UsageError(f"{type(model).__name__} refuses packed sequences: {error}", hint=_HINT) from error
    scale = float(b_second.abs().max())
    # Experts round otherwise when other positions are routed with these: in the first sequence as in the second.
    rounding = 10 * _change(a_first, a_before_c) / scale
    limit = max(rounding, torch.finfo(b_second.dtype).eps / 4, 1e-5)
    leak, moved = _change(b_second, b_after_c) / scale, _change(b_second, b_first) / scale
    if leak > limit or moved > _ELSEWHERE:
        raise UsageError(
            f"{type(model).__name__} does not keep packed sequences apart: with another before it, the logits of one"
            f" change by {max(leak, moved):.2g} of their scale",
            hint=_HINT,
        )


@contextmanager
def _undisturbed(model: Any, device: torch.device) -> Iterator[None]:
    """In eval mode and without gradients; what is changed by that is put back."""
    modes = [(module, module.training) for module in model.modules()]
    cards = [device] if device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(cards):
            yield
    finally:
        for module, training in modes:
            module.training = training
        # Older releases of torch would use weights that autocast has cast in here, without a gradient.
        torch.clear_autocast_cache()


def _change(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max())
