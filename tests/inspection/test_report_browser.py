"""The report in a real browser: without a network, at all widths, by mouse and by keyboard."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

import sktune
from sktune.inspection import Finding, report
from sktune.inspection.notebook import write_summary

pytest.importorskip("jinja2", reason="the report needs Jinja")
webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")

CHROMIUM = Path("/usr/bin/chromium")
DRIVER = Path("/usr/bin/chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()), reason="chromium and chromium-driver are missing"
)
EVIL = "</script><img src=x onerror=alert(1)>"
SCORES = np.r_[0.5, 0.9, np.nan, 0.7, np.linspace(0.1, 0.4, 36)]


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Write a report with hostile names, a failed candidate and many parameters."""
    params = [
        {"lr": 10.0 ** -(n % 7), "kind": f"kind{n % 3}", EVIL: EVIL * (1 + n % 2)}
        | {f"module__a_rather_long_name_{k}": n * k for k in range(1, 7)}
        for n in range(len(SCORES))
    ]
    finding = Finding("x", "problem", EVIL, EVIL * 5, EVIL, EVIL)
    path = tmp_path_factory.mktemp("report") / "report.html"
    results = {"params": params, "mean_test_score": SCORES}
    return report(results, path, title=EVIL, findings=[finding])


@pytest.fixture(scope="module")
def page_of_networks(tmp_path_factory):
    X, y = load_iris(return_X_y=True)
    net = sktune.NeuralNetClassifier(max_epochs=3, random_state=0)
    search = sktune.GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=2)
    tuned = sktune.HoldoutSearch(search, random_state=0).fit(X, y)
    return report(tuned, tmp_path_factory.mktemp("report") / "report.html")


def open_page(browser, path, width=1400, scheme="light"):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    browser.get_log("browser")
    browser.get(path.as_uri())


def read_column(browser, number):
    """Return the texts of a column of the rows that are shown."""
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('#candidates tbody tr'))"
        ".filter(row => row.offsetParent).map(row => row.cells[arguments[0]].textContent)",
        number,
    )


def find(browser, selector):
    return browser.find_element("css selector", selector)


@pytest.mark.parametrize("width", [320, 400, 1400])
@pytest.mark.parametrize("name", ["page", "page_of_networks"])
def test_a_page_loads_and_does_not_overflow(browser, name, width, request):
    open_page(browser, request.getfixturevalue(name), width)
    assert browser.get_log("browser") == []
    sizes = browser.execute_script(
        "const root = document.documentElement;"
        "return [root.scrollWidth, root.clientWidth, window.innerWidth]"
    )
    assert sizes[0] <= sizes[1]
    assert sizes[2] == width
    pictures = browser.execute_script(
        "return Array.from(document.querySelectorAll('svg'), svg => svg.clientWidth)"
    )
    assert pictures
    assert all(150 < picture <= width for picture in pictures)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_summary_in_a_notebook_takes_the_colours_of_its_page(browser, tmp_path, width, scheme):
    search = sktune.GridSearchCV(sktune.NeuralNetClassifier(), {"lr": [1.0]})
    params = [{"lr": 0.1, EVIL: EVIL}, {"lr": 0.2, EVIL: "a" * 200}]
    search.cv_results_ = {"params": params, "mean_test_score": [0.5, 0.1]}
    colors = "<meta name='color-scheme' content='light dark'>"
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html>{colors}{write_summary(search)}", encoding="utf-8")
    open_page(browser, path, width, scheme)
    assert browser.get_log("browser") == []
    assert browser.find_elements("css selector", "img") == []
    root = browser.execute_script(
        "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
    )
    assert root[0] <= root[1]
    color = "return getComputedStyle(document.querySelector(arguments[0])).color"
    light = scheme == "light"
    assert browser.execute_script(color, "td") == (
        "rgb(0, 0, 0)" if light else "rgb(255, 255, 255)"
    )


def test_markup_of_the_user_does_not_run(browser, page):
    open_page(browser, page)
    assert browser.title == EVIL
    counts = [len(browser.find_elements("css selector", tag)) for tag in ("img", "script")]
    assert counts == [0, 1]
    # an alert would be in the way of this
    assert EVIL in find(browser, "h1").text


