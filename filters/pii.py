"""Does the text hold personal data or secrets?"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from synthgen import Measurement, Record, filter

Kind = Literal["key", "password", "email", "iban", "card", "ssn", "ip", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Span = tuple[int, int, str]
Finder = Callable[[str, bool], Iterable[tuple[int, int]]]  # of a text, and whether examples count
# Beside a tag as beside a letter nothing begins or ends, so that redaction leaves nothing new to find.
TAGS = tuple(f"[{kind.upper()}]" for kind in (*KINDS, "name"))
PLACES = 20

# Secrets of services: a mark that each has, by which it is quickly looked for, and its published form.
SECRETS = [
    ("AKIA", r"AKIA[A-Z2-7]{16}"),  # Amazon, as the next
    ("ASIA", r"ASIA[A-Z2-7]{16}"),
    ("ecret", r"(?<=[=:\"' ])[A-Za-z0-9/+]{40}(?![=/+])"),  # only after its name: see AFTER
    ("sk-ant-", r"sk-ant-[a-z]+[0-9]{2}-[\w-]{80,120}"),
    ("sk-or-", r"sk-or-v1-[0-9a-f]{64}"),
    ("sk-", r"sk-(?:proj|svcacct|admin)-[\w-]{40,200}|sk-[A-Za-z0-9]{48}"),  # OpenAI
    ("xai-", r"xai-[A-Za-z0-9]{80}"),
    ("gsk_", r"gsk_[A-Za-z0-9]{52}"),  # Groq
    ("hf_", r"hf_[A-Za-z0-9]{34}"),
    ("r8_", r"r8_[A-Za-z0-9]{37}"),  # Replicate
    ("AIza", r"AIza[\w-]{35}"),  # Google, as the next
    ("GOCSPX-", r"GOCSPX-[\w-]{28}"),
    ("ya29.", r"ya29\.[\w-]{20,2000}"),
    ("gh", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    ("github_pat_", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("glpat-", r"glpat-[\w-]{20,50}"),
    ("npm_", r"npm_[A-Za-z0-9]{36}"),
    ("pypi-AgE", r"pypi-AgE[\w-]{50,500}"),
    ("dckr_pat_", r"dckr_pat_[\w-]{27}"),
    ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{20,250}"),  # Slack, as the next two
    ("xapp-", r"xapp-[0-9]-[A-Z0-9]+-[0-9]+-[0-9a-f]{40,80}"),
    ("hooks.slack.com", r"hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{24}"),
    (":AA", r"(?:bot)?[0-9]{8,10}:AA[\w-]{32,34}"),  # Telegram
    ("SG.", r"SG\.[\w-]{22}\.[\w-]{43}"),  # SendGrid
    ("SK", r"SK[0-9a-f]{32}"),  # Twilio
    ("key-", r"key-[0-9a-f]{32}"),  # Mailgun
    ("k_", r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,247}"),  # Stripe, as the next
    ("whsec_", r"whsec_[A-Za-z0-9+/]{32,64}"),
    ("shp", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("_v1_", r"do[opr]_v1_[0-9a-f]{64}"),  # DigitalOcean
    ("dapi", r"dapi[0-9a-f]{32}"),  # Databricks
    ("AccountKey=", r"(?<=AccountKey=)[A-Za-z0-9+/]{86}=="),  # Azure storage
    ("hvs.", r"hvs\.[\w-]{90,120}"),  # Vault
    ("AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    ("eyJ", r"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,8000}\.[\w-]{10,2000}"),  # JWT
]
KEYS = [
    (mark, re.compile(rf"(?<![A-Za-z0-9_-])(?:{form})(?![A-Za-z0-9_])", re.ASCII)) for mark, form in SECRETS
]
AFTER = re.compile(r"secret_?(?:access_?)?key[\"']?\s{0,3}[=:]?\s{0,3}[\"']?\Z", re.IGNORECASE)
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|[ \t\r]){0,8}\n?"
    r"(?:[A-Za-z-]{1,20}: [^\n]{1,200}\n){0,4}\n?"
    r"(?P<body>(?:[A-Za-z0-9+/=]{20,}+(?:\\[rn]|[ \t\r]|\n(?!\n)){0,8}+)++[A-Za-z0-9+/=]{0,19})"
    r"(?:(?:\\[rn]|\s){0,8}-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?"
)
PLACEHOLDER = re.compile(r"EXAMPLE|x{5}|\.\.\.|your", re.IGNORECASE)

URL_PASSWORD = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://"
    r"(?P<who>[^\s/@:\"'<>\[\]]{0,100}:(?P<password>[^\s/@\"'<>\[\]]{1,200}))@(?P<host>[A-Za-z0-9_.-]{1,253})"
)
NO_PASSWORD = re.compile(
    r"(?:your|my|the|db|user)?[_-]?(?:passw(?:or)?d?|pass|pwd|pw|secret|token|key)[0-9]{0,4}|[*x.…]+|"
    r"[${%].*|[A-Z_]*PASS[A-Z_]*|.*PLACEHOLDER.*",
    re.IGNORECASE,
)
# What is assigned to such a name is a secret if it looks drawn: `DB_PASSWORD=...`, `"apiKey": "..."`.
ASSIGNED = (
    r"(?:{})[\"']?[ \t]{{0,3}}(?::=|=>|[=:])[ \t]{{0,3}}[\"']?"
    r"(?P<value>[A-Za-z0-9+/=_.!@#$%^*~?|-]{{8,200}}+)(?![A-Za-z0-9({{<\[\\])"
)
PASSWORD_NAME = re.compile(ASSIGNED.format("password|passwd|passphrase|pwd"), re.IGNORECASE)
KEY_NAME = re.compile(
    ASSIGNED.format("secret|token|(?:api|access|secret|auth|encryption)[_-]?key"), re.IGNORECASE
)
NOT_DRAWN = re.compile(
    r"0x[0-9a-f]+|.*(?:p[a@4][s$5]{2}|s[e3]cr[e3]t|change_?me|replace|insert|dummy|sample|demo|test|fake|redacted|"
    r"1234|abcd|abc123|a1b2|0000|qwerty|-key|_key|https?:).*",
    re.IGNORECASE | re.DOTALL,
)
WORD = re.compile(r"(?!.*[^aeiouy]{4})(?=.*[aeiouy]).{3,}", re.IGNORECASE)
PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")

LOCAL = r"[^\W_]|[.!#$%&'*+/=?^_`{|}~-]"
EMAIL = re.compile(
    rf"(?<![\w.!#$%&'*+/=?^`{{|}}~@-])(?P<local>\w(?:(?:{LOCAL}){{0,62}}\w)?)@"
    r"(?P<domain>(?:[^\W_](?:[^\W_]|-){0,62}\.){1,8}(?P<top>[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59}))(?![^\W_]|@|-\w|\.\w)"
)
# Who logs in at a host has no letter box there.
NO_MAIL = re.compile(r"://[^\s/]{0,120}\Z|\b(?:ssh|scp|sftp|rsync)\b(?:[^\n,;!?.]|\.(?! )){0,120}\Z")
# Names of files and attributes after a dot, which are no domains, and names that never leave a network.
NO_DOMAINS = frozenset(
    "py js ts css json xml yaml yml txt png jpg jpeg gif svg webp pdf tar gz html htm shape dtype weight "
    "bias data grad size inv transpose reshape local localhost localdomain internal lan home corp".split()
)
EXAMPLE_DOMAIN = re.compile(
    r"(?:.*\.)?(?:example\.(?:com|net|org|edu)|(?:your|my)[a-z-]{0,20}\.[a-z]+|(?:domain|company)\.(?:com|tld)|"
    r"[^.]+\.(?:example|test|invalid|localhost))",
    re.IGNORECASE,
)
EXAMPLE_LOCAL = re.compile(r"your?(?:[._-]|e?-?mail|name|user|address|account|id|company).*", re.I)
# Nobody's letter box.
NO_REPLY = re.compile(r"(?:no|do[._-]?not)[._-]?reply(?:[._+-].*)?|mailer-daemon", re.IGNORECASE)

IBAN = re.compile(r"(?<![A-Za-z0-9_])[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}[A-Z0-9 ]{6,34}")
# The length of each country's IBAN, by the SWIFT registry.
IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}

CARD = re.compile(
    r"(?<![A-Za-z0-9_.,+-])(?<![A-Z]{2}[0-9]{2} )"
    r"(?:[0-9]{14,19}|[0-9]{4}(?P<s>[ -])[0-9]{4}(?:(?P=s)[0-9]{4}){2}"
    r"(?:(?P=s)[0-9]{3})?|3[0-9]{3}(?P<t>[ -])[0-9]{6}(?P=t)[0-9]{4,5})(?![A-Za-z0-9_]|[,.-][0-9])"
)
ISSUERS = [
    (re.compile(r"4"), (16, 19)),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),  # Mastercard
    (re.compile(r"3[47]"), (15,)),  # American Express
    (re.compile(r"6011|64[4-9]|65"), (16, 19)),  # Discover
    (re.compile(r"30[0-5]|3[689]"), (14,)),  # Diners Club
    (re.compile(r"352[89]|35[3-8]"), (16, 19)),  # JCB
    (re.compile(r"62"), (16, 17, 18, 19)),  # UnionPay
]
# Numbers that the networks' processors publish for tests.
TEST_CARDS = frozenset(
    "4242424242424242 4111111111111111 4012888888881881 4000056655665556 4000000000000002 4000002500003155 "
    "5555555555554444 5105105105105100 5200828282828210 2223003122003222 2223000048400011 378282246310005 "
    "371449635398431 378734493671000 6011111111111117 6011000990139424 6011000400000000 30569309025904 "
    "38520000023237 36227206271667 3530111333300000 3566002020360505 6200000000000005".split()
)

SSN = re.compile(
    r"(?<![A-Za-z0-9_.+-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![A-Za-z0-9_-]|\.[0-9])"
)
EXAMPLE_SSNS = frozenset({"123-45-6789", "078-05-1120", "219-09-9999"})

IPV4 = re.compile(r"(?<![A-Za-z0-9_.+-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_-]|\.[0-9])")
IPV6 = re.compile(r"(?<![A-Za-z0-9_:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![A-Za-z0-9_:])")
VERSION = re.compile(r"(?:version|release|build|section|chapter|v\.?|[=<>~^]=?)\s?\Z", re.IGNORECASE)
EXAMPLE_ADDRESSES = frozenset({"1.2.3.4", "12.34.56.78", "123.45.67.89", "123.123.123.123"})

SEPARATORS = "-./\u2013"
PHONE_DIGITS = re.compile(r"[0-9](?:[ ()./\u2013-]{0,3}[0-9]){6}")
START = r"(?<![A-Za-z0-9_.,+=*/^$€£#-])"
END = r"(?![A-Za-z0-9_]|[.,:/-][0-9])"
INTERNATIONAL = re.compile(
    rf"{START}(?P<number>(?:\+|00[ -]?(?=[1-9]))[0-9](?:[ .()/\u2013-]{{0,2}}[0-9]){{6,14}}){END}"
)
NATIONAL = re.compile(
    rf"{START}(?P<number>(?:\([0-9]{{1,5}}\)|[0-9]{{1,5}})"
    rf"(?:[ ]?[./\u2013-][ ]?[0-9]{{2,8}}|[ ][0-9]{{2,8}}|(?<=\))[0-9]{{2,8}})"
    rf"(?:[ ./\u2013-][0-9]{{2,8}}){{0,4}}){END}"
)
ANNOUNCED = re.compile(
    r"(?:(?:(?<![a-z])(?:phones?|tele(?:phone|fon)|tel|mobile?|cell|fax|whatsapp|handy|t[ée]l[ée]phone|t[ée]l|"
    r"tel[ée]fono|telefone|m[óo]vil|celular|cellulare|телефон|тел)(?![a-z])|电话|電話|手机|携帯|전화)"
    r"[^\n0-9]{0,24}?|(?<![a-z])(?:call|dial|ring|text)(?: (?:me|us|him|her|them|now))?(?: (?:at|on))?:? )"
    r"(?P<number>\(?[0-9](?:[ .()/\u2013-]{0,2}[0-9]){8,14})(?![A-Za-z0-9_]|[.,:/-][0-9])",
    re.IGNORECASE,
)
# Free to call, so an organisation's, however the plans of other countries would read it.
TOLL_FREE = re.compile(r"(?:\+?1[-. ]?)?\(?8(?:00|33|44|55|66|77|88)\)?[-. ][0-9]{3}[-. ]?[0-9]{4}")
INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
DECIMAL = re.compile(r"\+[0-9]+\.[0-9]+")
DATE = re.compile(r"(?:19|20)[0-9]{2}[./-][0-9]{1,2}[./-]")
# Kept for films and books, or plainly made up.
FICTIONAL = re.compile(r"1?(?:[2-9][0-9]{2}55501[0-9]{2}|555[0-9]{7})|1?234567[0-9]*")
# Whose numbers are known where a word such as "phone" announces one.
REGIONS = "US GB DE FR ES IT IN BR MX JP CN KR RU AU NL PL TR AR ID NG".split()


@filter(max=0, of="all")
class pii:
    """How many pieces of personal data and secrets the text has.

    Counted are e-mail addresses, telephone numbers, payment cards, IBANs, public IP addresses, US social
    security numbers, passwords in URLs, keys, tokens and private keys of some thirty services, and what looks
    drawn at random where it is assigned to a name such as DB_PASSWORD or api_key. What has a
    checksum must pass it, and what is far more often something else (a version, an ISBN, a date, a hash) does
    not count. Addresses, numbers and keys that are kept for examples (example.com, 192.0.2.1, 555-0142, the
    card numbers that processors publish for tests, AKIA...EXAMPLE) do not either, nor do placeholders such as
    `your_email@gmail.com` and `user:password@`, toll-free numbers, which belong to organisations, and
    no-reply addresses. Invisible characters within a piece do not hide it.

    The detail has the count of each kind and the first places, in characters of the text, never what stands
    there. With `action: redact` each piece becomes its kind in brackets: `[EMAIL]`, `[PHONE]`, `[KEY]`.

    Parameters:
        kinds: which kinds count; all of them unless named.
        examples: whether examples and placeholders count too.
        regions: countries (ISO codes) whose telephone numbers count in their national form; those of twenty
            countries do after a word such as "phone", and any with its country code does.
        names: a spaCy pipeline (its package's name or its folder's path), by which names of people count too,
            as kind `name`. Takes the extra `names`.

    Source: RFC 2606, 3849, 5322, 5737 and 7519, ISO 13616 and the SWIFT registry's lengths, ISO/IEC 7812,
    the plans of the phonenumbers library, and the forms that each service publishes for its keys.

    Weak at: names without `names`, and street addresses; passwords in prose, or made of words
    (`DB_PASSWORD=correct-horse`); national telephone numbers of
    other regions that no word announces; what is spelt out ("joe at gmail dot com") or in digits other than 0
    to 9; versions that look like addresses, and numbers of ten digits that look like telephones'.

    Examples:
        "Write to ada.l@analytical-engines.co.uk or call +44 20 7946 1234." -> drop
        "Write to ada@example.com or call (212) 555-0142." -> pass
        "Python 3.12.1 came out on 2023-12-08; its ISBN-13 is 978-3-16-148410-0." -> pass
        "My card is 4539 1488 0343 6467." -> drop
    """

    def __init__(
        self,
        *,
        kinds: list[Kind] | None = None,
        examples: bool = False,
        regions: list[str] | None = None,
        names: str | None = None,
    ) -> None:
        if unknown := sorted(set(kinds or ()) - set(KINDS)):
            raise ValueError(f"unknown kind {unknown[0]!r}: there are {', '.join(KINDS)}")
        known = [_region(name) for name in (["US"] if regions is None else regions)]
        every: dict[str, Finder] = {
            "key": _keys,
            "password": _passwords,
            "email": _emails,
            "iban": _ibans,
            "card": _cards,
            "ssn": _ssns,
            "ip": _addresses,
            "phone": partial(_phones, known),
        }
        # In order: of two that overlap the earlier kind has it.
        self.finders = {kind: find for kind, find in every.items() if kinds is None or kind in kinds}
        if names is not None:
            self.finders["name"] = partial(_names, _pipeline(names))
        self.examples = examples

    @staticmethod
    def weights(
        *,
        kinds: object = None,
        examples: object = False,
        regions: object = None,
        names: str | None = None,
    ) -> dict[str, Path]:
        """The pipeline that finds names: a folder, or that of its package."""
        if names is None:
            return {}
        if Path(names).is_dir():
            return {"names": Path(names)}
        package = find_spec(names) if names.isidentifier() else None
        places = package.submodule_search_locations if package is not None else None
        return {names: Path(places[0])} if places else {}  # making the filter says that there is none

    def measure(self, record: Record) -> Measurement:
        """How many, with the count of each kind and the first places."""
        spans = self.find(record.text)
        if not spans:
            return Measurement(0.0)
        counts = Counter(kind for _, _, kind in spans)
        places = [[start, end, kind] for start, end, kind in spans[:PLACES]]
        return Measurement(float(len(spans)), {"counts": dict(sorted(counts.items())), "places": places})

    def redact(self, text: str) -> str:
        """The text with a tag such as `[EMAIL]` in place of each piece; nothing is left to find in it."""
        while spans := self.find(text):
            parts, end = [], 0
            for start, stop, kind in spans:
                parts += [text[end:start], f"[{kind.upper()}]"]
                end = stop
            text = "".join([*parts, text[end:]])
        return text

    def find(self, text: str) -> list[Span]:
        """Where the pieces are, in order, none within another."""
        if INVISIBLE.search(text):
            places = [place for place, char in enumerate(text) if not INVISIBLE.match(char)]
            seen = self._find(INVISIBLE.sub("", text))
            return [(places[start], places[end - 1] + 1, kind) for start, end, kind in seen]
        return self._find(text)

    def _find(self, text: str) -> list[Span]:
        found: list[Span] = []
        taken = bytearray()
        for kind, finder in self.finders.items():
            for start, end in finder(text, self.examples):
                if text.endswith(TAGS, 0, start) or text.startswith(TAGS, end):
                    continue
                if not taken:
                    taken = bytearray(len(text))
                if not any(taken[start:end]):
                    taken[start:end] = b"\1" * (end - start)
                    found.append((start, end, kind))
        return sorted(found)


def _keys(text: str, examples: bool) -> Iterator[tuple[int, int]]:
    if "PRIVATE KEY" in text:
        for match in PRIVATE_KEY.finditer(text):
            if examples or (len(match["body"]) >= 64 and len(set(match["body"])) > 20):
                yield match.span()
    for mark, pattern in KEYS:
        if mark not in text:
            continue
        for match in pattern.finditer(text):
            secret = match[0]
            if mark == "ecret" and not AFTER.search(text, max(0, match.start() - 40), match.start()):
                continue
            if mark == "eyJ" and not _is_jwt(secret):
                continue
            if examples or (len(set(secret)) > 11 and not PLACEHOLDER.search(secret)):
                yield match.span()
    yield from _assigned(KEY_NAME, text, examples)


def _assigned(pattern: re.Pattern[str], text: str, examples: bool) -> Iterator[tuple[int, int]]:
    if "=" not in text and ":" not in text:
        return
    for match in pattern.finditer(text):
        value = match["value"].rstrip(".,?!|")
        if examples or _drawn(value):
            yield match.start("value"), match.start("value") + len(value)


def _drawn(value: str) -> bool:
    """Whether it looks drawn at random, not put together of words, numbers and dates."""
    if len(value) < 8 or len(set(value)) < 7 or sum(char.isalpha() for char in value) < 4:
        return False
    if PLACEHOLDER.search(value) or NO_PASSWORD.fullmatch(value) or NOT_DRAWN.fullmatch(value):
        return False
    pieces = PIECE.findall(value)
    if sum(char.isdigit() for char in value) < 2:
        return len(value) >= 12 and len(value) > len(pieces) > len(value) / 2.3
    in_words = sum(len(piece) for piece in pieces if WORD.fullmatch(piece))
    # In a long row of letters drawn at random some look like words too.
    return len(pieces) >= 4 and in_words < (0.6 if len(value) < 20 else 0.75) * sum(map(len, pieces))


def _is_jwt(token: str) -> bool:
    header = token.partition(".")[0]
    try:
        return b'"alg"' in base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
    except binascii.Error:
        return False


def _passwords(text: str, examples: bool) -> Iterator[tuple[int, int]]:
    yield from _assigned(PASSWORD_NAME, text, examples)
    if "://" not in text or "@" not in text:
        return
    for match in URL_PASSWORD.finditer(text):
        host = match["host"].rstrip(".")
        local = "." not in host or EXAMPLE_DOMAIN.fullmatch(host) or host.startswith("127.")
        if examples or not (local or NO_PASSWORD.fullmatch(match["password"])):
            yield match.span("who")


def _emails(text: str, examples: bool) -> Iterator[tuple[int, int]]:
    if "@" not in text:
        return
    for match in EMAIL.finditer(text):
        start, end = match.span()
        if match["top"].lower() in NO_DOMAINS or NO_MAIL.search(text, max(0, start - 130), start):
            continue
        if NO_REPLY.fullmatch(match["local"]):
            continue
        if match["local"] == "git" and text.startswith((":", "/"), end):  # the address of a repository
            continue
        if examples or not (
            EXAMPLE_DOMAIN.fullmatch(match["domain"]) or EXAMPLE_LOCAL.fullmatch(match["local"])
        ):
            yield start, end


def _ibans(text: str, _: bool) -> Iterator[tuple[int, int]]:
    place = 0
    while match := IBAN.search(text, place):
        start = match.start()
        place = start + 4
        length = IBAN_LENGTHS.get(match[0][:2])
        if length is None:
            continue
        end, number = start, ""
        while end < match.end() and len(number) < length:
            number += text[end].strip()
            end += 1
        whole = len(number) == length and not text[end : end + 1].isalnum() and "  " not in text[start:end]
        if whole and int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1:
            yield start, end
            place = end


def _cards(text: str, examples: bool) -> Iterator[tuple[int, int]]:
    for match in CARD.finditer(text):
        number = match[0].replace(" ", "").replace("-", "")
        issued = any(form.match(number) and len(number) in lengths for form, lengths in ISSUERS)
        if issued and _luhn(number) and (examples or number not in TEST_CARDS):
            yield match.span()


def _luhn(number: str) -> bool:
    digits = [int(char) for char in reversed(number)]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _ssns(text: str, examples: bool) -> Iterator[tuple[int, int]]:
    for match in SSN.finditer(text):
        if examples or match[0] not in EXAMPLE_SSNS:
            yield match.span()


def _addresses(text: str, examples: bool) -> Iterator[tuple[int, int]]:
    for match in IPV4.finditer(text):
        parts = [int(part) for part in match[0].split(".")]
        if max(parts) > 255 or match[0] != ".".join(map(str, parts)):
            continue
        address = ipaddress.ip_address(match[0])
        host = (
            address.is_global
            and not address.is_multicast
            and 0 < parts[3] < 255
            and match[0] not in EXAMPLE_ADDRESSES
        )
        if examples or (host and not _is_version(parts, text, match.start())):
            yield match.span()
    if text.count(":") < 3:
        return
    for match in IPV6.finditer(text):
        written = match[0].rstrip(":") if not match[0].endswith("::") else match[0]
        try:
            of_host = ipaddress.ip_address(written)
        except ValueError:
            continue
        host = of_host.is_global and not written.endswith("::")
        if len([group for group in written.split(":") if group]) > 2 and (examples or host):
            yield match.start(), match.start() + len(written)


def _is_version(parts: list[int], text: str, start: int) -> bool:
    """Versions and sections have small parts, as hardly an address has."""
    small = sum(part < 10 for part in parts) >= 3 or max(parts) < 32
    return small or VERSION.search(text, max(0, start - 12), start) is not None


def _phones(regions: list[str], text: str, examples: bool) -> Iterator[tuple[int, int]]:
    if not PHONE_DIGITS.search(text):
        return
    if "+" in text or "00" in text:
        yield from _fitting(INTERNATIONAL, text, lambda number: _dialled(number, examples))

    def national(number: str) -> bool:
        marked = number.startswith(("0", "(")) or any(sign in number for sign in SEPARATORS)
        return (
            marked
            and not DATE.match(number)
            and any(_grouped(number, region, examples) for region in regions)
        )

    yield from _fitting(NATIONAL, text, national)

    def announced(number: str) -> bool:
        return not DATE.match(number) and any(_valid(number, region, examples) for region in REGIONS)

    yield from _fitting(ANNOUNCED, text, announced)


def _fitting(pattern: re.Pattern[str], text: str, fits: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """Of each run of digits that may be a number the longest beginning, up to a space, that is one."""
    place = 0
    while match := pattern.search(text, place):
        start, end = match.span("number")
        while end > start and not fits(text[start:end]):
            end = max(text.rfind(" ", start, end), start)
        if end > start:
            yield start, end
            place = end
        else:
            space = text.find(" ", start, match.end())
            place = match.end() if space < 0 else space


def _dialled(number: str, examples: bool) -> bool:
    if DECIMAL.fullmatch(number) or (number.startswith("00") and number.isdigit()):
        return False
    return _valid(f"+{number[2:].lstrip(' -')}" if number.startswith("00") else number, None, examples)


def _valid(number: str, region: str | None, examples: bool) -> bool:
    import phonenumbers

    digits = "".join(char for char in number if char in "0123456789")
    if not 7 <= len(digits) <= 16 or (FICTIONAL.fullmatch(digits) and not examples):
        return False
    if TOLL_FREE.fullmatch(number):
        return False
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    free = phonenumbers.PhoneNumberType.TOLL_FREE
    return phonenumbers.is_valid_number(parsed) and phonenumbers.number_type(parsed) != free


def _grouped(number: str, region: str, examples: bool) -> bool:
    """Whether it is a number of the region, and its area code is set off as it is there."""
    import phonenumbers

    if not _valid(number, region, examples):
        return False
    parsed = phonenumbers.parse(number, region)
    form = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
    groups, wanted = re.findall("[0-9]+", number), re.findall("[0-9]+", form)
    if groups[0] == str(parsed.country_code) and len(groups) > 1:
        groups = groups[1:]
    return groups[0] == wanted[0] and (region not in ("US", "CA") or groups == wanted)


def _region(name: str) -> str:
    import phonenumbers

    if name.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError(f"unknown region {name!r}: give the code of a country such as US, GB or DE")
    return name.upper()


def _pipeline(name: str) -> Any:
    try:
        import spacy
    except ImportError:
        raise ValueError("`names` needs spaCy: install synthgen-data[names]") from None
    try:
        return spacy.load(name)
    except OSError as error:
        raise ValueError(f"spaCy has no pipeline {name!r}: {str(error).splitlines()[0]}") from None


def _names(pipeline: Any, text: str, _: bool) -> Iterator[tuple[int, int]]:
    step = pipeline.max_length
    for offset in range(0, len(text), step):
        readable = text[offset : offset + step].encode(errors="replace").decode()  # lone surrogates
        for entity in pipeline(readable).ents:
            start, end = offset + entity.start_char, offset + entity.end_char
            tagged = any(tag[1:-1] in text[start:end] for tag in TAGS)
            if entity.label_ in ("PERSON", "PER") and not tagged:
                yield start, end
