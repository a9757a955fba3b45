"""The table of records filters and sorts off-line, by keyboard as well, and is whole without JavaScript."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.site
ROWS = (
    "return [...document.querySelectorAll('.al-dashboard tbody tr')].filter((r) => !r.hidden)"
    ".map((r) => r.cells[%d].textContent.trim())"
)
HEADS = "return [...document.querySelectorAll('.al-dashboard thead th')].map((c) => c.textContent.trim())"


def column(browser: Any, heading: str) -> list[str]:
    return browser.execute_script(ROWS % browser.execute_script(HEADS).index(heading))


def test_it_filters_and_sorts_by_keyboard(browser: Any, site: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get((site / "book" / "dashboard.html").as_uri())
    everything = column(browser, "method")
    choice = browser.find_element("css selector", ".al-filters select")
    choice.send_keys("mona")
    assert set(column(browser, "method")) == {"mona"}
    assert browser.find_element("css selector", ".al-filters output").text.startswith(f"{everything.count('mona')} of")
    browser.find_element("css selector", ".al-filters button").send_keys(Keys.ENTER)
    browser.find_element("xpath", "//label[starts-with(., 'Dice at least')]/input").send_keys("0.5")
    assert column(browser, "Dice")
    assert all(float(v) >= 0.5 for v in column(browser, "Dice"))
    browser.find_element("xpath", "//button[.='Dice']").send_keys(Keys.ENTER)
    dice = [float(v) for v in column(browser, "Dice")]
    assert dice == sorted(dice)
    browser.find_element("xpath", "//button[.='Dice']").send_keys(Keys.SPACE)
    assert [float(v) for v in column(browser, "Dice")] == dice[::-1] or dice == dice[::-1]
    assert browser.find_element("css selector", "th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_the_chart_follows_the_filters_and_a_click_keeps_a_method(browser: Any, site: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((site / "book" / "dashboard.html").as_uri())
    marks = "return Number(document.querySelector('.al-chart').dataset.marks ?? 0)"
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(marks) > 15)
    everything = browser.execute_script(marks)
    browser.execute_script(
        "const plot = document.querySelector('.al-chart .al-plot');"
        "plot.emit('plotly_click', {points: [{data: plot.data.find((trace) => trace.name === 'mona')}]})"
    )
    assert set(column(browser, "method")) == {"mona"}
    assert 0 < browser.execute_script(marks) < everything


def test_every_field_has_a_label(browser: Any, site: Path) -> None:
    browser.get((site / "book" / "dashboard.html").as_uri())
    fields = browser.find_elements("css selector", ".al-filters select, .al-filters input")
    assert len(fields) >= 6
    assert all(browser.execute_script("return arguments[0].labels.length", f) == 1 for f in fields)


def test_without_javascript_the_table_is_whole(browser: Any, site: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((site / "book" / "dashboard.html").as_uri())
        assert len(browser.find_elements("css selector", ".al-dashboard tbody tr")) > 15
        assert not browser.find_elements("css selector", ".al-filters")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
