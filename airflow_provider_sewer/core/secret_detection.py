"""Detection and masking of secrets, for all text that is shown, logged, stored or passed on.

A value is secret if its name looks secret: the name of a variable, a parameter, a command line option or a JSON key.
Inside texts, passwords in URLs and in assignments such as ``password=x`` are secret, and so are known tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from airflow_provider_sewer.core.masking import NO_SECRETS, PLAIN, Secrets, Write, as_mask

_ENDINGS = ("password", "passwd", "passphrase", "passcode", "apikey", "authtoken", "accesstoken")
_WORDS = frozenset({
    "passwords", "pwd", "sshpass", "secret", "secrets", "credential", "credentials", "authorization", "bearer", "jwt",
    "dsn",
})  # fmt: skip
_PAIRS = frozenset({
    "api key", "api keys", "private key", "access key", "secret key", "auth key", "account key", "service key",
    "encryption key", "signing key", "ssh key", "fernet key", "connection string", "webhook url",
})  # fmt: skip
#: Words before "token" and "pass": tokens of a text, and passes over data.
_OF_TEXT = frozenset({
    "pad", "eos", "bos", "unk", "mask", "cls", "sep", "stop", "start", "end", "begin", "special", "image", "next",
    "first", "last", "n", "num", "max", "min", "per", "one", "two", "single", "second", "multi", "low", "high", "band",
    "by",
})  # fmt: skip
#: Words before "KEY" in the name of a variable that is not secret.
_OF_DATA = frozenset({
    "public", "primary", "foreign", "sort", "join", "group", "cache", "partition", "map", "index", "row", "hash",
})  # fmt: skip
#: Last words of names that describe a secret without containing it.
_NOT_ITSELF = frozenset({"file", "path", "dir", "directory", "folder", "name", "type", "length", "count", "limit"})
#: Working directories of a shell.
_OF_SHELLS = frozenset({"PWD", "OLDPWD"})

#: Secret parts of a text, each after the text before it: passwords in URLs, and known tokens.
_SHAPES = re.compile(
    r"""(://[^\s/?\#:@'"]*:)([^\s/?\#'"]+)(?=@)
    | (\b[Bb]earer\s+)([\w.~+/-]{8,}=*)
    | ()(\b(?:gh[opsur]_\w{20,} | github_pat_\w{20,} | glpat-[\w-]{20,} | hf_\w{20,} | sk-[\w-]{20,}
        | xox[abeprs]-[\w-]{10,} | (?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+ )
      | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----(?:.*-----END\ [A-Z ]*PRIVATE\ KEY-----|.*))""",
    re.VERBOSE | re.DOTALL,
)
#: Every text with a secret inside contains one of these; most texts do not.
_SECRET_SIGNS = re.compile(r"[=@{\[]|--|earer|gh[opsur]_|github_pat_|glpat-|hf_|sk-|xox|eyJ")
#: Names of assignments, and of options with a value, inside a text such as a line of shell; and the value.
_NAME = re.compile(r"(?<![\w.$-])(-{0,2}[A-Za-z_][\w.-]*)\s?=\s?|(?<!\S)(--[A-Za-z][\w-]*)\s+(?!--)")
_VALUE = re.compile(r""""[^"]*"|'[^']*'|[^\s"';&|]+""")
#: References to values that are defined elsewhere: in templates, and inside texts for shells.
_TEMPLATE = re.compile(r"\{\{|\{%|%\(|\$\{env:")
_REFERENCE = re.compile(r"\$[\w{(]|`")
_DEFINED_ELSEWHERE = re.compile(f"{_TEMPLATE.pattern}|{_REFERENCE.pattern}")
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


@lru_cache(maxsize=1024)
def looks_secret(key: str) -> bool:
    """Return whether an option or a variable of this name probably holds a secret."""
    if key in _OF_SHELLS:
        return False
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", key)
    words = re.findall(r"[a-z]+", parted.lower())
    if not words or words[-1] in _NOT_ITSELF:
        return False
    before = dict(zip(words[1:], words))
    return (
        any(word.endswith(_ENDINGS) for word in words)
        or not _WORDS.isdisjoint(words)
        or not _PAIRS.isdisjoint(f"{one} {two}" for one, two in zip(words, words[1:]))
        or ("token" in words and before.get("token") not in _OF_TEXT)
        or (words[-1] == "pass" and before.get("pass") not in _OF_TEXT)
        or (words[-1] == "key" and key.isupper() and before.get("key") not in _OF_DATA)
    )


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable is secret as a whole or in part."""
    return _is_secret(name, value) or any(True for _ in secrets_in(value))


def secret_texts(env: Mapping[str, str], data: Any = None) -> dict[str, str]:
    """Return the secrets among the values of a task, each with the name of a variable that could hold it.

    :param env: environment variables.
    :param data: lists and mappings, however deep; a list of texts is read like a command line.
    """
    found: dict[str, str] = {}
    for name, value in env.items():
        for _, secret in [("", value)] if _is_secret(name, value) else secrets_in(value):
            found.setdefault(secret, name)
    for name, secret in _secrets_in_data(data):
        found.setdefault(secret, name)
    return found


def secret_arguments(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the secrets among the arguments of a workflow, each with the name of a variable that could hold it.

    Tasks can use these under any name. A number of a secret name counts as its text.
    """
    found: dict[str, str] = {}
    for name, value in arguments.items():
        texts = list(_texts(value, has_numbers=True)) if looks_secret(name) else []
        for text in texts:
            if not _is_plain(text):
                found.setdefault(text, variable_name(name))
        for inner, text in _secrets_in_data(value):
            found.setdefault(text, inner or variable_name(name))
    return found


def secret_templates(arguments: Any) -> Iterator[str]:
    """Yield the templates among the arguments of a workflow whose rendered values are secret, by their names."""
    for key, value in arguments.items() if isinstance(arguments, Mapping) else ():
        if looks_secret(str(key)):
            yield from (text for text in _texts(value) if _TEMPLATE.search(text))
        else:
            yield from secret_templates(value)


def contains_text(data: Any, text: str) -> bool:
    """Return whether a text occurs in one of the texts in data, however deep."""
    return any(text in each for each in _texts(data))


def secrets_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield the secrets inside a text, each with its name, which may be empty."""
    if not _SECRET_SIGNS.search(text):
        return
    if (data := _json(text)) is not None:
        with suppress(RecursionError):  # deeper than any data that can be read
            yield from _secrets_in_data(data)
        return
    yield from ((name, text[start:end]) for start, end, name in _spans(text))


def masked_text(text: str, write: Write = as_mask) -> str:
    """Return text with the secrets inside it masked."""
    if not _SECRET_SIGNS.search(text):
        return text
    if (data := _json(text)) is not None:
        try:
            masked = masked_data(data, write)
            return text if masked == data else json.dumps(masked, ensure_ascii=False)
        except RecursionError:
            return write("")
    parts, at = [], 0
    for start, end, name in _spans(text):
        if start >= at:
            parts += [text[at:start], write(name)]
            at = end
    return "".join([*parts, text[at:]])


def masked_words(words: Iterable[str], secrets: Secrets, write: Write = as_mask) -> list[str]:
    """Return the words of a command line with its secrets masked.

    It masks the values of options with secret names, in the forms ``--password x``, ``--password=x`` or
    ``db.password=x``; secrets inside other words; and known secrets anywhere.
    """
    words = list(words)
    if not secrets and not any(
        _SECRET_SIGNS.search(word.lstrip("-")) or (word[:1] == "-" and looks_secret(word)) for word in words
    ):
        return words
    return [
        word.before + write(word.name)
        if word.name
        else masked_text(secrets.mask(word.value, write), lambda name: write(name or word.secret_of_option))  # noqa: B023
        for word in _read(words)
    ]


def masked_env(env: Mapping[str, str], write: Write = as_mask, others: Mapping[str, str] = _NO_NAMES) -> dict[str, str]:
    """Return environment variables with secrets masked, also where the value of one variable occurs in another.

    :param others: further secrets, each with its name.
    """
    secrets = Secrets({**others, **secret_texts(env)})
    return {name: write(name) if is_secret(name, value) else secrets.mask(value, write) for name, value in env.items()}


def masked_data(value: Any, write: Write = as_mask, secrets: Secrets = NO_SECRETS) -> Any:
    """Return data with secrets masked, however deep, also known secrets in any text."""
    if isinstance(value, Mapping):
        return {
            key: _masked(item, write(variable_name(str(key))))
            if looks_secret(str(key))
            else masked_data(item, write, secrets)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        words = iter(masked_words([item for item in value if type(item) is str], secrets, write))
        return [next(words) if type(item) is str else masked_data(item, write, secrets) for item in value]
    if type(value) is str:
        return masked_text(secrets.mask(value, write), write)
    return secrets.mask(str(value), write) if secrets and str(value) in secrets.forms else value


def variable_name(option: str) -> str:
    """Return the name of an environment variable for the value of an option or a parameter."""
    return re.sub(r"\W+", "_", option.strip("-")).upper()


def as_variable(name: str) -> str:
    """Write a secret as VS Code refers to an environment variable."""
    return f"${{env:{name or 'SECRET'}}}"


def exposed(parameters: Any, args: Any, kwargs: Any, slurm: Any, secrets: Secrets = NO_SECRETS) -> Iterator[str]:
    """Return a description of each secret in arguments and lines of shell, with advice; the values are not shown.

    :param parameters: parameters of a module.
    :param args: verbatim arguments.
    :param kwargs: keyword arguments of a function.
    :param slurm: parameters of a Slurm job, with its lines of shell.
    :param secrets: values that are secret under any name.
    """
    for label, given, reason in (("parameter", parameters, _ON_COMMAND_LINES), ("argument", kwargs, _IN_FILES)):
        for key, value in given.items() if isinstance(given, Mapping) else ():
            if not secrets and (
                type(value) in _PLAIN_TYPES
                or (type(value) is str and not looks_secret(str(key)) and not _SECRET_SIGNS.search(value))
            ):
                continue
            for name in islice(_names_of_secrets({key: value}, secrets), 1):
                yield _advice(f"{label} {key!r}", reason, name or variable_name(str(key)))
    for name in islice(_names_of_secrets(args, secrets), 1):
        yield _advice("a value in args", _ON_COMMAND_LINES, name)
    for field in ("setup", "teardown") if isinstance(slurm, Mapping) else ():
        lines = slurm.get(field) or ()
        for number, line in enumerate([lines] if isinstance(lines, str) else lines, 1):
            for name in islice(_names_of_secrets(line, secrets), 1):
                yield _advice(f"line {number} of {field}", _IN_SCRIPTS, name)


_PLAIN_TYPES = frozenset({bool, int, float, type(None)})
_ON_COMMAND_LINES = "other users can read command lines"
_IN_FILES = "arguments are stored in files and in Airflow's database"
_IN_SCRIPTS = "Slurm and its administrators keep job scripts"


def _names_of_secrets(data: Any, secrets: Secrets) -> Iterator[str]:
    """Yield the name of each secret in data, which may be empty."""
    yield from (name for name, _ in _secrets_in_data(data))
    for text in _texts(data, has_numbers=True) if secrets else ():
        yield from secrets.names_in(text)


def _advice(where: str, reason: str, name: str) -> str:
    name = name or "SECRET"
    return (
        f"{where} looks like a secret, and {reason}. Pass it in the environment, as env={{{name!r}: …}} or in "
        f"secret_env of the connection, and read ${name} where it is needed"
    )


class _Word(NamedTuple):
    """Word of a command line.

    :param before: the part that is always shown.
    :param value: the rest.
    :param name: the name of a variable, if the rest is secret.
    :param option: the preceding option.
    """

    before: str
    value: str
    name: str = ""
    option: str = ""

    @property
    def secret_of_option(self) -> str:
        """Return the name of a variable for a secret inside the rest."""
        return f"{variable_name(self.option)}_SECRET" if self.option else ""


def _read(words: Iterable[str]) -> Iterator[_Word]:
    name = option = ""
    for word in words:
        if name and not word.startswith("--"):
            yield _Word("", word, "" if _is_plain(word) else name)
            name = option = ""
            continue
        before = option if option.startswith("-") else ""
        option, equals, value = word.partition("=")
        can_name = (equals or word.startswith("-")) and " " not in option and looks_secret(option)
        name = variable_name(option) if can_name else ""
        is_whole = name and equals and not _is_plain(value)
        yield _Word(f"{option}=", value, name) if is_whole else _Word("", word, option=option if equals else before)
        if equals:
            name = ""


def _secrets_in_data(data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, Mapping):
        for key, item in data.items():
            if looks_secret(str(key)):
                yield from ((variable_name(str(key)), text) for text in _texts(item) if not _is_plain(text))
            else:
                yield from _secrets_in_data(item)
    elif isinstance(data, (list, tuple)):
        for word in _read(item for item in data if type(item) is str):
            yield from [(word.name, word.value)] if word.name else secrets_in(word.value)
        for item in data:
            if type(item) is not str:
                yield from _secrets_in_data(item)
    elif type(data) is str:
        yield from secrets_in(data)


def _texts(value: Any, *, has_numbers: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, has_numbers=has_numbers)
    elif isinstance(value, str):
        yield str.__str__(value)
    elif has_numbers and type(value) in (int, float):
        yield str(value)


def _masked(value: Any, written: str) -> Any:
    if value is None or isinstance(value, bool) or (isinstance(value, str) and _is_plain(value)):
        return value
    return [written for _ in value] if isinstance(value, (list, tuple)) else written


def _is_secret(name: str, value: str) -> bool:
    return looks_secret(name) and not _is_plain(value)


def _is_plain(value: str) -> bool:
    return value.strip().lower() in PLAIN or bool(_TEMPLATE.match(value))


def _json(text: str) -> Any:
    """Return the JSON object or list in a text, or ``None``."""
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _spans(text: str) -> list[tuple[int, int, str]]:
    """Return the positions of secrets in a text, in order: start, end and name, which may be empty."""
    spans = []
    for found in _SHAPES.finditer(text):
        group = next(group for group in (2, 4, 6) if found[group])
        spans.append((*found.span(group), ""))
    if "=" in text or "--" in text:
        at = 0
        for found in _NAME.finditer(text):
            name, begin = found[1] or found[2], found.end()
            quotes = int(text[begin : begin + 1] in ('"', "'"))
            # A name in an unquoted value is part of that value: time and memory would grow quadratically.
            if found.start() < at or not looks_secret(name) or _DEFINED_ELSEWHERE.match(text, begin + quotes):
                continue
            if value := _VALUE.match(text, begin):
                spans.append((begin + quotes, value.end() - quotes, variable_name(name)))
                at = at if quotes else value.end()
    values = (text[start:end] for start, end, _ in spans)
    return sorted(span for span, value in zip(spans, values) if not _is_plain(value) and not _REFERENCE.match(value))
