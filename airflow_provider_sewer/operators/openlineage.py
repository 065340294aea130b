"""The files of a task as OpenLineage's datasets."""

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
    """Return inputs and outputs of a task.

    :param dependencies: what it reads.
    :param products: what it makes.
    :param workdir: its working directory, from which relative paths are taken.
    :param inlets: assets that it is said to read besides.
    :param outlets: assets that it is said to make besides.
    :param is_here: whether it runs in the working directory of this process where it has none of its own; otherwise
        the places of relative paths are not known.
    """
    # Imported when OpenLineage's provider asks for it, and so is there.
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    def datasets(markers: Iterable[PathMarker], assets: Iterable[Any]) -> list[Any]:
        known = [each.path for each in markers if is_here or workdir is not None or not is_relative(each.path)]
        files = dict.fromkeys(absolute_path(path, workdir) for path in known)
        others = (translate_airflow_asset(asset, None) for asset in assets)
        return [*(Dataset(namespace="file", name=file) for file in files), *filter(None, others)]

    return OperatorLineage(inputs=datasets(dependencies, inlets), outputs=datasets(products, outlets))