def test_the_policy_stops_what_is_not_ours(browser, page):
    open_page(browser, page)
    browser.execute_script(
        "const own = document.createElement('script'); own.textContent = 'window.ran = 1';"
        "document.body.append(own);"
        "const image = new Image(); image.src = 'https://example.org/x.png';"
        "document.body.append(image);"
    )
    assert browser.execute_script("return window.ran") is None
    messages = " ".join(entry["message"] for entry in browser.get_log("browser"))
    assert "violates the following Content Security Policy directive" in messages


def test_sorting_by_mouse(browser, page):
    open_page(browser, page)
    head = "#candidates th:nth-child(3)"
    shown = [float(text) for text in read_column(browser, 2)[:-1]]
    assert shown == sorted(shown, reverse=True)
    # failed candidates are last in both directions
    for direction, sign in (("ascending", 1), ("descending", -1)):
        find(browser, f"{head} button").click()
        assert find(browser, head).get_attribute("aria-sort") == direction
        texts = read_column(browser, 2)
        numbers = np.array(texts[:-1], dtype=float)
        assert texts[-1] == "failed"
        assert (np.diff(numbers) * sign >= 0).all()
    assert len(browser.find_elements("css selector", "#candidates [aria-sort]")) == 1


def test_sorting_by_keyboard_and_as_texts(browser, page):
    open_page(browser, page)
    heads = browser.find_elements("css selector", "#candidates th")
    number = next(k for k, head in enumerate(heads) if head.get_attribute("title") == "kind")
    button = heads[number].find_element("css selector", "button")
    browser.execute_script("arguments[0].focus({focusVisible: true})", button)
    browser.switch_to.active_element.send_keys("\ue006")
    texts = read_column(browser, number)
    assert texts == sorted(texts)
    assert heads[number].get_attribute("aria-sort") == "ascending"
    style = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(style) == "solid"


def test_filters(browser, page):
    open_page(browser, page)
    count = find(browser, "#filter-count")
    assert count.text == "40 of 40 candidates shown"
    find(browser, "#filter-text").send_keys("KIND1")
    assert count.text == "13 of 40 candidates shown"
    assert len(read_column(browser, 0)) == 13
    find(browser, "#filter-reset").click()
    find(browser, "#filter-low").send_keys("0.5")
    assert read_column(browser, 2) == ["0.9000", "0.7000", "0.5000"]
    find(browser, "#filter-high").send_keys("0.8")
    assert read_column(browser, 2) == ["0.7000", "0.5000"]
    find(browser, "#filter-reset").click()
    assert len(read_column(browser, 0)) == 40


def test_the_keyboard_skips_to_the_content(browser, page):
    open_page(browser, page)
    find(browser, "body").send_keys("\ue004")
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    browser.switch_to.active_element.send_keys("\ue006")
    assert browser.execute_script("return document.activeElement.id") == "main"


def test_light_and_dark_are_readable(browser, page):
    backs = []
    for scheme in ("light", "dark"):
        open_page(browser, page, scheme=scheme)
        for selector in ("body", ".muted", ".picture text", "tr.best td", ".problem strong span"):
            contrast, back = _measure_contrast(browser, selector)
            assert contrast >= 4.5, (scheme, selector)
        backs.append(back)
    assert backs[0] > 0.9
    assert backs[1] < 0.1


def _measure_contrast(browser, selector):
    """Return the contrast of a text with the page (WCAG 2.2), and the luminance of the page."""
    colors = browser.execute_script(
        "const element = document.querySelector(arguments[0]);"
        "const style = getComputedStyle(element);"
        "const color = element.closest('svg') ? style.fill : style.color;"
        "return [color, getComputedStyle(document.body).backgroundColor]",
        selector,
    )
    text, back = (_luminance(color) for color in colors)
    return (max(text, back) + 0.05) / (min(text, back) + 0.05), back


def _luminance(color):
    shares = np.array([int(part) for part in re.findall(r"\d+", color)[:3]]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_print(browser, page_of_networks):
    open_page(browser, page_of_networks, scheme="dark")
    paper = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", paper)["data"])
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 5
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not find(browser, "nav").is_displayed()
    assert not find(browser, "#filters").is_displayed()
    script = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(script) == "rgb(255, 255, 255)"
