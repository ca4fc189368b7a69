import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.filters.code_parses import GRAMMARS, NAMES, code_parses
from synthgen.measure import Measurement
from synthgen.record import Record

ROOT = Path(__file__).parents[2]

# For each language code that parses, a part of a program too, and code that does not.
CODE = {
    "python": ("def f(x):\n    return x[::2]\n", "    return await f(...)\n", "print 'x'\n"),
    "json": ('{"a": [1, 2]}', "[]", '{"a": 1, ...}'),
    "jsonl": ('{"a": 1}\n\n{"a": 2}\n', "1", '{"a": 1}\n{"a": 2'),
    "yaml": ("a: 1\nb: [x, y]\n---\nc: |\n  text\n", "  - a\n  - b: 2\n", "a: b: c\n"),
    "toml": ("[tool.ruff]\nselect = ['E']\n", "a = 1", "a = \n"),
    "xml": ("<?xml version='1.0'?>\n<a><b/></a>", "<a/>\n<b x='1'>&amp;</b>", "<a><b></a>"),
    "bash": (
        'for f in *.txt; do\n  echo "$f" | wc -l\ndone\n',
        "sudo apt-get install -y git && cd x",
        "if true; then\n",
    ),
    "c": (
        "#include <stdio.h>\nint main(void) { return 0; }\n",
        "int x = f(1);\nfree(p);",
        "int main( { return 0; }",
    ),
    "cpp": (
        "template <class T> T f(T a) { return a; }\n",
        "auto v = std::vector<int>{1, 2};",
        "class A { int x; ",
    ),
    "csharp": ("class A { int F() => 1; }", "var x = await F(1);", "class A { int F( => 1; }"),
    "css": ("a:hover { color: red; }\n", "@media print { p { margin: 0 } }", "a { color: red"),
    "go": ("package main\nfunc main() { x := 1; _ = x }\n", "x, err := f()\n", "func main( {"),
    "html": ("<!DOCTYPE html><p>one<br><p>two</p>", "<div class='a'>x</div>", "<div class='a"),
    "java": ("class A { int f() { return 1; } }", "int x = 1;\nvoid f() { g(x); }", "class A { int f( { } }"),
    "javascript": ("const f = async (x) => { await g(x); };\n", "<App name={n} />", "const = 3;"),
    "php": ("<?php\nfunction f($x) { return $x; }\n", "$x = [1, 2];\necho $x[0];", "<?php function f( { }"),
    "ruby": ("class A\n  def f(x) = x\nend\n", "puts [1, 2].map { |x| x + 1 }", "def f(x\n"),
    "rust": ('fn main() { let x: u8 = 1; println!("{}", x); }', "let y = x?;", "fn main( { }"),
    "swift": ("func f(_ x: Int) -> Int { return x }", "let x = [1, 2].map { $0 + 1 }", "func f( { }"),
    "typescript": (
        "interface A { x: number }\nconst f = <T,>(x: T): T => x;",
        "const a = <App<B> c={1} />;",
        "let x: = 1;",
    ),
    "tsx": ("const A = (p: P) => <b>{p.x}</b>;", "<A />", "const A = <b>;"),
}


def measured(text: str, **params: Any) -> Measurement:
    [result] = code_parses.make(params).measure([Record("r", {}, {}, text)])
    assert isinstance(result, Measurement), result
    return result


