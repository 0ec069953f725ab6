"""Phrases that docstrings, comments, messages and pages avoid; see CONTRIBUTING.

A line that needs one of them ends in "noqa: words".
"""

import ast
import re

import pytest
from helpers.paths import ROOT

PHRASES = {
    "a clause as a noun": r"^\s*\w+: (?:Of|of|That of|that of|Those of|those of) ",
    "invalid, absent, missing": r"\b(?:is|are|be) none\b(?! of)|\b(?:that|which) (?:is|are) no\b",
    "only": r"\balone\b",
    "is": r"\bstands?\b(?!-)|\b(?:lies|lie|lay)\b",
    "fits, belongs to": r"\bgo(?:es)? with\b",
    "alternate": r"\btakes? (?:its|their|a|your) turn\b",
    "converges": r"\b(?:come|comes|came|coming) to rest\b",
    "fulfils": r"\bmeets?\b|\bmeeting\b",
    "the term itself": r"\bown words\b|\ba word (?:on|about|to|of)\b|\bwithout a word\b",
    "other samples of the batch": r"\bmates?\b",
    "workspace, buffer": r"\broom\b",
    "duplicate": r"\bdoubled\b",
    "hint": r"\bway[ _]out\b",
    "minimum, maximum": r"(?<!at )\bleast\b(?! squares)|\bgreatest\b",
    "compared with, next to": r"\bbeside\b",
    "fraction": r"\bshares? of\b",
    "your own": r"\bones own\b|\bone's own\b",
    "named, logged": r"\b(?:is|are) (?:said|told)\b",
    "compensates": r"\bmakes up for\b",
    "circular": r"in a circle",
    "unchanged": r"\bas they come\b",
}
# A docstring starts with a noun or an imperative.
NO_START = re.compile(
    r"(?:What|Where|How|When|Which|Who|Whether|Of|That|Those|Everything is|Nothing|There is)\b"
)  # fmt: skip
PLACES = {
    "package": "crbp_d2/**/*.py",
    "configs": "configs/**/*.*",
    "tools": "tools/**/*.py",
    "tests": "tests/**/*.py",
    "docs": "docs/*.md",
    "pages": "*.md",
}


def phrases(text):
    """(line number, meaning, line) of each phrase to avoid."""
    for number, line in enumerate(text.splitlines(), start=1):
        if "noqa: words" not in line:
            yield from ((number, meaning, line) for meaning, phrase in PHRASES.items() if re.search(phrase, line))


def names(source):
    """(line number, limit, text) of docstrings with a wrong start, and of long names and messages of tests."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if NO_START.match(doc := ast.get_docstring(node) or ""):
                yield getattr(node, "lineno", 1), "noun or imperative", doc.splitlines()[0]
            if getattr(node, "name", "").startswith("test_") and len(node.name) > 60:
                yield node.lineno, "60 characters", node.name
        if isinstance(node, ast.keyword) and node.arg == "match" and isinstance(node.value, ast.Constant):  # noqa: SIM102
            if len(str(node.value.value)) > 40:
                yield node.value.lineno, "40 characters", node.value.value


@pytest.mark.parametrize("place", PLACES)
def test_phrases_and_names(place):
    files = [path for path in sorted(ROOT.glob(PLACES[place])) if path.name != "test_words.py"]
    found = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        finds = [*phrases(text), *(names(text) if path.suffix == ".py" else ())]
        found += [f"{path.relative_to(ROOT)}:{line}: {meaning}: {part.strip()[:90]}" for line, meaning, part in finds]
    assert files and not found, "\n".join([f"{len(found)} finds", *found])


def test_a_phrase_and_a_long_name_are_found():
    assert [find[:2] for find in phrases("x = 1\n# it needs torch alone\n# alone  # noqa: words")] == [(2, "only")]
    source = f'def test_{"a" * 60}():\n    """What it does."""\n    raises(match="{"b" * 41}")\n'
    assert {find[1] for find in names(source)} == {"noun or imperative", "60 characters", "40 characters"}
