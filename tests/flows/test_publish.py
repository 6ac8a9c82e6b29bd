"""Publishing: dvc.lock on a branch, the working tree untouched, data to the remote where there is one."""

import logging
import subprocess

from flows.publish import BRANCH, publish


def git(*command):
    done = subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e@x", *command], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def committed(toy):
    git("add", ".gitignore", "dvc.yaml", "toy.py", "params.yaml", ".dvc/config")
    git("commit", "-qm", "toy")
    toy.dvc("repro", "index")


def test_without_a_remote_it_says_so_and_keeps_the_lock(toy, caplog):
    committed(toy)
    head, dirty = git("rev-parse", "HEAD"), git("status", "--porcelain")
    with caplog.at_level(logging.INFO):
        assert publish.fn() is False
    assert "no DVC remote; add one with `dvc remote add --default NAME URL`" in caplog.text
    assert git("show", f"{BRANCH}:dvc.lock") == (toy.root / "dvc.lock").read_text().strip()
    assert git("show", f"{BRANCH}:toy.py") == (toy.root / "toy.py").read_text().strip()
    assert (git("rev-parse", "HEAD"), git("status", "--porcelain")) == (head, dirty)

    tip = git("rev-parse", BRANCH)
    publish.fn()
    assert git("rev-parse", BRANCH) == tip  # nothing new, no new commit


def test_a_remote_gets_what_the_lock_names(toy, tmp_path):
    committed(toy)
    toy.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    assert publish.fn() is True
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
