"""The formulas of docstrings, which are plain text that one can read in an editor, as LaTeX.

What is understood is what the docstrings write: ``dL/dx[n, i] = sum_j grad_y[n, j] weight[j, i]``, products
without a sign, ``x^`` for x with a hat, ``g^2``, ``weight.T``, ``sqrt(v)``, ``[i = j]``, ``sum over i, j
of``. Names stay those of the code. Anything else raises NotAFormula, and is then shown as it is written.
"""

import re

_TOKEN = re.compile(
    r"\s+|sum over [^=<>]*? of\b|sum over [^=<>]*?!=[^=<>]*? of\b|sum of\b|\.\.\.|\d+(?:\.\d+)?(?:e-?\d+)?"
    r"|[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*'?|\.T\b|<-|<=|>=|!=|[-+*/=<>()\[\],|^]|[×·²³²α-ωΑ-Ω∂Σ√≤≥]"
)
_GREEK = {"alpha", "beta", "gamma", "delta", "mu", "phi", "pi", "sigma", "theta", "lambda", "Phi"}
_FUNCTIONS = {"exp", "log", "max", "min", "tanh", "cosh", "sinh", "cos"}
_NAMED = {"log1p", "expm1", "softmax", "sigmoid", "erf", "sum", "mean", "var", "sign", "abs", "E"}
_SIGNS = {
    "<-": r"\leftarrow ", "<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "<": r"\lt ", ">": r"\gt ",
    "*": r"\cdot ", "...": r"\dots ",
}  # fmt: skip
_DERIVATIVE = re.compile(r"d([A-Za-z]\w*)")


class NotAFormula(ValueError):
    """This text is not one of the formulas that are understood."""


def latex(text: str) -> str:
    """Return a formula as LaTeX. Raises NotAFormula."""
    tokens, at = [], 0
    for match in _TOKEN.finditer(text):
        if match.start() != at:
            break
        at = match.end()
        tokens.append(match.group())
    if at != len(text):
        raise NotAFormula(f"{text!r} from {text[at:]!r}")
    return _Reader(tokens).all()


class _Reader:
    """Reads tokens one after the other; spaces count, for ``x[i]`` is an index and ``x [i = j]`` is not."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def all(self) -> str:
        found = self.until("")
        if self.at < len(self.tokens):
            raise NotAFormula(f"a bracket too many: {''.join(self.tokens)}")
        return found

    def peek(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def until(self, close: str) -> str:
        """Read up to a closing bracket, which is taken too, or to the end."""
        made: list[str] = []
        product = False  # whether what was read last can be the left factor of a product
        while (token := self.peek()) and token not in ")]":
            if token.isspace():
                self.take()
                continue
            factor = token[0].isalnum() or token[0] in "([" or token[0] in _UNICODE
            if product and factor and self.peek(-1).isspace():
                made.append(r"\,")
            made.append(self.one())
            product = factor and not token.startswith("sum over") and token != "sum of"
        if close:
            if self.peek() != close:
                raise NotAFormula(f"{close} is missing: {''.join(self.tokens)}")
            self.take()
        return "".join(made)

    def one(self) -> str:
        """Read one thing with all that hangs on it: index, hat, power, transposition."""
        token = self.take()
        if token in "([":
            close = ")" if token == "(" else "]"
            inner = self.until(close)
            return self.hung(rf"{token}{inner}{close}")
        if token.startswith("sum over"):
            return rf"\sum_{{{_Reader(_tokens(token[9:-3])).all()}}}"
        if token == "sum of":
            return r"\sum "
        if token[0].isdigit():
            return self.hung(token)
        if token[0].isalpha() and token[0].isascii():
            return self.word(token)
        if token in _UNICODE:
            return _UNICODE[token]
        if token == ",":
            return r",\; "
        if token == ".T":
            raise NotAFormula("a transposition of nothing")
        return _SIGNS.get(token, token)

    def word(self, token: str) -> str:
        derivative = _DERIVATIVE.fullmatch(token)
        if derivative and (below := self._denominator()):
            above = self.hung(_name(derivative[1]))
            self.at += 2  # the slash and the denominator's name
            return rf"\frac{{\partial {above}}}{{\partial {self.hung(_name(below))}}}"
        if token.startswith("sum_"):
            return rf"\sum_{{{token[4:]}}}"
        if token == "sqrt" and self.peek() == "(":
            self.take()
            return self.hung(rf"\sqrt{{{self.until(')')}}}")
        if token in _FUNCTIONS and self.peek() == "(":
            return rf"\{token}" + self.one()
        if token in _NAMED and self.peek() == "(":
            return rf"\operatorname{{{token}}}" + self.one()
        return self.hung(_name(token))

    def _denominator(self) -> str:
        """Return the name in ``/d...``, if that follows, after an index perhaps; else nothing."""
        ahead, depth = 0, 0
        while token := self.peek(ahead):
            depth += (token == "[") - (token == "]")
            ahead += 1
            if depth == 0 and (token == "/" or self.peek(ahead) == "/"):
                ahead += token != "/"
                found = _DERIVATIVE.fullmatch(self.peek(ahead))
                return found[1] if found else ""
            if depth == 0 and token != "]":
                return ""
        return ""

    def hung(self, made: str) -> str:
        while token := self.peek():
            following = self.peek(1)
            if token == "[":
                self.take()
                index = self.until("]").replace(r",\; ", ",")
                made = rf"{made}_{{{index}}}"
            elif token == ".T":
                self.take()
                made = rf"{made}^{{\top}}"
            elif token in "²³":
                made = rf"{made}^{'2' if self.take() == '²' else '3'}"
            elif token == "^" and following == "-" and self.peek(2).isdigit():
                self.at += 2
                made = rf"{made}^{{-{self.take()}}}"
            elif token == "^" and (following[:1].isalnum() or following == "("):
                self.take()
                if self.peek() == "(":
                    self.take()
                    made = rf"{made}^{{{self.until(')')}}}"
                else:
                    taken = self.take()
                    made = rf"{made}^{{{taken if taken[0].isdigit() else _name(taken)}}}"
            elif token == "^":
                self.take()
                made = rf"\hat{{{made}}}"
            else:
                break
        return made


_UNICODE = {"×": r"\times ", "·": r"\cdot ", "∂": r"\partial ", "Σ": r"\sum ", "≤": r"\le ", "≥": r"\ge "}
_UNICODE |= {letter: letter for letter in "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΦΨΩ"}


def _tokens(text: str) -> list[str]:
    return [match.group() for match in _TOKEN.finditer(text)]


def _name(token: str) -> str:
    """Return a name: one letter in italics, Greek as Greek, the rest upright; a single letter at its end is
    an index."""
    prime = "'" if token.endswith("'") else ""
    *parts, last = token.rstrip("'").split("_")
    if parts and parts != ["grad"] and len(last) == 1:
        return rf"{_name('_'.join(parts))}_{{{last}}}"
    whole = "_".join([*parts, last])
    letters = whole.rstrip("0123456789")
    digits = f"_{{{whole[len(letters) :]}}}" if letters and len(letters) < len(whole) else ""
    if not letters:
        return whole
    if letters in _GREEK:
        return rf"\{letters}{digits}" if digits else rf"\{letters} "
    if re.fullmatch(r"d[a-z]", whole):
        return rf"\mathrm{{d}}{whole[1]}"
    if letters == "eps":
        return rf"\varepsilon {digits}"
    upright = letters.replace("_", r"\_")
    shown = letters if len(letters) == 1 else rf"\mathrm{{{upright}}}"
    return f"{shown}{digits}{prime}"
