"""The error tree: each code once, there and back again."""

import pickle

from ciphershift import errors


def test_each_code_returns_its_class() -> None:
    for code, cls in errors.CiphershiftError.by_code.items():
        error = errors.from_code(code, "what and why")
        assert type(error) is cls
        assert (error.code, error.message) == (code, "what and why")
        assert 400 <= cls.http_status < 600


def test_the_drawing_names_every_class_and_code() -> None:
    drawing = errors.__doc__ or ""
    for code, cls in errors.CiphershiftError.by_code.items():
        assert any(cls.__name__ in line and (code in line or cls.__subclasses__()) for line in drawing.splitlines()), (
            code
        )


def test_an_unknown_code_gives_the_base_class() -> None:
    assert type(errors.from_code("of a later release", "?")) is errors.CiphershiftError


def test_errors_cross_process_borders() -> None:
    error = pickle.loads(pickle.dumps(errors.DeadlineError("late")))
    assert (type(error), error.message) == (errors.DeadlineError, "late")
