"""Questions about functions and their answers, made of docstrings: the rows of the practice sets.

An answer is the first paragraph of a docstring when it is clean, short English; paragraphs with
markup that cannot be resolved, lists or code are left out rather than repaired.
"""

import ast
import builtins
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from utils.data.builtin.docstrings import DocRecord

Conversation = list[dict[str, str]]
MIN_ANSWER_CHARACTERS = 20
MIN_ANSWER_WORDS = 4
MAX_NAME_CHARACTERS = 60
"""Longer qualified names are internals, and fill a small model's context."""
MAX_ARGUMENTS = 6
MAX_EXAMPLE_CHARACTERS = 60
LENGTH_TOLERANCE = 0.25
"""The answers of a pair differ at most so much in length, so that length is no clue."""
STEM_CHARACTERS = 5
"""Words count as the same from this many equal first letters on: `normalize`, `normalization`."""

REWRITES = (
    (re.compile(r":[\w:.+-]+:`~?!?([^`<]+?)( <[^`>]*>)?`"), r"`\1`"),
    (re.compile(r"``+([^`]*)``+"), r"`\1`"),
    (re.compile(r"\[(`[^`]+`)\](\([^)]*\))?"), r"\1"),
    (re.compile(r"`~\.?([^`]+)`"), r"`\1`"),
    (re.compile(r"\*\*([^*`]+)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*(\w[^*`]*)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<=[.!?])\s*::$"), ""),
)
"""reST and Markdown that has a plain form: roles, literals, links to classes, emphasis."""
DEBRIS = re.compile(
    r">>>|::|:\w+ ?\w*:|https?:|www\.|[=~_#-]{3,}|[|{}\\<>@*$\[\]]|!!|\.\. |`_|' ?'|-->|"
    r"\b(args|arguments|parameters?|returns?|raises|yields|attributes|examples?|notes?|usage|"
    r"internal|warning|todo|fixme|deprecated|copyright|license)\b ?:|"
    r"\b(the following|as follows|see (also|below)|below|above|docstring|base class for all|"
    r"e\.g|i\.e|etc|cf|vs)\b\.?|\b(alias|wrapper|helper|shorthand|in-place version) (for|of|to)\b|"
    r"\bsame as\b|\b(this|the) (function|method) (is|was) (deprecated|internal)",
    re.IGNORECASE,
)
"""Signs of an answer that is not clean: markup, section heads, references to text not shown."""
HALF_SENTENCE = re.compile(r"\b(by|is|are|as|of|the|a|to|with|and|or|for|from)\.?$", re.IGNORECASE)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
DULL_WORDS = "the and for from with get set not all has new one two base utils"
DULL_STEMS = frozenset(DULL_WORDS.split())
EXAMPLE = re.compile(r"^ *>>> (.+)\n *(?!>>>|\.\.\.|Traceback|<)(\S.*)(?:\n *$|\Z)", re.MULTILINE)
"""One line of code and one line of result, and nothing after it."""
KNOWN_NAMES = frozenset({"np", "pd", "torch", "nx", *dir(builtins)})
"""Names that an example may use without saying where they come from."""

DOES = (
    "What does {} do?",
    "What is the purpose of {}?",
    "Explain {} briefly.",
    "Describe what {} does.",
    "Tell me what {} does.",
    "What is {} for?",
    "I found {} in some code. What does it do?",
)
IS = (
    "What is {}?",
    "What is the purpose of {}?",
    "Explain {} briefly.",
    "Describe {} in a few words.",
    "What is {} for?",
)
TAKES = (
    "What are the arguments of {}?",
    "Which arguments does {} take?",
    "How do I call {}?",
)
SHOWS = ("Show me an example of {}.", "How is {} used?", "Give a short example of {}.")
ITS_ARGUMENTS = ("What are its arguments?", "Which arguments does it take?", "How do I call it?")
ITS_EXAMPLE = ("Show me an example.", "How is it used?", "Give a short example of it.")
ITS_PLACE = ("Which module is it in?", "Where do I find it?")