def block(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def faults(text: str) -> list[dict[str, Any]]:
    detail = measured(text).detail
    assert detail is not None
    found: list[dict[str, Any]] = detail["faults"]
    return found


@pytest.mark.parametrize("language", CODE)
def test_each_language(language: str) -> None:
    whole, part, wrong = CODE[language]
    for code, expected in ((whole, 1), (part, 1), (wrong, 0)):
        found = measured(f"So:\n\n{block(language, code)}\n\nThat is all.")
        assert found.value == expected, found
        assert measured(code, language=language).value == expected


def test_every_language_that_it_knows_is_tried_here() -> None:
    assert set(CODE) == set(NAMES.values())
    assert set(GRAMMARS) - set(CODE) == {"php without a tag"}


def test_the_share_and_where_the_faults_are() -> None:
    text = "One:\n\n```python\nx = 1\n```\n\nTwo:\n\n```js\nlet x = 1;\nlet 2x;\n```\n" + block(
        "JSON", "[\n1,\n2,,\n]"
    )
    found = measured(text)
    assert found.value == pytest.approx(1 / 3)
    assert found.detail == {
        "blocks": 3,
        "faults": [
            {"language": "javascript", "reason": "does not parse", "line": 11},
            {"language": "json", "reason": "expecting value", "line": 16},
        ],
    }


def test_python_says_what_is_wrong() -> None:
    assert faults(block("python", "x = 1\nprint 'a'")) == [
        {
            "language": "python",
            "reason": "Missing parentheses in call to 'print'. Did you mean print(...)?",
            "line": 3,
        }
    ]
    assert faults(block("py", "x = '\0'"))[0]["language"] == "python"
    assert faults(block("py", "x = '\ud800'"))[0]["language"] == "python"


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("cpp", 'std::cout << "Hello";'),
        ("cpp", "#include <iostream>\nint f(int a) { return a; }\nstd::cout << f(1) << std::endl; // 1"),
        ("cpp", "public:\n  A(int x) : x_(x) {}\n  int x() const override { return x_; }\n"),
        ("c", "switch (x) { case 1: break; }\nreturn x;"),
        ("csharp", "public string Name { get; set; }\npublic A(string name) { Name = name; }"),
        ("java", "private final int x;\n\npublic A(int x) { this.x = x; }"),
        ("javascript", "// adds\nasync add(x) { return this.x + x; }\nget y() { return 1; }"),
        ("javascript", "constructor(x) { super(x); this.x = x; }"),
        ("typescript", "private readonly x: number = 1;"),
        ("typescript", "@Input() name: string;\nasync f(x: number): Promise<void> { }"),
        ("tsx", "render(): JSX.Element { return <A />; }"),
        ("typescript", "render(): JSX.Element { return <A />; }"),
        ("php", "public function f() { return $this->x; }"),
        ("go", 'fmt.Println("x")'),
        ("bash", "npm install <package>\ngit clone <repository url> <folder>\nls <dir>/<file>"),
        ("python", "%matplotlib inline\nimport x\n!pip install -q \\\n  y\nfiles = !ls *.py\nx?\n?y.z"),
        ("python", "if x:\n    !pip install y\nz = %timeit -o f()"),
        ("python", "%%time\nf()"),
        ("pycon", ">>> %timeit f()\n>>> f()"),
        ("python", "def f(x):\n    # Your code here\n\n\nf(1)"),
        (
            "python",
            "class A:\n    def f(\n        self,\n    ) -> None:  # one\n        # two\n    def g(self): ...",
        ),
    ],
)
def test_parts_and_what_has_a_place_in_no_grammar(language: str, code: str) -> None:
    assert measured(block(language, code)) == Measurement(1.0, {"blocks": 1})
    assert measured(code, language=NAMES[language]) == Measurement(1.0, {"blocks": 1})


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("cpp", 'std::cout << "Hello"'),
        ("cpp", "std::cout << 1; } void f() {"),
        ("cpp", "}; struct A {"),
        ("c", "x = 1; } {"),
        ("java", "public A( { }"),
        ("javascript", "add(x) { return x + ; }"),
        ("javascript", "f() { } } class A {"),
        ("javascript", "if (x) { y( } g() { }"),
        ("javascript", "add(x) { }\nif (x) { }"),
        ("typescript", "const = 3;"),
        ("typescript", "private readonly x: = 1;"),
        ("bash", "if <condition>; then"),
        ("bash", 'echo "<package>'),
        ("python", "x = (1 +\n%3\n"),
        ("python", "!pip install x\nprint 'x'"),
        ("python", "def f():\nx = 1"),
        ("python", "def f():\n# not in it\nx = 1"),
        ("python", "if x:\n    # nothing\ny = 1"),
        ("python", "def f():"),
        ("python", "x = 50 % of y"),
    ],
)
def test_parts_that_do_not_parse(language: str, code: str) -> None:
    assert measured(block(language, code)).value == 0


def test_a_cell_in_another_language_is_not_judged() -> None:
    assert measured(block("python", "%%bash\nls -l")).detail == {
        "reason": "no code block can be judged: a cell in another language"
    }


def test_sessions() -> None:
    session = ">>> def f(x):\n...     return x\n...\n>>> f(1) +\\\n... 2\n3\n>>> for x in y: print(x)\n1 2\n"
    assert measured(block("pycon", session)).value == 1
    assert measured(block("python", f"    {session}".replace("\n", "\n    "))).value == 1
    assert faults(block("python", session + ">>> print x\n"))[0]["line"] == 10
    assert measured(block("python", "print(1)\n>>> print(2)")).value == 0


