"""The page in headless Chromium.

Skipped without it: apt-get install chromium chromium-driver.
"""

import shutil

import pytest
from selenium import webdriver

from depthq.report import write_report

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def page(chromium, make_run):
    """The page at the size of a desktop, in light mode, seen by a fresh tab."""
    see(chromium, width=1280, scheme="light")
    chromium.get(write_report(*make_run()).as_uri())
    return chromium


def see(chromium, *, width: int, scheme: str) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(page, selector: str):
    return page.find_element("css selector", selector)


def hover(page, element, dx: int = 0) -> None:
    from selenium.webdriver import ActionChains

    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    ActionChains(page).move_to_element_with_offset(element, dx, 0).perform()


def press(page, *keys: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    ActionChains(page).send_keys(*(getattr(Keys, key) for key in keys)).perform()


def focus(page, element) -> None:
    page.execute_script("arguments[0].focus()", element)


def test_it_loads_without_complaints(page):
    assert page.title == "demo - depthq report"
    assert page.get_log("browser") == []


def test_the_slider_follows_the_pointer(page):
    from selenium.webdriver import ActionChains

    slider, stage = find(page, ".stage input"), find(page, ".stage")
    before = stage.screenshot_as_png
    hover(page, slider)
    ActionChains(page).click_and_hold().move_by_offset(stage.size["width"] // 4, 0).release().perform()
    assert float(slider.get_property("value")) == pytest.approx(75, abs=2)
    assert "inset(0px 0px 0px 7" in find(page, ".stage .ours").value_of_css_property("clip-path")
    assert stage.screenshot_as_png != before


def test_the_slider_follows_the_keys(page):
    slider = find(page, ".stage input")
    focus(page, slider)
    press(page, "ARROW_RIGHT", "ARROW_RIGHT")
    assert slider.get_property("value") == "52"
    assert slider.get_attribute("aria-valuetext") == "52 % original, the rest ours"
    press(page, "HOME")
    assert find(page, ".stage .ours").value_of_css_property("clip-path") in ("inset(0px 0px 0px 0%)", "inset(0px)")


def test_another_image_can_be_chosen_by_keys(page):
    first = find(page, ".stage .original").get_property("src")
    focus(page, find(page, ".choices input"))
    press(page, "ARROW_RIGHT")
    shown = find(page, ".stage .original")
    assert shown.get_property("src") != first
    assert shown.get_attribute("alt") == "Image 2, original"
    second = page.find_elements("css selector", ".choices input")[1]
    assert find(page, ".psnr").text == second.get_attribute("data-psnr")


@pytest.mark.parametrize("selector", [".heatmap", ".maps .heatmap"])
def test_cells_say_their_value_under_the_pointer_and_in_focus(page, selector):
    heatmap = find(page, selector)
    cells = heatmap.find_elements("css selector", "tbody td")
    remark = heatmap.find_element("css selector", ".remark")
    hover(page, cells[1])
    assert remark.text == cells[1].get_attribute("data-remark")
    focus(page, cells[0])
    assert remark.text == cells[0].get_attribute("data-remark")
    press(page, "ARROW_DOWN", "ARROW_RIGHT", "ARROW_UP")
    assert remark.text == cells[1].get_attribute("data-remark")
    assert page.switch_to.active_element == cells[1]
    assert len(heatmap.find_elements("css selector", "td[tabindex='0']")) == 1


def test_curves_say_their_values_under_the_pointer_and_in_focus(page):
    chart = find(page, ".chart")
    plot, remark = (chart.find_element("css selector", part) for part in (".plot", ".remark"))
    hover(page, plot, dx=plot.size["width"] // 2 - 2)
    assert remark.text == "step 10: training 0.1, validation 0.2"
    hover(page, find(page, "h1"))
    assert remark.text.split() == ["training", "validation"]  # the legend
    focus(page, plot)
    assert remark.text == "step 10: training 0.1, validation 0.2"
    press(page, "ARROW_LEFT")
    assert remark.text == "step 5: training 1"


def test_a_phone_never_scrolls_sideways(page):
    see(page, width=390, scheme="light")
    width = "return document.documentElement.scrollWidth"
    assert page.execute_script(width) == 390
    too_wide = (
        "return [...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length"
    )
    assert page.execute_script(too_wide) == 0


def test_dark_mode_is_dark(page):
    def background() -> tuple[int, ...]:
        color = find(page, "body").value_of_css_property("background-color")
        return tuple(int(float(part)) for part in color[color.index("(") + 1 : -1].split(",")[:3])

    assert min(background()) > 200
    see(page, width=1280, scheme="dark")
    assert max(background()) < 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_values_can_be_read_on_every_colour(page, scheme):
    """WCAG's contrast of text, 4.5, along the whole colour scale."""
    see(page, width=1280, scheme=scheme)
    ratios = page.execute_script(CONTRASTS)
    assert len(ratios) == 21
    assert min(ratios) >= 4.5


def test_entropy_on_the_diagonal_has_no_colour(page):
    cell = find(page, ".heatmap tbody td")
    assert cell.get_attribute("data-remark").startswith("entropy")
    assert cell.value_of_css_property("background-color") == "rgba(0, 0, 0, 0)"
    assert cell.value_of_css_property("color") == find(page, "body").value_of_css_property("color")


CONTRASTS = """
const cell = document.querySelector(".heatmap tbody td[style]");
const canvas = new OffscreenCanvas(1, 1).getContext("2d");
const luminance = (color) => {
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data]
    .map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
return [...Array(21).keys()].map((step) => {
  cell.style.setProperty("--share", step / 20);
  const style = getComputedStyle(cell);
  const [low, high] = [luminance(style.color), luminance(style.backgroundColor)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
});
"""
