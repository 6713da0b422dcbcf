"""How does a phantom work inside? `python -m phantom.physiology` measures it, for any checkpoint,
so that two can be held side by side.

Prompts name two things of the phantom's world. What a picture shows is for the judge to say
(phantom/judge.py). For a model that draws larger pictures there is none, and what needs none is
measured: attention, directions, how far a change moves a run, and how far towards another prompt's.
Every figure is a mean over prompts with its 95 % interval; the control is the pictures as they are,
judged by the next prompt.
"""

from pathlib import Path

from phantom.physiology import sheet
from phantom.physiology.examinations import EXAMINATIONS
from phantom.physiology.patient import admit
from xray import script
from xray.report import as_data, save_picture, write_json


def main(
    weights: str = "phantom",
    prompts: int = 40,
    steps: int = 12,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 10,
    out: Path = Path("outputs"),
) -> None:
    """Measure the physiology of a phantom.

    Args:
        weights: a model's name, or its folder or file.
        prompts: how many, a multiple of the batch.
        steps: steps from noise to picture, 1 to 1000.
        guidance: how far the words' share is exaggerated; 1 is not at all.
        seed: draws the scenes and the noise.
        batch: pictures drawn at once.
        out: the folder to save into.
    """
    sd = script.load_model(weights)
    patient = admit(sd, prompts, steps, guidance, seed, batch)
    folder = script.make_folder(out, "physiology", sd.checkpoint.place.name)
    with script.saving_into(folder):
        rows = [row for examine in EXAMINATIONS for row in examine(patient)]
        report = {
            "settings": {"prompts": prompts, "steps": steps, "guidance": guidance, "seed": seed},
            "table": [{"part": r.part, "case": r.case, **as_data(r.value)} for r in rows],
        }
        write_json(report, folder / "report.json")
        by_part = {part: {r.case: r.value for r in rows if r.part == part} for part, *_ in rows}
        title = f"{sd.checkpoint.place.name}: {prompts} prompts of two things, {steps} steps"
        save_picture(sheet.draw(by_part, title), folder / "sheet.png")
    for row in rows:
        print(f"{row.part:24}{row.case:44}{row.value}")
    print(f"sheet   {folder / 'sheet.png'}")


if __name__ == "__main__":
    script.run(main)
