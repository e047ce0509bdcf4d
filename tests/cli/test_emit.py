"""JSON on stdout."""

from __future__ import annotations

import io
import json

import pytest

from unitmem.report.document import emit


@pytest.mark.parametrize(
    ("encoding", "is_escaped"), [("utf-8", False), ("iso-8859-1", True), ("ascii", True)]
)
def test_a_document_can_be_printed_whatever_stdout_takes(encoding, is_escaped, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    emit({"description": "Café – 東京"})
    text = written.getvalue().decode(encoding)
    assert json.loads(text) == {"description": "Café – 東京"}
    assert ("\\u6771" in text) is is_escaped
    assert text.startswith('{\n  "description"')


def test_a_stdout_that_is_closed_takes_nothing(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    emit({})
