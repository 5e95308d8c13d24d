"""What every renderer must do: render by name, escape HTML, stop in time, and quote nobody's data."""

import time
from pathlib import Path

import pytest

from penstock.core.errors import DefinitionError
from penstock.ports.renderer import Html, Renderer

HERO = "<h1>Hello {{ name }}</h1>{% for item in items %}<p>{{ item.title }}</p>{% endfor %}"
BOMBS = {
    "a long loop": "{% for i in (1..1000000000) %}x{% endfor %}",
    "a far offset": "{% for i in (1..1000000000) offset: 999999990 %}x{% endfor %}",
    "loops in loops": "{% for i in (1..4000) %}{% for j in (1..4000) %}x{% endfor %}{% endfor %}",
    "loops one after another": "{% for i in (1..4000) %}{% endfor %}" * 50,
    "many empty nodes": "{% for i in (1..1500) %}" + "{{ nothing }}" * 200 + "{% endfor %}",
    "a doubling text": "{% assign s = 'xxxxxxxxxxxxxxxx' %}"
    "{% for i in (1..60) %}{% assign s = s | append: s %}{% endfor %}",
    "a text put into itself": "{% capture s %}{% for i in (1..2000) %}aaaaaaaaaa{% endfor %}{% endcapture %}"
    "{{ s | replace: 'a', s }}",
    "a huge list": "{{ (1..1000000000) | join: ',' }}",
    "a doubling list": "{% assign a = 'a,b' | split: ',' %}"
    "{% for i in (1..60) %}{% assign a = a | concat: a %}{% endfor %}{{ a }}",
    "a growing number": "{% assign n = 99999999 %}"
    "{% for i in (1..100) %}{% assign n = n | times: n %}{% endfor %}{{ n }}",
    "a quadratic filter": "{% capture s %}{% for i in (1..2000) %}<<<<<<<<<<{% endfor %}{% endcapture %}"
    "{{ s | strip_html }}",
    "captures": "{% for i in (1..400) %}{% capture s %}"
    + "x" * 20_000
    + "{% endcapture %}{% endfor %}",
    "endless recursion": "{% render 'bomb' %}",
    "recursion that doubles": "{% render 'bomb' %}{% render 'bomb' %}",
}
BOMB_COUNTS = 6
"""As many times as it takes to count to `COUNT` a bomb may take: some 15 ms where nothing else runs."""

COUNT = 100_000


def _counting_ns() -> int:
    started, counted = time.thread_time_ns(), 0
    for number in range(COUNT):
        counted += number
    return time.thread_time_ns() - started