@dataclass(frozen=True)
class Subject:
    """A documented thing with the answers that can be given about it."""

    name: str
    """Name as it is asked for, such as `json.dumps` or `len`."""
    kind: str
    source: str
    summary: str
    arguments: str | None
    """Answer to what its arguments are; None where they are unknown or too many."""
    example: str | None
    """Answer with a one-line example from its docstring."""

    @property
    def module(self) -> str:
        """What stands before the last part of the name (before the class, for a method)."""
        return ".".join(self.name.split(".")[: -2 if self.kind in ("method", "property") else -1])

    @property
    def is_inferable(self) -> bool:
        """Whether a word of the name is in the summary, so that it can be guessed in part."""
        return bool(self.name_stems & stems(self.summary))

    @property
    def name_stems(self) -> frozenset[str]:
        """Stems of the words of the name's last part (the last two, for a method)."""
        parts = self.name.split(".")[-2 if self.kind in ("method", "property") else -1 :]
        return stems(" ".join(parts))


def stems(text: str) -> frozenset[str]:
    """Return the first letters of each word of a text or a name, those of dull words left out."""
    words = (word.lower() for word in WORD.findall(text))
    return frozenset(word[:STEM_CHARACTERS] for word in words if len(word) > 2) - DULL_STEMS


def find_subjects(records: Iterable[DocRecord], max_characters: int) -> Iterator[Subject]:
    """Yield the public things whose summary is a clean answer, each summary once."""
    seen: set[str] = set()
    for record in records:
        name = record.name.removeprefix("builtins.")
        if record.kind == "topic" or "#" in name or len(name) > MAX_NAME_CHARACTERS:
            continue
        # Markup that goes makes at most a half of a paragraph; the rest is not worth a look.
        if not record.is_public or len(record.summary) > 2 * max_characters:
            continue
        summary = clean_answer(record.summary)
        if summary is None or len(summary) > max_characters or summary.lower() in seen:
            continue
        seen.add(summary.lower())
        arguments = describe_arguments(name, record.signature)
        example = find_example(name, record.doc)
        yield Subject(name, record.kind, record.source, summary, arguments, example)


def clean_answer(paragraph: str) -> str | None:
    """Return the paragraph as plain sentences with code in single backticks, or None.

    None where markup, code or a reference to other text remains, or it is too short.
    """
    text = paragraph.strip()
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split())
    prose = re.sub(r"`[^`]*`", "code", text)
    if not text.isascii() or "`" in prose or DEBRIS.search(prose) or not _is_prose(prose):
        return None
    text = text[0].upper() + text[1:]
    if text[-1] not in ".!?":
        text += "."
    return text if len(text) >= MIN_ANSWER_CHARACTERS else None


def _is_prose(text: str) -> bool:
    """Return whether the text is made of words, begins with one, and does not stop half-way."""
    words = re.findall(r"[A-Za-z]+", text)
    letters = sum(character.isalpha() or character == " " for character in text)
    first = text.split(" ")[0]
    return (
        len(words) >= MIN_ANSWER_WORDS
        and letters >= 0.85 * len(text)
        and re.fullmatch(r"[A-Za-z][a-z]*('s)?,?|[A-Z0-9-]+|[A-Z][a-z]+[-'][a-z]+", first)
        is not None
        and text[-1] not in ":,;-("
        and not HALF_SENTENCE.search(text)
        and text.count("(") == text.count(")")
        and text.count('"') % 2 == 0
        and re.search(r"\w\(", text) is None
    )


