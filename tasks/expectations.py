"""Great Expectations behind one function: rules and tables in, findings and Data Docs pages out.

Importing great_expectations takes six seconds, so it happens inside the functions.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minima_core.checks.rules import ID_COLUMN, Rule
from minima_core.checks.tables import Row
from minima_core.io.atomic import replace_folder
from minima_core.progress import track

if TYPE_CHECKING:
    import pandas as pd

NAMED = 3  # how many offenders a finding names
_SITE = "site"


@dataclass(frozen=True)
class Finding:
    """What became of one rule.

    Attributes:
        rule: the rule.
        passed: whether enough rows satisfy it.
        checked: rows that had a value.
        broken: rows that do not satisfy it.
        offenders: ids of the first of those, with the value found.
        observed: least and greatest value of a numeric column, None where there is none.
    """

    rule: Rule
    passed: bool
    checked: int
    broken: int
    offenders: list[str]
    observed: tuple[float, float] | None


def judge(tables: Mapping[str, Sequence[Row]], rules: Sequence[Rule], docs: Path | None = None) -> list[Finding]:
    """Return a finding a rule, in the order of the rules, and leave the Data Docs pages in ``docs``.

    The pages replace those of an earlier run when all are written. A table without rows breaks none of its rules.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sqlalchemy and pandas deprecations from inside great_expectations
        building = None if docs is None else docs.with_name(f".{docs.name}.building").resolve()
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
        context = _context(building)
        filled = {name: rows for name, rows in tables.items() if rows}
        found: dict[int, Finding] = {}
        for name, rows in track(filled.items(), "checking rules", total=len(filled)):
            own = [(k, rule) for k, rule in enumerate(rules) if rule.table == name]
            found |= _judge_table(context, name, rows, own)
        if building is not None and docs is not None:
            context.build_data_docs()
            replace_folder(building, docs)
    return [found.get(k, Finding(rule, True, 0, 0, [], None)) for k, rule in enumerate(rules)]


def _context(docs: Path | None) -> Any:
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # hundreds of lines about its own start
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)  # sets a level of its own on import
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for name, site in dict(
        context.variables.data_docs_sites or {}
    ).items():  # its own site, in a temporary folder it leaves
        shutil.rmtree(site["store_backend"]["base_directory"], ignore_errors=True)
        context.delete_data_docs_site(name)
    if docs is not None:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        context.add_data_docs_site(
            _SITE, {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
        )
    return context


def _judge_table(context: Any, name: str, rows: Sequence[Row], own: list[tuple[int, Rule]]) -> dict[int, Finding]:
    import great_expectations as gx
    import pandas as pd

    key = ID_COLUMN.get(name, "image")
    wanted = {key, "file", *(rule.column for _, rule in own), *(rule.other for _, rule in own if rule.other)}
    frame = pd.DataFrame(rows).reindex(columns=sorted(wanted))
    expectations = [_expectation(rule, k) for k, rule in own]
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    asset = context.data_sources.add_pandas(name).add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    wished = {"result_format": "SUMMARY", "unexpected_index_column_names": [key], "partial_unexpected_count": NAMED}
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(name=name, validation_definitions=[definition], result_format=wished)
    )
    (outcome,) = checkpoint.run(batch_parameters={"dataframe": frame}).run_results.values()
    position = dict(own)
    return dict(_findings(outcome.to_json_dict()["results"], position, frame, key))


def _expectation(rule: Rule, position: int) -> Any:
    gxe: Any = importlib.import_module("great_expectations.expectations.core")  # it lists no public names

    meta = {"rule": position, "remedy": rule.remedy}
    common: dict[str, Any] = {"meta": meta, "description": rule.text}
    if rule.kind == "same":
        return gxe.ExpectColumnPairValuesToBeEqual(column_A=rule.column, column_B=rule.other, **common)
    common["column"] = rule.column
    if rule.kind == "unique":
        return gxe.ExpectColumnValuesToBeUnique(**common)
    if rule.kind == "known":
        return gxe.ExpectColumnValuesToNotBeNull(**common)
    if rule.kind == "nothing":
        return gxe.ExpectColumnValuesToBeInSet(value_set=[""], **common)
    bounds = {"min_value": rule.low, "max_value": rule.high, **common}
    if rule.kind == "mean":
        return gxe.ExpectColumnMeanToBeBetween(**bounds)
    return gxe.ExpectColumnValuesToBeBetween(mostly=rule.mostly, **bounds)


def _findings(
    results: list[dict[str, Any]], rules: Mapping[int, Rule], frame: pd.DataFrame, key: str
) -> Iterator[tuple[int, Finding]]:
    files = dict(zip(frame[key].astype(str), frame["file"], strict=True))
    for result in results:
        position = int(result["expectation_config"]["meta"]["rule"])
        rule = rules[position]
        if result["exception_info"].get("raised_exception", False):
            raise RuntimeError(f"{rule}: {result['exception_info']['exception_message']}")
        column = frame[rule.column]
        details = result["result"]
        offenders = [_offender(rule, entry, key, files) for entry in details.get("partial_unexpected_index_list") or []]
        broken = int(details.get("unexpected_count") or 0)
        if rule.kind == "mean" and not result["success"] and rule.low is not None:
            below = frame[key][column < rule.low]  # the rows that pull it down
            broken, offenders = len(below), [_named(str(name), files.get(str(name))) for name in below.head(NAMED)]
        known = int(column.notna().sum())
        numeric = column.dropna().astype(float) if column.dtype.kind in "fiu" and known else None
        observed = None if numeric is None else (round(float(numeric.min()), 4), round(float(numeric.max()), 4))
        yield position, Finding(rule, bool(result["success"]), known, broken, offenders[:NAMED], observed)


def _offender(rule: Rule, entry: Mapping[str, Any], key: str, files: Mapping[str, Any]) -> str:
    name, value = str(entry.get(key)), entry.get(rule.column)
    name = _named(name, files.get(name), value)
    if rule.column == key or value is None:
        return name
    return f"{name} ({value:.4g})" if isinstance(value, float) else f"{name} ({value})"


def _named(name: str, file: object, value: object = None) -> str:
    """Return a row's name with the file that it is about, unless the value says it."""
    return f"{name} in {file}" if isinstance(file, str) and file not in str(value) else name
