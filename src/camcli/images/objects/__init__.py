"""Where objects lie in images: boxes, from a file for each format with ``read_entries``, or masks."""

BOX_FORMATS = "CSV, COCO's JSON, or a folder of Pascal VOC's XML or of YOLO's text files"
