"""What a wheel carries; all else is in pyproject.toml. weights/ goes into it as phantom.weights, so
that no common name such as `weights` is taken at the top."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["stable_diffusion_tf*", "xray*", "phantom*"]),
        "phantom.weights",
    ],
    package_dir={"phantom.weights": "weights"},
    package_data={
        "stable_diffusion_tf": ["*.gz"],
        "xray": ["viewer/*", "lab/page/*", "lab/tours/*"],
        "phantom": ["*.png", "*.tsv"],
        "phantom.weights": [
            "catalog.json",
            *(
                f"{name}/{files}"
                for name in ("phantom", "phantom-registers")
                for files in ("*.md", "**/*.json", "**/*.safetensors")
            ),
        ],
    },
)
