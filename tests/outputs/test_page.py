"""Text in any script, and pages as pixels, SVG and PDF."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw

from camcli.outputs import font
from camcli.outputs.font import RANGES, load_font, measure_text, write_text
from camcli.outputs.page import Page


def draw_text(text):
    image = Image.new("L", (400, 40), "white")
    write_text(ImageDraw.Draw(image), (4, 4), text, "black", 20)
    return np.asarray(image)


@pytest.mark.parametrize("text", ["é", "ß", "ñ", "Ω", "Я", "→", "≥", "ő"])
def test_every_letter_of_the_bundled_font_is_a_letter_and_no_box(text):
    assert bytes(load_font(20).getmask(text)) != bytes(load_font(20).getmask("\U0010ffff"))
    assert any(first <= ord(text) <= last for first, last in RANGES)


def test_what_no_font_has_is_written_as_its_number(monkeypatch):
    monkeypatch.setattr(font, "load_system_font", lambda size: None)
    assert np.array_equal(draw_text("a猫"), draw_text("aU+732B"))
    assert measure_text("a猫", 20) == pytest.approx(measure_text("aU+732B", 20))


def test_a_page_is_the_same_as_pixels_and_in_a_pdf_and_its_svg_has_its_texts():
    page = Page(200, 100)
    page.place_image(10, 10, np.zeros((20, 30, 3), np.uint8))
    page.fill((50, 10, 59, 19), (255, 0, 0))
    page.write((10, 60), "a < b é", (20, 20, 20), 15)
    pixels = page.to_pixels()
    assert (pixels[10:30, 10:40] == 0).all()
    assert (pixels[10:20, 50:60] == (255, 0, 0)).all()
    assert (pixels[60:80] < 100).any()
    root = ElementTree.fromstring(page.to_svg())
    assert root.find("{*}text").text == "a < b é"
    image = root.find("{*}image").get("href").partition("base64,")[2]
    assert Image.open(io.BytesIO(base64.b64decode(image))).size == (30, 20)
    assert page.to_pdf() == page.to_pdf()
