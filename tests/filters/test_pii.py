import base64
import json
import random
import string
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters.pii import KINDS, pii
from synthgen.measure import Measurement
from synthgen.record import Record

ROOT = Path(__file__).parents[2]
LETTERS = string.ascii_letters + string.digits


def found(text: str, **params: Any) -> list[tuple[str, str]]:
    return [(kind, text[start:end]) for start, end, kind in pii(**params).find(text)]


def measured(text: str, **params: Any) -> Measurement:
    [result] = pii.make(params).measure([Record("r", {}, {}, text)])
    assert isinstance(result, Measurement), result
    return result


def drawn(number: int, alphabet: str = LETTERS) -> str:
    """Letters that make no key of anybody's, and are in no file for a scanner to find."""
    return "".join(random.Random(f"{number}{alphabet}").choices(alphabet, k=number))


PEM = f"-----BEGIN {'PRIVATE'} KEY-----\n" + "\n".join([drawn(64)] * 3) + f"\n-----END {'PRIVATE'} KEY-----"
JWT = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "1", "name": "someone"})
)
TOKENS = [
    "AKIA" + drawn(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    "ghp_" + drawn(36),
    "github_pat_" + drawn(22) + "_" + drawn(59),
    "glpat-" + drawn(20),
    "xoxb-" + drawn(12, "0123456789") + "-" + drawn(24),
    "sk-proj-" + drawn(48),
    "sk-" + drawn(48),
    "sk-ant-" + "api03-" + drawn(93),
    "AIza" + drawn(35),
    "sk_live_" + drawn(24),
    "sk_test_" + drawn(24),
    "hf_" + drawn(34),
    "npm_" + drawn(36),
    "pypi-AgE" + "IcHlwaS5vcmc" + drawn(80),
    drawn(9, "123456789") + ":AA" + drawn(33),
    "bot" + drawn(9, "123456789") + ":AA" + drawn(33),
    "ya29." + "a0Af" + drawn(160),
    "SG." + drawn(22) + "." + drawn(43),
    "SK" + drawn(32, "0123456789abcdef"),
    "dop_v1_" + drawn(64, "0123456789abcdef"),
    f"{JWT}.{drawn(43)}",
    PEM,
    PEM.replace("\n", "\\n"),
]


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:8])
def test_keys_of_services(token: str) -> None:
    for text in (token, f'KEY="{token}"', f"Use `{token}`.", f"{token}\nand go on.", f"key: {token},"):
        assert found(text) == [("key", token)]
    assert found(f"a{token}") == [] or token.startswith("---")


def test_a_secret_key_without_a_form_is_known_by_its_name() -> None:
    secret = drawn(40)
    assert found(f"aws_secret_access_key = {secret}") == [("key", secret)]
    assert found(f"commit {secret}") == []


@pytest.mark.parametrize(
    ("before", "kind", "secret"),
    [
        ("DB_PASSWORD=", "password", drawn(16)),
        ("  password: ", "password", drawn(12)),
        ("AWS_SECRET_ACCESS_KEY=", "key", drawn(40)),
        ('{"apiKey": "', "key", drawn(32, "0123456789abcdef")),
        ("export SESSION_TOKEN='", "key", drawn(24)),
        ("client_secret => ", "key", drawn(20) + "/+"),
        ("const secret = `token`; API_KEY := ", "key", drawn(20)),
    ],
)
def test_secrets_by_the_name_that_they_are_assigned_to(before: str, kind: str, secret: str) -> None:
    for after in ("", "\nDEBUG=1", '"}', "'", ", and so on", " # mine"):
        assert found(before + secret + after) == [(kind, secret)]


