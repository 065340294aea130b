"""OpenLineage datasets of a task's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.paths import absolute_path, is_relative

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_sewer.core.paths import PathMarker


def lineage_of(
    dependencies: Iterable[PathMarker],
    products: Iterable[PathMarker],
    workdir: str | None,
    *,
    inlets: Iterable[Any] = (),
    outlets: Iterable[Any] = (),
    is_here: bool = True,
) -> OperatorLineage[Any, Any]:
    """Return the inputs and outputs of a task.

    :param dependencies: paths it reads.
    :param products: paths it produces.
    :param workdir: its working directory, where relative paths start.
    :param inlets: further assets it reads.
    :param outlets: further assets it produces.
    :param is_here: whether a task without a workdir runs in the working directory of this process; otherwise relative
        paths cannot be resolved and are left out.
    """
    # Imported here: OpenLineage's provider, which calls this, is optional.
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    def datasets(markers: Iterable[PathMarker], assets: Iterable[Any]) -> list[Any]:
        known = [each.path for each in markers if is_here or workdir is not None or not is_relative(each.path)]
        files = dict.fromkeys(absolute_path(path, workdir) for path in known)
        others = (translate_airflow_asset(asset, None) for asset in assets)
        return [*(Dataset(namespace="file", name=file) for file in files), *filter(None, others)]

    return OperatorLineage(inputs=datasets(dependencies, inlets), outputs=datasets(products, outlets))
