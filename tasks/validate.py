"""Checks the index and every modality, and certifies them; training starts from the certificate and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Container, Sequence
from pathlib import Path

from minima_core.checks.rules import Params, rules
from minima_core.checks.store import Tables
from minima_core.checks.tables import Sampling, build_tables
from minima_core.config import read_section, read_value
from minima_core.data.index import index_digest
from minima_core.errors import DataError
from minima_core.io.atomic import write_json
from minima_core.manifest import Certificate, SceneManifest, folder_digest
from minima_core.synthesis.base import MODALITIES
from tasks.expectations import NAMED, Finding, judge
from tasks.reports import ValidationReport
from tasks.stage import Args, Input, Output, execution, run

FINDINGS = "findings.json"  # beside the certificate: every rule with what was observed
IMPORTED = "imported"  # the data set of an index that was brought; beside its raw scenes lies the index's own manifest
MEDIANS = ("std", "entropy", "saturated", "agreement", "offset")


class ValidateArgs(Args):
    """Command line of the stage; ``docs`` is where the Data Docs pages go ("" for none); no stage reads them."""

    raw: Input
    index: Input
    modalities: Input
    out: Output
    docs: str = "reports/data_docs"


def main(args: ValidateArgs) -> ValidationReport:
    """Check index, source images, pairs and every modality of params.yaml; write a certificate when all is well.

    One broken rule fails the stage, whichever table it is about: a certificate covers all that training may draw from.
    The Data Docs pages are written either way. A modality that this data set cannot give is carried with its reason
    and is neither checked nor certified.
    """
    params = read_section("validation", Params)
    params = params.suite(data_set(args.raw, args.index, params.suites))
    names = [str(name) for name in read_value("modalities")]
    for name in names:
        MODALITIES.engines(name)  # a misspelt name is reported before anything is read
    sampling = Sampling(
        params.sample_per_scene,
        params.pairs_per_scene,
        params.held_out,
        {name: band.palette for name in names if (band := params.band(name)).palette is not None},
    )
    with tempfile.TemporaryDirectory() as folder:
        tables = build_tables(
            args.raw,
            args.index,
            args.modalities,
            Path(folder) / "tables.db",
            names=names,
            sampling=sampling,
            workers=execution().processes,
        )
        docs = Path(args.docs) if args.docs else None
        findings = judge(tables, rules(params, tables.modalities), docs)
        if line := complaint(findings, docs):
            raise DataError(line)
        certificate = certify(tables, args.index, args.modalities, len(findings))
    write_json(args.out / FINDINGS, [_plain(finding) for finding in findings])
    certificate.save(args.out)
    return ValidationReport(
        passed=True,
        expectations=certificate.expectations,
        modalities=certificate.modalities,
        unavailable=certificate.unavailable,
        images=certificate.images,
        pairs=certificate.pairs,
    )


def data_set(raw: Path, index: Path, suites: Container[str]) -> str:
    """Return what the suites know the data by: of a brought index the form it was made from, unless one is its own."""
    name = SceneManifest.load(index).dataset
    if name != IMPORTED or name in suites or not (raw / SceneManifest.FILE).is_file():
        return name
    return SceneManifest.load(raw).dataset


def certify(tables: Tables, index: Path, modalities: Path, expectations: int) -> Certificate:
    """Return the certificate of tables that broke no rule; it holds no clock, so equal data give equal bytes."""
    groups = {"rgb": "images", **{name: name for name in tables.modalities}}
    return Certificate(
        index_digest=index_digest(index),
        modalities=tables.modalities,
        unavailable=tables.unavailable,
        digests={name: folder_digest(modalities / name) for name in tables.modalities},
        expectations=expectations,
        images=tables.count("images"),
        pairs=tables.count("pairs"),
        statistics={name: medians(tables, table) for name, table in groups.items()},
    )


def medians(tables: Tables, table: str) -> dict[str, float]:
    """Return the median of each statistic of the images that have it, to four digits."""
    found = {key: tables.median(table, key) for key in MEDIANS if key in tables.columns(table)}
    return {key: round(value, 4) for key, value in found.items() if value is not None}


def complaint(findings: Sequence[Finding], docs: Path | None) -> str:
    """Return one line about the first broken rule: what, how many, which, what to do; "" where none is broken."""
    broken = [finding for finding in findings if not finding.passed]
    if not broken:
        return ""
    first = broken[0]
    more = first.broken - min(len(first.offenders), NAMED)
    which = ", ".join(first.offenders) + (f" and {more} more" if more > 0 else "")
    rest = f"; {len(broken) - 1} more rules are broken" if len(broken) > 1 else ""
    pages = f" (all of them: {docs}/index.html)" if docs else ""
    share = f"{first.broken} of {max(first.checked, first.broken)}"
    what = f"broken rule: {first.rule.text}; {share} break it: {which}"
    return f"validation failed: {what}; {first.rule.remedy}{rest}{pages}"


def _plain(finding: Finding) -> dict[str, object]:
    rule = finding.rule
    return {
        "table": rule.table,
        "rule": rule.text,
        "passed": finding.passed,
        "checked": finding.checked,
        "broken": finding.broken,
        "observed": finding.observed,
    }


if __name__ == "__main__":
    run(main)
