"""What can be wrong in a module: every small mistake that it could have, one at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """A module with one mistake in it."""

    line: int
    before: str
    """The part of the module that is replaced, as one line."""
    after: str
    text: str
    """The whole module with the mistake."""


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines; none where its text has no code.

    What no test can tell from the original is left out where that is plain: annotations, docstrings, `__all__`, what is
    under `if TYPE_CHECKING` or `if __name__ == "__main__"`. The words of messages are left alone as well.
    """
    tree = ast.parse(source)
    found = []
    for path, node in walk(tree):
        for replacement in replacements(node):
            mutated = copy.deepcopy(tree)
            put(mutated, path, replacement)
            text = ast.unparse(ast.fix_missing_locations(mutated))
            found.append(Mutant(node.lineno, one_line(node), one_line(replacement), text + "\n"))
    return sorted(found, key=lambda mutant: mutant.line)


Path = tuple[tuple[str, int | None], ...]
"""How a node is reached from the module: fields, and places in those that are lists."""


def walk(tree: ast.AST, path: Path = ()) -> Iterator[tuple[Path, ast.expr | ast.stmt]]:
    """Yield the statements and expressions that may be mutated, each with its path."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(child, ast.AST) or is_left_out(child):
                continue
            here: Path = (*path, (field, place))
            if isinstance(child, ast.expr | ast.stmt):
                yield here, child
            # A text is left alone as a whole, with what is put into it.
            if not isinstance(child, ast.JoinedStr):
                yield from walk(child, here)


def is_left_out(node: ast.AST) -> bool:
    """Return whether nothing below a node is to be mutated."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "__all__"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def replacements(node: ast.expr | ast.stmt) -> Iterator[ast.expr | ast.stmt]:
    """Yield what may stand in the place of a node by mistake."""
    match node:
        case ast.Compare(left, [operator, *operators], comparators) if type(operator) in COMPARISONS:
            yield ast.Compare(left, [COMPARISONS[type(operator)](), *operators], comparators)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for place in range(len(values)):
                rest = values[:place] + values[place + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC and not (is_text(left) or is_text(right)):
            yield ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test, body, orelse) | ast.While(test, body, orelse):
            yield type(node)(ast.Constant(False), body, orelse)
            if isinstance(node, ast.If):
                yield ast.If(ast.Constant(True), body, orelse)
        case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign() | ast.Delete():
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()


def is_text(node: ast.expr) -> bool:
    """Return whether a node is a text for sure."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def put(tree: ast.AST, path: Path, replacement: ast.AST) -> None:
    """Put a node into the place that a path leads to."""
    *before, (field, place) = path
    for name, number in before:
        tree = getattr(tree, name) if number is None else getattr(tree, name)[number]
    if place is None:
        setattr(tree, field, replacement)
    else:
        getattr(tree, field)[place] = replacement


def one_line(node: ast.AST) -> str:
    """Return a node's code, shortened to one line."""
    text = ast.unparse(ast.fix_missing_locations(node)).splitlines()[0]
    return text if len(text) <= 100 else f"{text[:97]}..."
