from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

import microg
from microg.config import Config, Resources, load_config, settings_of
from microg.errors import ConfigError

ROOT = Path(microg.__file__).parent


class Filter(Config):
    threshold: float = Field(default=0.6, ge=0, le=1)
    labels: tuple[str, ...] = ("person",)


class Settings(Config):
    volatile: ClassVar[frozenset[str]] = frozenset({"batch"})
    name: str = "x"
    batch: int = 8
    filter: Filter = Filter()
    resources: Resources = Resources()
    stages: tuple[Resources | Filter, ...] = ()


def test_later_layers_win_and_leave_the_rest(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: from recipe\nfilter:\n  threshold: 0.5\n")
    config = load_config(
        Settings,
        str(recipe),
        ["filter.labels=[a, b]", "batch=2", "batch = 3"],
        name="default",
        filter={"threshold": 0.1},
    )
    assert config.name == "from recipe"
    assert config.filter == Filter(threshold=0.5, labels=("a", "b"))
    assert config.batch == 3


def test_override_of_one_key_keeps_the_rest_of_a_default_section():
    config = load_config(Settings, None, ["resources.cpus=2"], resources=Resources(max_actors=7))
    assert (config.resources.cpus, config.resources.max_actors) == (2.0, 7)


def test_override_values_are_yaml():
    config = load_config(Settings, None, ["resources.address=null", "filter.threshold=1e-3", 'name="12"'])
    assert config.resources.address is None
    assert config.filter.threshold == 0.001
    assert config.name == "12"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filter.treshold=1", r"filter\.treshold: unknown key, did you mean 'threshold'"),
        ("zzz=1", r"zzz: unknown key \(known: name, batch"),
        ("filter.threshold=2", r"filter\.threshold: .*less than or equal to 1"),
        ("batch=many", r"batch: .*integer"),
        ("filter=3", "filter: "),
        ("batch", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("filter..threshold=1", "not of the form key=value"),
        ("batch=[1", "not valid YAML"),
        ("stages=[{x: 1}]", r"stages\.0\..*x: unknown key"),
    ],
)
def test_bad_override_names_the_key(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(Settings, None, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [("- 1\n- 2\n", "must hold a mapping"), ("a: [1", "not valid YAML"), ("\x00", "not valid YAML"), ("0", "mapping")],
)
def test_bad_recipe_names_the_file(tmp_path: Path, text: str, message: str):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(ConfigError, match=rf"recipe\.yaml .*{message}"):
        load_config(Settings, str(recipe))


def test_recipe_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="is not there"):
        load_config(Settings, str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Settings, str(tmp_path))


def test_empty_recipe_gives_the_defaults(tmp_path: Path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(Settings, str(tmp_path / "empty.yaml")) == Settings()


def test_recipe_cannot_build_python_objects(tmp_path: Path):
    (tmp_path / "evil.yaml").write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(Settings, str(tmp_path / "evil.yaml"))


def test_digest_ignores_where_and_how_fast_at_any_depth():
    here = Settings(batch=1, resources=Resources(cpus=1), stages=(Resources(gpus=1), Filter()))
    there = Settings(batch=64, resources=Resources(cpus=9, address="auto"), stages=(Resources(), Filter()))
    assert here.digest() == there.digest()
    assert here.identity()["filter"] == {"threshold": 0.6, "labels": ["person"]}


@given(st.floats(0, 1), st.floats(0, 1))
def test_digest_tells_results_apart(one: float, two: float):
    same = Filter(threshold=one).digest() == Filter(threshold=two).digest()
    assert same == (repr(one) == repr(two))


def test_config_is_frozen_and_replaced_copies_are_checked():
    config = Settings()
    with pytest.raises(ValidationError):
        config.batch = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert config.replaced(batch=3).batch == 3
    with pytest.raises(ValidationError):
        config.replaced(filter={"threshold": 7})


def test_replaced_keeps_what_was_set_and_what_was_left_to_its_default():
    config = Settings(filter=Filter(threshold=0.5)).replaced(batch=3)
    assert config.model_fields_set == {"filter", "batch"}
    assert config.filter.model_fields_set == {"threshold"}
    assert config.model_dump() == {**Settings(batch=3).model_dump(), "filter": Filter(threshold=0.5).model_dump()}


def settings_classes() -> list[type[Config]]:
    """Return every configuration class of the package."""
    for path in sorted(ROOT.glob("*/**/*.py")):  # also in linked folders
        if "from microg.config import" in path.read_text():
            import_module(".".join(("microg", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"))
    found: list[type[Config]] = []
    waiting: list[type[Config]] = [Config]
    while waiting:
        below = waiting.pop().__subclasses__()
        waiting += below
        found += [each for each in below if each.__module__.startswith("microg.")]
    return found


def test_every_setting_says_what_it_means():
    classes = settings_classes()
    assert len(classes) > 30
    assert [each.__name__ for each in classes if not each.__doc__] == []
    unclear = [
        f"{each.__name__}.{found.key}"
        for each in classes
        for found in settings_of(each)
        if not (found.meaning.endswith(".") and found.meaning[0] not in " ")
    ]
    assert unclear == []


class Pair(Config):
    """Two of something."""

    share: float = Field(default=0.5, gt=0, lt=1, description="Share of the first.")
    kind: Literal["a", "b", "c"] = Field(default="a", description="Kind of the second.")


class Whole(Config):
    """All."""

    count: int = Field(ge=1, le=9, description="How many there are.")
    pair: Pair = Pair(share=0.25)
    other: Pair | None = Field(default=None, description="Another pair, or none.")


def test_settings_are_listed_with_their_sections_bounds_and_defaults():
    found = {each.key: each for each in settings_of(Whole)}
    assert list(found) == ["count", "pair.share", "pair.kind", "other", "other.share", "other.kind"]
    assert (found["count"].text(), found["count"].section) == ("How many there are. [1 to 9]", "All.")
    assert found["pair.share"].text("So there.") == "Share of the first. So there. [above 0, below 1; default: 0.25]"
    assert (found["pair.kind"].allowed, found["pair.kind"].section) == ("a, b or c", "Two of something.")
    assert [found[key].choices for key in ("count", "pair.kind", "other.kind")] == [
        (),
        ("a", "b", "c"),
        ("a", "b", "c"),
    ]


@pytest.mark.parametrize("override", ["pair.share=1", "pair.share=many"])
def test_error_of_a_bad_value_says_what_the_setting_means(override: str):
    with pytest.raises(ConfigError, match=r"pair\.share: ") as caught:
        load_config(Whole, None, ["count=1", override])
    assert caught.value.fix == "pair.share: Share of the first. [above 0, below 1; default: 0.25]"


def test_values_by_key_replace_what_was_there():
    config = load_config(Whole, None, ["count=1", "other={share: 0.1, kind: b}", {"other": {"kind": "c"}, "count": 2}])
    assert (config.count, config.other) == (2, Pair(kind="c"))
