"""Airflow's pages in a headless Chromium: opened, clicked and read as people do it, found by roles, labels and texts.

Everything is waited for, nothing sleeps. A page that is drawn anew while it is read is read again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self, TypeVar
from urllib.parse import quote

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

Answer = TypeVar("Answer")

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
SIZE = (1600, 1000)
#: High enough for all that a page or a form has to scroll to.
TALL = (1600, 2000)

PATIENCE = 60.0
#: Nothing is being loaded, and no animation of those that end is under way.
RESTS = """
return document.readyState === 'complete' && document.fonts.status === 'loaded' && !document.getAnimations().some(
    (it) => it.playState === 'running' && it.effect.getComputedTiming().endTime !== Infinity
)
"""

DIALOG = "//*[@role='dialog' and @data-state='open' and not(@hidden)]"


def lacking() -> str:
    """Say what is missing for a browser, if anything is."""
    missing = [command for command in ("chromium", "chromedriver") if not shutil.which(command)]
    return f"there is no {' and no '.join(missing)} on PATH; apt-get install chromium chromium-driver" * bool(missing)


def text(words: str) -> str:
    """Write words as XPath has them."""
    quotes = '"' if "'" in words else "'"
    return f"{quotes}{words}{quotes}"


def button(words: str) -> str:
    """Return where a button is that says this, or is described by it."""
    return f"//button[normalize-space()={text(words)} or starts-with(@aria-label, {text(words)})]"


class Browser:
    """A window of a browser, in which a person is logged in.

    :param url: where Airflow is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
            options.add_argument(argument)
        # The path of the driver keeps selenium from looking for one elsewhere.
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_window_size(*SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    # What every page has ----------------------------------------------------------------------------------------------

    def log_in(self, user: str, password: str) -> None:
        """Fill in the page that Airflow shows to strangers."""
        self.open("/", "//input[@name='username']")
        self.one("//input[@name='username']").send_keys(user)
        self.one("//input[@name='password']").send_keys(password, Keys.ENTER)
        self.one(button("User"))

    def open(self, path: str, ready: str) -> None:
        """Open a page, and wait until it shows what it is opened for."""
        self.driver.get(f"{self.url}{path}")
        self.one(ready)

    def all(self, where: str) -> list[WebElement]:
        """Return what is to be seen there now."""
        return [element for element in self.driver.find_elements(By.XPATH, where) if element.is_displayed()]

    def one(self, where: str) -> WebElement:
        """Wait for something to be seen, and return it."""
        return self.until(lambda: self.all(where), where)[0]

    def says(self, words: str) -> None:
        """Wait until these words are to be seen."""
        self.one(f"//*[text()[contains(., {text(words)})]]")

    def click(self, where: str) -> None:
        """Click on something, as soon as nothing lies over it."""

        def clicked() -> bool:
            self.one(where).click()
            return True

        self.until(clicked, f"a click on {where}")

    def until(self, condition: Callable[[], Answer], what: str, timeout: float = PATIENCE) -> Answer:
        """Ask again and again, and return the first answer that is true; fail loudly when it takes too long."""
        wait = WebDriverWait(self.driver, timeout, 0.2, ignored_exceptions=[WebDriverException])
        try:
            return wait.until(lambda _: condition())
        except TimeoutException:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(SCREENSHOTS / "in-vain.png"))
            seen = self.driver.find_element(By.TAG_NAME, "body").text
            pytest.fail(f"waited in vain for {what} on {self.driver.current_url}:\n{seen}")

    def type(self, *keys: str) -> None:
        """Type where the cursor is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def save(self, name: str, where: str = "") -> None:
        """Save a picture of the window, or of the whole of something in it, once nothing moves any more."""
        if where:
            self.driver.set_window_size(*TALL)
        self.until(lambda: self.driver.execute_script(RESTS), "the page to come to rest")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        picture = self.one(where).screenshot_as_png if where else self.driver.get_screenshot_as_png()
        (SCREENSHOTS / f"{name}.png").write_bytes(picture)
        self.driver.set_window_size(*SIZE)

    # Connections ------------------------------------------------------------------------------------------------------

    def add_connection(self, conn_id: str, conn_type: str) -> ConnectionForm:
        """Open the form for a new connection, and give it an id and a type."""
        self.open("/connections", button("Add Connection"))
        self.click(button("Add Connection"))
        self.one(f"{DIALOG}//input[@name='connection_id']").send_keys(conn_id)
        self.one(f"{DIALOG}//input[@role='combobox']").send_keys(conn_type)
        self.click(f"//*[@role='option' and normalize-space()={text(conn_type)}]")
        return ConnectionForm(self)

    def edit_connection(self, conn_id: str) -> ConnectionForm:
        """Open the form of a connection that is there."""
        self._click_of_connection(conn_id, "Edit Connection")
        return ConnectionForm(self)

    def test_connection(self, conn_id: str) -> tuple[str, str]:
        """Press the Test button of a connection; return whether that is a success or an error, and what it says."""
        self._click_of_connection(conn_id, "Test Connection")
        toast = "//*[@data-scope='toast' and @data-part='root']"
        return self.until(
            lambda: [(it.get_attribute("data-type"), it.text) for it in self.all(toast) if it.text], "a message"
        )[0]

    def _click_of_connection(self, conn_id: str, words: str) -> None:
        row = f"//tr[.//td[normalize-space()={text(conn_id)}]]"
        self.open("/connections", row)
        self.click(row + button(words))

    # Runs -------------------------------------------------------------------------------------------------------------

    def open_graph(self, dag_id: str, run_id: str) -> None:
        """Open the graph of a run, with all groups expanded."""
        self.open(f"/dags/{dag_id}/runs/{quote(run_id)}", button("Show Graph"))
        self.click(button("Show Graph"))
        self.click("//button[@data-testid='expand-all-button']")

    def nodes(self) -> dict[str, Node]:
        """Return what the graph shows: by its id, each task and group with what it says and where it is."""
        found = self.driver.find_elements(By.XPATH, "//*[@aria-roledescription='node' and @data-id]")
        return {it.get_attribute("data-id"): Node(it.text.splitlines(), Box(**it.rect)) for it in found}

    def edges(self) -> set[str]:
        """Return the arrows of the graph, each as its two ends."""
        found = self.driver.find_elements(By.XPATH, "//*[@aria-roledescription='edge' and @data-id]")
        return {it.get_attribute("data-id") for it in found}

    def open_task(self, key: tuple[str, str, str], page: str = "") -> None:
        """Open a page of a task: its log, or another one by its name, with the grid beside it."""
        dag_id, run_id, task_id = key
        self.open(f"/dags/{dag_id}/runs/{quote(run_id)}/tasks/{task_id}{page and '/' + page}", button("Show Grid"))
        self.click(button("Show Grid"))

    def log_lines(self) -> list[str]:
        """Return the numbered lines of the log that is open."""
        return [line.text for line in self.all("//*[a[@data-copy-exclude]]")]

    def filter_log(self, source: str) -> None:
        """Show only those lines of the log that come from this logger."""
        self.click(button("All Sources"))
        self.click(f"//*[@role='option' and normalize-space()={text(source)}]")
        self.type(Keys.ESCAPE)
        self.until(lambda: not self.all("//*[@role='option']"), "the list of loggers to close")

    def links(self) -> dict[str, str]:
        """Return the link buttons of the task whose details are open."""
        found = self.all("//a[@rel='noopener noreferrer' and starts-with(@href, 'http')]")
        return {link.text: link.get_attribute("href") or "" for link in found if link.text}

    def mark_task(self, state: str) -> None:
        """Mark the task that is open, and confirm it."""
        self.click(button("Mark Task Instance as"))
        self.click(f"//*[@role='menuitem' and normalize-space()={text(state)}]")
        self._confirm()

    def clear_task(self) -> None:
        """Clear the task that is open, and confirm it."""
        self.click(f"{button('Clear Task Instance')} | {button('Press shift+c to clear')}")
        self._confirm()

    def _confirm(self) -> None:
        self.says("Affected Tasks: 1")
        self.click(DIALOG + button("Confirm"))
        self.until(lambda: not self.all(DIALOG), "the dialog to close")


class Box(NamedTuple):
    """Where something is on the screen."""

    x: float
    y: float
    width: float
    height: float

    def is_within(self, other: Box) -> bool:
        """Tell whether no part of this sticks out of another one."""
        return (
            other.x <= self.x
            and other.y <= self.y
            and self.x + self.width <= other.x + other.width
            and self.y + self.height <= other.y + other.height
        )

    def is_left_of(self, other: Box) -> bool:
        """Tell whether this ends before the other one begins."""
        return self.x + self.width < other.x

    def is_beside(self, other: Box) -> bool:
        """Tell whether both begin at the same distance from the left, and neither lies over the other."""
        apart = self.y + self.height <= other.y or other.y + other.height <= self.y
        return abs(self.x - other.x) <= 1 and apart


class Node(NamedTuple):
    """A task or a group in the graph."""

    words: list[str]
    box: Box


class Field(NamedTuple):
    """What the form says of a field."""

    label: str
    description: str


class ConnectionForm:
    """The form of a connection, in a dialog; only one of its sections is open at a time."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        browser.one(DIALOG + button("Save"))

    def sections(self) -> list[str]:
        """Return the titles of the sections."""
        return [title.text for title in self._browser.all(f"{DIALOG}//button[@aria-expanded and @aria-controls]")]

    def open_section(self, title: str) -> None:
        """Open a section."""
        where = f"{DIALOG}//button[@aria-expanded and normalize-space()={text(title)}]"

        def is_open() -> bool:
            trigger = self._browser.one(where)
            if trigger.get_attribute("aria-expanded") != "true":
                trigger.click()
            return trigger.get_attribute("aria-expanded") == "true" and bool(self.fields())

        self._browser.until(is_open, f"section {title}")

    def fields(self) -> list[Field]:
        """Return the fields of the open section."""
        roots = self._browser.all(f"{DIALOG}//*[@data-scope='accordion']//*[@role='group' and .//label]")
        return [
            Field(
                root.find_element(By.XPATH, ".//label").text,
                "\n".join(it.text for it in root.find_elements(By.XPATH, ".//*[@data-part='helper-text']")),
            )
            for root in roots
        ]

    def write(self, label: str, words: str) -> None:
        """Replace what a field of the open section holds by this text."""
        where = f"{self._root(label)}//*[self::input or self::textarea]"
        self._browser.click(where)
        self._browser.one(where).send_keys(Keys.CONTROL, "a")
        self._browser.one(where).send_keys(words)
        # A field of JSON lays out anew what it holds.
        self._browser.until(lambda: "".join(self.value(label).split()) == "".join(words.split()), f"{label}: {words}")

    def choose(self, label: str, choice: str) -> None:
        """Choose something from the list of a field of the open section."""
        self._browser.click(f"{self._root(label)}//*[*/input[@role='combobox']]")
        self._browser.click(f"//*[@role='option' and normalize-space()={text(choice)}]")
        self._browser.until(lambda: self.value(label) == choice, f"{label} to be {choice}")

    def value(self, label: str) -> str:
        """Return what a field of the open section shows."""
        root = self._browser.one(self._root(label))
        if chosen := root.find_elements(By.XPATH, ".//*[input[@role='combobox']]/preceding-sibling::*[1]"):
            return chosen[0].text
        return root.find_element(By.XPATH, ".//*[self::input or self::textarea]").get_attribute("value") or ""

    def save(self) -> None:
        """Press the Save button, and wait until the form is gone."""
        self._browser.click(DIALOG + button("Save"))
        self._browser.until(lambda: not self._browser.all(DIALOG), "the form to close")

    def picture(self, name: str) -> None:
        """Save a picture of the whole form."""
        self._browser.save(name, DIALOG)

    def _root(self, label: str) -> str:
        return f"{DIALOG}//*[@role='group'][.//label[normalize-space()={text(label)}]]"
