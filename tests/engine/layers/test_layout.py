"""How shapes are read, and that every value lands in its cell."""

import pytest
import torch

from camcli.base.errors import RequestError
from camcli.engine.layers.layout import Layout, decide, from_nchw, parse_layout, possible_layouts, to_nchw

SQUARE = (224, 224)


# ---- shapes


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [
        ((1, 512, 7, 7), SQUARE, ["nchw 7x7"]),
        ((1, 7, 7, 512), SQUARE, ["nhwc 7x7"]),
        ((1, 64, 7, 14), (224, 448), ["nchw 7x14"]),
        ((1, 7, 14, 64), (224, 448), ["nhwc 7x14"]),
        # A grid of the wrong aspect is none.
        ((1, 64, 14, 7), (224, 448), []),
        # One cell lost or gained at the border: 299 pixels become 8 cells in Inception, 10x7 of 300x225 in a ResNet.
        ((1, 2048, 8, 8), (299, 299), ["nchw 8x8"]),
        ((1, 2048, 10, 8), (300, 225), ["nchw 10x8"]),
        ((1, 96, 55, 55), SQUARE, ["nchw 55x55"]),
        # As many channels as cells.
        ((1, 7, 7, 7), SQUARE, ["nchw 7x7", "nhwc 7x7"]),
        # Pooled to one cell, or never an image at all.
        ((1, 512, 1, 1), SQUARE, []),
        ((1, 1, 1, 512), SQUARE, []),
        ((1, 1000), SQUARE, []),
        ((1,), SQUARE, []),
        ((1, 3, 8, 7, 7), SQUARE, []),
        # One image cut into windows.
        ((64, 96, 7, 7), SQUARE, []),
        ((), SQUARE, []),
    ],
)
def test_readings_of_maps(shape, size, wanted):
    assert [str(layout) for layout in possible_layouts(shape, size)] == wanted


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [
        ((1, 196, 768), SQUARE, ["tokens 14x14"]),
        ((1, 197, 768), SQUARE, ["tokens 14x14 after 1 prefix"]),
        ((1, 201, 768), SQUARE, ["tokens 14x14 after 5 prefix"]),
        ((1, 98, 64), (224, 112), ["tokens 14x7"]),
        ((1, 99, 64), (224, 112), ["tokens 14x7 after 1 prefix"]),
        ((1, 99, 64), (112, 224), ["tokens 7x14 after 1 prefix"]),
        ((1, 55, 65), (160, 224), []),
        # 1 + 9 or 6 + 4.
        ((1, 10, 65), SQUARE, ["tokens 3x3 after 1 prefix", "tokens 2x2 after 6 prefix"]),
        # Channels first: possible where there are more of them than class tokens.
        ((1, 384, 196), SQUARE, ["ncl 14x14"]),
        ((1, 9, 196), SQUARE, ["tokens 3x3", "tokens 2x2 after 5 prefix", "ncl 14x14"]),
        ((1, 8, 196), SQUARE, ["tokens 2x2 after 4 prefix"]),
        ((64, 49, 96), SQUARE, []),
        # Only a prefix, or one patch: no grid.
        ((1, 1, 64), SQUARE, []),
        ((1, 2, 64), SQUARE, []),
        # No prefix is longer than 8.
        ((1, 206, 65), SQUARE, []),
    ],
)
def test_readings_of_tokens(shape, size, wanted):
    assert [str(layout) for layout in possible_layouts(shape, size)] == wanted


