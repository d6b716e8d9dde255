"""Fetching files from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dyntok.errors import CheckpointError

# The HTTP library's own base error, whichever library this huggingface_hub uses.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]


def fetch_snapshot(repo: str, revision: str | None, files: list[str]) -> Path:
    """The folder of a snapshot in the hub's cache, named after its commit, with those of `files` that it has.

    Honours the hub's own settings (`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, ...). Raises CheckpointError.
    """
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    except (OSError, HFValidationError, _HTTPError) as error:
        raise CheckpointError(f"cannot get {repo} from the hub: {_first_sentence(error)}", hint=_hint(error)) from error


def _hint(error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return "accept the model's terms on its hub page, then `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "check --revision: a branch, tag or commit of the repository"
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return "check the spelling; a private model needs `hf auth login`; a local folder must exist"
    if isinstance(error, LocalEntryNotFoundError):
        return (
            "the hub cannot be reached (or HF_HUB_OFFLINE is set) and the model is not in the cache: "
            "run `hf download` where there is a network, or name a local folder"
        )
    return "check the network and the free disk space, or name a local folder"


def _first_sentence(error: Exception) -> str:
    """The hub's messages run over several lines, which do not end with the sentence."""
    paragraph = str(error).strip().split("\n\n")[0]
    return " ".join(paragraph.split()).split(". ")[0].removesuffix(".") or type(error).__name__
