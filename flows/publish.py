"""Task: data and models to DVC's remote, dvc.lock to a branch; only where somebody asks for it."""

from __future__ import annotations

import logging
import subprocess
import sys

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.subprocesses import Commands

logger = logging.getLogger(__name__)
BRANCH = "retrain"


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish() -> bool:
    """Push what dvc.lock names and commit it on the branch ``retrain``, without touching the working tree.

    Returns whether there was a remote to push to; without one it says so and commits all the same.
    """
    pushed = bool(_output(sys.executable, "-m", "dvc", "remote", "list"))
    if pushed:
        Commands().follow([sys.executable, "-m", "flows.dvc_child", "push"], logger.info)
    else:
        logger.warning("nothing was pushed: no DVC remote; add one with `dvc remote add --default NAME URL`")
    commit = _commit_lock()
    logger.info("dvc.lock is in commit %s of branch %s", commit[:12], BRANCH)
    return pushed


def _commit_lock() -> str:
    """Commit HEAD with dvc.lock as the branch's new tip; index and working tree stay as they are."""
    blob = _output("git", "hash-object", "-w", "dvc.lock")
    entry = f"100644 blob {blob}\tdvc.lock"
    listed = _output("git", "ls-tree", "HEAD").splitlines()
    tree = "\n".join(sorted([line for line in listed if not line.endswith("\tdvc.lock")] + [entry], key=_name)) + "\n"
    made = subprocess.run(["git", "mktree"], input=tree, capture_output=True, text=True, check=True).stdout.strip()
    tip = _output("git", "rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}", check=False)
    if tip and _output("git", "rev-parse", f"{tip}^{{tree}}") == made:
        return tip
    parents = [part for parent in ("HEAD", tip) if parent for part in ("-p", parent)]
    identity = ["-c", "user.name=minima pipeline", "-c", "user.email=pipeline@localhost"]
    commit = _output("git", *identity, "commit-tree", made, *parents, "-m", "Results of a retrain run")
    _output("git", "update-ref", f"refs/heads/{BRANCH}", commit)
    return commit


def _name(line: str) -> str:
    return line.partition("\t")[2]


def _output(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout.strip()
