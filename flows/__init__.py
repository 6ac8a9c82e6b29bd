"""Prefect's flows: when, where and how often the stages of dvc.yaml run, and what happens with the results."""

import os

from flows import environment
from tasks.process import die_with_parent

# Prefect reads its settings while it is imported, so they have to stand before any module of this package asks for it.
environment.prepare()

if "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker's: the one that follows a killed worker marks its runs as crashed
    die_with_parent()
