"""Pages made from the code: every command's help, every public name, the changes. Text in, Markdown out."""

from __future__ import annotations

import inspect
import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin
from unittest.mock import patch

# Modules whose names people use, and what each is for. Those without `__all__` show what they define.
MODULES = {
    "dyntok": "What most programs need.",
    "dyntok.merging": "The operator and nesting, on tensors in memory.",
    "dyntok.load": "Reading stores, streaming, batches.",
    "dyntok.run": "What the commands about running do.",
    "dyntok.report": "The figures of a store, read together.",
    "dyntok.stats": "Statistics that add up, of similarity maps and of videos.",
    "dyntok.pictures": "Pictures of what was merged.",
    "dyntok.advice": "What fits a context.",
    "dyntok.errors": "Every error that is raised on purpose.",
    "dyntok.adapters.huggingface": "Language models of LLaVA checkpoints, fed with stored tokens.",
    "dyntok.adapters.trainer": "transformers.Trainer on a store.",
    "dyntok.adapters.answering": "Questions about stored videos.",
    "dyntok.adapters.vllm": "Prompt embeddings for vLLM.",
    "dyntok.testing": "Tiny checkpoints and tokenizers to test with.",
}
_SECTION = re.compile(r"^(Raises|Args|Attributes|Returns|Yields):$")


def pages(root: Path) -> dict[str, str]:
    """Path below docs -> Markdown."""
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    return {
        "reference/help.md": "\n".join(help_page()),
        "reference/python.md": "\n".join(python_page()),
        "reference/changes.md": changes,
    }


def help_page() -> Iterator[str]:
    """`dyntok --help` and that of every command, as they are printed."""
    from dyntok_cli.commands import COMMANDS

    yield "# Every command's help\n"
    yield "As `dyntok COMMAND --help` prints it. [The command line](../cli.md) explains what stands behind it.\n"
    yield f"```text\n{help_text()}```\n"
    for command in COMMANDS:
        yield f"## {command}\n\n```text\n{help_text(command)}```\n"


def help_text(*command: str) -> str:
    """What `dyntok COMMAND --help` prints, at 100 columns."""
    from dyntok_cli.main import run

    stdout = io.StringIO()
    with patch.dict(os.environ, COLUMNS="100"), redirect_stdout(stdout):
        run([*command, "--help"])
    return stdout.getvalue()


def python_page() -> Iterator[str]:
    """Signature and docstring of every public name."""
    yield "# Every name\n"
    yield "Signatures and docstrings. [The Python API](../api.md) shows how they go together.\n"
    titles: dict[int, str] = {}
    for name, purpose in MODULES.items():
        module = import_module(name)
        yield f"## {name}\n\n{purpose}\n"
        for public in names_of(module):
            value = getattr(module, public)
            first = titles.setdefault(id(value), f"{name}.{public}")
            if first == f"{name}.{public}":
                yield from describe(first, value, "###")
            else:
                yield f"`{name}.{public}` is [`{first}`](#{first.lower().replace('.', '')}).\n"


def names_of(module: Any) -> list[str]:
    """`__all__`, or what a module defines itself."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def describe(title: str, value: Any, heading: str) -> Iterator[str]:
    """One name: heading, signature, docstring; of a class, its public methods and properties too."""
    yield f"{heading} {title}\n"
    if inspect.isclass(value) or inspect.isroutine(value):
        yield f"```python\n{signature(title.rpartition('.')[2], value)}\n```\n"
        yield markdown_of(inspect.getdoc(value) if value.__doc__ else "")
    else:
        yield f"`{value!r}`\n" if len(repr(value)) < 200 else f"A {type(value).__name__}.\n"
    if inspect.isclass(value):
        yield from members(value)


def members(cls: type) -> Iterator[str]:
    """Methods and properties that a class defines and documents."""
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if isinstance(member, property) and member.__doc__:
            yield f"**`.{name}`** (property): {markdown_of(inspect.getdoc(member))}"
        elif inspect.isfunction(function) and function.__doc__:
            text = markdown_of(inspect.getdoc(function))
            yield f"```python\n{signature(name, function)}\n```\n\n{text}"


def signature(name: str, value: Any) -> str:
    """`name(parameters) -> result`, over several lines if it is long; the fields of a dataclass or a config."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return f"{name}(...)"
    parameters = list(shown(found))
    result = found.return_annotation
    empty = result in (inspect.Signature.empty, None) or inspect.isclass(value)
    arrow = "" if empty else f" -> {annotation_text(result)}"
    prefix = "class " if inspect.isclass(value) else ""
    line = f"{prefix}{name}({', '.join(parameters)}){arrow}"
    if len(line) <= 96:
        return line
    return "\n".join([f"{prefix}{name}(", *(f"    {parameter}," for parameter in parameters), f"){arrow}"])


def shown(found: inspect.Signature) -> Iterator[str]:
    """Parameters as they are written; defaults that are objects as `...`."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    keyword_only = False
    for name, parameter in found.parameters.items():
        if name in ("self", "cls"):
            continue
        keyword_only |= parameter.kind is inspect.Parameter.VAR_POSITIONAL
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            yield "*"
        text = stars.get(parameter.kind, "") + name
        given = parameter.default is not inspect.Parameter.empty
        if parameter.annotation is not inspect.Parameter.empty:
            text += f": {annotation_text(parameter.annotation)}"
        yield text + (f" = {default_text(parameter.default)}" if given else "")


def annotation_text(annotation: Any) -> str:
    """An annotation as it is written in the source, without the limits that pydantic keeps in it."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def default_text(default: Any) -> str:
    """A default as it is written; objects that have no short text as `...`."""
    text = repr(default)
    return "..." if text.startswith("<") or " object at 0x" in text else text


def markdown_of(doc: str | None) -> str:
    """A docstring: sections such as `Raises:` become lists, literal blocks after `::` become code."""
    lines, out, section, literal = (doc or "").split("\n"), [], False, False
    for line in lines:
        match = _SECTION.match(line)
        if literal and line and not line.startswith(" "):
            out.append("```\n")
            literal = False
        if match:
            out.append(f"**{match[1]}**\n")
            section = True
        elif line.strip() == "::" or (not section and line.endswith("::")):
            out.append(line.removesuffix("::") + ":" * (line.strip() != "::") + "\n")
            out.append("```text")
            literal = True
        elif section and line.startswith("    ") and not line.startswith("     "):
            term, colon, meaning = line.strip().partition(": ")
            out.append(f"- `{term}`: {meaning}" if colon and " " not in term else f"- {line.strip()}")
        else:
            section = section and (not line or line.startswith(" "))
            out.append(line if literal or not section else line.strip() and f"    {line.strip()}")
    if literal:
        out.append("```")
    return "\n".join(out) + "\n"