@pytest.mark.parametrize(
    "text",
    [
        "~~~python\nx = 1\n~~~",
        "1. Do:\n\n    ```python\n    if x:\n        y()\n    ```\n2. And so on",
        "````python\nx = '''\n```\n'''\n````",
        "```{.python title=a.py}\nx = 1\n```",
        "```Python3 linenos\nx = 1\n```",
        "```python\nx = 1",
        "```python\r\nx = 1\r\n```\r\n",
        "Use ``` to fence.\n\n```python\nx = 1\n```",
        "```python\n```",
    ],
)
def test_fences(text: str) -> None:
    assert measured(text) == Measurement(1.0, {"blocks": 1})


def test_it_abstains_where_nothing_can_be_judged() -> None:
    assert measured("").detail == {"reason": "there is no code block"}
    assert measured("Use `x = 1` and\n\n    y = 2\n").detail == {"reason": "there is no code block"}
    assert measured("```\nx = \n```\n" + block("brainfuck", "+")).detail == {
        "reason": "no code block can be judged: no language, brainfuck"
    }
    assert measured("```\nx = \n```\n" + block("py", "x = 1")) == Measurement(
        1.0, {"blocks": 1, "not_judged": {"no language": 1}}
    )
    assert measured("").value is None


def test_warnings_of_python_are_none_of_the_answer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured(block("python", "import re\nre.match('\\d', x) is 1")).value == 1


def test_nothing_is_run(tmp_path: Path) -> None:
    file = tmp_path / "file"
    code = f"open({str(file)!r}, 'w')"
    assert measured(f"{block('python', code)}\n{block('pycon', '>>> ' + code)}").value == 1
    bomb = "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>\n<a>&b;</a>"
    assert measured(block("xml", bomb)).value in (0, 1)
    assert not file.exists()


def test_entities_in_entities_do_not_fill_the_memory() -> None:
    names = [f"a{number}" for number in range(12)]
    entities = "".join(f"<!ENTITY {new} '{f'&{old};' * 12}'>" for old, new in pairwise(names))
    found = measured(block("xml", f"<!DOCTYPE a [<!ENTITY a0 'x'>{entities}]>\n<a>&a11;</a>"))
    assert found.value == 0


@pytest.mark.parametrize(
    "code",
    [
        "(" * 90_000,
        "-" * 90_000 + "1",
        "1+" * 90_000 + "1",
        "not " * 40_000 + "x",
        "lambda:" * 20_000 + "1",
        "f(" * 190,
        "!x\\\n" * 40_000 + "\n(",
        "def f():\n" * 20_000,
        "def f():\n" + " #\n" * 50_000 + "(",
        "?" + "a" * 90_000 + " " * 90_000 + "(",
    ],
)
def test_deep_python_does_not_end_the_process(code: str) -> None:
    assert measured(block("python", code)).value == 0


@pytest.mark.parametrize(
    ("language", "sign"), [("yaml", "["), ("bash", "((a)"), ("rust", "{"), ("toml", "x = [")]
)
def test_what_is_too_deep_or_too_long_is_not_judged(language: str, sign: str) -> None:
    for code in (sign * 3000, "\n" * 20_001, "\n" * 1_000_000):
        assert measured(block(language, code)).detail == {
            "reason": "no code block can be judged: too long or deep"
        }
    assert measured("\n".join([block(language, "\n" * 19_000)] * 5)).detail == {
        "blocks": 3,
        "not_judged": {"too long or deep": 2},
    }


@pytest.mark.parametrize(
    "text",
    [
        *[
            "`" * 1_000_000,
            "```\n" * 250_000,
            "```python\nx=1\n```\n" * 5_000,
            "``` \n```` \n" * 80_000,
            " " * 1_000_000,
        ],
        *[
            "```python" + " " * 1_000_000,
            "   ```" * 150_000,
            block("python", "x=1\n" * 45_000),
            "```js\n;\n```\n" * 5_000,
        ],
        block("python", "x=1\n" * 250_000),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_megabyte_is_measured(text: str) -> None:
    assert measured(text).value in (None, 1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["```", "~~~", "````", "python\n", "js\n", "\n", "x = 1\n", " ", "\ud800", ">>> ", "("]
        )
    ).map("".join)
)
def test_any_text_is_measured(text: str) -> None:
    value = measured(text).value
    assert value is None or 0 <= value <= 1


def test_an_unknown_language_is_told() -> None:
    with pytest.raises(ValueError, match="unknown language 'cobol': there are bash, c, "):
        code_parses(language="cobol")


def test_without_grammars_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['tree_sitter_bash'] = None\n"
        "from synthgen.filters.code_parses import code_parses\n"
        "try: code_parses()\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "code_parses needs grammars (tree_sitter_bash): install synthgen-data[code]\n"
