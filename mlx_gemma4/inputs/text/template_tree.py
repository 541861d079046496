"""Changes a template's syntax tree so that it pays for what it does (``template_meter``).

A loop pays for its body in each iteration, and a macro in each call, by the number of expressions in it. Lists, joined
text, comparisons and slices call a function of the environment::

    {% for m in messages %}    →    {% for m in looped(messages, units) %}
    {{ a ~ b }}                →    {{ joined(a, b) }}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

NODE = 4
"""Units of an expression or a statement."""


class Metered(NodeTransformer):
    """Inserts the payments."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise ValueError("it has a recursive loop, which is not available to chat templates")
        units = _units(node)
        self.generic_visit(node)
        node.iter = _call("looped", node.iter, nodes.Const(units))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._with_payment(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._with_payment(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:
        return self._with_payment(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        operators = [operand.op for operand in node.ops]
        if operators in (["in"], ["notin"]):
            found = _call("contains", node.ops[0].expr, node.expr)
            return found if operators == ["in"] else nodes.Not(found)
        node.expr = _compared(node.expr)
        for operand in node.ops:
            operand.expr = _compared(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        parts = (node.arg.start, node.arg.stop, node.arg.step)
        return _call("sliced", node.node, *(nodes.Const(None) if part is None else part for part in parts))

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._built(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._built(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._built(node) if node.ctx == "load" else node

    def _built(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return node if all(isinstance(item, nodes.Const) for item in node.items) else _call("paid", node)

    def _with_payment(self, node: Any) -> nodes.Node:
        units = _units(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("spent", nodes.Const(units))))
        return node


def metered(tree: nodes.Template) -> tuple[nodes.Template, int]:
    """The tree with payments, and the units of one pass through it, which the caller pays."""
    units = _units(tree)
    return Metered().visit(tree), units


def _units(node: nodes.Node) -> int:
    """Units of one pass through a node, inner loops once: its expressions, and the text that it writes."""
    return sum(len(inner.data) if isinstance(inner, nodes.TemplateData) else NODE for inner in _nodes(node))


def _nodes(node: nodes.Node) -> Iterator[nodes.Node]:
    waiting = [node]
    while waiting:
        inner = waiting.pop()
        yield inner
        waiting.extend(inner.iter_child_nodes())


def _compared(value: nodes.Expr) -> nodes.Expr:
    return value if isinstance(value, nodes.Const) else _call("compared", value)


def _call(function: str, *arguments: Any) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(function), list(arguments), [], None, None)
