"""grad_second_order can be imported alone. Only pytest and the package may be imported here."""

import grad_second_order


def test_exports_exactly_what_it_says() -> None:
    assert all(hasattr(grad_second_order, name) for name in grad_second_order.__all__)
