"""DVC as a child that dies with the thread that started it: ``python -m flows.dvc_child repro --single-item STAGE``."""

from __future__ import annotations

import sys

from tasks.process import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    from dvc.cli import main

    sys.exit(main(sys.argv[1:]))
