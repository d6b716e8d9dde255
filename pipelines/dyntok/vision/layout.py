"""One name for each needed tensor, whatever layout a checkpoint has.

==========================  ===================================================================
canonical                   stored as
==========================  ===================================================================
`tower.embeddings...`,      `vision_tower.vision_model.*`, `vision_tower.*` (Hugging Face LLaVA),
`tower.encoder.layers...`   `vision_model.*` or no prefix (SigLIP), and with `model.` before,
                            `model.vision_tower.vision_tower.vision_model.*` (lmms-lab)
`projector.linear_1/2.*`    `multi_modal_projector.linear_1/2.*`, `mm_projector.0/2.*`
`row_marker`                `image_newline`
==========================  ===================================================================

Anything else (the LLM, `post_layernorm`, heads, the text tower) has no canonical name and is never read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from dyntok.errors import CheckpointError

_TOWER = re.compile(
    r"(?:model\.)?(?:vision_tower\.){0,2}(?:vision_model\.)?"
    r"((?:embeddings\.(?:patch_embedding|position_embedding)|encoder\.layers\.\d+\.[a-z0-9_.]+)\.(?:weight|bias))"
)
_PROJECTOR = re.compile(
    r"(?:model\.)?(?:multi_modal_projector\.linear_(?P<hf>[12])|mm_projector\.(?P<lmms>[02]))\.(?P<rest>weight|bias)"
)
_ROW_MARKER = re.compile(r"(?:model\.)?image_newline")
_LAYER = re.compile(r"tower\.encoder\.layers\.(\d+)\.")


def canonical_name(key: str) -> str | None:
    """The canonical name of a stored tensor, or None if the visual front end has no use for it."""
    if match := _TOWER.fullmatch(key):
        return f"tower.{match[1]}"
    if match := _PROJECTOR.fullmatch(key):
        number = match["hf"] or {"0": "1", "2": "2"}[match["lmms"]]
        return f"projector.linear_{number}.{match['rest']}"
    return "row_marker" if _ROW_MARKER.fullmatch(key) else None


def canonical_names(keys: Iterable[str], name_of: Callable[[str], str | None] = canonical_name) -> dict[str, str]:
    """Stored key of each name that `name_of` gives. Raises CheckpointError if two keys mean the same tensor."""
    names: dict[str, str] = {}
    for key in keys:
        name = name_of(key)
        if name is None:
            continue
        if name in names:
            raise CheckpointError(
                f"the checkpoint holds {name} twice: as {names[name]} and as {key}",
                hint="remove one of the two; dyntok cannot know which one was trained",
            )
        names[name] = key
    return names


def stored_layers(names: Iterable[str]) -> int:
    """How many tower layers there are: the highest index plus one."""
    return max((int(match[1]) + 1 for name in names if (match := _LAYER.match(name))), default=0)
