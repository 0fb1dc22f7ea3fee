"""YAML text to validated documents, with every mistake at its line and column and what to write instead.

The text is read as the YAML 1.2 core schema (yaml.org/spec/1.2.2 §10.3), as editors with a schema do: `NO`, `on` and
2023-10-30 are plain text here, not a truth value and a date as in YAML 1.1. Values are text, whole or decimal numbers,
`true`, `false`, nothing, lists and keys; aliases, tags and several documents in one file are refused, so that what a
reviewer sees on a line is all there is.

Two passes. The first builds plain values out of the parser's events. Only when a model refuses them does the second go
through the same events and note where things stand, so that a good file costs no bookkeeping.
"""

import difflib
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, core_schema

KeyPath = tuple[str | int, ...]
"""The way to a value from the top of a document: keys, and positions in lists (from 0)."""

MAX_DEPTH = 16  # The deepest document kind needs 5; the rest of the room is for mistakes worth a better message.

# libyaml's parser where PyYAML was built with it: some ten times faster, same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML 1.2.2 §5.1 [1] c-printable, turned round; surrogates cannot be written in UTF-8 at all.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]{1,3})?")
_MAY_BE_OTHER_THAN_TEXT = frozenset("~nNtTfF-+.0123456789")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in one file. `line` and `column` count from 1; `column` counts characters."""

    source: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}: {self.message}"


class PolicyError(Exception):
    """Documents cannot be used; `problems` holds every mistake found, `str` gives one a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Document(BaseModel):
    """A mapping in a YAML file: frozen, and without keys that nobody reads.

    What reads a kind of document is made when the first of that kind is read: a start that compiles nothing reads only
    the configuration.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=False,
        arbitrary_types_allowed=True,
        ser_json_bytes="base64",
        defer_build=True,
    )

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        """Mistakes that show only when several places of the document are compared, each with its place.

        `written` is what the file says, before any validation, so that these come in one go with all the others.
        """
        yield from ()


M = TypeVar("M", bound=Document)


@dataclass(frozen=True, slots=True)
class Written:
    """Annotates a field's type with how the value is written: a parser, and a JSON Schema for editors.

    `parse` gets what the file says (text, number, truth value, None, list or dict) and raises ValueError with a
    sentence that says what to write instead.
    """

    parse: Callable[[object], object]
    schema: Mapping[str, object] = field(hash=False)

    def __get_pydantic_core_schema__(self, source_type: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        return dict(self.schema)


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """A document with the text it was read from, for mistakes that only show beside other files."""

    document: M
    source: str
    text: str

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A problem at a value of the document; at the nearest value around it where there is none."""
        return _at(_places(self.text), self.source, path, message)


def read(text: str | bytes, source: str, model: type[M]) -> M:
    """Read one document.

    Args:
        source: What to call the text in messages, usually the file's path.

    Raises:
        PolicyError: With every problem, in the order of the text.
    """
    problems: list[Problem] = []
    page = read_page(text, source, model, problems)
    if page is None:
        raise PolicyError(problems)
    return page.document


def read_page(text: str | bytes, source: str, model: type[M], problems: list[Problem]) -> Page[M] | None:
    """Read one document of several; mistakes are added to `problems`, and there is no page when there are any."""
    found: list[Problem] = []
    decoded = _decode(text, source, found)
    if decoded is not None:
        builder = _Builder(source, found)
        builder.build(decoded)
        if not builder.broken:
            document = _validate(builder.root, decoded, source, model, found)
            if document is not None and not found:
                return Page(document, source, decoded)
    problems += sorted(set(found))
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them, or nothing."""
    choices = list(known)
    if near := difflib.get_close_matches(word, choices, n=1):
        return f'; did you mean "{near[0]}"?'
    return f"; write one of: {', '.join(sorted(choices))}" if choices else ""


def items(written: object, key: str) -> list[object]:
    """The list under a key of an unvalidated mapping; empty where there is no such thing."""
    found = written.get(key) if isinstance(written, dict) else None
    return found if isinstance(found, list) else []


def value(written: object, *keys: str) -> object:
    """What stands under keys of nested unvalidated mappings; None where nothing does."""
    for key in keys:
        written = written.get(key) if isinstance(written, dict) else None
    return written


def shown(found: object) -> str:
    """An unvalidated value for a message: short, and without characters that act on a terminal."""
    if isinstance(found, bool):
        return str(found).lower()
    if found is None:
        return "empty"
    if isinstance(found, str):
        text = found if len(found) <= 60 else found[:57] + "..."
        return f'"{text}"' if text.isprintable() else f'"{text.encode("unicode_escape").decode()}"'
    if isinstance(found, list | tuple):
        return "a list"
    return "keys and values" if isinstance(found, dict) else str(found)


# ---- text to plain values -------------------------------------------------------------------------------------------


def _decode(text: str | bytes, source: str, problems: list[Problem]) -> str | None:
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            octets: bytes = error.object
            before = octets[: error.start].decode("utf-8")
            message = f"octet 0x{octets[error.start]:02x} is not UTF-8; save the file as UTF-8"
            problems.append(_after(before, source, message))
            return None
    text = text.removeprefix("\ufeff")
    if (bad := _UNPRINTABLE.search(text)) is not None:
        message = f"the character U+{ord(bad.group()):04X} has no place in YAML; delete it, or save the file as UTF-8"
        problems.append(_after(text[: bad.start()], source, message))
        return None
    return text


def _after(before: str, source: str, message: str) -> Problem:
    line = before.count("\n") + 1
    return Problem(source, line, len(before) - (before.rfind("\n") + 1) + 1, message)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value and the key before it begin, both (line, column) from 1."""

    key: tuple[int, int]
    value: tuple[int, int]


