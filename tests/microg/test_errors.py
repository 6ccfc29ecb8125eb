from __future__ import annotations

import pickle

import pytest

from microg import errors


def test_error_says_what_and_how_to_fix_on_one_line():
    error = errors.DatasetError("x is\n   broken", "mend\n it")
    assert str(error) == "x is broken (mend it)"
    assert (error.what, error.fix) == ("x is broken", "mend it")
    assert str(errors.DatasetError("alone")) == "alone"


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)])
def test_every_error_survives_the_trip_between_processes(kind: type):
    error = pickle.loads(pickle.dumps(kind("what", "fix")))  # noqa: S301
    assert type(error) is kind
    assert (error.what, error.fix) == ("what", "fix")
    assert isinstance(error, errors.MicrogError)


def test_description_for_tables_is_one_bounded_line():
    assert errors.describe(ValueError("a\n b")) == "ValueError: a b"
    assert errors.describe(ValueError()) == "ValueError: no message"
    assert len(errors.describe(ValueError("x" * 9000))) == 2000


def test_colours_that_ray_gives_its_errors_are_left_out():
    painted = "\x1b[36mray::work()\x1b[39m (pid=7)"
    assert errors.WorkerError(painted).what == "ray::work() (pid=7)"
    assert errors.describe(ValueError(painted)) == "ValueError: ray::work() (pid=7)"
