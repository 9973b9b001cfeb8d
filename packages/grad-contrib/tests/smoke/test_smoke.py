"""grad_contrib can be imported alone. Only pytest and the package may be imported here."""

import grad_contrib


def test_exports_exactly_what_it_says() -> None:
    assert all(hasattr(grad_contrib, name) for name in grad_contrib.__all__)
