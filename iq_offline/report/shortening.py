"""Names cut to a length and still told apart: what several of them share goes first."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

WORD = re.compile(r"[\w.]+=|[^\s=,/_+-]+[\s=,/_+-]*|[\s=,/_+-]+")
"""A setting's key, or a word with what parts it from the next."""
SETTING = re.compile(r"\w=")
LEAST = (6, 3)
"""Characters that a shared word keeps at first, and in the end."""
SHORT = 4
"""A word of so few stays whole."""
TIED = "\N{NO-BREAK SPACE}"
BREAK = "\v"
"""White space, for the one who breaks lines, that no text has of its own."""


def shortened(texts: Sequence[str], size: int) -> list[str]:
    """The texts in at most `size` characters each, different ones still different.

    Of those that are too long first the settings' keys lose their middle, then the words that most of them share; then
    those words go, then the text's own middle; a number tells apart what is alike all the same. A key is cut alike in
    every text.
    """
    distinct = list(dict.fromkeys(texts))
    long = [text for text in distinct if len(text) > size]
    forms = _forms(distinct, long, size)
    cut = {text: without_middle(_joined(text, forms), size) for text in long}
    keys = {word: form for word, form in forms.items() if word.endswith("=")}
    cut |= {text: _joined(text, keys) for text in distinct if text not in cut}
    used = Counter(cut.values())
    alike = [text for text in distinct if used[cut[text]] > 1]
    for number, text in enumerate(alike, start=1):
        cut[text] = f"{cut[text][: size - 1 - len(str(number))]}~{number}"
    return [cut[text] for text in texts]


def wrapped(texts: Sequence[str], width: int, lines: int) -> list[str]:
    """The texts in at most that many lines of that width, different ones still different."""
    folded = ["\n".join(_folded(text, width)) for text in texts]
    if all(text.count("\n") < lines for text in folded):
        return folded
    for size in range(width * lines, width, -4):
        short = [_folded(text, width) for text in shortened(texts, size)]
        if max(map(len, short)) <= lines:
            return ["\n".join(text) for text in short]
    return shortened(texts, width)


def without_middle(text: str, size: int) -> str:
    """The text with `~` for its middle where it is too long."""
    if len(text) <= size:
        return text
    head = (size - 1) // 2
    return f"{text[:head]}~{text[len(text) - (size - 1 - head) :]}"


def _folded(text: str, width: int) -> list[str]:
    """Lines broken at commas and between settings; a word that fills more than one, where `_breakable` says."""
    parts = [
        part if SETTING.search(part) or len(part) >= width else part.replace(" ", TIED) for part in text.split(", ")
    ]
    words = [_breakable(word, width) for word in ", ".join(parts).split(" ")]
    lines = textwrap.wrap(" ".join(words), width, break_on_hyphens=False, replace_whitespace=False) or [""]
    return [line.replace(TIED, " ").replace(BREAK, "") for line in lines]


def _breakable(word: str, width: int) -> str:
    """A word with a BREAK behind each `=` and `/`, and behind the hyphens of a part that is too long all the same."""
    if len(word) <= width:
        return word
    parts = [
        part if len(part) <= width else re.sub("([-_])(?=.)", rf"\1{BREAK}", part)
        for part in re.findall("[^=/]*[=/]|[^=/]+", word)
    ]
    return BREAK.join(parts)


def _forms(texts: Sequence[str], long: Sequence[str], size: int) -> dict[str, str]:
    """What stands for each shared word of the long texts, cut until they fit, or no shared word is left to cut."""
    forms: dict[str, str] = {}
    own = {word for text in long for word in WORD.findall(text)}
    for shared, least in _turns([[word for word in WORD.findall(text) if word in own] for text in texts]):
        for letters in range(max(map(len, shared)), least - 1, -1):
            forms |= {word: _cut(word, letters) for word in shared}
            if all(len(_joined(text, forms)) <= size for text in long):
                return forms
    return forms


def _joined(text: str, forms: Mapping[str, str]) -> str:
    """The text with those words cut; what is cut beside each other is one `~`."""
    words = WORD.findall(text)
    return re.sub("~+", "~", "".join(forms.get(word, word) for word in words)) if words and forms else text


def _turns(texts: Sequence[Sequence[str]]) -> Iterator[tuple[list[str], int]]:
    """The words that several texts hold, in the order of their cutting, and how many letters they keep then.

    Twice the keys and then the rest, those of most texts first; in the end they go altogether, the keys last.
    """
    counts = Counter(word for words in texts for word in dict.fromkeys(words))
    shared = {word: count for word, count in counts.items() if count > 1}
    keys = [word for word in shared if word.endswith("=")]
    ranks = sorted({count for word, count in shared.items() if word not in keys}, reverse=True)
    rest = [[word for word, count in shared.items() if count == rank and word not in keys] for rank in ranks]
    first = [keys, *rest] if keys else rest
    for least in LEAST:
        yield from ((words, least) for words in first)
    yield from ((words, 0) for words in ([*rest, keys] if keys else rest))


def _cut(word: str, letters: int) -> str:
    if letters == 0:
        return "~"
    bare = word.rstrip(" =,/_+-")
    return word if len(bare) <= SHORT else without_middle(bare, letters) + word[len(bare) :]
