"""Boxes in COCO's JSON, Pascal VOC's XML and YOLO's text files, and masks: where they lie, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared import Paint

from camcli.base.errors import PictureError, RequestError
from camcli.images.objects.boxes import Boxes
from camcli.images.objects.masks import Masks
from camcli.images.source import PictureSource
from camcli.images.view import View

NAMES = ["cat", "dog"]
VIEW = View(picture=(20, 40), input=(20, 40), box=(0.0, 0.0, 40.0, 20.0))
# In every format below: a cat from 4, 6 to 12, 16, a dog in the lower right quarter, and what the model does not know.
CAT, DOG = np.zeros((2, 20, 40), bool)
CAT[6:16, 4:12] = True
DOG[10:, 20:] = True

COCO = {
    "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 20}, {"id": 8, "file_name": "elsewhere.png"}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 5, "name": "sofa"}],
    "annotations": [
        {"image_id": 7, "category_id": 3, "bbox": [4, 6, 8, 10]},
        {"image_id": 7, "category_id": 1, "bbox": [20, 10, 20.0, 10.0], "iscrowd": 0},
        {"image_id": 7, "category_id": 5, "bbox": [0, 0, 40, 20]},
        {"image_id": 8, "category_id": 3, "bbox": [0, 0, 40, 20]},
        {"image_id": 7, "caption": "a cat and a dog"},
    ],
}
VOC_OBJECT = "<object><name>{}</name><bndbox>{}</bndbox></object>"
EDGES = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
SIZE = "<size><width>40</width><height>20</height></size>"


def voc(*objects: tuple) -> str:
    parts = [VOC_OBJECT.format(name, EDGES.format(*edges)) for name, *edges in objects]
    return f"<annotation><filename>x</filename>{SIZE}{''.join(parts)}</annotation>"


def write(path: str, text: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return Path(path)


def write_coco() -> Path:
    return write("boxes.json", json.dumps(COCO))


def write_voc() -> Path:
    write("voc/a.xml", voc(("cat", 5, 7, 12, 16), ("dog", 21, 11, 40, 20), ("sofa", 1, 1, 40, 20)))
    return Path("voc")


def write_yolo() -> Path:
    write("set/classes.txt", "sofa\ndog\ncat\n")
    write("set/labels/a.txt", "2 0.2 0.55 0.2 0.5\n1 0.75 0.75 0.5 0.5\n\n0 0.5 0.5 1 1\n")
    return Path("set/labels")


def read(path: Path) -> Boxes:
    def find(word: str) -> int | None:
        return NAMES.index(word) if word in NAMES else None

    return Boxes(path, NAMES.index, find, [Path("in")])


@pytest.fixture
def picture(paint: Paint) -> PictureSource:
    paint("in/a.png")
    return PictureSource("in/a.png", "a.png")


@pytest.mark.parametrize("make", [write_coco, write_voc, write_yolo])
def test_the_same_boxes_in_every_format(picture: PictureSource, make) -> None:
    boxes = read(make())
    np.testing.assert_array_equal(boxes.find_region(picture, 0, VIEW), CAT)
    np.testing.assert_array_equal(boxes.find_region(picture, 1, VIEW), DOG)
    np.testing.assert_allclose(boxes.find_boxes(picture, 0, VIEW), [[4, 6, 12, 16]])
    # Of the dog the model sees the left half, at half the size.
    part = View(picture=(20, 40), input=(10, 15), box=(0.0, 0.0, 30.0, 20.0))
    np.testing.assert_allclose(boxes.find_boxes(picture, 1, part), [[10, 5, 15, 10]])
    assert boxes.count_listed([picture, PictureSource("in/b.png", "b.png")]) == 1
    [note] = boxes.notes
    assert "1 boxes are of no class of the model, and left out: sofa" in note


def test_names_of_yolos_classes_in_yaml(picture: PictureSource) -> None:
    folder = write_yolo()
    Path("set/classes.txt").unlink()
    for names in ("[sofa, dog, cat]", "{2: cat, 1: dog, 0: sofa}"):
        write("set/data.yaml", f"train: images\nnames: {names}\n")
        np.testing.assert_array_equal(read(folder).find_region(picture, 0, VIEW), CAT)
    Path("set/data.yaml").unlink()
    with pytest.raises(RequestError, match="nothing names these"):
        read(folder)


@pytest.mark.parametrize("names", ["[sofa, [dog], cat]", "[no, dog, cat]", "{0: {a: b}}"])
def test_what_is_no_name_in_yaml(picture: PictureSource, names: str) -> None:
    folder = write_yolo()
    Path("set/classes.txt").unlink()
    write("set/data.yaml", f"names: {names}\n")
    with pytest.raises(RequestError, match=r"data\.yaml: the name of class \d is no text"):
        read(folder)


def test_yaml_that_would_grow_without_bound_is_not_read(picture: PictureSource) -> None:
    """Nine lines, each ten of the one before, are a billion words as text."""
    folder = write_yolo()
    Path("set/classes.txt").unlink()
    lines = ["a0: &a0 [dog]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
    write("set/data.yaml", "\n".join([*lines, "names: [*a9]"]))
    with pytest.raises(RequestError, match="the name of class 0 is no text"):
        read(folder)
    write("set/data.yaml", "[" * 10_000)
    with pytest.raises(RequestError, match="is not YAML"):
        read(folder)


def test_boxes_of_an_image_of_another_size_are_its_error(picture: PictureSource) -> None:
    other = View(picture=(10, 20), input=(20, 40), box=(0.0, 0.0, 20.0, 10.0))
    for make in (write_coco, write_voc):
        with pytest.raises(PictureError, match="it is 20x10 pixels, but its boxes are of an image of 40x20"):
            read(make()).find_region(picture, 0, other)
    # Shares are of any size.
    np.testing.assert_array_equal(read(write_yolo()).find_region(picture, 0, other), CAT)


def test_a_file_without_a_class_of_the_model_is_refused(picture: PictureSource) -> None:
    write("voc/a.xml", voc(("sofa", 1, 1, 40, 20)))
    with pytest.raises(RequestError, match="has boxes of no class of the model: sofa"):
        read(Path("voc"))


def test_what_changes_the_files_changes_their_digest(picture: PictureSource) -> None:
    folder = write_yolo()
    before = read(folder).digest
    assert read(folder).digest == before
    write("set/labels/photo.jpg", "no annotation")
    assert read(folder).digest == before
    write("set/classes.txt", "sofa\ncat\ndog\n")  # above the folder, and the names of its classes
    renamed = read(folder).digest
    assert renamed != before
    write("set/labels/b.txt", "2 0.2 0.5 0.2 0.5\n")
    assert read(folder).digest not in (before, renamed)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("b.json", "[", "b.json is not JSON"),
        ("b.json", "{}", "has no list 'images'"),
        ("b.json", '{"images": [{"id": 1}], "categories": [], "annotations": []}', r"images\[0\] has no 'file_name'"),
        ("b.json", '{"images": [], "categories": [], "annotations": []}', "lists no bbox"),
        (
            "b.json",
            '{"images": [], "categories": [], "annotations": [{"image_id": 3, "bbox": [1, 2, 3, 4]}]}',
            r"annotations\[0\]: image_id 3 is none of its images",
        ),
        ("b.json", "[" * 100_000, "b.json is not JSON"),
        ("b.json", json.dumps(COCO).replace('"id": 7', '"id": [7]'), r"images\[0\]: an id is a number or text"),
        (
            "b.json",
            json.dumps(COCO).replace('"image_id": 7', '"image_id": [7]'),
            r"image_id \[7\] is none of its images",
        ),
        ("b.json", json.dumps(COCO).replace('"width": 40', '"width": "wide"'), "width and height are no numbers"),
        ("b.json", json.dumps(COCO).replace('"width": 40', '"width": Infinity'), "width and height are no numbers"),
        ("b.json", json.dumps(COCO).replace("[4, 6, 8, 10]", "[4, 6, 0, 10]"), r"annotations\[0\]: .* is no box"),
        ("voc/a.xml", "<annotation>", "a.xml is not XML"),
        ("voc/a.xml", voc(("cat", 5, 7, "", 16)), "a.xml: object 1: 5, 7, nothing, 16 is no box"),
        ("voc/a.xml", voc(("", 5, 7, 12, 16)), "a.xml: an object has no name"),
        ("yolo/a.txt", "1 0.5 0.5 0.2\n", "a.txt, line 1: '1 0.5 0.5 0.2' is no box"),
        ("yolo/a.txt", "1 0.5 0.5 0.2 0.2\ndog 1 1 1 1\n", "a.txt, line 2"),
        ("yolo/a.txt", "1 30 40 10 12\n", "reaches beyond the image"),
        ("yolo/a.txt", "9 0.5 0.5 0.2 0.2\n", "class 9 has no name among 2"),
        ("none/a.csv", "a.png,1,2,3,4", "has neither .xml nor .txt files"),
    ],
)
def test_what_is_no_annotation(picture: PictureSource, path: str, text: str, message: str) -> None:
    write("yolo/classes.txt", "cat\ndog\n")
    file = write(path, text)
    with pytest.raises(RequestError, match=message):
        read(file if file.suffix == ".json" else file.parent)


def test_xml_that_defines_entities_is_not_read(picture: PictureSource) -> None:
    secret = write("secret.txt", "cat").absolute()
    for kind in (f'SYSTEM "{secret.as_uri()}"', '"cat"'):
        text = f"<!DOCTYPE annotation [<!ENTITY name {kind}>]>" + voc(("&name;", 5, 7, 12, 16))
        for encoding in ("utf-8", "utf-16"):
            write("voc/a.xml", "")
            Path("voc/a.xml").write_text(f"<?xml version='1.0' encoding='{encoding}'?>{text}", encoding)
            with pytest.raises(RequestError, match="a document type, which is not read"):
                read(Path("voc"))


# ---- masks


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "I;16"])
def test_masks_of_an_object(picture: PictureSource, mode: str) -> None:
    values = CAT * np.uint8(255 if mode == "1" else 3)
    image = Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values)
    if mode == "P":  # numbers of a palette in which all are black
        image.putpalette([0] * 768)
    Path("masks").mkdir()
    (image if mode in ("L", "P", "I;16") else image.convert(mode)).save("masks/a.png")
    masks = Masks(Path("masks"))
    np.testing.assert_array_equal(masks.find_region(picture, 1, VIEW), CAT)
    np.testing.assert_array_equal(masks.find_boxes(picture, 1, VIEW), [[4, 6, 12, 16]])
    other = PictureSource("in/b.jpg", "b.jpg")
    assert masks.find_boxes(other, 1, VIEW).shape == (0, 4)
    assert not masks.find_region(other, 1, VIEW).any()
    assert masks.count_listed([picture, other]) == 1
    with pytest.raises(PictureError, match="it is 20x10 pixels, but the mask of the region is 40x20"):
        masks.find_region(picture, 0, View(picture=(10, 20), input=(20, 40), box=(0.0, 0.0, 20.0, 10.0)))


def test_masks_are_named_by_the_path_in_a_given_folder_too(picture: PictureSource) -> None:
    Path("masks").mkdir()
    Image.fromarray(CAT * np.uint8(255)).save("masks/a.png")
    named = PictureSource(picture.file, picture.file)
    assert Masks(Path("masks")).count_listed([named]) == 0
    np.testing.assert_array_equal(Masks(Path("masks"), [Path("in")]).find_region(named, 1, VIEW), CAT)


def test_what_is_no_folder_of_masks(picture: PictureSource) -> None:
    with pytest.raises(RequestError, match="there is no folder 'masks'"):
        Masks(Path("masks"))
    Path("masks").mkdir()
    with pytest.raises(RequestError, match=r"has no \.png files"):
        Masks(Path("masks"))
    write("masks/a.png", "no image")
    with pytest.raises(PictureError, match="cannot be read"):
        Masks(Path("masks")).find_region(picture, 0, VIEW)


def test_masks_are_read_as_png_alone_and_by_their_size(picture: PictureSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name, a file of another format is given to no other decoder."""
    Path("masks").mkdir()
    mask = Image.fromarray(CAT * np.uint8(255))
    for name in ("TIFF", "GIF", "EPS"):
        mask.convert("L").save("masks/a.png", name)
        with pytest.raises(PictureError, match="cannot be read as PNG"):
            Masks(Path("masks")).find_region(picture, 0, VIEW)
    mask.save("masks/a.png")
    monkeypatch.setattr("camcli.images.decode.MAX_PIXELS", 20 * 40 - 1)
    with pytest.raises(PictureError, match="is too large: 40 x 20"):
        Masks(Path("masks")).find_region(picture, 0, VIEW)
