"""The language of `when`: from text to conditions, or to the column of a mistake and what to write instead.

    condition   = all { "or" all } ; all = term { "and" term }
    term        = "not" term | "(" condition ")" | comparison
    comparison  = subject (">" | ">=" | "<" | "<=") threshold [ "in" SPAN ]
    subject     = MEASURE | FUNCTION "(" MEASURE ["," SPAN] ")"
    threshold   = SIZE | PERCENT "of" MEASURE | PERCENT | COUNT | RATE | SPAN

A size measure is compared with a size or with a share of another size; a pressure with a percentage;
events are counted within a span, and only they take `in`; functions have their operands, spans and
dimensions in `policy.condition`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from unitmem.measure.catalogue import MEASURES, OPERANDS, SLICE_PREFIX, Dimension
from unitmem.policy.condition import FUNCTIONS, All, AnyOf, Comparison, Condition, Derivation, Function, Not
from unitmem.text import (
    QuantityError,
    closest,
    format_span,
    parse_percent,
    parse_rate,
    parse_size,
    parse_span,
)

MIN_SLOPE_SPAN, MAX_SLOPE_SPAN = 1.0, 7 * 86400.0


class ConditionError(ValueError):
    """A condition that can't be parsed: `column` counts from 0 within it, `str()` says what to write instead."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quantity>[0-9][0-9.]*\s*(?:%|(?!(?:and|or|in|of|not)\b)[A-Za-zµμ]+)?)
      | (?P<word>[A-Za-z_µμ][A-Za-z0-9_.]*)
      | (?P<operator>[<>=!]=?|==)
      | (?P<punctuation>[(),/])
    )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"and", "or", "not", "of", "in"})
_OPERATORS = frozenset({">", ">=", "<", "<="})
_MAX_DEPTH = 50  # nobody means more; the parser recurses


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


def parse_condition(text: str) -> Condition:
    """Parse a condition.

    Raises:
        ConditionError: `text` is not a condition.
    """
    parser = _Parser(text)
    condition = parser.any_of()
    if parser.token.kind == "of":
        parser.fail("only a percentage of a size has an `of`: write it like `workingset > 80% of limit`")
    if (lower := parser.token.text.lower()) in ("and", "or", "in", "of") and parser.token.kind == "word":
        parser.fail(f"{parser.token.text!r} is unexpected here: write `{lower}` in small letters")
    if parser.token.kind != "end":
        parser.fail(f"{parser.token.text!r} is unexpected here: join comparisons with `and` or `or`")
    return condition


def parse_subject(text: str) -> Comparison:
    """Parse the left side of a comparison alone; return it compared with 0.

    Raises:
        ConditionError: `text` is none.
    """
    parser = _Parser(text)
    subject = parser.subject()
    if parser.token.kind != "end":
        parser.fail(f"a measure alone is expected here, such as `{subject}`: take off the rest")
    return Comparison(subject.measure, ">", 0.0, None, subject.span, subject.derivation)


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            column = position + len(text[position:]) - len(text[position:].lstrip())
            raise ConditionError(_odd_character(text[column]), column)
        kind = str(match.lastgroup)
        word = match[kind].rstrip()
        if word in _KEYWORDS:
            kind = word
        yield _Token(kind, word, match.start(str(match.lastgroup)))
        position = match.end()
    yield _Token("end", "the end", end)


def _odd_character(character: str) -> str:
    if character in "&|":
        return f"{character!r} is not an operator here: write `and` or `or`"
    if character in "+-*":
        below = ", and no threshold below 0" if character == "-" else ""
        return (
            f"there is no arithmetic here ({character!r}){below}: compare one measure with a size or a share"
        )
    return f"{character!r} means nothing here: a condition reads like `workingset > 80% of limit`"