@pytest.mark.parametrize(
    "text",
    [
        "DB_PASSWORD=changeme123, PASSWORD=hunter2, password = SuperSecret123!, password: P@ssw0rd2024",
        "AWS_SECRET_ACCESS_KEY=" + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "API_KEY=your-api-key-here, API_KEY=<API_KEY>, token=${GITHUB_TOKEN}, token: xxxxxxxxxxxx",
        "password = request.form.get('p1w2d3'), token = tokens[i2x3], secret = os.environ['S3_K2']",
        "pad_token='<pad>', eos_token=tokenizer.eos_token_id, max_new_tokens=4096, token: AbstractToken2",
        "secret: 2024-01-15T10:30, token = 1234567890, token = 0x1f3a5b7c9d, api_key: Optional[str] = None",
        "The secret: it was sent on 12-01-2024. One token = 4 characters. token=getUserByName2",
        "token=getUserById2, token: fooBarV2_beta3, secret_key=a1b2c3d4e5f6, Password: Summer2024!",
        "new_password=self.password2; access_key: keys.AccessKey3; apiKey: process.env.API_KEY",
    ],
)
def test_what_is_assigned_to_such_a_name_and_is_no_secret(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "export OPENAI_API_KEY=sk-...",
        "sk-" + "your-key-here" * 4,
        f"-----BEGIN {'PRIVATE'} KEY-----\n...\n-----END {'PRIVATE'} KEY-----",
        f"A file that begins with -----BEGIN {'PRIVATE'} KEY----- and goes on in base64 holds a key.",
        "eyJ0b2tlbg.eyJwYXlsb2Fk.c2lnbmF0dXJl",
        "hf_hub_download(repo_id, filename) and npm_config_registry and sk_test_mode",
        "The class list: " + "btn-primary-" * 8,
    ],
)
def test_what_only_stands_for_a_key_is_none(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Write to joan@clarke.org.uk today.", [("email", "joan@clarke.org.uk")]),
        (
            "<o'neil+x_1@mail.big-co.com>, _bo@ab.de_",
            [("email", "o'neil+x_1@mail.big-co.com"), ("email", "_bo@ab.de")],
        ),
        ("Use ssh. Ask joan@clarke.org", [("email", "joan@clarke.org")]),
        ("mailto:jürgen@müller.de", [("email", "jürgen@müller.de")]),
        ("+49 (0)30 1234567, +14155552671", [("phone", "+49 (0)30 1234567"), ("phone", "+14155552671")]),
        ("(650) 253-0000 415-555-2671", [("phone", "(650) 253-0000"), ("phone", "415-555-2671")]),
        ("Room 12 415-555-2671", [("phone", "415-555-2671")]),
        ("Call 4155552671 or text me at: 6502530000.", [("phone", "4155552671"), ("phone", "6502530000")]),
        ("joan\u200b@cla\u00adrke.org\ufeff!", [("email", "joan\u200b@cla\u00adrke.org")]),
        ("3782 874939 71003", [("card", "3782 874939 71003")]),
        ("Tel.: 030 12345678", [("phone", "030 12345678")]),
        ("电话:13800138000", [("phone", "13800138000")]),
        ("+1 650 253 0000 2024 was the year", [("phone", "+1 650 253 0000")]),
        ("4539 1488 0343 6467, 12/27", [("card", "4539 1488 0343 6467")]),
        ("card 4539148803436467 exp 12/27", [("card", "4539148803436467")]),
        ("3714-496353-91006", [("card", "3714-496353-91006")]),
        ("DE75 5121 0800 1245 1261 99 is it", [("iban", "DE75 5121 0800 1245 1261 99")]),
        ("FR7630006000011234567890189.", [("iban", "FR7630006000011234567890189")]),
        ("536-90-4399", [("ssn", "536-90-4399")]),
        ("logged in from 93.184.215.14:443", [("ip", "93.184.215.14")]),
        ("host 2a00:1450:4001:82b::200e.", [("ip", "2a00:1450:4001:82b::200e")]),
        ("postgres://bob:hunter22@db.acme.io/x", [("password", "bob:hunter22")]),
    ],
)
def test_personal_data(text: str, pieces: list[tuple[str, str]]) -> None:
    assert found(text) == pieces


