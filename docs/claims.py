"""Write docs/claims.md from docs/claims.json, which `softhot reproduce --out` makes.

And the table of what became of two papers' claims, in docs/guide/three_papers.md.

python -m docs.claims
"""

from __future__ import annotations

import re
from pathlib import Path

from softhot.reproduce import CLAIMS, Claim, Reproduction
from softhot.reproduce.claims import MUELLER, SZEGEDY
from softhot.reproduce.results import NULL, REPRODUCED, REVERSED

HERE = Path(__file__).parent
PAGE, DATA = HERE / "claims.md", HERE / "claims.json"
FIGURE = HERE / "claims.svg"
PAPERS = HERE / "guide" / "three_papers.md"
SPACE = "\N{NO-BREAK SPACE}"
MARKS = re.compile(r"(?<=<!-- claims -->\n).*(?=<!-- /claims -->)", re.S)
INTRO = """\
# Ten claims, checked

What papers and tutorials say of label smoothing, measured again on data and with networks that fit
a laptop. Each estimate is the mean over {seeds} pairs of runs; the two runs of a pair have the
same initial weights and the same batches and differ in the loss alone. The interval is Student's,
at 95 %. A claim is **reproduced** in a condition if its interval lies on the claimed side of 0,
**reversed** if it lies on the other, **not detectable** if it holds 0.

A word about a small network is no verdict on a paper: most of these claims were made for large
ones. What such a table can show is which claims hold wherever one looks, and which depend on
where. "Not detectable" means that {seeds} pairs did not show it, not that there is nothing to see;
and of {count} intervals, one or two miss by luck alone.

```sh
{command}
```

made the numbers below ({versions}).
It takes about twenty minutes of one core, and continues where it was stopped. This page is written
from them with `python -m docs.claims`.
"""
PATTERN = """
**The pattern.** Where the columns disagree, they do so for a reason: how far the plain network is
too sure. On digits that is 1.7 points, on clothes 4.8 with 50,000 rows to train on, and 12.2 with
3,000 and many passes. The last two are the same data and the same network, and half of the claims
change their word between them. Likelihood and calibration get better where there was much to
repair, at a small alpha where there was a little, and worse where there was next to nothing.

What else changes is what smoothing costs. Digits hardly overlap, and what they lose in calibration
a temperature gives back with interest. Kinds of clothes do overlap, and there smoothing costs
knowledge about which rows are doubtful (claims 5 and 7), for which no rescaling makes up. So ask
two things about your data before you ask how much to smooth: how overconfident is the plain
network, and do the classes overlap?
"""
OUTRO = """
A perceptron with ReLU, Adam at a constant 0.001, no other regulariser; the last
weights count. A student has 32 hidden units.
"""
# What to make of a claim; the words and numbers above each come from the findings.
READING = {
    "confidence": (
        "The one claim that follows from the formula, and the floor of all others. Networks "
        "fall further than the formula says, because they end further from the corner than the "
        "optimum of the loss ({ref}`identity 7 <identity-7>`)."
    ),
    "accuracy": (
        "The reason why people smooth: half a point to a point here, wherever one looks. Look at "
        "the size before the sign: it is of the order of what another seed does, so that one pair "
        "of runs shows luck, and ten pairs of another network on the same clothes did not show it "
        "({doc}`guide/fashion_mnist`)."
    ),
    "nll": (
        "True where the plain network was nearly calibrated, as on digits, and for a large alpha "
        "on clothes: there smoothing takes away confidence that was deserved. Where it was badly "
        "overconfident, as with 3,000 rows, the likelihood improves at every alpha, and Müller et "
        "al.'s claim is about networks of the first kind. Either way most of it is scale, which "
        "one number repairs: claim 5 looks at what is left."
    ),
    "calibration": (
        "It holds where the plain network is overconfident by more than half of what smoothing "
        "takes away ({ref}`identity 16 <identity-16>`), and turns into its opposite elsewhere: "
        "with 50,000 rows between alpha 0.05 and 0.1. "
        "Each condition names the gap of the plain network, in points: ask for it before "
        "believing anybody who says that smoothing calibrates, or that it does not."
    ),
    "calibratable": (
        "What is compared here is the likelihood that is left when scale is repaired, so it is "
        "about what the network learned. On digits, whose classes hardly overlap, the smoothed "
        "network knows more; on clothes, where a shirt is often a T-shirt, it knows less."
    ),
    "desmoothing": (
        "The inverse needs no data. On digits it goes part of the way only, and a temperature "
        "fitted on held-out rows does better ({doc}`guide/recover_confidence`); on clothes the two "
        "are close, and with 50,000 rows the inverse is the better one. Where the smoothed network "
        "is still too sure, as at alpha 0.05 with 3,000 rows, sharpening is a little harm."
    ),
    "selective": (
        "The claim is about data whose classes overlap, and that is where it holds, clearly. On "
        "digits a network errs too rarely for ten seeds to tell."
    ),
    "clusters": (
        "The variance within classes over the variance between them, on the training rows, as a "
        "logarithm: −1 is a factor of 2.7, −2 one of 7.4. With 50,000 rows of clothes, which a "
        "network of this size cannot learn by heart, little of it is left."
    ),
    "distillation": (
        "A fixed temperature compares scales and not teachers, because a smoothed teacher's "
        "logits are smaller: so the first condition gives every student the temperature that is "
        "best on validation rows. Here no student of a smoothed teacher was worse: on digits they "
        "were better, on clothes no difference can be told from luck, but at a high temperature "
        "they were better there too. What the smoothed teacher gains in accuracy counts for its "
        "students, what it no longer says about alternatives against them, and which is more "
        "depends on details: when each pixel was centred by itself and not the picture as a "
        "whole, students on 3,000 rows of clothes were worse by 0.8 points, in nine pairs of ten."
    ),
    "noise": (
        "Two moments: after the last epoch, when a network has had time to learn the wrong "
        "labels by heart, and at the epoch that a validation set with wrong labels of its own "
        "would choose. On clothes a large alpha is worth one to three points at the last epoch, "
        "and with few rows still one at the best; at alpha 0.1 nothing shows that pairs can tell "
        "from luck. On digits there is a gain half way into learning the wrong labels by heart "
        "({doc}`guide/label_noise`), and none at the end."
    ),
}


