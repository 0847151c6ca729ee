"""A file of rules to start from."""

EXAMPLE = """\
# Rules on heatmaps, for:  camcli check RUN --rules rules.toml
#                     and  camcli diff BASE NEW --rules rules.toml
#
# Each table is one rule. `measure` is what is measured of each map, and a limit says what it must be:
# `min` and `max` for a number, `is` for true or false. `share` is the share of maps for which that must hold
# (default: all). `class`, `method` and `layer` narrow a rule; `per_class = true` judges each class by itself.

# Boxes of the objects, for the rules that need them: CSV (image,x0,y0,x1,y1 and perhaps label), COCO's JSON, or a
# folder of Pascal VOC's XML or of YOLO's text files.
# boxes = "boxes.csv"

# ---- one run: camcli check

# [[check]]
# name = "looks at the object"
# measure = "energy-in-box"        # share of the positive values in the object's box
# min = 0.5
# share = 0.95                     # or "95%"

[[check]]
name = "does not look at the border"
measure = "energy-in-border"
width = 0.1                        # of the shorter side of what the model sees
max = 0.5
share = "90%"

[[check]]
name = "does not look at the watermark"
measure = "peak-in-region"
region = [0.75, 0.9, 1.0, 1.0]     # x0, y0, x1, y1 in shares of width and height; or mask = "watermark.png", of
                                   # the images' size and black outside
is = false
share = 0.99

[[check]]
name = "no map is constant"
measure = "constant"
is = false

[[check]]
name = "neither a point nor everything"
measure = "effective-area"         # share of the pixels that the map is spread over
min = 0.02
max = 0.9

[[check]]
name = "the class is likely"
measure = "probability"
min = 0.1
share = "80%"

[[check]]
name = "the class is predicted"
measure = "predicted"
is = true
share = "80%"

# [[check]]
# name = "tabbies are sure"
# measure = "probability"
# class = "tabby"
# min = 0.5

# That no image failed is asked unless a rule says otherwise:
# [[check]]
# measure = "failed"
# is = false
# share = 0.99

# ---- the change between two runs: camcli diff

[[diff]]
name = "the maps are alike"
measure = "pearson"                # or ssim, overlap
min = 0.9
share = "95%"

[[diff]]
name = "the peaks stay"
measure = "moved"                  # share of the image's diagonal; moved-pixels is in pixels
max = 0.1
share = "90%"

[[diff]]
name = "the predictions stay"
measure = "changed"
is = false
share = "95%"

# That no map of the first run is missing in the second is asked unless a rule says otherwise:
# [[diff]]
# measure = "missing"
# is = false
# share = 0.99
"""
