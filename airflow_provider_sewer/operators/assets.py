"""Assets of products, identified by absolute paths, on which other DAGs can be scheduled."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from airflow.sdk import Asset
from airflow.sdk.configuration import conf

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.execution_settings import checked_path
from airflow_provider_sewer.core.paths import checked_text, is_relative, path_key
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.operators.field_checks import known

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Most characters that Airflow allows in the name of an asset.
_MAX_LENGTH = 1500


def product_asset(
    path: str | os.PathLike[str], workdir: str | os.PathLike[str] | None = None, *, sewer_conn_id: str | None = None
) -> Asset:
    """Return the asset of a product, as in ``DAG(…, schedule=[product_asset("build/model.json", workdir=".")])``.

    :param path: the path of the product, as given to its task.
    :param workdir: the working directory of its task; a relative one starts at the folder of the calling file.
    :param sewer_conn_id: the connection of its task, if it gives the working directory.
    :raises InvalidTask: if these do not determine the location of the product.
    """
    source = calling_line()
    try:
        base = PathBase(checked_path("workdir", workdir, ""), sewer_conn_id, source.folder)
        uri = base.uri(checked_text("path", path))
        if uri is None:
            raise InvalidTask(
                f"path must be absolute or have a workdir or sewer_conn_id, and no templates, got {os.fspath(path)!r}; "
                "use the values of the task that produces it"
            )
    except InvalidTask as error:
        raise InvalidTask(f"product_asset: {error.message}", source) from None
    return Asset(uri)


def given_outlets(operator: Any) -> list[Any]:
    """Return the outlets of an operator that the user has given, without products of other instances."""
    of_all = operator.products_of_all or ()
    return [outlet for outlet in operator.outlets if getattr(outlet, "name", None) not in of_all]


def asset_names(operator: Any) -> list[str]:
    """Return the asset names of an operator's products; of a mapped task, only those known to the DAG.

    :raises InvalidTask: naming the task, if a name is too long.
    """
    marked = operator._markers.products()
    if not marked and not operator.products:
        return []
    temporary = {product.path for product in marked if product.temporary}
    listed = [path for path in known(operator.products) or () if isinstance(path, str)]
    paths = [path for path in (*(product.path for product in marked), *listed) if path not in temporary]
    try:
        names = PathBase(operator.workdir, operator.sewer_conn_id, operator._folder).uris(paths)
    except InvalidTask as error:
        raise InvalidTask(f"task {operator.task_id!r}: {error}") from None
    return names if operator.products_of_all is None else [name for name in names if name in operator.products_of_all]


class PathBase(NamedTuple):
    """Base of the relative paths of a task.

    :param workdir: its working directory.
    :param sewer_conn_id: the connection that otherwise gives the working directory.
    :param folder: the folder of the DAG file, where a relative working directory starts.
    """

    workdir: Any
    sewer_conn_id: Any
    folder: str | None

    def uris(self, paths: Iterable[str]) -> list[str]:
        """Return the distinct asset URIs of products, except for those whose location is unknown."""
        return list(dict.fromkeys(uri for uri in map(self.uri, paths) if uri is not None))

    def uri(self, path: str) -> str | None:
        """Return the URI of a product; ``None`` if its location is known only at run time.

        If the connection gives the working directory, the URI names the connection instead.
        """
        if is_template(path):
            return None
        if is_relative(path) and self.workdir is None:
            return _uri(f"x-sewer://{quote(self.sewer_conn_id, '')}/", path) if _is_known(self.sewer_conn_id) else None
        workdir = self._absolute_workdir() if is_relative(path) else None
        return None if is_relative(path) and workdir is None else _uri("file://", path, workdir)

    def _absolute_workdir(self) -> str | None:
        workdir = os.fspath(self.workdir) if isinstance(self.workdir, os.PathLike) else self.workdir
        if not _is_known(workdir) or (is_relative(workdir) and self.folder is None):
            return None
        return path_key(workdir, _without_version(self.folder)) if is_relative(workdir) else workdir


def _uri(start: str, path: str, workdir: str | None = None) -> str:
    uri = start + quote(path_key(path, workdir))
    if len(uri) > _MAX_LENGTH:
        raise InvalidTask(
            f"product {path!r} must have an asset name of at most {_MAX_LENGTH:,} characters, got {len(uri):,}; "
            "use a shorter path"
        )
    return uri


def _is_known(value: Any) -> bool:
    return isinstance(value, str) and not is_template(value)


def _without_version(folder: str | None) -> str | None:
    """Return the folder of a DAG file; in a versioned DAG bundle, without the part of the version."""
    configured = conf.get("dag_processor", "dag_bundle_storage_path", fallback=None)
    storage = os.path.abspath(configured or os.path.join(tempfile.gettempdir(), "airflow", "dag_bundles"))
    match os.path.relpath(folder, storage).split(os.sep) if folder else []:
        case [bundle, "versions", _, *rest] | [bundle, "tracking_repo", *rest] if bundle != os.pardir:
            return os.path.join(storage, bundle, *rest)
    return folder
