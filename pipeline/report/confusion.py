"""The stamps of the test split that the network is most wrong about."""

from __future__ import annotations

import numpy as np

from pipeline.report.inputs import TrainingOutcome
from pipeline.report.markup import Html, element, escaped, heading, image, joined, note, number_text, paragraph
from pipeline.report.stamps import colour_channels, lupton_rgb, noise_stretch, stamp_png
from pipeline.stages.cutouts import sky_sigma

_PIXEL_FACTOR = 2
_KINDS = ((0, "Controls with the highest scores"), (1, "Injected stamps with the lowest scores"))


def confusion_part(outcome: TrainingOutcome, bands: tuple[str, ...]) -> Html:
    """Worst false positives and false negatives as colour pictures, the worst first."""
    label = outcome.confusion["label"]
    parts = [heading("Where the network is most wrong")]
    for kind, title in _KINDS:
        cards = [_card(outcome, index, bands) for index in np.flatnonzero(label == kind).tolist()]
        parts += [paragraph(f"{title}:"), Html('<div class="gallery">' + "\n".join(cards) + "</div>")]
    parts.append(note("Asinh stretch of Lupton et al. (2004), scaled by the sky noise of each stamp."))
    return joined(*parts)


def _card(outcome: TrainingOutcome, index: int, bands: tuple[str, ...]) -> str:
    found = outcome.confusion
    stamp = found["stamps"][index]
    picture = lupton_rgb(colour_channels(stamp, bands), noise_stretch(sky_sigma(stamp), bands))
    facts = [f"logit {number_text(float(found['logit'][index]))}"]
    if found["label"][index]:
        facts.append(f"arc_snr {number_text(float(found['arc_snr'][index]))}")
        facts.append(f"\u03b8_E {float(found['theta_e_arcsec'][index]):.2f}\u2033")
    shown = image(stamp_png(picture, _PIXEL_FACTOR), "stamp that was scored wrongly")
    caption = element("div", " \u00b7 ".join(facts), "facts")
    task_id = escaped(str(found["task_id"][index]))
    return f'<div class="pair" title="{task_id}"><div class="stamps"><div>{shown}</div></div>{caption}</div>'