def test_what_the_source_says_of_its_tokens_settles_their_reading():
    assert possible_layouts((1, 10, 66), SQUARE, prefix=1) == [Layout("tokens", (3, 3), 1)]
    assert possible_layouts((1, 10, 66), SQUARE, prefix=6) == [Layout("tokens", (2, 2), 6)]
    assert possible_layouts((1, 10, 66), SQUARE, prefix=0) == []
    # A grid that is not of the input's aspect, because its last patches are padded.
    assert possible_layouts((1, 211, 66), (250, 224), prefix=1) == []
    assert possible_layouts((1, 211, 66), (250, 224), prefix=1, grid=(15, 14)) == [Layout("tokens", (15, 14), 1)]
    # The metadata's grid is that of another input size: the tokens count.
    assert possible_layouts((1, 311, 66), (250, 224), prefix=1, grid=(15, 14), suffix=100) == [
        Layout("tokens", (15, 14), 1, 100)
    ]
    assert possible_layouts((1, 211, 66), (250, 224), prefix=1, grid=(15, 14), suffix=100) == [
        Layout("tokens", (15, 14), 1)
    ]
    assert possible_layouts((1, 50, 66), SQUARE, prefix=1, grid=(14, 14)) == [Layout("tokens", (7, 7), 1)]


def test_one_reading_decides():
    assert decide([Layout("nhwc", (7, 7))], (1, 7, 7, 512)) == Layout("nhwc", (7, 7))


def test_no_reading_is_an_error_that_names_the_shape():
    with pytest.raises(RequestError, match="1x1000 has no spatial grid"):
        decide([], (1, 1000))


def plainly(*layouts):
    return frozenset(layouts)


def test_two_readings_are_an_error_that_names_both_unless_the_other_layers_settle_it():
    shape = (1, 7, 7, 7)
    ways = possible_layouts(shape, SQUARE)
    first, last, tokens = Layout("nchw", (14, 14)), Layout("nhwc", (14, 14)), Layout("tokens", (14, 14))
    for plain in (plainly(), plainly(tokens), plainly(first, last)):
        with pytest.raises(RequestError, match="1x7x7x7 can be read in 2 ways: nchw 7x7, or nhwc 7x7") as caught:
            decide(ways, shape, plain)
        assert "--layout nchw" in caught.value.hint
    assert decide(ways, shape, plainly(last)).order == "nhwc"
    assert decide(ways, shape, plainly(first, tokens)).order == "nchw"


def test_the_tokens_in_front_elsewhere_and_the_grids_elsewhere_settle_a_tie():
    shape = (1, 16, 384)
    ways = possible_layouts(shape, SQUARE)
    assert [str(one) for one in ways] == ["tokens 4x4", "tokens 3x3 after 7 prefix"]
    assert str(decide(ways, shape, plainly(Layout("tokens", (14, 14))))) == "tokens 4x4"
    assert str(decide(ways, shape, plainly(Layout("nchw", (3, 3))))) == "tokens 3x3 after 7 prefix"


def test_channels_first_sequences_need_a_layer_with_their_grid():
    # As many channels as the square of something say nothing.
    shape = (1, 77, 1024)
    ways = possible_layouts(shape, (512, 512))
    assert [str(one) for one in ways] == ["ncl 32x32"]
    with pytest.raises(RequestError, match="has no spatial grid"):
        decide(ways, shape, plainly(Layout("nchw", (16, 16))))
    assert str(decide(ways, shape, plainly(Layout("nchw", (32, 32))))) == "ncl 32x32"


def test_volumes_and_films_are_refused_with_the_reason():
    with pytest.raises(RequestError, match="1x3x8x7x7 is a volume or a video"):
        decide(possible_layouts((1, 3, 8, 7, 7), SQUARE), (1, 3, 8, 7, 7))


@pytest.mark.parametrize(
    ("word", "shape", "wanted"),
    [
        ("nchw", (1, 7, 7, 7), "nchw 7x7"),
        ("nhwc", (1, 7, 5, 9), "nhwc 7x5"),
        ("tokens:1:14x14", (1, 197, 64), "tokens 14x14 after 1 prefix"),
        ("tokens:0:14x14", (1, 197, 64), "tokens 14x14 before 1 suffix"),
        ("tokens:2:3x5", (1, 18, 4), "tokens 3x5 after 2 prefix before 1 suffix"),
        ("ncl:0:14x14", (1, 64, 196), "ncl 14x14"),
    ],
)
def test_a_layout_can_be_asked_for(word, shape, wanted):
    assert str(parse_layout(word, shape)) == wanted


