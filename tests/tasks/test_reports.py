"""Reports are read back, and what cannot be is one line."""

import pytest

from minima_core.errors import DataError
from minima_core.io.atomic import write_text
from tasks.reports import DownloadReport, read_report


def test_a_report_comes_back_whatever_its_letters(tmp_path):
    report = DownloadReport(dataset="фото", licence="MIT", scenes=1, images=2, seconds=0.5)
    write_text(tmp_path / "r.json", report.model_dump_json())
    assert read_report(tmp_path / "r.json") == report


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"stage": "download"}', b"\xff\xfe"])
def test_a_missing_or_damaged_report_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(DataError, match=r"r\.json.*again") as caught:
        read_report(tmp_path / "r.json")
    assert "\n" not in str(caught.value)
