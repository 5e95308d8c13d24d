"""Compiled templates against the interpreter: the same output, the same refusals, the same limits."""

import ast
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liquid.exceptions import LiquidError

from penstock.adapters.content.liquid import Limits, LiquidRenderer
from penstock.adapters.content.liquid.metering import Meter
from penstock.adapters.content.liquid.programs import _BUILTINS, _CALLED, compiled
from penstock.adapters.content.liquid.templates import Origin, TemplateEnvironment
from penstock.core.errors import DefinitionError

GOLDEN_PASSES_MIN = 1_048
COMPILED_MIN = 920
"""Of the golden cases that are valid: the rest is interpreted, with the same output."""


def parsed(source: str, *, autoescape: bool, partials: dict[str, str] | None = None) -> Any:
    environment = TemplateEnvironment(Limits(), autoescape=autoescape)
    for name, text in (partials or {}).items():
        environment.table[name] = environment.parse_file(name, Origin(name, text), text)
    return environment.parse_file("case", Origin("case", source), source)


def both(source: str, data: dict[str, Any], limits: Limits | None = None) -> tuple[Any, Any]:
    """Return what the compiled and the interpreted template give: a text, or the error's code."""
    answers = []
    for compile_after in (0, None):
        renderer = LiquidRenderer(NOWHERE, limits=limits, compile_after=compile_after)
        try:
            answers.append(renderer.render_text(source, data))
        except DefinitionError as error:
            answers.append((error.code, error.what))
    return answers[0], answers[1]


NOWHERE: Any = None


@pytest.fixture(autouse=True, scope="module")
def _nowhere(tmp_path_factory):
    global NOWHERE  # noqa: PLW0603 - Hypothesis and function fixtures do not go together
    NOWHERE = tmp_path_factory.mktemp("no-templates")
    yield
    NOWHERE = None


def test_golden_liquid_compiled(golden_liquid):
    cases = json.loads(golden_liquid.read_text())["tests"]
    passes = functions = 0
    for case in cases:
        expected = [case["result"]] if "result" in case else case.get("results", [])
        invalid = bool(case.get("invalid"))
        data = case.get("data", {})
        try:
            template = parsed(case["template"], autoescape=False, partials=case.get("templates"))
            interpreted = template.render(**data)
        except (DefinitionError, LiquidError):
            passes += invalid
            continue
        program = compiled(template)
        text = interpreted
        if program.function is not None:
            functions += 1
            try:
                text = program.function({"now": None, "today": None, **data}, Meter(Limits()))
            except Exception:  # noqa: BLE001 - the renderer asks the interpreter then
                text = interpreted
        else:
            assert program.reason, case["name"]
        assert interpreted == text, case["name"]
        passes += not invalid and text in expected
    print(f"Golden Liquid: {passes:,} of {len(cases):,} pass, {functions:,} of them compiled")
    assert passes >= GOLDEN_PASSES_MIN
    assert functions >= COMPILED_MIN


# ------------------------------------------------------------------------------- generated templates

