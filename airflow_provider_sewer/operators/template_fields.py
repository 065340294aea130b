"""Templates in the fields of an operator: which text Airflow fills in, and how.

Text that is written in the DAG file or in the workflow file is a template if it holds ``{{`` or ``{%``
(:func:`~airflow_provider_sewer.core.templates.is_template`). Values that Airflow resolves when the task runs are data:
XComs, whatever ``map``, ``zip`` and ``concat`` make of them, values of mapped tasks and groups. Data is never rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.context import render_template_to_string
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException
from jinja2 import Environment, Template, TemplateSyntaxError, nodes

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.runtime_values import holds_value, without_values
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.core.values import Ignored
from airflow_provider_sewer.operators.secret_fields import SecretField
from airflow_provider_sewer.operators.xcom_references import is_reference

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

#: Fields, and fields whose items, are text also where a DAG renders templates as native objects.
_TEXT = frozenset({"module", "function", "path", "python", "workdir", "sewer_conn_id", "run_dir"})
_OF_TEXT = frozenset({"args", "env", "products", "dependencies"})

#: Blanks to Jinja and to Python, but no line ends to Jinja.
_BLANKS = "\x1c\x1d\x1e\x1f\x0b\x0c\x85\u2028\u2029\u2000\u2001\u2002\u2003\u2004\u2005"


class TemplateFields:
    """Renders the template fields of an operator; a base class that comes before the operator's."""

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Environment, seen_oids: set[int]
    ) -> None:
        """Render fields in place, as Airflow asks for it; a mapped operator asks its instance as well.

        :raises AirflowFailException: for a template with a syntax error, and for a missing part of an XCom.
        """
        operator: Any = self
        base: Any = super()
        if parent is not self:
            base._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        data = _data_fields(operator, context)
        for field in sorted(template_fields, key=lambda name: name != "arguments"):  # which the others may name
            value = getattr(self, field)
            is_text = field in _TEXT or (field in _OF_TEXT and not isinstance(value, str))
            env = _text_environment(jinja_env) if is_text else jinja_env
            try:
                if field not in data:
                    # Not Airflow's `seen_oids`: it knows data by its identity, which copies do not have, and misses
                    # what `expand_kwargs` resolves.
                    base._do_render_template_fields(self, [field], context, env, set())
                elif isinstance(value, dict) and (rest := {key: value[key] for key in value if key not in data[field]}):
                    setattr(self, field, {**value, **self.render_template(rest, context, env)})
            except (TemplateSyntaxError, InvalidTask) as error:
                raise AirflowFailException(f"task {operator.task_id!r}: {field}: {error}") from None

    def render_template(
        self, content: Any, context: Context, jinja_env: Environment | None = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Return a value with its templates filled in; text without a template stays byte for byte.

        :param content: a value written in the DAG file or in the workflow file; references in it are resolved, and what
            they give is not rendered.
        :param context: the context of the task instance.
        :param jinja_env: the environment of the DAG.
        :param seen_oids: Airflow's guard against objects that hold themselves.
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
    """Return the fields of an instance of a mapped operator that hold data.

    :returns: for each, the keys that are data, where the operator completes a mapping by other places.
    """
    mapped: Any = operator.dag.get_task(operator.task_id) if operator.has_dag() else None  # type: ignore[no-untyped-call]
    if not isinstance(mapped, MappedOperator):
        return {}
    given: Mapping[str, Any] = operator._BaseOperator__init_kwargs  # type: ignore[attr-defined]
    dag, group = operator.dag, mapped.task_group
    written = {**dag.default_args, **(group.default_args if group else {}), **mapped.partial_kwargs}
    is_data = _tell_data(mapped, context)
    if hasattr(mapped, "op_kwargs_expand_input"):  # of a decorator
        call = {**written, **written["op_kwargs"]}
        return {"op_kwargs": {name for name, value in given["op_kwargs"].items() if is_data(name, value, call)}}
    return {name: value for name, value in given.items() if is_data(name, value, written)}


def _tell_data(mapped: Any, context: Context) -> Callable[[str, Any, Mapping[str, Any]], bool]:
    """Return what tells whether a named value of an instance is data, given the values that are written."""
    over: Any = mapped._get_specified_expand_input().value
    if isinstance(over, dict):  # expand(name=values, …)
        return lambda name, _value, _written: is_reference(over.get(name))
    if not is_reference(over):  # expand_kwargs([…])
        over = over[context["ti"].map_index]
    # The result says which names it gives, also in place of written values.
    return lambda name, value, written: is_reference(over) and value is not written.get(name)


def _compiled(text: str, env: Environment) -> Template:
    """Compile a template that keeps its line ends.

    Its delimiters are Jinja's own whatever the DAG says, so that a template is the same everywhere. In a text that is a
    template only for a value put into it, ``{#`` is text. Jinja turns each carriage return into a line feed, so another
    blank stands for it until the text is parsed.
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
    """Return an environment in which templates give text."""
    return env if _is_text(env) else env.overlay(finalize=str)


def _is_text(env: Environment) -> bool:
    return env.finalize is str
