"""Flow: raw scenes, index, modalities and the certificate that training asks for."""

from __future__ import annotations

from prefect import flow

from flows.pipeline import once, reproduce
from tasks.reports import ValidationReport


@flow(name="build-dataset")
def build_dataset() -> ValidationReport:
    """Bring the data set up to date and return what validation found."""
    report = reproduce(["validate"])["validate"].report
    assert isinstance(report, ValidationReport)
    return report


if __name__ == "__main__":
    once(build_dataset)