class RendererConformance:
    """Subclass it, say how to make the adapter, and pytest runs the suite."""

    def make(self, root: Path) -> Renderer:
        """Return a renderer of the templates in a folder."""
        raise NotImplementedError

    def test_it_renders_by_name_and_lists_names(self, tmp_path: Path):
        (tmp_path / "blocks").mkdir()
        (tmp_path / "hero.liquid").write_text(HERO)
        (tmp_path / "hero.txt.liquid").write_text("Hello {{ name }}")
        (tmp_path / "blocks" / "small.liquid").write_text("small")
        renderer = self.make(tmp_path)
        assert renderer.names() == ["blocks/small", "hero", "hero.txt"]
        shown = renderer.render("hero", {"name": "Ada", "items": [{"title": "Tea"}]})
        assert shown == "<h1>Hello Ada</h1><p>Tea</p>"
        assert renderer.render("hero.txt", {"name": "Ada"}) == "Hello Ada"

    def test_html_is_escaped_and_text_is_not(self, tmp_path: Path):
        (tmp_path / "a.liquid").write_text('<a title="{{ x }}">{{ x }}</a>')
        (tmp_path / "a.txt.liquid").write_text("{{ x }}")
        renderer = self.make(tmp_path)
        evil = "\"><script>'&"
        expected = (
            '<a title="&#34;&gt;&lt;script&gt;&#39;&amp;">&#34;&gt;&lt;script&gt;&#39;&amp;</a>'
        )
        assert renderer.render("a", {"x": evil}) == expected
        assert renderer.render("a.txt", {"x": evil}) == evil

    def test_rendered_html_may_be_shown_inside_html(self, tmp_path: Path):
        (tmp_path / "outer.liquid").write_text("<div>{{ block }}</div>")
        assert (
            self.make(tmp_path).render("outer", {"block": Html("<b>x</b>")})
            == "<div><b>x</b></div>"
        )

    def test_what_is_undefined_shows_nothing(self, tmp_path: Path):
        (tmp_path / "a.liquid").write_text(
            "[{{ a }}{{ b.c.d }}{% for x in y %}{{ x }}{% endfor %}]"
        )
        assert self.make(tmp_path).render("a", {}) == "[]"

    def test_a_rendering_repeats_exactly(self, tmp_path: Path):
        (tmp_path / "a.liquid").write_text("{{ 'now' | date: '%Y-%m-%d' }}{{ now }}{{ today }}")
        assert self.make(tmp_path).render("a", {"as_of_ms": 1_700_000_000_000}) == "2023-11-14"

    def test_a_short_text_is_rendered_without_a_file(self, tmp_path: Path):
        renderer = self.make(tmp_path)
        for name in ("Ada", "<Bob>"):
            assert (
                renderer.render_text("Hello {{ name }} & co", {"name": name})
                == f"Hello {name} & co"
            )
        for source, code in (
            ("{% if %}", "E141"),
            ("{{ x | nope }}", "E141"),
            ("{{ name | money }}", "E140"),
        ):
            with pytest.raises(DefinitionError) as caught:
                renderer.render_text(source, {"name": "canary"})
            assert caught.value.code == code
            assert "canary" not in str(caught.value)
        assert renderer.names() == []

    def test_data_is_left_as_it_was(self, tmp_path: Path):
        (tmp_path / "a.liquid").write_text("{% assign x = 2 %}{{ x }}{% increment n %}")
        data = {"x": 1}
        renderer = self.make(tmp_path)
        assert [renderer.render("a", data) for _ in range(2)] == ["20", "20"]
        assert data == {"x": 1}

    def test_objects_of_python_are_out_of_reach(self, tmp_path: Path):
        (tmp_path / "a.liquid").write_text(
            "{{ x.__class__ }}{{ x.upper }}{{ x['__class__'] }}{{ y.keys }}"
        )
        assert self.make(tmp_path).render("a", {"x": "text", "y": {"a": 1}}) == ""

    @pytest.mark.parametrize("bomb", sorted(BOMBS))
    def test_a_bomb_is_stopped_soon(self, tmp_path: Path, bomb: str):
        (tmp_path / "bomb.liquid").write_text("first line\n" + BOMBS[bomb])
        renderer = self.make(tmp_path)
        spent_ns, counting_ns = [], []
        for _ in range(5):
            started = time.thread_time_ns()
            with pytest.raises(DefinitionError) as caught:
                renderer.render("bomb", {})
            spent_ns.append(time.thread_time_ns() - started)
            counting_ns.append(_counting_ns())
            assert caught.value.code == "E140"
            assert caught.value.where.endswith("bomb.liquid:2")
        # By what a plain loop takes meanwhile: a busy machine makes both slower.
        assert min(spent_ns) < BOMB_COUNTS * min(counting_ns)

    def test_a_failure_names_the_place_and_no_value(self, tmp_path: Path):
        (tmp_path / "a.liquid").write_text("one\ntwo {{ price | money }}")
        with pytest.raises(DefinitionError) as caught:
            self.make(tmp_path).render("a", {"price": "canary@example.com"})
        assert caught.value.code == "E140"
        assert caught.value.where.endswith("a.liquid:2")
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_a_template_that_does_not_exist_is_said_so(self, tmp_path: Path):
        with pytest.raises(DefinitionError) as caught:
            self.make(tmp_path).render("nope", {})
        assert caught.value.code == "E146"

    @pytest.mark.parametrize(
        ("source", "line"),
        [
            ("a\n{% if %}", 2),
            ("a\n\n{% for x in y %}", 3),
            ("{% endfor %}", 1),
            ("a\n{{ x | no_such_filter }}", 2),
            ("a\nb\n{% render 'no_such_template' %}", 3),
            ("{% nonsense %}", 1),
            ("{{ a" + ".b" * 5_000 + " }}", 1),
            ("{% if x %}" * 500 + "{% endif %}" * 500, 1),
        ],
    )
    def test_a_wrong_template_is_refused_when_loaded(self, tmp_path: Path, source: str, line: int):
        (tmp_path / "bad.liquid").write_text(source)
        with pytest.raises(DefinitionError) as caught:
            self.make(tmp_path)
        assert caught.value.code == "E141"
        assert caught.value.where.endswith(f"bad.liquid:{line}")
        assert caught.value.fix

    def test_templates_find_no_file_outside_the_folder(self, tmp_path: Path):
        folder = tmp_path / "content"
        folder.mkdir()
        (tmp_path / "secret.liquid").write_text("secret")
        for name in ("../secret", "../secret.liquid", str(tmp_path / "secret")):
            (folder / "a.liquid").write_text("{% assign p = '" + name + "' %}{% include p %}")
            with pytest.raises(DefinitionError) as caught:
                self.make(folder).render("a", {})
            assert caught.value.code == "E140"
