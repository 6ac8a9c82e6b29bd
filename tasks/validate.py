"""Checks the index and every modality, and certifies them; training starts from the certificate and nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from minima_core.checks.rules import Params, rules
from minima_core.checks.tables import Row, Tables, build_tables
from minima_core.config import read_section, read_value
from minima_core.data.index import index_digest
from minima_core.errors import DataError
from minima_core.io.atomic import write_json
from minima_core.manifest import Certificate, folder_digest
from minima_core.synthesis.base import MODALITIES
from tasks.expectations import NAMED, Finding, judge
from tasks.reports import ValidationReport
from tasks.stage import Args, Input, Output, execution, run

FINDINGS = "findings.json"  # beside the certificate: every rule with what was observed
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
    names = [str(name) for name in read_value("modalities")]
    for name in names:
        MODALITIES.engines(name)  # a misspelt name is reported before anything is read
    tables = build_tables(
        args.raw,
        args.index,
        args.modalities,
        names=names,
        sample_per_scene=params.sample_per_scene,
        palettes={name: band.palette for name in names if (band := params.band(name)).palette is not None},
        workers=execution().processes,
    )
    docs = Path(args.docs) if args.docs else None
    findings = judge(_by_name(tables), rules(params, list(tables.renditions)), docs)
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


def certify(tables: Tables, index: Path, modalities: Path, expectations: int) -> Certificate:
    """Return the certificate of tables that broke no rule; it holds no clock, so equal data give equal bytes."""
    groups = {"rgb": tables.images, **tables.renditions}
    return Certificate(
        index_digest=index_digest(index),
        modalities=list(tables.renditions),
        unavailable=tables.unavailable,
        digests={name: folder_digest(modalities / name) for name in tables.renditions},
        expectations=expectations,
        images=len(tables.images),
        pairs=len(tables.pairs),
        statistics={name: medians(rows) for name, rows in groups.items()},
    )


def medians(rows: Sequence[Row]) -> dict[str, float]:
    """Return the median of each statistic over the rows that have it, to four digits."""
    found = {key: [row[key] for row in rows if row.get(key) is not None] for key in MEDIANS}
    return {key: round(statistics.median(values), 4) for key, values in found.items() if values}


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


def _by_name(tables: Tables) -> dict[str, Sequence[Row]]:
    return {
        "scenes": tables.scenes,
        "images": tables.images,
        "pairs": tables.pairs,
        "manifests": tables.manifests,
        **tables.renditions,
    }


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
