"""Every file that cannot be read, or run to its end, is one clear error, with file and line."""

from __future__ import annotations

import re

import pytest

from airflow_provider_sewer import SewerError, load_workflow
from airflow_provider_sewer.core.errors import WorkflowFileError

from .file_cases import fails


def test_load_workflow_rejects_missing_file(tmp_path):
    """The reason is the operating system's."""
    fails(tmp_path / "none.py", "{f}: cannot read the workflow file: No such file or directory")


def test_load_workflow_rejects_path_below_file(write):
    """A path that leads through a file leads nowhere."""
    fails(write("") / "flow.py", "{f}: cannot read the workflow file: Not a directory")


def test_load_workflow_rejects_unreadable_file(tmp_path):
    """A link to itself, which not even root can read."""
    path = tmp_path / "flow.py"
    path.symlink_to(path)

    fails(path, "{f}: cannot read the workflow file: Too many levels of symbolic links")


def test_load_workflow_rejects_path_with_nul_byte(tmp_path):
    """No file can have such a name."""
    fails(tmp_path / "a\0b.py", "{f}: cannot read the workflow file: embedded null byte")


def test_load_workflow_rejects_path_that_cannot_be_encoded(tmp_path):
    """A lone surrogate stands for no byte."""
    with pytest.raises(WorkflowFileError, match=r"cannot read the workflow file: .*surrogates not allowed"):
        load_workflow(tmp_path / "\ud800.py")


def test_load_workflow_rejects_directory(tmp_path):
    """The message includes the fix."""
    fails(tmp_path, "{f}: the path is a directory; pass a workflow file")


@pytest.mark.parametrize("content", [b"\x7fELF\0\0", b"\0", "Task".encode("utf-16")], ids=["ELF", "NUL", "UTF-16"])
def test_load_workflow_rejects_binary_file(write, content):
    """No Python source holds a NUL byte."""
    fails(write(content), "{f}: the file is not valid UTF-8, so it is not a workflow file")


def test_load_workflow_rejects_other_encoding(write):
    """The line is the one Python cannot read."""
    message = "{f}:2: syntax error: "
    with pytest.raises(WorkflowFileError) as caught:
        load_workflow(write(b"# fine\nname = '\xfc'\n"))

    assert message.replace("{f}", str(caught.value.where.file)) in str(caught.value)
    assert "utf-8" in str(caught.value)


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "Task\n"])
def test_load_workflow_rejects_file_without_task(write, content):
    """Empty, only comments, or imports that are not used."""
    fails(write(content), "{f}: the file defines no task; add at least one Task(name, module)")


def test_syntax_error_has_file_and_line(write):
    """And Python's own words."""
    fails(write("a = 1\nb = = 2\n"), "{f}:3: syntax error: invalid syntax")


def test_while_in_comprehension_is_syntax_error(write):
    """For any mistake; Python's suggestion is part of the message."""
    path = write("[a while a in b]")

    with pytest.raises(WorkflowFileError, match=rf"^{re.escape(str(path))}:2: syntax error: invalid syntax"):
        load_workflow(path)


def test_wrong_indentation_is_syntax_error(write):
    """Python has classes of their own for it."""
    fails(write("a = 1\n  b = 2\n", imports=""), "{f}:2: syntax error: unexpected indent")


def test_syntax_error_in_helper_names_both_files(write):
    """First the line to mend, then the one that led there."""
    helper = write("a =\n", "helper.py", imports="")
    path = write("\nimport helper")

    with pytest.raises(WorkflowFileError) as caught:
        load_workflow(path)

    assert str(caught.value) == f"{helper}:1: syntax error: invalid syntax (imported at {path}:2)"


def test_syntax_error_in_compiled_text_has_line_of_file(write):
    """``<string>`` is not a file that users could open."""
    fails(write("eval('1 +')"), "{f}:2: syntax error: invalid syntax (<string>, line 1)")


NOT_HERE = (
    ". A workflow file can import modules in its folder and packages installed with airflow-provider-sewer; "
    "move imports that only a task needs into its module. To load the file with another interpreter: "
    "sppe … -i PYTHON --read-with-interpreter, or sewer_task_group(…, read_with_interpreter=True)"
)