def describe_arguments(name: str, signature: str) -> str | None:
    """Return a sentence with the argument names of a signature; None where it is cut or long."""
    try:
        tree = ast.parse(f"def f{signature}: ...") if signature else None
    except SyntaxError:
        return None
    if tree is None or not isinstance(tree.body[0], ast.FunctionDef):
        return None
    arguments = tree.body[0].args
    names = [item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    names += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    if not 0 < len(names) <= MAX_ARGUMENTS or any(item.startswith("_") for item in names):
        return None
    *others, last = [f"`{item}`" for item in names]
    if not others:
        return f"`{name}` takes one argument, {last}."
    return f"`{name}` takes the arguments {', '.join(others)} and {last}."


def find_example(name: str, doc: str) -> str | None:
    """Return a sentence with the first one-line example of `name` that needs nothing before it."""
    parts = name.split(".")
    for match in EXAMPLE.finditer(doc):
        code, result = match[1].strip(), match[2].strip()
        longest = max(len(code), len(result))
        if f"{parts[-1]}(" not in code or longest > MAX_EXAMPLE_CHARACTERS or "`" in match[0]:
            continue
        if match[0].isascii() and "..." not in match[0] and _is_closed(code, parts):
            return f"For example, `{code}` gives `{result}`."
    return None


def _is_closed(code: str, parts: list[str]) -> bool:
    """Return whether `code` is an expression of literals, builtins and the parts of a name."""
    try:
        tree = ast.parse(code, mode="eval")
    except SyntaxError:
        return False
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names <= KNOWN_NAMES.union(parts)


def ask_summary(subject: Subject, rng: random.Random) -> str:
    """Return one of the forms of the question what the subject does or is."""
    forms = DOES if subject.kind in ("function", "method") else IS
    return rng.choice(forms).format(subject.name)


def make_conversation(subject: Subject, rng: random.Random) -> Conversation:
    """Return a conversation of one to three questions about the subject, with the answers.

    About one in eight is about the arguments and one in eight has more turns, where these can be
    answered; most of those that have an example show it.
    """
    first = (ask_summary(subject, rng), subject.summary)
    turns = [first]
    draw = rng.random()
    if subject.example and draw < 0.6:
        turns = [(rng.choice(SHOWS).format(subject.name), subject.example)]
    elif subject.arguments and draw < 0.12:
        turns = [(rng.choice(TAKES).format(subject.name), subject.arguments)]
    elif draw > 0.85:
        turns = [first, *_follow_ups(subject, rng)]
    return _messages(turns)


def _follow_ups(subject: Subject, rng: random.Random) -> list[tuple[str, str]]:
    """Return one or two further turns that say `it` for the subject."""
    turns = [(rng.choice(forms), answer) for forms, answer in follow_up_answers(subject).items()]
    return rng.sample(turns, k=min(len(turns), rng.choice((1, 1, 2))))


def follow_up_answers(subject: Subject) -> dict[tuple[str, ...], str]:
    """Return the answers to questions that say `it` for the subject, by the forms of each."""
    place = f"It is in `{subject.module}`." if subject.module else None
    answers = {
        ITS_ARGUMENTS: subject.arguments,
        ITS_EXAMPLE: subject.example,
        ITS_PLACE: place,
    }
    return {forms: answer for forms, answer in answers.items() if answer}


def make_pair(right: Subject, wrong: Subject, rng: random.Random) -> dict[str, object]:
    """Return a pair of answers to a question about `right`, the rejected one being about `wrong`.

    About one in six is a dialogue whose last question says `it`, as in the conversations, where
    both can answer one at about the same length: a model that never sees such a question in
    preference training forgets how to answer it.
    """
    question, answers, others = ask_summary(right, rng), *map(follow_up_answers, (right, wrong))
    both = [forms for forms in answers if forms in others]
    both = [forms for forms in both if are_as_long(answers[forms], others[forms])]
    if not both or rng.random() > 0.25:
        return {"prompt": question, "chosen": right.summary, "rejected": wrong.summary}
    asked = rng.choice(both)
    earlier = [forms for forms in answers if forms != asked]
    turns = [(question, right.summary)]
    if earlier and rng.random() < 0.25:
        forms = rng.choice(earlier)
        turns.append((rng.choice(forms), answers[forms]))
    prompt = [*_messages(turns), {"role": "user", "content": rng.choice(asked)}]
    return {"prompt": prompt, "chosen": answers[asked], "rejected": others[asked]}


def are_as_long(right: str, wrong: str) -> bool:
    """Tell whether two answers differ so little in length that it is no clue."""
    return abs(len(wrong) - len(right)) <= LENGTH_TOLERANCE * len(right)


def _messages(turns: list[tuple[str, str]]) -> Conversation:
    return [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
