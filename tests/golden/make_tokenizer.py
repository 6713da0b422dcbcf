"""Write tokenizer.json.gz: a corpus of awkward strings with the ids OpenAI's own tokenizer gives.

    python tests/golden/make_tokenizer.py        (needs clip-anytorch, requirements-oracle.txt)

The corpus is the same on every Python: it draws only `random()`, whose stream is guaranteed, and
only characters that were in Unicode 3.2, whose properties are settled.
"""

import gzip
import html
import importlib.metadata
import importlib.util
import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

GOLDEN = Path(__file__).with_name("tokenizer.json.gz")
T = TypeVar("T")

# Kind → strings that are known to make tokenizers differ.
PHRASES: dict[str, list[str]] = {
    "plain": [
        "a cat",
        "a photograph of an astronaut riding a horse",
        "a red circle left of a blue square on a green field",
        "an oil painting of a lighthouse in a storm, highly detailed, trending on artstation",
        "Two dogs; one CAT... and THREE birds!",
        "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    ],
    "curly quotes and dashes": [
        "“a cat’s hat”",
        "‘single’ and “double” and „low“ and «angled» and ‚comma‘",
        "it’s, you’re, we’ve, I’m, they’ll, he’d, don’t",
        "a cat—no, a dog – or a bird … maybe",
        "rock ’n’ roll in the ’90s",
        "5′ 11″ tall",
    ],
    "contractions": [
        "it's you're we've i'm they'll he'd don't",
        "IT'S YOU'RE WE'VE I'M THEY'LL HE'D DON'T",
        "y'all'd've o'clock 'tis 'twas ma'am",
        "''s 's 't 're 've 'm 'll 'd",
        "it'\u017f 'ſ rock'n'roll",
        "cats' dogs's s's",
    ],
    "html entities": [
        "salt &amp; pepper",
        "salt &amp;amp; pepper",
        "salt &amp;amp;amp; pepper",
        "&lt;b&gt;bold&lt;/b&gt; &quot;quoted&quot; &#39;single&#39;",
        "&nbsp;a&nbsp;cat&nbsp;",
        "caf&eacute; na&iuml;ve &hearts; &#x1F431; &#128049;",
        "&copy &notit; &; &#; &#x; &#xD800; &#0; &#1114112; &unknown;",
        "<b>a &amp; b</b>",
        "<b>a &amp;amp; b &amp;amp;amp; c &amp;lt;</b>",  # ftfy leaves entities beside a tag alone
        "AT&T R&D &AMP;",
    ],
    "full-width and ligatures": [
        "ａ　ｃａｔ　ｏｎ　ａ　ｍａｔ",
        "ＡＢＣ１２３！＃＄％",
        "ﬁne ﬂour oﬀer eﬃgy baﬄe ﬅop ﬆep",
        "ĳsland ǆep ŉ Œuvre Æther",
        "ｶﾀｶﾅ ﾊﾝｶｸ",
    ],
    "chinese, japanese, korean": [
        "一只猫坐在垫子上",
        "猫が畳の上に座っている。",
        "カタカナとひらがな、そして漢字",
        "고양이가 매트 위에 앉아 있다",
        "a 猫 cat と dog 犬",
        "「引用」『二重』【括弧】〜・…",
    ],
    "emoji": [
        "a \N{CAT FACE} on a mat",
        "family \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 outside",
        "\U0001f3f3\ufe0f\u200d\U0001f308 flag \U0001f1eb\U0001f1f7\U0001f1ef\U0001f1f5",
        "\U0001f44d\U0001f3fd thumbs \U0001f469\U0001f3ff\u200d\U0001f680",
        "❤️ \u2764\ufe0e ☃️ 1\ufe0f\u20e3 #\ufe0f\u20e3",
        "\U0001f600\U0001f600\U0001f600\U0001f600",
    ],
    "greek": ["Η γάτα κάθεται στο χαλί", "ΟΔΥΣΣΕΥΣ ὀδυσσεύς ΣΑΣ", "αβγδ ΑΒΓΔ ϐ ϑ ϕ ϖ µ μ Ω Ω"],
    "cyrillic": ["Кошка сидит на коврике", "ЁЖИК И ёжик ИЙ й й", "Їжак ґанок ђак"],
    "arabic and hebrew": [
        "قطة تجلس على السجادة",
        "٠١٢٣٤٥٦٧٨٩ ۰۱۲۳",
        "مُحَمَّدٌ ﷺ لا ﻻ",
        "חתול יושב על השטיח",
        "שָׁלוֹם \u200fright\u200e left",
    ],
    "indic and thai": ["बिल्ली चटाई पर बैठी है", "பூனை பாயில்", "แมวนั่งบนเสื่อ", "১২৩ ๑๒๓"],
    "latin with marks": [
        "Ünïcödé façade naïve résumé Ångström",
        "u\u0308 n\u0303 e\u0301 A\u030angstro\u0308m",
        "İstanbul ISTANBUL ıstanbul i\u0307stanbul",
        "Straße STRASSE ẞ Łódź Đà Nẵng",
        "ȘȚ șț ŞŢ şţ ǅ ǈ ǋ",
    ],
    "mojibake": [
        "âœ” No problems",
        "l’humanitÃ©",
        "The Mona Lisa doesnÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢t have eyebrows.",
        "schÃ¶n ï»¿bom âÃ\xa0 \xa0",
        "Ã±andÃº â€œquotedâ€\x9d â€” dash",
        "РєРѕС€РєР°",
        "\x93cp1252 quotes\x94 and \x96 dash",
    ],
    "control characters": [
        "a\x00cat",
        "a\tcat\non\r\na\x0bmat\x0c",
        "a\x1ccat\x1d\x1e\x1fmat",
        "\x1ca cat\x1f",
        "\x1b[31mred\x1b[0m cat",
        "a\x7fcat\x80\x85\x9f",
        "\ufeffa cat\ufffe\uffff",
        "soft\xadhyphen zero\u200bwidth join\u2060er",
        "\ud800 lone \udfff surrogates",
        "line\u2028and paragraph\u2029separators",
        "\u202ereversed\u202c \u2066isolated\u2069",
    ],
    "spaces": [
        "",
        " ",
        "   \t\n\r  ",
        "\xa0\u2003\u3000",
        "\x1c\x1d\x1e\x1f",
        "  a   cat  ",
        "a\xa0cat\u2009on\u202fa\u205fmat\u3000.",
        "\u180e\u200b\u2060",
    ],
    "numbers and signs": [
        "0 1 12 123 1234 3.14159 1,000,000 -40 +7 1e-5 0x1F",
        "½ ¼ ² ³ ⅷ ⅓ ① ㊿ Ⅻ 10⁻³ H₂O",
        "$5 €5 £5 ¥5 ₿ 50% 50‰ ∞ ± × ÷ ≤ ≥ ≠ √",
        "!!! ??? ... ,,, ;;; ((( ))) [[]] {{}} <<>>",
        "!?!?!?--==++**&&^^%%$$##@@~~``||\\\\//",
        "a_b __init__ snake_case CamelCase kebab-case",
        "(masterpiece:1.2), [blurry], {best quality}",
        ":-) :( ;-D <3 ^_^ ¯\\_(ツ)_/¯",
    ],
    "addresses": [
        "https://example.com/a/cat?q=mat&lang=en#top",
        "http://例え.jp/猫 ftp://[::1]:21/",
        "someone@example.org @someone #hashtag",
        "C:\\cats\\mat.png /usr/share/cats ~/mat.png",
    ],
    "special tokens": [
        "<|startoftext|>",
        "<|endoftext|>",
        "a <|endoftext|> cat",
        "<|ENDOFTEXT|><|StartOfText|>",
        "<|endoftext|",
        "&lt;|endoftext|&gt;",
        "<|\u017ftartoftext|>",
        "</w> cat</w> <w/> w</w>",
    ],
    "very long": [
        "a" * 10_000,
        "ha" * 5_000,
        "!" * 10_000,
        "9" * 10_000,
        "猫" * 2_000,
        "a cat on a mat, " * 625,
    ],
}

# Unicode blocks to draw characters from, and how often the alphabets of the world need them.
BLOCKS = [
    *[(0x20, 0x7E)] * 4,  # ASCII
    (0x00, 0xFF),  # Latin-1, with the controls
    (0x100, 0x24F),  # Latin extended
    (0x250, 0x36F),  # IPA, modifiers, combining marks
    (0x370, 0x52F),  # Greek, Cyrillic
    (0x530, 0x6FF),  # Armenian, Hebrew, Arabic
    (0x900, 0xEFF),  # Indic, Thai, Lao
    (0x1E00, 0x1FFF),  # Latin and Greek with marks
    (0x2000, 0x2BFF),  # punctuation, arrows, mathematics, symbols
    (0x3000, 0x30FF),  # CJK punctuation, kana
    (0x4E00, 0x9FA5),  # Han
    (0xAC00, 0xD7A3),  # Hangul
    (0xF900, 0xFFFD),  # compatibility forms, half and full width
    (0x1D400, 0x1D7FF),  # mathematical letters
]


def corpus() -> list[str]:
    """At least 2,000 strings without duplicates, the same at every call and on every Python."""
    phrases = [phrase for kind in PHRASES.values() for phrase in kind]
    short = [phrase for phrase in phrases if len(phrase) < 500]
    bent = [bend(phrase) for phrase in short for bend in BENDS]
    single = [f"a{chr(code)}b {chr(code)}" for low, high in LATIN for code in range(low, high)]
    drawn = drawn_strings(random.Random(0))
    return list(dict.fromkeys([*phrases, *bent, *single, *drawn]))


def drawn_strings(rng: random.Random) -> list[str]:
    """Strings of random characters, words, marks and numbers."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = " ".join(PHRASES["plain"] + PHRASES["contractions"]).split()
    characters = ["".join(draw(rng, 1 + below(rng, 40), any_character)) for _ in range(400)]
    spoken = [
        " ".join(draw(rng, 1 + below(rng, 100), lambda rng: pick(rng, words))) for _ in range(150)
    ]
    spelled = [
        "".join(draw(rng, 1 + below(rng, 60), lambda rng: pick(rng, letters))) for _ in range(150)
    ]
    zalgo = [
        "".join(
            letter + "".join(draw(rng, below(rng, 12), lambda rng: chr(0x300 + below(rng, 0x46))))
            for letter in pick(rng, words)
        )
        for _ in range(60)
    ]
    numbers = [f"{below(rng, 10**6)} {rng.random():.6f} {-below(rng, 999)}" for _ in range(40)]
    long = ["".join(draw(rng, 10_000, lambda rng: pick(rng, letters)))]
    return [*characters, *spoken, *spelled, *zalgo, *numbers, *long]


def upside_down(text: str) -> str:
    return text[::-1]


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def mojibake(text: str) -> str:
    """UTF-8 read as if it were Latin-1."""
    return text.encode("utf-8", "replace").decode("latin-1")


def escaped_twice(text: str) -> str:
    return html.escape(html.escape(text))


def squeezed(text: str) -> str:
    return "".join(text.split())


def decomposed(text: str) -> str:
    return unicodedata.ucd_3_2_0.normalize("NFD", text)


def padded(text: str) -> str:
    return f"\x1f\u3000 {text}\t\n\x1c"


BENDS: list[Callable[[str], str]] = [
    str.upper,
    str.title,
    upside_down,
    full_width,
    mojibake,
    html.escape,
    escaped_twice,
    squeezed,
    decomposed,
    padded,
]
LATIN = [(0x00, 0x17F), (0x2000, 0x2070)]


def below(rng: random.Random, n: int) -> int:
    return int(rng.random() * n)


def pick(rng: random.Random, items: "list[T] | str") -> "T | str":
    return items[below(rng, len(items))]


def draw(rng: random.Random, n: int, one: Callable[[random.Random], T]) -> list[T]:
    return [one(rng) for _ in range(n)]


def any_character(rng: random.Random) -> str:
    """A character that Unicode 3.2 knows, from one of the blocks."""
    while True:
        low, high = pick(rng, BLOCKS)
        character = chr(low + below(rng, high - low + 1))
        if unicodedata.ucd_3_2_0.category(character) != "Cn":
            return character


def openai_tokenizer() -> ModuleType:
    """OpenAI's `simple_tokenizer.py` as clip-anytorch ships it.

    Loaded as one file: the package's `__init__` would need torchvision.
    """
    path = importlib.metadata.distribution("clip-anytorch").locate_file("clip/simple_tokenizer.py")
    spec = importlib.util.spec_from_file_location("openai_simple_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    encode = openai_tokenizer().SimpleTokenizer().encode
    texts = corpus()
    golden = {
        "from": f"clip-anytorch {importlib.metadata.version('clip-anytorch')}, "
        f"ftfy {importlib.metadata.version('ftfy')}, regex {importlib.metadata.version('regex')}",
        "rows": [{"text": text, "ids": encode(text)} for text in texts],
    }
    packed = json.dumps(golden, separators=(",", ":")).encode("ascii")
    GOLDEN.write_bytes(gzip.compress(packed, compresslevel=9, mtime=0))
    print(f"{len(texts)} strings, {GOLDEN.stat().st_size:,} bytes → {GOLDEN.name}")


if __name__ == "__main__":
    main()