def main() -> None:
    """Write the page and its figure."""
    found = Reproduction.read(DATA)
    PAGE.write_text(page(found))
    PAPERS.write_text(MARKS.sub(papers(found), PAPERS.read_text()))
    draw(found)
    print(PAGE.name)


def page(found: Reproduction) -> str:
    """The page, in Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in found.versions)
    text = INTRO.format(
        seeds=found.seeds, count=len(found.findings), command=found.command, versions=versions
    )
    text += "\n```{image} claims.svg\n:alt: Every finding as an interval over its half-width\n```\n"
    names = [setting.name for setting in found.settings]
    text += f"\n| | claim | {' | '.join(names)} |\n|---:|---|{'---|' * len(names)}\n"
    for claim in CLAIMS:
        words = " | ".join(short(found, claim, name) for name in names)
        text += f"| {claim.number} | [{claim.title}](#{anchor(claim)}) | {words} |\n"
    text += f"\n{PATTERN}"
    for claim in CLAIMS:
        text += f"\n({anchor(claim)})=\n## {claim.number} · {claim.title}\n\n"
        text += f"**Claimed** ({claim.source}): {claim.says}\n\n"
        side = "above" if claim.direction > 0 else "below"
        text += f"**Measured**: {claim.measured}, in {claim.unit}; the claim says {side} 0.\n\n"
        text += "| data | condition | estimate | 95 % interval | |\n|---|---|---:|---:|---|\n"
        for one in found.of(claim):
            digits = 3 if claim.unit == "nats" else 2
            mean, low, high = (f"{x:+.{digits}f}" for x in (one.estimate, one.low, one.high))
            text += f"| {one.dataset} | {one.condition} | {mean} | {low} to {high} | {one.word} |\n"
        text += f"\n{READING[claim.name]}\n"
    text += "\n## On what\n\n| data | training, validation, test rows | hidden units | epochs "
    text += "| batch |\n|---|---|---|---:|---:|\n"
    for s in found.settings:
        widths = " and ".join(map(str, s.hidden))
        rows = f"{s.train}, {s.validation}, {s.test}"
        text += f"| {s.name} | {rows} | {widths} | {s.epochs} | {s.batch_size} |\n"
    text += OUTRO
    return re.sub(r"(?<=[ (])-(?=\d)", "\N{MINUS SIGN}", text)


def papers(found: Reproduction) -> str:
    """What we find of the claims of two papers, as a table."""
    names = [setting.name for setting in found.settings]
    text = f"| paper | claims | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}\n"
    for claim in CLAIMS:
        if claim.source in (SZEGEDY, MUELLER):
            words = " | ".join(short(found, claim, name) for name in names)
            who = claim.source.partition(" 20")[0]
            said = f"{{ref}}`{claim.title.lower()} <{anchor(claim)}>`"
            text += f"| {who} | {said} | {words} |\n"
    return text


def anchor(claim: Claim) -> str:
    """The name of a claim's section."""
    return f"claim-{claim.number}"


def short(found: Reproduction, claim: Claim, dataset: str) -> str:
    """The word of a claim on a data set; where its conditions differ, how many got which."""
    words = [finding.word for finding in found.of(claim) if finding.dataset == dataset]
    kinds = [word for word in (REPRODUCED, NULL, REVERSED) if word in words]
    if len(kinds) <= 1:
        return "".join(kinds) or "not measured"
    counts = [f"{words.count(word)} {word}".replace(" ", SPACE) for word in kinds]
    return ", ".join(counts)


def draw(found: Reproduction) -> None:
    """All findings in one picture: estimates in units of their interval's half-width."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "softhot", "font.size": 9})
    from matplotlib import pyplot

    colours = {REPRODUCED: "#009e73", NULL: "#8a949e", REVERSED: "#d55e00"}
    markers = {"digits": "o", "fashion_mnist": "s", "fashion_mnist_3000": "^"}
    figure, ax = pyplot.subplots(figsize=(8, 5.4), layout="constrained")
    for claim in CLAIMS:
        for i, one in enumerate(found.of(claim)):
            side = claim.direction * 2 / max(one.high - one.low, 1e-9)  # half-widths, claim's way
            at = claim.number + 0.07 * (i - (len(found.of(claim)) - 1) / 2)
            x = min(max(side * one.estimate, -12), 12)
            ax.plot([x - 1, x + 1], [at, at], color=colours[one.word], linewidth=1.4)
            ax.plot(x, at, markers.get(one.dataset, "o"), color=colours[one.word], markersize=4)
    ax.axvline(0, color="#59616b", linewidth=1)
    ax.set_yticks([c.number for c in CLAIMS], [f"{c.number} {c.title}" for c in CLAIMS])
    ax.invert_yaxis()
    ax.set_xticks([-12, -6, 0, 6, 12], ["≤ −12", "−6", "0", "6", "≥ 12"])
    ax.set_xlabel(
        "against the claim  ←   estimate in half-widths of its interval   →  with the claim"
    )
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    for said, colour in colours.items():
        ax.plot([], [], color=colour, linewidth=3, label=said)
    for name, marker in markers.items():
        ax.plot([], [], marker, color="#59616b", markersize=4, label=name)
    ax.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1))
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