@pytest.mark.parametrize(
    "text",
    [
        # addresses and numbers for examples
        "user@example.com, a@mail.example.org, x@shop.test, your_email@gmail.com, me@yourdomain.com",
        "192.0.2.1 198.51.100.7 203.0.113.9 192.168.1.254 127.0.0.1 0.0.0.0 255.255.255.0 224.0.0.251",
        "2001:db8::1, ::1, fe80::1ff:fe23:4567:890a, fd12:3456:789a:1::1",
        "(212) 555-0142, +1 212-555-0199, 555-555-1234, 123-456-7890",
        "4242 4242 4242 4242 and 4111111111111111, 123-45-6789",
        "postgres://user:password@localhost:5432/db and redis://:${REDIS_PASSWORD}@cache.acme.io/0",
        # what is something else
        "git@github.com:python/cpython.git, scp -i a.pem x deploy@build.acme.io, icon@2x.png, x@self.weight",
        "Version 10.0.19041.1, Chrome/91.0.4472.124, release 5.15.0.91, 1.2.3.4, section 4.2.11.3",
        "ISBN 978-3-16-148410-0, 0-306-40615-2, 9783161484100; doi 10.1145/3442188.3445922; ISSN 2049-3630",
        "2024-01-15 10:30:00, 20240115103000, 1700000000, 1700000000123, 12:30:45, 01/02/2023 04.05.2024",
        "$1,299,000.00, 4155552671 rows, 0.4539148803436467, 3.14159265358979, 1e-10, 12 345 678 901",
        "d41d8cd98f00b204e9800998ecf8427e 123e4567-e89b-12d3-a456-426614174000 00:1A:2B:3C:4D:5E",
        "4539 1488 0343 6468, DE75 5121 0800 1245 1261 98, 666-12-3456, 987-65-4321, 4539148803436467891234",
        "x[2000::3], a[2001:2002:3], std::dead::beef, 2001:0db8:85a3, fec0::/10, +35236450.6",
        "7 - 5 = 2; 100 + 200 + 300; (1 2 3) (4 5 6); 2^10 = 1024; 123 4567 8901 23; 10-20-30-40",
        "1-800-273-8255, (888) 280-4331, call 877.234.5678, +1 800 273 8255, phone: 1-800-273-8255",
        "noreply@github.com, no-reply@accounts.google.com, do-not-reply+x@mail.acme.io",
        "I will call 12345 times, call 415 friends, recall 4155552671, call f(4155552671)",
        "The 1990-2000 years, pages 415-555, lines 650-253-0, 100% of 2,500,000.00",
    ],
)
def test_what_is_no_personal_data(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "recipes" / "data").glob("*.jsonl")), ids=lambda file: file.name
)
def test_real_answers_and_documentation_have_none(file: Path) -> None:
    assert found(file.read_text()) == []


def test_the_standard_library_has_its_authors_addresses_and_no_more() -> None:
    folder = Path(json.__file__).parents[1]
    texts = [file.read_text(errors="replace") for file in folder.glob("[a-m]*.py")]
    pieces = {piece for text in texts for piece in found(text)}
    assert len(texts) > 60
    assert {piece for kind, piece in pieces if kind != "email"} == set()
    assert all("." in piece.partition("@")[2] for _, piece in pieces)


def test_examples_count_when_asked_for() -> None:
    text = "a@example.com 192.168.0.1 (212) 555-0142 4242424242424242 123-45-6789 ftp://me:pass@localhost"
    assert [kind for kind, _ in found(text, examples=True)] == [
        "email",
        "ip",
        "phone",
        "card",
        "ssn",
        "password",
    ]


def test_kinds_are_picked() -> None:
    text = "joan@clarke.org.uk (650) 253-0000 536-90-4399"
    assert [kind for kind, _ in found(text, kinds=["phone", "ssn"])] == ["phone", "ssn"]
    assert found(text, kinds=[]) == []
    with pytest.raises(ValueError, match="unknown kind 'phones'"):
        pii(kinds=["phones"])


def test_national_numbers_of_other_regions() -> None:
    text = "030 1234567 / 020 7946 0958 / 01 42 68 53 00"
    assert found(text) == []
    assert found(text, regions=["DE"]) == [("phone", "030 1234567")]
    assert found(text, regions=["gb", "FR"]) == [("phone", "020 7946 0958"), ("phone", "01 42 68 53 00")]
    with pytest.raises(ValueError, match="unknown region 'Germany'"):
        pii(regions=["Germany"])


