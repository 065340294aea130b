"""Conversion of exceptions from a user's file to one error with file, line and a hint."""

from __future__ import annotations

import os
import re
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.cache_fingerprints import record_access
from airflow_provider_sewer.core.errors import SewerError, WorkflowFileError, with_short_values
from airflow_provider_sewer.core.size_limits import MAX_FILE_BYTES
from airflow_provider_sewer.core.source import EXTERNAL_NAME, SourceLine, is_own_file
from airflow_provider_sewer.core.trusted_files import InvalidRecord, read_regular
from airflow_provider_sewer.loaders.isolated_import import STANDARD_LIBRARY, module_name
from airflow_provider_sewer.loaders.sewerpipe_names import FORMER_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_READ = "cannot read the workflow file"


def read_workflow_file(file: str) -> bytes:
    """Return the content of a workflow file.

    :raises WorkflowFileError: when it cannot be read, is not a regular file or is too large.
    """
    source = SourceLine(with_short_values(file), 0)  # any value may have been passed as the path
    record_access(file)
    try:
        if os.path.isdir(file):
            raise WorkflowFileError("the path is a directory; pass a workflow file", source)
        return read_regular(file, largest=MAX_FILE_BYTES)
    except InvalidRecord as error:
        raise WorkflowFileError(f"{_NOT_READ}: {error}", source) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkflowFileError(f"{_NOT_READ}: {reason}", source) from None


@contextmanager
def as_file_error(file: str, *, called_at: int = 0, if_not_called: str = "") -> Iterator[None]:
    """Convert exceptions from the code of a file to one error with file and line.

    Other exceptions, such as Ctrl-C or a timeout of Airflow, pass through.

    :param called_at: line for the message if no line of the file was reached.
    :param if_not_called: hint for that case.
    """
    try:
        yield
    except SewerError as error:
        if error.where is not None:
            raise
        raise WorkflowFileError(str(error), _line_in(file, error) or SourceLine(file, called_at)) from None
    except SyntaxError as error:
        raise _syntax_error(file, error) from error
    except (Exception, SystemExit) as error:
        line = _line_in(file, error)
        # Without such a line, calling the function failed before its first line.
        is_called = line or not called_at or _innermost(error)
        hint = _hint(file, error) if is_called else f". {if_not_called}"
        raise WorkflowFileError(f"{_described(file, error)}{hint}", line or SourceLine(file, called_at)) from error


def _syntax_error(file: str, error: SyntaxError) -> WorkflowFileError:
    line = _line_in(file, error)
    if not error.filename or not os.path.isfile(error.filename):  # in code that the file compiles itself
        return WorkflowFileError(f"syntax error: {error}", line or SourceLine(file, error.lineno or 0))
    imported = f" (imported at {line})" if line else ""
    return WorkflowFileError(f"syntax error: {error.msg}{imported}", SourceLine(error.filename, error.lineno or 0))


def _described(file: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the file exits the program (exit {error.code!r}) while it is loaded"
    message = "".join(traceback.format_exception_only(type(error), error)).strip().replace(f"{module_name(file)}.", "")
    place = _innermost(error)
    return message if place is None or place.file == file else f"{message} (in {place})"


def _hint(file: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "; move that under if __name__ == '__main__':"
    if isinstance(error, ImportError) and error.name:
        return _import_hint(os.path.dirname(file), error.name.partition(".")[0])
    if _is_missing_variable(error) and _is_external():
        return ". An external interpreter has the environment of the tasks only; pass the variable with --env or env="
    if isinstance(error, TypeError) and re.search(r"for (>>|<<): '(list|tuple)' and '(list|tuple)'", str(error)):
        return ". Python cannot connect two lists; put a task between them, or set depends_on=[…] of the later tasks"
    return ""


def _import_hint(folder: str, top: str) -> str:
    if top in FORMER_NAMES:
        return (
            f". Of {top!r}, only Task and workflow are available, and an installed package of that name is a "
            "different one; write: from airflow_provider_sewer import Task, workflow"
        )
    if top in STANDARD_LIBRARY and os.path.exists(os.path.join(folder, f"{top}.py")):
        return f". {top!r} is a standard library module and takes precedence over your {top}.py; rename yours"
    if _is_external():
        return (
            f". A workflow file can import modules in its folder and packages installed for {sys.executable}; "
            "move imports that only a task needs into its module"
        )
    return (
        ". A workflow file can import modules in its folder and packages installed with airflow-provider-sewer; "
        "move imports that only a task needs into its module. To load the file with another interpreter: "
        "sppe … -i PYTHON --read-with-interpreter, or sewer_task_group(…, read_with_interpreter=True)"
    )


def _is_external() -> bool:
    """Return whether this is an external interpreter (see :mod:`airflow_provider_sewer.loaders.external`)."""
    package = sys.modules[__name__.partition(".")[0]]
    return getattr(package.__spec__, "loader_state", None) == EXTERNAL_NAME


def _is_missing_variable(error: BaseException) -> bool:
    code = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, KeyError) and code[-1] is type(os.environ).__getitem__.__code__


def _line_in(file: str, error: BaseException) -> SourceLine | None:
    """Return the innermost line of the file that led to the error."""
    lines = [place for place in _places(error) if place.file == file]
    return lines[-1] if lines else None


def _innermost(error: BaseException) -> SourceLine | None:
    """Return the innermost line outside this package."""
    places = [place for place in _places(error) if os.path.isfile(place.file) and not is_own_file(place.file)]
    return places[-1] if places else None


def _places(error: BaseException) -> list[SourceLine]:
    return [SourceLine(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
