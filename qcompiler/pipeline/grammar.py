"""The grammar of pipeline text.

    pipeline = item ("," item)*
    item     = name [ "{" (option "=" value)* "}" ]
    value    = word | word ("," word)+ | word "," | "()"

A word is bare or ``"quoted"``. A value followed by a comma is a tuple.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from qcompiler.errors import PipelineError
from qcompiler.pipeline.options import Plain, plain_of_text, text_of_plain

__all__ = ["item_text", "parse_items"]

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\(\)|[{}=,]|[^\s{}=,"()]+)', re.DOTALL)


def item_text(name: str, options: Mapping[str, Plain]) -> str:
    """One pass with its options as text."""
    inner = " ".join(f"{key}={text_of_plain(value)}" for key, value in options.items())
    return f"{name}{{{inner}}}" if inner else name


def parse_items(text: str) -> list[tuple[str, dict[str, Plain]]]:
    """Names and options of a pipeline text.

    Raises:
        PipelineError: The text is malformed.
    """
    tokens = _tokens(text)
    items: list[tuple[str, dict[str, Plain]]] = []
    while tokens:
        name = tokens.pop(0)
        if name in ("{", "}", "=", ","):
            raise _malformed(text, f"'{name}' stands where a pass name belongs")
        options: dict[str, Plain] = {}
        if tokens and tokens[0] == "{":
            tokens.pop(0)
            options = _parse_options(tokens, text)
        items.append((name, options))
        if tokens and tokens.pop(0) != ",":
            raise _malformed(text, f"a comma is missing after '{name}'")
        if not tokens and text.rstrip().endswith(","):
            raise _malformed(text, "it ends with a comma")
    if not items:
        raise PipelineError("the pipeline is empty", where="pipeline")
    return items


def _parse_options(tokens: list[str], text: str) -> dict[str, Plain]:
    """Options up to the closing brace, which is taken too."""
    options: dict[str, Plain] = {}
    while tokens and tokens[0] != "}":
        key = tokens.pop(0)
        if len(tokens) < 2 or tokens.pop(0) != "=" or key in options:
            raise _malformed(text, f"'{key}' is not of the form option=value, or is given twice")
        options[key] = _parse_value(tokens, text)
    if not tokens:
        raise _malformed(text, "a closing brace is missing")
    tokens.pop(0)
    return options


def _parse_value(tokens: list[str], text: str) -> Plain:
    """One value: a word, or words joined by commas (one word and a comma is a tuple of one)."""
    if tokens[0] == "()":
        tokens.pop(0)
        return []
    values = []
    while True:
        word = tokens.pop(0) if tokens else ""
        if word in ("", "{", "}", "=", ",", "()"):
            raise _malformed(text, f"'{word}' stands where a value belongs")
        try:
            values.append(plain_of_text(word))
        except ValueError:
            raise _malformed(text, f"{word} is not a string") from None
        if not tokens or tokens[0] != ",":
            return values[0] if len(values) == 1 else list(values)
        tokens.pop(0)
        if not tokens or tokens[0] == "}" or tokens[1:2] == ["="]:
            return list(values)


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _malformed(text, f"'{text[position:position + 12]}' cannot be read")
        tokens.append(match[1])
        position = match.end()
    return tokens


def _malformed(text: str, reason: str) -> PipelineError:
    return PipelineError(
        f"the pipeline '{text}' is malformed: {reason}", where="pipeline",
        hint="write e.g. fold-batch-norm,calibrate{method=mse bins=2048},place-qdq",
    )