class _Frame:
    """A mapping or list that is being filled. `path` is None below something that is left out."""

    __slots__ = ("container", "key", "key_lines", "key_mark", "path")

    def __init__(self, container: dict[str, object] | list[object], path: KeyPath | None) -> None:
        self.container = container
        self.path = path
        self.key: str | None = None
        self.key_mark: tuple[int, int] | None = None
        self.key_lines: dict[str, int] = {}


class _Builder:
    """Builds plain values from the parser's events, with an own stack: depth is the text's choice, not Python's."""

    def __init__(self, source: str, problems: list[Problem], places: dict[KeyPath, _Place] | None = None) -> None:
        self.source = source
        self.problems = problems
        self.places = places
        self.root: object = None
        self.broken = False
        self.stack: list[_Frame] = []

    def build(self, text: str) -> None:
        documents = 0
        mark = None
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                mark = _mark(event.start_mark)
                if isinstance(event, yaml.ScalarEvent):
                    self._scalar(event, mark)
                elif isinstance(event, yaml.MappingStartEvent):
                    self._open({}, event, mark)
                elif isinstance(event, yaml.SequenceStartEvent):
                    self._open([], event, mark)
                elif isinstance(event, yaml.CollectionEndEvent):
                    self.stack.pop()
                elif isinstance(event, yaml.AliasEvent):
                    self._problem(mark, f"aliases are not read; write out what stands at &{event.anchor}")
                    self._put(_LEFT_OUT, mark)
                elif isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._stop(mark, "a second document begins; write one document a file, without this line")
                if self.broken:
                    return
        except yaml.MarkedYAMLError as error:
            self._stop(_mark(error.problem_mark or error.context_mark), _syntax(error))
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # PyYAML's own scanner lets chr() raise on an escape over U+10FFFF.
            self._stop(mark or (1, 1), f"this is not YAML ({error}); check quotes and escapes near here")

    def _scalar(self, event: yaml.ScalarEvent, mark: tuple[int, int]) -> None:
        text: str = event.value
        frame = self.stack[-1] if self.stack else None
        if event.tag is not None:
            self._problem(mark, f"tags are not read; delete {event.tag}")
        if event.style == '"' and (bad := _UNPRINTABLE.search(text)) is not None:
            self._problem(mark, f"the text holds the character U+{ord(bad.group()):04X}; delete its escape")
            self._put(_LEFT_OUT, mark)
        elif frame is not None and isinstance(frame.container, dict) and frame.key is None:
            self._key(frame, text, mark)
        else:
            self._put(text if event.style else _plain(text), mark)

    def _key(self, frame: _Frame, text: str, mark: tuple[int, int]) -> None:
        frame.key = text
        frame.key_mark = mark
        if (first := frame.key_lines.setdefault(text, mark[0])) != mark[0] or text in frame.container:
            self._problem(mark, f"{shown(text)} is written twice, first on line {first}; keep one of them")
            frame.key_mark = None

    def _open(
        self, container: dict[str, object] | list[object], event: yaml.CollectionStartEvent, mark: tuple[int, int]
    ) -> None:
        if event.tag is not None:
            self._problem(mark, f"tags are not read; delete {event.tag}")
        if len(self.stack) == MAX_DEPTH:
            self._stop(
                mark, f"nested more than {MAX_DEPTH} deep; no document needs that, check brackets and indentation"
            )
            return
        self.stack.append(_Frame(container, self._put(container, mark)))

    def _put(self, value: object, mark: tuple[int, int]) -> KeyPath | None:
        """Put a value where it belongs and return its path; None when it is left out."""
        if not self.stack:
            self.root = value
            return self._note((), mark, mark)
        frame = self.stack[-1]
        if isinstance(frame.container, list):
            frame.container.append(value)
            return self._note(_below(frame.path, len(frame.container) - 1), mark, mark)
        if frame.key is None:
            self._problem(mark, 'a key is plain text; write "key: value", and quote text that begins with [ or {')
            frame.key = ""
            frame.key_mark = None
            return None
        key, key_mark = frame.key, frame.key_mark
        frame.key = None
        if key_mark is None:
            return None
        frame.container[key] = value
        return self._note(_below(frame.path, key), key_mark, mark)

    def _note(self, path: KeyPath | None, key: tuple[int, int], value: tuple[int, int]) -> KeyPath | None:
        if self.places is not None and path is not None:
            self.places[path] = _Place(key, value)
        return path

    def _problem(self, mark: tuple[int, int], message: str) -> None:
        self.problems.append(Problem(self.source, *mark, message))

    def _stop(self, mark: tuple[int, int], message: str) -> None:
        self._problem(mark, message)
        self.broken = True


