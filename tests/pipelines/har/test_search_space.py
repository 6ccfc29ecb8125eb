"""Search spaces of sweeps: what users write is read as meant, and nothing else is accepted."""

from __future__ import annotations

import pytest

from microg.errors import ConfigError
from microg.pipelines.har.sweep import parse_space


def test_each_kind_of_domain_is_read_with_its_values():
    texts = [
        "lr=loguniform(1e-4, 1e-1)",
        "model.dropout=uniform(0,0.5)",
        "seed=randint(1,4)",
        "batch_size=grid(8,16)",
        "model.roi_scale=choice(published, true)",
    ]
    read = {domain.key: (domain.kind, domain.values) for domain in parse_space(texts)}
    assert read == {
        "lr": ("loguniform", (0.0001, 0.1)),
        "model.dropout": ("uniform", (0.0, 0.5)),
        "seed": ("randint", (1, 4)),
        "batch_size": ("grid", (8, 16)),
        "model.roi_scale": ("choice", ("published", True)),
    }


def test_a_domain_prints_as_it_is_written():
    text = "lr=grid(0.01,0.1)"
    assert str(parse_space([text])[0]) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lr", "form key=kind"),
        ("lr=0.1", "form key=kind"),
        ("lr=grid(0.1", "form key=kind"),
        ("lr=gauss(0,1)", "no domain 'gauss'"),
        ("lr=uniform(1)", "takes 2 values, not 1"),
        ("lr=uniform(1,2,3)", "takes 2 values, not 3"),
        ("lr=grid()", "at least 1 value, not 0"),
        ("lr=grid(1,,2)", "empty value"),
        ("lr=loguniform(0,1)", "above 0"),
        ("lr=uniform(2,1)", "not below"),
        ("lr=uniform(a,1)", "two numbers, not 'a'"),
        ("lr=uniform(.nan,1)", "two numbers"),
        ("seed=randint(0.5,2)", "whole numbers"),
        ("lr=choice({,1)", "not a value"),
    ],
)
def test_a_wrong_domain_is_refused_with_the_reason(text: str, told: str):
    with pytest.raises(ConfigError, match="--space") as caught:
        parse_space([text])
    assert told in str(caught.value)


def test_a_setting_with_two_domains_is_refused():
    with pytest.raises(ConfigError, match="lr more than once"):
        parse_space(["lr=grid(1)", "lr=grid(2)"])


def test_values_are_never_evaluated():
    (domain,) = parse_space(["lr=choice(__import__('os'))"])
    assert domain.values == ("__import__('os')",)