def test_load_workflow_reports_file_that_exhausts_parser(write):
    """Text that is too large for the compiler is an error of the file; the message does not mention a call."""
    path = write("a = " + "-" * 200_000 + "1")

    with pytest.raises(WorkflowFileError) as caught:
        load_workflow(path)

    assert str(caught.value).startswith(str(path))
    assert "called" not in str(caught.value)


def test_import_error_has_hint(write):
    """The usual cause is an import of a module that only the task's interpreter has."""
    path = write("Task('a', 'm')\nimport torch_or_so")

    fails(path, "{f}:3: ModuleNotFoundError: No module named 'torch_or_so'" + NOT_HERE)


def test_import_error_in_helper_names_both_lines(write):
    """The import in the file, and the place where it went wrong."""
    helper = write("import torch_or_so", "helper.py", imports="")

    fails(
        write("import helper"),
        f"{{f}}:2: ModuleNotFoundError: No module named 'torch_or_so' (in {helper}:1){NOT_HERE}",
    )


def test_import_error_of_former_module_has_hint(write):
    """Sewer files used Task and workflow; everything else is imported from this package."""
    path = write("from sewerpipe.task import Pipe", imports="")

    with pytest.raises(WorkflowFileError, match="write: from airflow_provider_sewer import Task, workflow"):
        load_workflow(path)


def test_import_error_of_helper_named_like_stdlib_has_hint(write):
    """The message explains why the name is not found."""
    write("MINE = 1", "colorsys.py", imports="")

    with pytest.raises(WorkflowFileError, match=r"'colorsys' is a standard library module.*; rename yours$"):
        load_workflow(write("from colorsys import MINE"))


def test_exception_in_file_has_line_and_message(write):
    """The innermost line that is in the file, not the one in the library that raised it."""
    fails(
        write("def f():\n    raise ValueError('no such [thing]')\n\nf()"),
        "{f}:3: ValueError: no such [thing]",
    )


def test_sewer_error_in_file_gets_line(write):
    """A file may refuse to be loaded in our own words."""
    fails(
        write("from airflow_provider_sewer import SewerError\nraise SewerError('set DATA first')"),
        "{f}:3: set DATA first",
    )


def test_exception_without_message_has_class_name(write):
    """Also one whose text cannot be had."""
    fails(write("raise KeyError"), "{f}:2: KeyError")
    fails(
        write("class E(Exception):\n    def __str__(self):\n        raise E\nraise E"),
        "{f}:5: E: <exception str() failed>",
    )


def test_recursion_error_in_file_has_line(write):
    """Not of the reader."""
    path = write("def f():\n    f()\n\nf()")

    with pytest.raises(WorkflowFileError, match=rf"^{re.escape(str(path))}:3: RecursionError: maximum recursion"):
        load_workflow(path)


def test_load_workflow_rejects_file_that_loads_itself(write):
    """It would never be done."""
    with pytest.raises(SewerError, match="recursion"):
        load_workflow(write("from airflow_provider_sewer import load_workflow\nload_workflow(__file__)"))


@pytest.mark.parametrize(("code", "shown"), [("", "None"), ("3", "3"), ("'no data'", "'no data'")])
def test_system_exit_in_file_is_error(write, code, shown):
    """``sys.exit()`` must not end the program that reads the file."""
    fails(
        write(f"import sys\nsys.exit({code})"),
        f"{{f}}:3: the file exits the program (exit {shown}) while it is loaded; "
        "move that under if __name__ == '__main__':",
    )


def test_system_exit_in_workflow_function_is_error(write):
    """Recording calls the function."""
    path = write("import sys\n@workflow\ndef w():\n    sys.exit(1)")

    fails(
        path,
        "{f}:5: the file exits the program (exit 1) while it is loaded; move that under if __name__ == '__main__':",
    )


def test_exception_in_workflow_function_has_line(write):
    """As at the top of the file."""
    fails(write("@workflow\ndef w():\n    1 / 0"), "{f}:4: ZeroDivisionError: division by zero")


def test_load_workflow_rejects_tasks_of_installed_former_package(write, install):
    """A file with another package's Task gets no task of ours; the message names that package."""
    install("sewerpipe", {"__init__.py": "", "config.py": "class Task:\n    pass"})

    fails(
        write("from sewerpipe.config import Task\na = Task()", imports=""),
        "{f}: its tasks come from the installed package 'sewerpipe'; "
        "write: from airflow_provider_sewer import Task, workflow",
    )
