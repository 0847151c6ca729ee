"""Write the font of panels and sheets: DejaVu Sans, of which the scripts in ``RANGES`` are kept.

``python tools/make_font.py PATH/DejaVuSans.ttf``, with fonttools; Matplotlib has that file in ``mpl-data/fonts/ttf``.
"""

import sys
from pathlib import Path

from fontTools import subset

from camcli.outputs.font import FONT, RANGES

if __name__ == "__main__":
    options = subset.Options(hinting=False, layout_features=["kern", "mark", "mkmk", "ccmp"], notdef_outline=True)
    font = subset.load_font(sys.argv[1], options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[code for first, last in RANGES for code in range(first, last + 1)])
    subsetter.subset(font)
    subset.save_font(font, str(FONT), options)
    print(f"{FONT}: {Path(FONT).stat().st_size:,} bytes")
