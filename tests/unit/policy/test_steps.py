"""The steps of an explanation: values that a program can read as JSON."""

import json
from dataclasses import asdict, fields

from resolver.policy import steps
from tests.unit.policy.test_explain import explained


def test_an_explanation_is_written_as_json_word_for_word() -> None:
    """Every step under its key; enumerations are their words, moments their text."""
    told = asdict(explained("login.chat.example"))
    written = json.loads(json.dumps(told, default=str))

    assert set(written) == {field.name for field in fields(steps.Explanation)}
    assert (written["outcome"], written["orders"][0]["standing"]) == ("withheld", "in-force")
