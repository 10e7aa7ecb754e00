"""Docstrings of Python source text, read from its syntax tree: the code is never imported or run.

Knows nothing about where sources lie or how records are kept: see `utils.data.builtin.pydocs`.
"""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

MIN_DOC_CHARACTERS = 20
"""Shorter docstrings ("Close.") say nothing that the name does not."""
MAX_SIGNATURE_CHARACTERS = 160
"""A longer argument list is cut between two arguments: two lines of text at most."""
DOC_SETTERS = {"add_docstr": "", "add_newdoc": "", "add_docstr_all": "torch.Tensor."}
"""Functions with which torch and numpy document what is compiled, and the owner they leave out."""
PLACEHOLDER_LINE = re.compile(r"^[ \t]*\{\w+\}[ \t]*\n?", re.MULTILINE)
SIGNATURE_LINE = re.compile(r"[\w.]+ ?\(.*\)( ?->.*)?$")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class DocRecord:
    """One docstring with what it belongs to."""

    name: str
    """Qualified name, such as `json.dumps`."""
    kind: str
    """function, method, property, class, module or topic."""
    signature: str
    """Arguments in parentheses without annotations and `self`; empty where there are none."""
    doc: str
    """The docstring without its indentation."""
    source: str
    """Distribution it is from, or `python`."""

    @property
    def text(self) -> str:
        """The document: name and signature, an empty line, the docstring."""
        if self.kind == "topic":
            return self.doc
        prefix = f"{self.kind} " if self.kind in ("class", "module") else ""
        return f"{prefix}{self.name}{self.signature}\n\n{self.doc}"

    @property
    def summary(self) -> str:
        """The first paragraph on one line; a signature before it is passed over."""
        paragraphs = [" ".join(part.split()) for part in self.doc.split("\n\n", 2)[:2]]
        return paragraphs[SIGNATURE_LINE.match(paragraphs[0]) is not None and len(paragraphs) > 1]

    @property
    def is_public(self) -> bool:
        """Whether no part of the name begins with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))


def extract_records(code: bytes, module: str, source: str) -> list[DocRecord]:
    """Return the docstrings of a module, its classes, functions and methods, in source order.

    Raises:
        SyntaxError, ValueError, RecursionError: `code` is not Python that can be parsed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(code)
    records = [_record(module, "module", "", ast.get_docstring(tree), source)]
    for name, kind, node in _definitions(tree, module, in_class=False):
        if doc := ast.get_docstring(node):
            records.append(_record(name, kind, _signature(node, kind), doc, source))
    for name, signature, doc in _set_docs(tree):
        if "." not in name:
            name = f"{module.rpartition('.')[0] or module}.{name}"
        records.append(_record(name, "function", signature, doc, source))
    return [record for record in records if len(record.doc) >= MIN_DOC_CHARACTERS]


def _record(name: str, kind: str, signature: str, doc: str | None, source: str) -> DocRecord:
    # Escapes such as "\ud800" in a docstring give lone surrogates, which UTF-8 cannot hold.
    clean = inspect.cleandoc(doc or "").strip().encode("utf-8", "ignore").decode()
    return DocRecord(name, kind, signature.encode("utf-8", "ignore").decode(), clean, source)


def _definitions(
    node: ast.AST, owner: str, *, in_class: bool
) -> Iterator[tuple[str, str, Definition]]:
    """Yield (qualified name, kind, node) of every class and function, nested ones too."""
    for field in ("body", "orelse", "finalbody", "handlers"):
        for child in getattr(node, field, ()):
            if isinstance(child, Definition):
                name = f"{owner}.{child.name}"
                is_class = isinstance(child, ast.ClassDef)
                yield name, "class" if is_class else _function_kind(child, in_class), child
                yield from _definitions(child, name, in_class=is_class)
            elif isinstance(child, ast.stmt | ast.ExceptHandler):
                yield from _definitions(child, owner, in_class=in_class)


def _function_kind(node: Definition, in_class: bool) -> str:
    decorators = {ast.unparse(item).rsplit(".", 1)[-1] for item in node.decorator_list}
    if decorators & {"property", "cached_property", "setter"}:
        return "property"
    return "method" if in_class and "staticmethod" not in decorators else "function"


def _signature(node: Definition, kind: str) -> str:
    """Return `(a, *, b=1)`; of a class, the arguments of its `__init__`."""
    if kind == "property":
        return ""
    if isinstance(node, ast.ClassDef):
        inits = [
            child
            for child in node.body
            if isinstance(child, ast.FunctionDef) and child.name == "__init__"
        ]
        return _signature(inits[0], "method") if inits else ""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    for argument in [*every, arguments.vararg, arguments.kwarg]:
        if argument is not None:
            argument.annotation = None
    first = arguments.posonlyargs or arguments.args
    if kind == "method" and first and len(arguments.defaults) < len(every):
        del first[0]
    return f"({shorten_arguments(ast.unparse(arguments))})"


def shorten_arguments(arguments: str) -> str:
    """Return the arguments on one line, cut between two of them where they are too long."""
    line = " ".join(arguments.split())
    if len(line) <= MAX_SIGNATURE_CHARACTERS:
        return line
    return line[:MAX_SIGNATURE_CHARACTERS].rpartition(", ")[0] + ", ..."


def _set_docs(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield (name, signature, docstring) that the module gives to compiled functions by a call."""
    for statement in tree.body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not isinstance(call, ast.Call) or len(call.args) < 2:
            continue
        owner = DOC_SETTERS.get(ast.unparse(call.func).rsplit(".", 1)[-1])
        *target, last = call.args
        doc = PLACEHOLDER_LINE.sub("", _literal(last))
        name = ".".join(_literal(part) or ast.unparse(part) for part in target)
        if owner is not None and doc and re.fullmatch(r"[\w.]+", name):
            yield owner + name, *_leading_signature(inspect.cleandoc(doc))


def _literal(node: ast.expr) -> str:
    """Return the text of a string, of a sum of them, and of `"...".format(...)`; else nothing."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _literal(node.left) + _literal(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _literal(node.func.value) if node.func.attr == "format" else ""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _leading_signature(doc: str) -> tuple[str, str]:
    """Split `abs(input: Tensor) -> Tensor` off the beginning of a docstring, where it has one."""
    head, _, rest = doc.partition("\n\n")
    try:
        (node,) = ast.parse(f"def {head.removesuffix('--').strip()}: ...").body
    except (SyntaxError, ValueError):
        return "", doc
    if isinstance(node, ast.FunctionDef) and rest.strip():
        return _signature(node, "function"), rest
    return "", doc


def extract_topics(code: bytes) -> list[DocRecord]:
    """Return the pages of the language reference in the source of `pydoc_data.topics`.

    Raises:
        SyntaxError, ValueError: `code` is not Python that can be parsed.
    """
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            pages = ast.literal_eval(statement.value)
            return [
                _record(f"topics.{name}", "topic", "", page, "python")
                for name, page in sorted(pages.items())
            ]
    return []
