"""Class names of any script are drawn in letters, never in boxes."""

import numpy as np
import pytest

from amdim.shards.text_fit import _fonts, _letters, letter


@pytest.mark.parametrize("name", ["cat", "Ökologie", "αβγ", "собака"])
def test_names_that_the_font_has_are_written(name):
    text, font = letter(name, 3, 14, 200)
    assert text == name
    box = np.asarray(font.getmask("\uffff"))
    assert all(not np.array_equal(np.asarray(font.getmask(each)), box) for each in name)


def test_names_that_no_font_has_become_numbers(monkeypatch):
    monkeypatch.setattr("amdim.shards.text_fit._fonts", lambda: _fonts()[:1])
    assert letter("猫", 7, 14, 200)[0] == "class 7"


def test_a_font_of_the_machine_is_found(monkeypatch):
    own, *_ = _fonts()
    monkeypatch.setattr("amdim.shards.text_fit._fonts", lambda: ["/nowhere/else.ttf", own])
    monkeypatch.setattr("amdim.shards.text_fit._letters", lambda path: _letters(path) if path == own else frozenset())
    text, font = letter("cat", 0, 14, 200)
    assert (text, font.path) == ("cat", own)


def test_long_names_are_shortened_to_fit():
    text, font = letter("a very long name of a class indeed", 0, 14, 128)
    assert text.startswith("a very l")
    assert text.endswith("s indeed"), "classes often differ at their ends"
    assert text.count("…") == 1
    assert font.getlength(text) <= 128
