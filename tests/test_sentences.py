"""What a study found, in words, and as the table of a paper."""

import re

import pandas as pd
import pytest
from ablations import make_ablation
from commands import call
from test_effects import additive, noisy
from test_plots import FULL, foreign, study_of

from roadmap.formatting import cost_text, plain
from roadmap.results.printing import as_latex, as_markdown
from roadmap.results.sentences import answer, headline


def table(**effects):
    """Effects by name: (estimate, verdict)."""
    rows = [
        {"effect": name, "estimate": estimate, "verdict": verdict, "seeds": 3}
        for name, (estimate, verdict) in effects.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("effects", "message"),
    [
        (
            {"gelu": (0.1, "negligible"), "fewer_activations": (4.3, "gain"), "move_up": (-5.2, "loss"),
             "fewer_norms": (0.4, "open")},
            "Fewer activations +4.3, move up −5.2; negligible: gelu; undecided: fewer norms",
        ),
        ({name: (size, "gain") for size, name in enumerate("abcd", 1)}, "D +4.0, c +3.0, 2 more gains"),
        ({name: (-size, "loss") for size, name in enumerate("abc", 1)}, "C −3.0, b −2.0, 1 more loss"),
        (dict.fromkeys("abcd", (0.0, "open")) | {"e": (0.2, "gain")}, "E +0.20; 4 undecided"),
        ({"a": (3.0, "open"), "b": (1.0, "open")}, "Nothing is decided; undecided: a and b"),
        ({"a × b": (0.01, "negligible")}, "Negligible: a × b"),
        ({"a": (3.0, None)}, "No interval is known: nothing can be decided"),
        # Less is better: a gain is a negative number.
        ({"long": (-0.3, "gain"), "ema": (0.1, "loss")}, "Long −0.30, ema +0.10"),
    ],
)  # fmt: skip
def test_a_headline_is_the_message(effects, message):
    assert headline(table(**effects)) == message


def test_a_headline_of_nothing():
    assert headline(pd.DataFrame(columns=["effect", "estimate", "verdict"])) == "No two networks to compare"
    assert headline(table(a=(1.0, None)).assign(seeds=1)) == "One run each: nothing can be decided"


def test_an_answer_is_three_sentences():
    study = study_of(make_ablation("leave-one-out", noisy(additive, scale=0.01)))
    gains, losses, rest = answer(study)
    assert (gains, losses) == ("Gains, the largest first: large kernel (+1.5 pp).", "Losses: layer norm (−0.5 pp).")
    assert rest == "Undecided: gelu."
    gains, losses, rest = answer(foreign())
    assert gains == "Gains, the largest first: long (−0.28) and mixup (−0.11)." and losses == "No loss is certain."
    assert rest == "Undecided: ema."


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [(8.7e-06, "+", "≈0"), (0.0, "+", "0"), (8.6, "", "8.60"), (12.714, "+", "+12.7"), (-1234.5, "+", "−1234"),
     (123.4, "", "123"), (0.0086, "", "0.01"), (float("nan"), "", "")],
)  # fmt: skip
def test_numbers_have_no_exponents(value, sign, text):
    assert plain(value, sign) == text


def test_costs_are_in_the_unit_that_shows_them():
    assert cost_text(0.0086, 23_000) == "8.60 MMACs, 23.0 k parameters"
    assert cost_text(4.09, 25_600_000) == "4.09 GMACs, 25.6 M parameters"
    assert cost_text(-0.0002, 0, "+") == "−0.20 MMACs, 0 parameters"


def test_the_table_of_a_paper_has_a_row_a_step():
    study = study_of(FULL)
    printed, steps = study.table(), study.steps
    assert list(printed) == ["step", "top-1", "gain (pp)", "interval", "verdict", "GMACs", "params (M)"]
    assert len(printed) == len(steps)
    for row, step in zip(printed.to_dict("records"), steps.to_dict("records"), strict=True):
        assert row["top-1"] == f"{step['top1_mean']:.1f} ± {step['top1_std']:.1f}"
        if isinstance(step["verdict"], str):
            numbers = re.findall(r"[+−][\d.]+", row["gain (pp)"] + row["interval"])
            shown = [float(number.replace("−", "-")) for number in numbers]
            assert shown == pytest.approx([step["gain"], step["gain_low"], step["gain_high"]], abs=0.051)
            assert row["verdict"] == step["verdict"]
    assert printed["step"][8] == "kernel 5 (not taken)"
    effects = study_of(make_ablation("factorial", noisy(additive))).table()
    assert list(effects)[:4] == ["step", "effect (pp)", "interval", "verdict"] and len(effects) == 6
    assert list(foreign().table()) == ["step", "val_loss", "gain", "interval", "verdict"]


def test_the_table_as_markdown_and_latex(tmp_path):
    text = as_markdown(pd.DataFrame({"step": ["a|b"], "gain": ["−1.0 ± 2"]}))
    assert text == "| step | gain |\n| :-- | --: |\n| a\\|b | −1.0 ± 2 |\n"
    latex = as_latex(pd.DataFrame({"step": ["50 % & more"], "gain": ["−1.0 ± 2"]}))
    assert latex.splitlines()[0] == r"\begin{tabular}{lr}" and r"\toprule" in latex
    assert r"50 \% \& more & $-$1.0 $\pm$ 2 \\" in latex
    (tmp_path / "runs.csv").write_text("step,seed,top1\n" + "".join(
        f"{name},{seed},{top1 + seed / 10}\n" for name, top1 in (("a", 70), ("b", 75)) for seed in range(3)
    ))  # fmt: skip
    for option, start in (("--latex", "\\begin{tabular}{lrrrl}"), ("--markdown", "| step | top1 | gain |")):
        shown = call("effects", "runs.csv", option, cwd=tmp_path)
        assert shown.code == 0 and shown.out.startswith(start) and "+5.0" in shown.out
    shown = call("effects", "runs.csv", "--latex", "--json", cwd=tmp_path)
    assert shown.code == 2 and "--json and --latex exclude each other" in shown.err
