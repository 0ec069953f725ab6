from setuptools import find_packages, setup

# detectron2 is missing here on purpose: it is on no package index under its own name,
# so it is installed beforehand (tools/install.py) and checked at import.
setup(
    name="crbp_d2",
    version="0.1.0",
    description="Recurrent vision modules trained at their fixed point, for detectron2",
    license="MIT",
    packages=find_packages(include=["crbp_d2", "crbp_d2.*"]),
    python_requires=">=3.10",
    install_requires=["torch>=2.6", "numpy", "pycocotools", "opencv-python"],
    extras_require={
        "analysis": ["scipy"],
        "deq": ["torchdeq"],
        "dev": ["pytest", "pytest-xdist", "ruff", "hypothesis"],
    },
)