class _Parser:
    """A recursive descent parser of one condition."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._position = 0
        self._depth = 0

    @property
    def token(self) -> _Token:
        return self._tokens[self._position]

    def advance(self) -> _Token:
        token = self.token
        if token.kind != "end":
            self._position += 1
        return token

    def fail(self, message: str, token: _Token | None = None) -> NoReturn:
        raise ConditionError(message, (token or self.token).column)

    def any_of(self) -> Condition:
        terms = [self.all_of()]
        while self.token.kind == "or":
            self.advance()
            terms.append(self.all_of())
        return terms[0] if len(terms) == 1 else AnyOf(tuple(terms))

    def all_of(self) -> Condition:
        terms = [self.term()]
        while self.token.kind == "and":
            self.advance()
            terms.append(self.term())
        return terms[0] if len(terms) == 1 else All(tuple(terms))

    def term(self) -> Condition:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self.fail(f"more than {_MAX_DEPTH} levels of `not` and parentheses: write it simpler")
        try:
            if self.token.kind == "not":
                self.advance()
                return Not(self.term())
            if self.token.text == "(":
                opening = self.advance()
                inner = self.any_of()
                if self.token.text != ")":
                    self.fail("this parenthesis is never closed: add `)`", opening)
                self.advance()
                return inner
            return self.comparison()
        finally:
            self._depth -= 1

    def comparison(self) -> Comparison:
        subject = self.subject()
        operator = self.token
        if operator.text not in _OPERATORS:
            what = f"not {operator.text!r}" if operator.kind == "operator" else "such as >"
            self.fail(
                f"{subject} must be compared with one of > >= < <=, {what}: "
                f"write `{subject} > {_EXAMPLE[subject.dimension]}`"
            )
        self.advance()
        threshold, of = self.threshold(subject, operator)
        span = self.span_of_count(subject)
        return Comparison(
            subject.measure,
            operator.text,
            threshold,
            of,
            subject.span if span is None else span,
            subject.derivation if span is None else Derivation.INCREASE,
        )

    def subject(self) -> _Subject:
        """Parse the left side of a comparison: a measure, or a function of one."""
        name = self.token
        if name.kind == "word" and name.text in FUNCTIONS:
            derivation = Derivation(name.text)
            function = FUNCTIONS[derivation]
            self.advance()
            if self.token.text != "(":
                self.fail(f"{name.text} needs its arguments: write `{function.example}`")
            self.advance()
            measure = self.operand(function)
            span = self.slope_span(function)
            if self.token.text != ")":
                self.fail(f"this parenthesis is never closed: write `{function.example}`", name)
            self.advance()
            return _Subject(measure, derivation, span)
        measure = self.measure("a measure is expected here").text
        return _Subject(measure)

    def operand(self, function: Function) -> str:
        token = self.measure(f"a measure is expected in `{function.example}`")
        if token.text not in function.operands:
            self.fail(function.refusal.format(token.text), token)
        return token.text

    def slope_span(self, function: Function) -> float:
        if self.token.text != ",":
            if function.default_span is not None:
                return function.default_span
            self.fail(f"over what time? write `{function.example}`")
        self.advance()
        first = self.token
        span = self.time_span(f"`{function.example}`")
        if not MIN_SLOPE_SPAN <= span <= MAX_SLOPE_SPAN:
            self.fail(
                f"a slope is taken over {format_span(MIN_SLOPE_SPAN)} to {format_span(MAX_SLOPE_SPAN)}: "
                "write a span such as 10min",
                first,
            )
        return span

    def time_span(self, where: str) -> float:
        first = self.token
        if first.kind != "quantity":
            self.fail(f"a time span is expected here, not {first.text!r}: write it like {where}")
        try:
            return parse_span(self.quantity())
        except QuantityError as error:
            self.fail(str(error), first)

    def measure(self, expected: str) -> _Token:
        token = self.token
        if token.kind != "word":
            self.fail(f"{expected}, not {token.text!r}: write it like `workingset > 80% of limit`")
        if token.text not in OPERANDS:
            self.fail(f"there is no measure {token.text!r}: {_suggestion(token.text)}")
        return self.advance()

    def threshold(self, subject: _Subject, operator: _Token) -> tuple[float, str | None]:
        dimension = subject.dimension
        first = self.token
        if first.kind == "word" and first.text in OPERANDS and dimension is Dimension.SIZE:
            self.fail(
                f"a measure is compared with a share of another: "
                f"write `{subject} {operator.text} 100% of {first.text}`"
            )
        if first.kind != "quantity":
            self.fail(
                f"a {_DIMENSION_NAME[dimension]} is expected after {operator.text!r}, not {first.text!r}: "
                f"write it like `{subject} {operator.text} {_EXAMPLE[dimension]}`"
            )
        quantity = self.quantity()
        is_percent = quantity.endswith("%")
        try:
            match dimension:
                case Dimension.SIZE if is_percent:
                    return parse_percent(quantity), self.share(subject, operator, quantity)
                case Dimension.SIZE:
                    size = float(parse_size(quantity))
                    if self.token.text == "/":
                        self.fail(
                            f"{subject} is a size, and {quantity}/… a rate: "
                            f"write `growth({subject}, 10min) {operator.text} {quantity}/min`"
                        )
                    return size, None
                case Dimension.PERCENT:
                    return self.percentage(subject, operator, first, quantity), None
                case Dimension.COUNT:
                    return self.count(subject, operator, first, quantity), None
                case Dimension.RATE:
                    return self.rate(subject, operator, first, quantity), None
                case Dimension.SPAN:
                    return parse_span(quantity), None
        except QuantityError as error:
            if self.token.text == ",":
                self.fail("a number has a decimal point, and no comma: write it like 1.5G", self.token)
            self.fail(str(error), first)

    def rate(self, subject: _Subject, operator: _Token, first: _Token, quantity: str) -> float:
        if quantity.endswith("%"):
            self.fail(
                f"{subject} is a rate: write `{subject} {operator.text} {_EXAMPLE[Dimension.RATE]}`", first
            )
        if self.token.text != "/":
            self.fail(
                f"{subject} is a rate: write `{subject} {operator.text} {quantity}/min`, or /s, /h",
            )
        self.advance()
        unit = self.advance()
        if unit.kind != "word":
            self.fail(
                f"a unit of time is expected after `/`: write `{subject} {operator.text} {quantity}/min`",
                unit,
            )
        return parse_rate(f"{quantity}/{unit.text}")

    def quantity(self) -> str:
        """Return the text of one quantity, which has one term or more: `512M`, `1G 512M`."""
        parts = [self.advance().text]
        while self.token.kind == "quantity":
            parts.append(self.advance().text)
        return " ".join(parts)

    def share(self, subject: _Subject, operator: _Token, quantity: str) -> str:
        if self.token.kind != "of":
            self.fail(
                f"{quantity} of what? write `{subject} {operator.text} {quantity} of limit`, "
                "or another measure after `of`"
            )
        self.advance()
        whole = self.measure("a measure is expected after `of`")
        if OPERANDS[whole.text].dimension is not Dimension.SIZE:
            self.fail(f"{whole.text!r} is not a size, so it has no share: write `of limit`", whole)
        return whole.text

    def percentage(self, subject: _Subject, operator: _Token, first: _Token, quantity: str) -> float:
        if not quantity.endswith("%"):
            self.fail(f"{subject} is a percentage: write `{subject} {operator.text} 40%`", first)
        if self.token.kind == "of":
            self.fail(f"{subject} is a percentage already: leave out `of`")
        percent = parse_percent(quantity)
        if percent > 100:
            self.fail(f"{subject} is never more than 100%: write a percentage below that", first)
        return percent

    def count(self, subject: _Subject, operator: _Token, first: _Token, quantity: str) -> float:
        if not quantity.isdigit() or len(quantity) > 15:  # a float holds no more
            self.fail(
                f"{subject} is a number of events: "
                f"write a whole number, such as `{subject} {operator.text} 0 in 10min`",
                first,
            )
        return float(quantity)

    def span_of_count(self, subject: _Subject) -> float | None:
        """Parse the span after `in`, which only counts of events have; return None for other subjects."""
        is_count = subject.dimension is Dimension.COUNT
        if self.token.kind != "in":
            if is_count:
                self.fail(f"within what time? events are counted in a span: write `{subject} > 0 in 10min`")
            return None
        keyword = self.advance()
        if not is_count:
            self.fail(
                f"`in` counts events, and {str(subject)!r} is none: "
                "leave it out (how long a condition has to hold goes under `for:`)",
                keyword,
            )
        first = self.token
        if first.kind != "quantity":
            self.fail(f"a time span is expected after `in`, not {first.text!r}: write it like `in 10min`")
        span = self.time_span("`in 10min`")
        if span <= 0:
            self.fail("the span must be greater than 0: write one such as `in 10min`", first)
        return span


class _Subject(NamedTuple):
    """The left side of a comparison."""

    measure: str
    derivation: Derivation | None = None
    span: float | None = None

    @property
    def dimension(self) -> Dimension:
        return Comparison(self.measure, ">", 0, span=self.span, derivation=self.derivation).dimension

    def __str__(self) -> str:
        return Comparison(self.measure, ">", 0, span=self.span, derivation=self.derivation).subject


_DIMENSION_NAME = {
    Dimension.SIZE: "size",
    Dimension.PERCENT: "percentage",
    Dimension.COUNT: "number",
    Dimension.RATE: "rate",
    Dimension.SPAN: "time span",
}
_EXAMPLE = {
    Dimension.SIZE: "512M",
    Dimension.PERCENT: "40%",
    Dimension.COUNT: "0 in 10min",
    Dimension.RATE: "5M/min",
    Dimension.SPAN: "10min",
}


# What people write who come from elsewhere
_FOREIGN_NAMES = {
    "memory": "workingset",
    "mem": "workingset",
    "usage": "workingset",
    "used": "workingset",
    "working_set": "workingset",
    "cache": "file",
    "max": "limit",
    "memory.current": "current",
    "memory.max": "limit",
    "memory.high": "high",
    "memory.swap.current": "swap",
    "available": "host.available",
    "psi": "pressure.some.avg10",
    "pressure": "pressure.some.avg10",
    "oom_kill": "events.oom_kill",
    "oom": "events.oom",
}


def _suggestion(name: str) -> str:
    lowered = name.lower()
    if lowered in FUNCTIONS:
        return f"did you mean `{FUNCTIONS[Derivation(lowered)].example}`?"
    if lowered.startswith(SLICE_PREFIX) and (own := lowered.removeprefix(SLICE_PREFIX)) in MEASURES:
        return f"of a slice there are the measures of its cgroup alone, and {own!r} is none of them"
    if close := _FOREIGN_NAMES.get(lowered) or closest(lowered, OPERANDS):
        return f"did you mean {close!r}?"
    return "see unitmem.yaml(5) for the list, which starts with workingset, unreclaimable, pss, limit"
