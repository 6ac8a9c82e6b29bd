"""Prefect's flows: when, where and how often the stages of dvc.yaml run, and what happens with the results."""

from flows import environment

# Prefect reads its settings while it is imported, so they have to stand before any module of this package asks for it.
environment.prepare()
