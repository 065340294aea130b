"""Result of a module that has succeeded: the value in its result file, or its last line of stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_sewer.core.environment import RESULT_FILE
from airflow_provider_sewer.core.errors import FileSystemRefused, ModuleFailed
from airflow_provider_sewer.core.size_limits import DEEPEST_RESULT
from airflow_provider_sewer.core.trusted_files import InvalidRecord, parse_json, read_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LARGEST_RESULT = 16 * 1024 * 1024


def read_result(result_file: str, last_line: Callable[[], str | None]) -> Any:
    """Return the result of a module that succeeded: the value in its result file, else its last line of stdout.

    :raises ModuleFailed: when the file cannot be read as JSON, or a text in the result cannot be stored.
    :raises FileSystemRefused: when the file system does not allow reading it now.
    """
    try:
        value = result_as_json(read_own(result_file, largest=_LARGEST_RESULT, is_private=False).decode("utf-8"))
    except FileNotFoundError:
        value = last_line()
    except (InvalidRecord, ValueError) as error:
        raise ModuleFailed(
            f"the module exited with 0, but its result in ${RESULT_FILE} cannot be read: {error}", exit_code=0
        ) from None
    except OSError as error:
        raise FileSystemRefused(f"its result cannot be read: {result_file}: {error.strerror}") from None
    if problem := next(_invalid_texts(value, ()), None):
        raise ModuleFailed(f"the module exited with 0, but its result cannot be stored: {problem}", exit_code=0)
    return value


def _invalid_texts(value: Any, keys: tuple[Any, ...]) -> Iterator[str]:
    """Yield a description of each text in a result that files and databases cannot store.

    :param keys: the keys that lead to the value.
    """
    if isinstance(value, str) and (reason := _invalid_part(value)):
        yield f"{_location(keys)} {reason}"
    for key, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        if isinstance(key, str) and (reason := _invalid_part(key)):
            yield f"a key of {_location(keys)} {reason}"
        yield from _invalid_texts(item, (*keys, key))


def _invalid_part(text: str) -> str | None:
    if "\0" in text:
        return "contains a NUL character, which PostgreSQL cannot store; remove it"
    is_unicode = text.isascii() or text == text.encode("utf-8", "ignore").decode()
    return None if is_unicode else "is not valid Unicode; encode it, such as in base64"


def _location(keys: tuple[Any, ...]) -> str:
    return "result" + "".join(f"[{key!r:.80}]" for key in keys)


def reject_missing_result(function: str) -> NoReturn:
    """Reject exit code 0 without a result file: a function that returns always writes one.

    :raises ModuleFailed: always.
    """
    raise ModuleFailed(
        f"{function} ended its process with exit code 0 and did not return; let it return, or raise", exit_code=0
    )


def result_as_json(text: str) -> Any:
    """Parse standard JSON, without NaN and Infinity, which databases reject.

    :raises ValueError: when it is not valid JSON.
    """
    return parse_json(text, deepest=DEEPEST_RESULT)
