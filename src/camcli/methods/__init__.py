"""The table of methods.

A method's kind says what evidence it is handed and what it returns:

- ``gradient``: ``(act, grad) -> map``, closed forms over a layer's output and the gradient of the score by it, both
  ``(n, c, h, w)``; the map is ``(n, h, w)``.
- ``backprop``: ``(grad, passes) -> grad``, what happens to the gradient at a ReLU on its way to the input; the map is
  the gradient by the input, ``(n, 3, H, W)``.
- ``product``: two rows multiplied at the input's resolution, the map ``(n, 3, H, W)``; no function of its own.
"""

from camcli.tables import Row, Table

METHODS = Table(
    "camcli.methods",
    "method",
    Row("gradient", "gradcam", "channels weighted by their mean gradient", "Selvaraju 2017, arXiv:1610.02391"),
    Row("gradient", "hirescam", "gradient times activation, cell by cell", "Draelos 2020, arXiv:2011.08891"),
    Row(
        "backprop",
        "guided-backprop",
        "input gradient, only positive signals passing each ReLU",
        "Springenberg 2015, arXiv:1412.6806",
        caveat="guided backprop shows edges that hardly depend on the class or the weights: "
        "it fails the randomisation test of Adebayo et al. 2018, arXiv:1810.03292",
    ),
    Row(
        "product",
        "guided-gradcam",
        "guided backprop where Grad-CAM is positive",
        "Selvaraju 2017, arXiv:1610.02391",
        parts=("guided-backprop", "gradcam"),
        caveat="its place comes from Grad-CAM, its fine detail from guided backprop, which hardly depends on the "
        "weights (Adebayo et al. 2018, arXiv:1810.03292)",
    ),
)
