"""tools/mutants makes every mistake once, each a module that Python can read, and none where it would mean the same."""

from __future__ import annotations

import ast

import pytest

from tools.mutants.mutate import mutants


def mistakes(source: str) -> list[tuple[int, str, str]]:
    return [(mutant.line, mutant.before, mutant.after) for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["a <= b"]),
        ("a == b", ["a != b"]),
        ("a in b", ["a not in b"]),
        ("x = a and b", ["a or b", "b", "a"]),
        ("x = not a", ["a"]),
        ("x = a + b", ["a - b"]),
        ("x = f'{a}' + b", []),
        ("x = 3", ["4"]),
        ("x = True", ["False"]),
        ("x = a if b else c", ["c if b else a"]),
        ("call()", ["pass"]),
        ("x += y", ["pass"]),
        ("x = 'text'", []),
        ("'''Doc, of 3 words.'''", []),
        ("__all__ = [1]", []),
        ("if TYPE_CHECKING:\n    x = 1", []),
        ("if __name__ == '__main__':\n    main()", []),
        ("x: Literal[3] = y", []),
        ("log(f'{a + 1}')", ["pass"]),
    ],
)
def test_a_piece_of_code_has_these_mistakes(source: str, expected: list[str]) -> None:
    assert [after for _, _, after in mistakes(source)] == expected


def test_each_mutant_is_the_module_with_one_mistake() -> None:
    source = "def f(a, b=1):\n    '''Add.'''\n    if a:\n        raise ValueError('no')\n    return a + b\n"
    found = mutants(source)
    assert [(mutant.line, mutant.before, mutant.after) for mutant in found] == [
        (1, "1", "2"),
        (3, "if a:", "if False:"),
        (3, "if a:", "if True:"),
        (4, "raise ValueError('no')", "pass"),
        (5, "return a + b", "return None"),
        (5, "a + b", "a - b"),
    ]
    plain = ast.unparse(ast.parse(source)).splitlines()
    for mutant in found:
        lines = mutant.text.splitlines()
        assert len([1 for before, after in zip(plain, lines, strict=True) if before != after]) == 1, mutant