def test_the_detail_says_where_and_never_what() -> None:
    text = "Ask joan@clarke.org.uk or (650) 253-0000, not joan@clarke.org."
    result = measured(text)
    assert result.value == 3
    assert result.detail == {
        "counts": {"email": 2, "phone": 1},
        "places": [[4, 22, "email"], [26, 40, "phone"], [46, 61, "email"]],
    }
    assert measured("Nothing here.") == Measurement(0.0)
    many = measured("joan@clarke.org, " * 1000)
    assert many.value == 1000
    assert many.detail is not None
    assert len(many.detail["places"]) == 20


def test_redaction() -> None:
    text = f"joan@clarke.org, (650) 253-0000, {TOKENS[1]}, https://bob:hunter22@acme.io, 536-90-4399"
    assert pii().redact(text) == "[EMAIL], [PHONE], [KEY], https://[PASSWORD]@acme.io, [SSN]"
    assert pii(kinds=["email"]).redact("joan@clarke.org, 536-90-4399") == "[EMAIL], 536-90-4399"
    assert pii().redact("Nothing here.") == "Nothing here."


PIECES = [
    *[
        "joan@clarke.org",
        "@clarke.org",
        "(650) 253-0000",
        "415-555-2671",
        "+49 30 1234567",
        "+",
        "tel ",
        "phone: ",
    ],
    *[
        "4539 1488 0343 6467",
        "4539148803436467",
        "536-90-4399",
        "DE75 5121 0800 1245 1261 99",
        "93.184.215.14",
    ],
    *[
        "2a00:1450:4001:82b::200e",
        "https://bob:hunter22@",
        "acme.io",
        "ssh ",
        "version ",
        "030 12345678",
        PEM[:100],
    ],
    *[
        TOKENS[1],
        TOKENS[4],
        JWT,
        "[EMAIL]",
        "[PHONE]",
        "[",
        "]",
        " ",
        "-",
        ".",
        ":",
        "/",
        "(",
        ")",
        "@",
        "0",
        "1",
    ],
    *["token=", "PASSWORD: ", drawn(16), drawn(9), "\u200b", "call ", "=", "\u200d"],
    *["00 ", "\n", "\n\n", "a", "\ud800", "\0", "é", "secret_key=", drawn(40)],
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=60))
def test_nothing_is_left_after_redaction(text: str) -> None:
    one = pii(regions=["US", "DE"])
    redacted = one.redact(text)
    assert one.find(redacted) == []
    assert one.redact(redacted) == redacted


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), min_size=2, max_size=3))
def test_nothing_is_left_in_a_conversation_whose_messages_were_redacted(texts: list[str]) -> None:
    one = pii()
    assert one.find("\n\n".join(map(one.redact, texts))) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_places_are_in_order_and_apart(text: str) -> None:
    spans = pii().find(text)
    assert all(start < end for start, end, _ in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    assert {kind for _, _, kind in spans} <= set(KINDS)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "@a",
        "a@a.",
        "1",
        pytest.param("12 ", marks=pytest.mark.slow),
        "0 (",
        "-eyJ",
        "::",
        "1.1.1.",
        "tel ",
        "a://b:c@",
        "DE89 3704 ",
        "+1 ",
        " sk-proj-a",
        "token=",
        "PASSWORD: a1",
        "call 1",
        "\u200b",
    ],
)
def test_a_megabyte_of_the_worst_is_measured(piece: str) -> None:
    assert measured(piece * (1_000_000 // len(piece))).value == 0


def test_names_take_a_pipeline(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "GPE", "pattern": "London"}]
    )
    pipeline.to_disk(tmp_path)
    one = pii(names=str(tmp_path))
    text = "Ada Lovelace of London wrote to joan@clarke.org. \ud800 Ada Lovelace!"
    assert [kind for _, _, kind in one.find(text)] == ["name", "email", "name"]
    assert one.redact(text) == "[NAME] of London wrote to [EMAIL]. \ud800 [NAME]!"
    with pytest.raises(ValueError, match="spaCy has no pipeline 'en_core_web_none'"):
        pii(names="en_core_web_none")


def test_names_without_spacy_say_what_to_install() -> None:
    code = (
        "import sys; sys.modules['spacy'] = None\n"
        "from synthgen.filters.pii import pii\n"
        "try: pii(names='en_core_web_sm')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "`names` needs spaCy: install synthgen-data[names]\n"