NAMES = st.sampled_from(["a", "b", "items", "person", "n", "empty_list", "absent"])
FIELDS = st.sampled_from(
    ["", ".title", ".price", ".size", ".first", ".last", "[0]", "['title']", ".x.y"]
)
TEXTS = st.text(st.sampled_from("ab <>&\"'\n\\{"), max_size=6).filter(lambda text: "{" not in text)
LITERALS = st.one_of(
    st.integers(-3, 40).map(str),
    st.sampled_from(["1.5", "true", "false", "nil", "empty", "blank", "'tea'", '"a<b"', "(1..3)"]),
)
PATHS = st.builds(lambda name, field: name + field, NAMES, FIELDS)
VALUES = st.one_of(PATHS, PATHS, LITERALS)
FILTERS = st.sampled_from([
    "upcase", "downcase", "capitalize", "strip", "size", "first", "last", "escape", "default: 'none'",
    "plus: 2", "minus: 1", "times: 3", "append: '!'", "prepend: '<'", "replace: 'a', 'b'", "truncate: 5",
    "join: ', '", "reverse", "sort", "uniq", "map: 'title'", "round", "abs", "money", "split: ' '",
    "divided_by: 2", "modulo: 2", "slice: 1, 2", "strip_html", "newline_to_br", "url_encode", "compact",
])  # fmt: skip
OUTPUTS = st.builds(
    lambda value, filters: "{{ " + " | ".join([value, *filters]) + " }}",
    VALUES,
    st.lists(FILTERS, max_size=3),
)
TESTS = st.one_of(
    VALUES,
    st.builds(
        lambda one, sign, other: f"{one} {sign} {other}",
        VALUES, st.sampled_from(["==", "!=", "<", ">", "<=", ">=", "contains"]), VALUES,
    ),
)  # fmt: skip
CONDITIONS = st.one_of(
    TESTS,
    st.builds(
        lambda one, word, two: f"{one} {word} {two}", TESTS, st.sampled_from(["and", "or"]), TESTS
    ),
)
PLAIN = st.one_of(
    TEXTS, OUTPUTS, OUTPUTS,
    st.builds(lambda name, value: f"{{% assign {name} = {value} %}}", st.sampled_from(["a", "x"]), VALUES),
    st.sampled_from(["{% increment k %}", "{% decrement k %}", "{% cycle 'u', 'v', 'w' %}", "{% comment %}x{% endcomment %}",
                     "{{ forloop.index }}", "{{ forloop.last }}", "{% break %}", "{% continue %}", "{{- a -}}",
                     "{{ x }}", "{{ i }}", "{{ i.title }}"]),
)  # fmt: skip


def blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, max_size=4).map("".join)
    loops = st.sampled_from(["", " limit:2", " offset:1", " reversed", " limit:1 offset:1"])
    return st.one_of(
        st.builds(lambda c, b, o: f"{{% if {c} %}}{b}{{% else %}}{o}{{% endif %}}", CONDITIONS, body, body),
        st.builds(lambda c, b: f"{{% unless {c} %}}{b}{{% endunless %}}", CONDITIONS, body),
        st.builds(lambda v, m, b, o: f"{{% for i in {v}{m} %}}{b}{{% else %}}{o}{{% endfor %}}", VALUES, loops, body, body),
        st.builds(lambda v, w, b, o: f"{{% case {v} %}}{{% when {w} %}}{b}{{% else %}}{o}{{% endcase %}}", VALUES, VALUES, body, body),
        st.builds(lambda b: f"{{% capture x %}}{b}{{% endcapture %}}", body),
        st.builds(lambda b: f"{{% ifchanged %}}{b}{{% endifchanged %}}", body),
        st.builds(lambda v, b: f"{{% tablerow i in {v} cols:2 %}}{b}{{% endtablerow %}}", VALUES, body),
    )  # fmt: skip


TEMPLATES = st.lists(st.recursive(PLAIN, blocks, max_leaves=8), max_size=5).map("".join)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 50), st.floats(-2, 2).map(lambda x: round(x, 2)),
    st.text(st.sampled_from("ab<&\"' é"), max_size=5), st.tuples(st.integers(0, 9_999), st.just("GBP")).map(list),
)  # fmt: skip
ITEMS = st.lists(
    st.fixed_dictionaries({}, optional={"title": LEAVES, "price": LEAVES, "x": LEAVES}), max_size=3
)
DATA = st.fixed_dictionaries(
    {"a": LEAVES, "items": ITEMS, "empty_list": st.just([])},
    optional={
        "b": st.one_of(LEAVES, st.lists(LEAVES, max_size=3)),
        "n": st.integers(0, 5),
        "person": st.dictionaries(st.sampled_from(["title", "price", "size", "first"]), LEAVES),
    },
)


@given(TEMPLATES, DATA)
def test_any_template_renders_as_the_interpreter_renders_it(source, data):
    one, other = both(source, data)
    assert other == one


@given(st.text(st.sampled_from("{}%|.'\"\\[]()<>ab 1if-"), max_size=60), DATA)
def test_whatever_is_written_is_refused_or_rendered_alike(source, data):
    one, other = both(source, data)
    assert other == one


