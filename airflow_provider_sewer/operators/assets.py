"""Products as assets, known by their absolute place, so that other DAGs can be scheduled on them."""

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

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Characters that Airflow allows in the name of an asset.
_LONGEST = 1500


def product_asset(
    path: str | os.PathLike[str], workdir: str | os.PathLike[str] | None = None, *, sewer_conn_id: str | None = None
) -> Asset:
    """Return the asset that a product is, as in ``DAG(…, schedule=[product_asset("build/model.json", workdir=".")])``.

    :param path: the path of the product, as its task writes it.
    :param workdir: the working directory of its task; a relative one is taken from the folder of the calling file.
    :param sewer_conn_id: the connection of its task, where that gives the working directory.
    :raises InvalidTask: when these do not tell where the product lies.
    """
    source = calling_line()
    try:
        place = PathBase(checked_path("workdir", workdir, ""), sewer_conn_id, source.folder)
        uri = place.uri(checked_text("path", path))
        if uri is None:
            raise InvalidTask(
                f"path must be absolute or have a workdir or sewer_conn_id, and no templates, got {os.fspath(path)!r}; "
                "give what the task of the product has"
            )
    except InvalidTask as error:
        raise InvalidTask(f"product_asset: {error.message}", source) from None
    return Asset(uri)


class PathBase(NamedTuple):
    """What the relative paths of a task are taken from.

    :param workdir: its working directory.
    :param sewer_conn_id: the connection that gives the working directory otherwise.
    :param folder: the folder of the DAG file, from which a relative working directory is taken.
    """

    workdir: Any
    sewer_conn_id: Any
    folder: str | None

    def uris(self, paths: Iterable[str]) -> list[str]:
        """Return the URIs of the assets that products are, each once; one whose place is not known is no asset."""
        return list(dict.fromkeys(uri for uri in map(self.uri, paths) if uri is not None))

    def uri(self, path: str) -> str | None:
        """Return the URI of a product; ``None`` if its place is known only at run time.

        Where the connection gives the working directory, the URI names the connection in place of it.
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
    if len(uri) > _LONGEST:
        raise InvalidTask(
            f"product {path!r} must have an asset name of at most {_LONGEST:,} characters, got {len(uri):,}; "
            "use a shorter path"
        )
    return uri


def _is_known(value: Any) -> bool:
    return isinstance(value, str) and not is_template(value)


def _without_version(folder: str | None) -> str | None:
    """Return the folder of a DAG file; in a versioned DAG bundle, where each version has a folder, the same for all."""
    configured = conf.get("dag_processor", "dag_bundle_storage_path", fallback=None)
    storage = os.path.abspath(configured or os.path.join(tempfile.gettempdir(), "airflow", "dag_bundles"))
    match os.path.relpath(folder, storage).split(os.sep) if folder else []:
        case [bundle, "versions", _, *rest] | [bundle, "tracking_repo", *rest] if bundle != os.pardir:
            return os.path.join(storage, bundle, *rest)
    return folder
