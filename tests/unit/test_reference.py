"""The reference in docs/reference says what the code says today."""

import pytest
from docs import make_reference


@pytest.mark.parametrize("page", make_reference.PAGES)
def test_a_page_of_the_reference_is_what_the_code_says(page: str) -> None:
    made = make_reference.PAGES[page]()
    assert make_reference.file_of(page).read_text(encoding="utf-8") == made, "run `make reference`"
