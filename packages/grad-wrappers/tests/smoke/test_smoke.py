"""grad_wrappers can be imported alone. Only pytest and the package may be imported here."""

import grad_wrappers


def test_exports_exactly_what_it_says() -> None:
    assert all(hasattr(grad_wrappers, name) for name in grad_wrappers.__all__)