_LEFT_OUT = object()  # Stands where a refused value stood: one problem is enough for it.


def _below(path: KeyPath | None, step: str | int) -> KeyPath | None:
    return None if path is None else (*path, step)


def _mark(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _plain(text: str) -> object:
    """What an unquoted scalar means in the YAML 1.2 core schema; octal and hexadecimal stay text."""
    if text[:1] and text[0] not in _MAY_BE_OTHER_THAN_TEXT:
        return text
    if text in _NULL:
        return None
    if (truth := _BOOLEAN.get(text)) is not None:
        return truth
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


_SYNTAX = (
    (
        "mapping values are not allowed",
        'there is a ": " inside a value, or the indentation is off; put the value in quotes',
    ),
    ("tab character", "indent with spaces, not tabs"),
    ("cannot start any token", "indent with spaces, not tabs, and quote text that begins with @, `, % or a tab"),
    ("did not find expected key", "the indentation does not line up with the lines above, or a quote is not closed"),
    ("did not find expected ',' or", "a [ or { is not closed, or a comma is missing"),
    ("did not find expected '-'", "a list item begins with '- '; indent keys of the item below it"),
    ("undefined tag handle", "quote text that begins with !"),
    ("could not find expected ':'", 'write a key as "key: value", with a space after the colon'),
    ("escape", r"use single quotes for text with a backslash, or write \\"),
    ("unexpected end of stream", "a quote is not closed"),
)


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "unreadable"
    mend = next((mend for part, mend in _SYNTAX if part in problem), "check quotes, brackets and indentation near here")
    return f"this is not YAML ({problem}); {mend}"


# ---- plain values to a model ----------------------------------------------------------------------------------------


def _validate(root: object, text: str, source: str, model: type[M], problems: list[Problem]) -> M | None:
    required = [key for key, described in model.model_fields.items() if described.is_required()]
    if root is None:
        if required:
            problems.append(Problem(source, 1, 1, f"the file is empty; write {', '.join(required)}"))
            return None
        root = {}
    if not isinstance(root, dict):
        places = _places(text)
        if not problems:
            problems.append(
                _at(
                    places,
                    source,
                    (),
                    f'this is {shown(root)}; write keys, such as "{next(iter(model.model_fields))}: ..."',
                )
            )
        return None
    mistakes: list[tuple[KeyPath, str]] = list(model.cross_check(root))
    document = None
    try:
        document = model.model_validate(root)
    except ValidationError as error:
        mistakes += [_explained(model, detail) for detail in error.errors(include_url=False)]
    if mistakes:
        places = _places(text)
        problems += [_at(places, source, path, message) for path, message in mistakes if message]
    return document


def _places(text: str) -> dict[KeyPath, _Place]:
    places: dict[KeyPath, _Place] = {}
    _Builder("", [], places).build(text)
    return places


def _at(places: Mapping[KeyPath, _Place], source: str, path: KeyPath, message: str) -> Problem:
    mark = (1, 1)
    for end in range(len(path), -1, -1):
        if (place := places.get(path[:end])) is not None:
            # A key that should not be there is found at the key; the rest of a mistake is found at the value.
            mark = place.key if end == len(path) and message.startswith(_UNKNOWN_KEY) else place.value
            break
    return Problem(source, *mark, message)


_UNKNOWN_KEY = "unknown key "


def _explained(model: type[BaseModel], error: ErrorDetails) -> tuple[KeyPath, str]:
    """A place and a plain sentence for one of pydantic's errors; an empty sentence where one was already said."""
    path: KeyPath = error["loc"]
    kind = error["type"]
    found = error["input"]
    if found is _LEFT_OUT:
        return path, ""
    annotation, described = _field(model, path)
    example = _flow(described.examples[0]) if described is not None and described.examples else ""
    if kind == "missing":
        return path[:-1], f'"{path[-1]}" is missing; write for example {path[-1]}: {example or "..."}'
    if kind == "extra_forbidden":
        owner, _ = _field(model, path[:-1])
        return path, f"{_UNKNOWN_KEY}{shown(path[-1])}{did_you_mean(str(path[-1]), _keys(_bare(owner)))}"
    if kind == "too_short" and found:
        return path, ""  # It has members; what is wrong with each is told there.
    if found is None:
        mend = f"write for example {example}" if example else "write a value"
        return path, f"this is empty; {mend}, or delete the line"
    if kind == "value_error" and (raised := error.get("ctx", {}).get("error")) is not None:
        return path, str(raised)
    return path, _wrong(kind, found, annotation, error.get("ctx", {}), f", for example {example}" if example else "")


def _wrong(kind: str, found: object, annotation: object, limits: Mapping[str, Any], example: str) -> str:
    wanted = _bare(annotation)
    if kind == "enum" and isinstance(wanted, type) and issubclass(wanted, Enum):
        choices = [str(member.value) for member in wanted]
        if not isinstance(found, str):
            return f"this is {shown(found)}; write one of: {', '.join(choices)}"
        return f"{shown(found)} is unknown here{did_you_mean(found, choices)}"
    if kind == "string_type":
        if isinstance(found, bool | int | float):
            return f'{shown(found)} is not text; write "{shown(found)}" in quotes'
        return f"this is {shown(found)}; write text{example}"
    if kind in ("string_too_short", "too_short"):
        return f"this is empty; write {'text' if kind[0] == 's' else 'at least one'}{example}"
    if kind == "string_too_long":
        return f"this text has {len(str(found))} characters; write at most {limits['max_length']}"
    if kind in ("int_type", "int_from_float"):
        return f"{shown(found)} is not a whole number; write digits without quotes{example}"
    if kind in ("greater_than_equal", "less_than_equal"):
        at_least = "ge" in limits
        bound = f"small; write at least {limits['ge']}" if at_least else f"large; write at most {limits['le']}"
        return f"{shown(found)} is too {bound}"
    if kind == "bool_type":
        return f"{shown(found)} is neither true nor false; write true or false, without quotes"
    if kind in ("tuple_type", "list_type"):
        return f"this is {shown(found)}; write a list{example or ', such as [a, b]'}"
    if kind in ("mapping_type", "dict_type", "model_type", "model_attributes_type"):
        keys = _keys(wanted)
        return f"this is {shown(found)}; write keys and values{', such as ' + keys[0] + ': ...' if keys else ''}"
    return f"{shown(found)} cannot be used here ({kind.replace('_', ' ')}){example and '; write' + example[1:]}"


def _field(model: type[BaseModel], path: KeyPath) -> tuple[object, FieldInfo | None]:
    """The type at a path of a model, and the field it belongs to; (None, None) where the model knows no such place."""
    here: object = model
    found = None
    for step in path:
        here = _bare(here)
        if isinstance(here, type) and issubclass(here, BaseModel):
            found = here.model_fields.get(str(step))
            here = found.annotation if found is not None else None
        else:
            arguments = get_args(here)
            here = arguments[-1 if isinstance(step, str) else 0] if arguments else None
    return here, found


def _bare(annotation: object) -> object:
    """An annotation without Annotated[...] and `| None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(a for a in get_args(annotation) if a is not types.NoneType)
        else:
            return annotation


def _keys(wanted: object) -> list[str]:
    return list(wanted.model_fields) if isinstance(wanted, type) and issubclass(wanted, BaseModel) else []


def _flow(example: object) -> str:
    """An example on one line, as a person would write it in YAML."""
    if isinstance(example, list):
        return f"[{', '.join(map(_flow, example))}]"
    if isinstance(example, dict):
        return f"{{{', '.join(f'{key}: {_flow(entry)}' for key, entry in example.items())}}}"
    text = "null" if example is None else str(example).lower() if isinstance(example, bool) else str(example)
    return text if re.fullmatch(r"[\w/][\w ./:+-]*", text) and ": " not in text else f'"{text}"'