# --------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in (1..100000) %}x{% endfor %}",
        "{% for i in (1..100) %}{% for j in (1..100) %}{{ j }}{% endfor %}{% endfor %}",
        "{% assign a = 'xxxxxxxxxxxxxxxx' %}{% for i in (1..40) %}{% assign a = a | append: a %}{% endfor %}{{ a }}",
        "{% capture a %}{% for i in (1..4000) %}{{ long }}{% endcapture %}{% endfor %}",
        "{% for i in (1..4000) %}{{ long }}{% endfor %}",
        "{% for i in (1..2000) %}{{ long | upcase | downcase | replace: 'a', 'bb' }}{% endfor %}",
        "{{ long | split: '' | join: long | split: '' | join: long }}",
        "{% assign n = 9 %}{% for i in (1..200) %}{% assign n = n | times: n %}{% endfor %}{{ n }}",
        "{% tablerow i in (1..100000) %}{{ i }}{% endtablerow %}",
        "{% for i in items %}{% for j in items %}{% for k in items %}{{ k }}{% endfor %}{% endfor %}{% endfor %}",
    ],
)
def test_limits_hold_on_the_compiled_path_as_on_the_other(source):
    data = {"long": "a" * 5_000, "items": list(range(60))}
    one, other = both(source, data)
    assert other == one
    assert isinstance(one, tuple), "such a template is refused"


def test_a_template_may_not_cost_more_than_its_time():
    limits = Limits(work_units=10**9, loop_iterations=10**9, output_bytes=10**9, cpu_ms=20)
    one, other = both(
        "{% for i in (1..3000) %}{% for j in (1..3000) %}{% endfor %}{% endfor %}", {}, limits
    )
    assert one[0] == other[0] == "E140"


# ---------------------------------------------------------------------------------- what is generated

HOSTILE = [
    "{{ x.__class__ }}", "{{ x['__class__'] }}", "{{ x['\\'] + __import__(\\'os\\') + [\\''] }}",
    "{% assign __builtins__ = 1 %}{{ __builtins__ }}", "{{ 'a\\nimport os\\n' }}",
    "{% for __import__ in (1..2) %}{{ __import__ }}{% endfor %}", "{{ meter }}{{ render }}{{ out }}",
    "{% capture render %}x{% endcapture %}{{ render }}", '{{ """ }}', "{{ data.get }}",
    "text ''' \"\"\" \\\\ {{ 'q' }} # not a comment", "{% cycle 'a\"', \"b'\" %}",
]  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE)
def test_a_templates_own_words_are_never_code(source):
    data = {"x": {"y": 1}, "data": 7, "meter": "m", "out": "o"}
    one, other = both(source, data)
    assert other == one


@given(TEMPLATES)
def test_generated_code_calls_nothing_but_ours(source):
    try:
        program = compiled(parsed(source, autoescape=True))
    except DefinitionError:
        return
    if not program.source:
        return
    tree = ast.parse(program.source)
    allowed = {
        *_CALLED,
        *_BUILTINS,
        "Markup",
        "Undefined",
        "bound",
        "filters",
        "getsizeof",
        "is_truthy",
    }
    bound = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    bound |= {
        one.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for one in node.args.args
    }
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set() == read - bound - allowed
    assert not any(
        node.attr.startswith("_") and node.attr not in {"__class__", "__wrapped__"}
        for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    )  # fmt: skip
    assert not any(
        isinstance(node, ast.Import | ast.ImportFrom | ast.Lambda) for node in ast.walk(tree)
    )


def test_the_source_of_a_template_can_be_read(tmp_path, golden):
    (tmp_path / "hero.liquid").write_text(
        "{% for item in items %}{% if item.price > 3 %}<b>{{ item.title | upcase }}</b>{% endif %}"
        "{% else %}none{% endfor %}"
    )
    program = LiquidRenderer(tmp_path).program("hero")
    assert not program.reason
    golden("liquid_source.txt", program.source)
