"""Great Expectations behind one function: rules and tables in, findings and Data Docs pages out.

The tables stay in their SQLite file, where Great Expectations asks its questions in SQL: a million rows need no more
memory than ten. Importing great_expectations takes six seconds, so it happens inside the functions.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minima_core.checks.rules import ID_COLUMN, Rule
from minima_core.checks.store import Tables
from minima_core.io.atomic import replace_folder
from minima_core.progress import track

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


def judge(tables: Tables, rules: Sequence[Rule], docs: Path | None = None) -> list[Finding]:
    """Return a finding a rule, in the order of the rules, and leave the Data Docs pages in ``docs``.

    The pages replace those of an earlier run when all are written. A table without rows breaks none of its rules.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sqlalchemy and pandas deprecations from inside great_expectations
        building = None if docs is None else docs.with_name(f".{docs.name}.building").resolve()
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
        context = _context(building)
        filled = [name for name in tables.names() if tables.count(name)]
        found: dict[int, Finding] = {}
        for name in track(filled, "checking rules"):
            own = {k: rule for k, rule in enumerate(rules) if rule.table == name}
            found |= dict(_findings(_ask(context, tables.path, name, own), own, tables, name))
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
    own = dict(context.variables.data_docs_sites or {})
    for name, site in own.items():  # in a temporary folder, which it leaves
        shutil.rmtree(site["store_backend"]["base_directory"], ignore_errors=True)
        context.delete_data_docs_site(name)
    if docs is not None:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        context.add_data_docs_site(
            _SITE, {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
        )
    return context


def _ask(context: Any, path: Path, name: str, own: Mapping[int, Rule]) -> list[dict[str, Any]]:
    """Return what Great Expectations says of each rule of a table."""
    import great_expectations as gx

    key = ID_COLUMN.get(name, "image")
    expectations = [_expectation(rule, k) for k, rule in own.items()]
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    source = context.data_sources.add_sqlite(name, connection_string=f"sqlite:///{path.resolve()}")
    batch = source.add_table_asset(name, table_name=name).add_batch_definition_whole_table("all")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    wished = {"result_format": "SUMMARY", "unexpected_index_column_names": [key], "partial_unexpected_count": NAMED}
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(name=name, validation_definitions=[definition], result_format=wished)
    )
    (outcome,) = checkpoint.run().run_results.values()
    return outcome.to_json_dict()["results"]


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
        return gxe.ExpectColumnValuesToBeInSet(value_set=[""], mostly=rule.mostly, **common)
    bounds = {"min_value": rule.low, "max_value": rule.high, **common}
    if rule.kind == "mean":
        return gxe.ExpectColumnMeanToBeBetween(**bounds)
    return gxe.ExpectColumnValuesToBeBetween(mostly=rule.mostly, **bounds)


def _findings(
    results: list[dict[str, Any]], rules: Mapping[int, Rule], tables: Tables, name: str
) -> Iterator[tuple[int, Finding]]:
    key = ID_COLUMN.get(name, "image")
    kinds = tables.columns(name)
    for result in results:
        position = int(result["expectation_config"]["meta"]["rule"])
        rule = rules[position]
        if result["exception_info"].get("raised_exception", False):
            raise RuntimeError(f"{rule}: {result['exception_info']['exception_message']}")
        details = result["result"]
        entries = details.get("partial_unexpected_index_list") or []
        broken = int(details.get("unexpected_count") or 0)
        if rule.kind == "mean" and not result["success"]:  # the rows that pull it down
            below = f'from "{name}" where "{rule.column}" < ?'
            broken = tables.ask(f"select count(*) {below}", (rule.low,))[0][0]
            entries = [{key: row[0]} for row in tables.ask(f'select "{key}" {below} limit {NAMED}', (rule.low,))]
        offenders = [_offender(rule, entry, key, _file(tables, name, key, entry)) for entry in entries[:NAMED]]
        known, low, high = tables.ask(
            f'select count("{rule.column}"), min("{rule.column}"), max("{rule.column}") from "{name}"'
        )[0]
        numeric = kinds[rule.column] != "text" and known
        observed = (round(float(low), 4), round(float(high), 4)) if numeric else None
        yield position, Finding(rule, bool(result["success"]), known, broken, offenders, observed)


def _file(tables: Tables, name: str, key: str, entry: Mapping[str, Any]) -> object:
    """Return the file that a row is about."""
    found = tables.ask(f'select file from "{name}" where "{key}" = ? order by rowid desc limit 1', (entry.get(key),))
    return found[0][0] if found else None


def _offender(rule: Rule, entry: Mapping[str, Any], key: str, file: object) -> str:
    name, value = str(entry.get(key)), entry.get(rule.column)
    name = _named(name, file, value)
    if rule.column == key or value is None:
        return name
    return f"{name} ({value:.4g})" if isinstance(value, float) else f"{name} ({value})"


def _named(name: str, file: object, value: object = None) -> str:
    """Return a row's name with the file that it is about, unless the value says it."""
    return f"{name} in {file}" if isinstance(file, str) and file not in str(value) else name
