"""Rendering of templates in operator fields.

Text in a DAG file or workflow file is a template if it contains ``{{`` or ``{%``
(:func:`~airflow_provider_sewer.core.templates.is_template`). Values that Airflow resolves at run time are data:
XComs, results of their ``map``, ``zip`` and ``concat``, and values of mapped tasks and groups. Data is never rendered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.context import render_template_to_string
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException
from jinja2 import Environment, Template, TemplateSyntaxError, UndefinedError, nodes

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.placeholders import Ignored, holds_value, without_values
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.operators.logical_date import missing_date_error
from airflow_provider_sewer.operators.secret_fields import SecretField, reveal_secrets
from airflow_provider_sewer.operators.xcom_references import is_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from airflow.sdk import BaseOperator, Context

#: Fields, and fields with items, that are text even if a DAG renders templates as native objects.
_TEXT = frozenset({
    "module", "function", "path", "stdin", "stdout", "python", "workdir", "sewer_conn_id", "run_dir",
})  # fmt: skip
_OF_TEXT = frozenset({"args", "env", "products", "dependencies"})

#: Characters that are blanks to Jinja and Python, and not line ends to Jinja.
_BLANKS = "\x1c\x1d\x1e\x1f\x0b\x0c\x85\u2028\u2029\u2000\u2001\u2002\u2003\u2004\u2005"


class TemplateFields:
    """Mixin that renders the template fields of an operator; must precede the operator's base class."""

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Environment, seen_oids: set[int]
    ) -> None:
        """Render fields in place; called by Airflow, and by a mapped operator on its instance.

        :raises AirflowFailException: for a syntax error in a template, and for a missing part of an XCom.
        """
        operator: Any = self
        base: Any = super()
        if parent is not self:
            base._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        data = _data_fields(operator, context)
        for field in sorted(template_fields, key=lambda name: name != "arguments"):  # others may refer to it
            value = getattr(self, field)
            is_text = field in _TEXT or (field in _OF_TEXT and not isinstance(value, str))
            env = _text_environment(jinja_env) if is_text else jinja_env
            try:
                if field == "arguments":
                    setattr(self, field, reveal_secrets(value))  # templates read them; Airflow masks them by now
                if field not in data:
                    # Not Airflow's `seen_oids`: it identifies data by object id, which copies do not share, and misses
                    # values that `expand_kwargs` resolves.
                    base._do_render_template_fields(self, [field], context, env, set())
                elif isinstance(value, dict) and (rest := {key: value[key] for key in value if key not in data[field]}):
                    setattr(self, field, {**value, **self.render_template(rest, context, env)})
            except UndefinedError as error:
                raise missing_date_error(error, has_date="logical_date" in context) or error from None
            except (TemplateSyntaxError, InvalidTask) as error:
                raise AirflowFailException(f"task {operator.task_id!r}: {field}: {error}") from None

    def render_template(
        self, content: Any, context: Context, jinja_env: Environment | None = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Return a value with its templates rendered; text without a template stays byte for byte.

        :param content: a value from the DAG file or workflow file; references in it are resolved, and the resolved
            values are not rendered.
        :param context: the context of the task instance.
        :param jinja_env: the environment of the DAG.
        :param seen_oids: Airflow's guard against recursive objects.
        """
        operator: Any = self
        base: Any = super()
        env = jinja_env or operator.get_template_env()
        if isinstance(content, Ignored):
            return Ignored(self.render_template(content.value, context, env, seen_oids))
        if isinstance(content, SecretField):
            return SecretField(self.render_template(content.value, context, env, seen_oids))
        if isinstance(content, PathMarker):
            path = self.render_template(content.path, context, _text_environment(env))
            return content if path == content.path else content.at(path)
        if not isinstance(content, str) or content.endswith(tuple(operator.template_ext)):
            return base.render_template(content, context, env, seen_oids)
        if not is_template(content):
            return content
        if holds_value(content):
            env = _text_environment(env)
        template = _compiled(content, env)
        return render_template_to_string(template, context) if _is_text(env) else operator._render(template, context)


def _data_fields(operator: BaseOperator, context: Context) -> dict[str, Container[Any]]:
    """Return the fields of a mapped instance that contain data.

    :returns: for each field, the keys that are data, as the operator may merge mappings of several sources.
    """
    mapped: Any = operator.dag.get_task(operator.task_id) if operator.has_dag() else None  # type: ignore[no-untyped-call]
    if not isinstance(mapped, MappedOperator):
        return {}
    given: Mapping[str, Any] = operator._BaseOperator__init_kwargs  # type: ignore[attr-defined]
    dag, group = operator.dag, mapped.task_group
    written = {**dag.default_args, **(group.default_args if group else {}), **mapped.partial_kwargs}
    is_data = _data_predicate(mapped, context)
    if hasattr(mapped, "op_kwargs_expand_input"):  # of a decorator
        call = {**written, **written["op_kwargs"]}
        return {"op_kwargs": {name for name, value in given["op_kwargs"].items() if is_data(name, value, call)}}
    return {name: value for name, value in given.items() if is_data(name, value, written)}


def _data_predicate(mapped: Any, context: Context) -> Callable[[str, Any, Mapping[str, Any]], bool]:
    """Return a predicate for data among the named values of an instance, given the written values."""
    over: Any = mapped._get_specified_expand_input().value
    if isinstance(over, dict):  # expand(name=values, …)
        return lambda name, _value, _written: is_reference(over.get(name))
    if not is_reference(over):  # expand_kwargs([…])
        over = over[context["ti"].map_index]
    # The result determines the names, and may override written values.
    return lambda name, value, written: is_reference(over) and value is not written.get(name)


def _compiled(text: str, env: Environment) -> Template:
    """Compile a template so that its line ends are preserved.

    The delimiters are always Jinja's defaults, regardless of the DAG, so that a template means the same everywhere. In
    a text that is a template only through an inserted value, ``{#`` is text. Jinja turns each carriage return into a
    line feed; another blank replaces it during parsing.
    """
    unused = "" if is_template(without_values(text)) else _blank_for(text)
    env = env.overlay(
        block_start_string="{%",
        block_end_string="%}",
        variable_start_string="{{",
        variable_end_string="}}",
        comment_start_string=f"{{#{unused}",
        comment_end_string=f"{unused}#}}",
        line_statement_prefix=None,
        line_comment_prefix=None,
        newline_sequence="\n",
        keep_trailing_newline=True,
    )
    if "\r" not in text:
        return env.from_string(text)
    blank = _blank_for(text)
    parsed = env.parse(text.replace("\r", blank))
    for node in parsed.find_all(nodes.TemplateData):
        node.data = node.data.replace(blank, "\r")
    for constant in parsed.find_all(nodes.Const):
        if isinstance(constant.value, str):
            constant.value = constant.value.replace(blank, "\r")
    return env.from_string(parsed)


def _blank_for(text: str) -> str:
    """Return a blank that does not occur in a text."""
    return next(character for character in _BLANKS if character not in text)


def _text_environment(env: Environment) -> Environment:
    """Return an environment in which templates render to text."""
    return env if _is_text(env) else env.overlay(finalize=str)


def _is_text(env: Environment) -> bool:
    return env.finalize is str