def test_a_layout_of_windows_cannot_be_asked_for():
    with pytest.raises(RequestError, match="one image first"):
        parse_layout("tokens:0:7x7", (64, 49, 96))


# ---- values: each holds 100 x row + 10 x column + channel

ROWS, COLUMNS, CHANNELS = 2, 3, 4


def wanted(row, column, channel):
    return 100 * row + 10 * column + channel


def check(result):
    assert result.shape == (2, CHANNELS, ROWS, COLUMNS)
    for image in range(2):
        for channel in range(CHANNELS):
            for row in range(ROWS):
                for column in range(COLUMNS):
                    value = wanted(row, column, channel) + 1000 * image
                    assert result[image, channel, row, column] == value


def channels_last():
    one = [[[wanted(r, c, k) for k in range(CHANNELS)] for c in range(COLUMNS)] for r in range(ROWS)]
    return torch.tensor([one, (torch.tensor(one) + 1000).tolist()], dtype=torch.float32)


def test_channels_last_become_channels_first():
    check(to_nchw(channels_last(), Layout("nhwc", (ROWS, COLUMNS))))


def test_channels_first_stay():
    tensor = torch.tensor(
        [[[[wanted(r, c, k) + 1000.0 * n for c in range(3)] for r in range(2)] for k in range(4)] for n in range(2)]
    )
    check(to_nchw(tensor, Layout("nchw", (ROWS, COLUMNS))))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_become_a_grid_row_by_row_without_their_prefix(prefix):
    patches = torch.stack([channels_last()[:, r, c] for r in range(ROWS) for c in range(COLUMNS)], 1)
    tokens = torch.cat([torch.full((2, prefix, CHANNELS), -9.0), patches], 1)
    check(to_nchw(tokens, Layout("tokens", (ROWS, COLUMNS), prefix)))


@pytest.mark.parametrize("order", ["tokens", "ncl"])
def test_tokens_behind_the_patches_are_left_out_and_channels_may_come_first(order):
    patches = torch.stack([channels_last()[:, r, c] for r in range(ROWS) for c in range(COLUMNS)], 1)
    other = torch.full((2, 2, CHANNELS), -9.0)
    tokens = torch.cat([other[:, :1], patches, other], 1)
    check(to_nchw(tokens if order == "tokens" else tokens.transpose(1, 2), Layout(order, (ROWS, COLUMNS), 1, 2)))


def test_a_hand_worked_permutation():
    # Class token, then patches a b c / d e f, each with two channels.
    tokens = torch.tensor([[[9, 9], [1, -1], [2, -2], [3, -3], [4, -4], [5, -5], [6, -6]]], dtype=torch.float32)
    grid = to_nchw(tokens, Layout("tokens", (2, 3), 1))
    assert grid.tolist() == [[[[1, 2, 3], [4, 5, 6]], [[-1, -2, -3], [-4, -5, -6]]]]


@pytest.mark.parametrize("order", ["tokens", "ncl"])
def test_tokens_in_front_and_behind_are_put_back_where_they_were(order):
    # Two tokens in front, the patches a b / c d, one behind; of two images, the second's ten times the first's.
    one = torch.tensor([[9.0, -9.0], [8, -8], [1, -1], [2, -2], [3, -3], [4, -4], [7, -7]])
    tokens = torch.stack([one, 10 * one])
    layout = Layout(order, (2, 2), 2, 1)
    like = tokens.transpose(1, 2) if order == "ncl" else tokens
    # Two variants of each image: its own patches, and twice these.
    cells = to_nchw(like, layout)
    given = torch.stack([cells, 2 * cells], 1).flatten(0, 1)
    back = from_nchw(given, layout, like)
    back = back.transpose(1, 2) if order == "ncl" else back
    assert [image[:, 0].tolist() for image in back] == [
        [9, 8, 1, 2, 3, 4, 7],
        [9, 8, 2, 4, 6, 8, 7],
        [90, 80, 10, 20, 30, 40, 70],
        [90, 80, 20, 40, 60, 80, 70],
    ]
    assert torch.equal(back[..., 1], -back[..., 0])
