# Every target installs what it needs into .venv first, once: the stamp files in .venv remember which
# requirements are in. Another Python for it: make PYTHON=python3.12 run

PYTHON ?= python3
PY  := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

# Two files at a time, in the order that tests/conftest.py gives them. A worker that crashed gets no
# successor: it would run the same test and crash again, in CI until its time is up.
TWO := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# The lowest Keras that requirements.txt allows.
LOWEST := $(shell sed -n 's/^keras>=\([0-9.]*\),.*/\1/p' requirements.txt).0

# make run BACKEND=openvino
CHOSEN := $(if $(BACKEND),--backend $(BACKEND))

.DELETE_ON_ERROR:
.PHONY: help run lab test arithmetic keras parity browser-test ray-test lint gallery bench phantom

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: .venv/.$(if $(filter openvino,$(BACKEND)),openvino,runtime) ## draw a picture from words, then take a picture through the encoder and back
	$(PY) experiments/text2image.py "a rabbit left of a strawberry on a purple background" --guidance 4 $(CHOSEN)
	$(PY) experiments/test_image_encoder.py $(CHOSEN)

lab: .venv/.lab ## open the live page in a browser: type, look inside, change
	$(PY) -m xray.lab $(if $(WEIGHTS),--weights $(WEIGHTS))

test: .venv/.test ## the tests: no network, no download, no GPU
	$(PY) -m pytest $(TWO)

# Eigen, which is all that Windows has, and oneDNN as on a CPU without AVX-512, where this one has it.
# Not bfloat16 there: TensorFlow looks at the CPU, not at the limit, and asks oneDNN for what the
# limit forbids.
arithmetic: .venv/.test ## what depends on arithmetic, once more with the kernels of other CPUs
	TF_ENABLE_ONEDNN_OPTS=0 $(PY) -m pytest $(TWO) -m arithmetic
	if grep -qs avx512f /proc/cpuinfo; then ONEDNN_MAX_CPU_ISA=AVX2 $(PY) -m pytest $(TWO) -m "arithmetic and not bfloat16"; fi

keras: .venv/.test ## what hangs on Keras, once more with the lowest version allowed; .venv has the highest
	@$(PIP) --no-deps --upgrade --target .venv/keras-$(LOWEST) keras==$(LOWEST)
	@PYTHONPATH=.venv/keras-$(LOWEST) $(PY) -c 'import keras; print("Keras", keras.__version__)' 2>/dev/null
	PYTHONPATH=.venv/keras-$(LOWEST) $(PY) -m pytest $(TWO) tests/stable_diffusion_tf/test_keras_private.py tests/stable_diffusion_tf/test_networks.py tests/xray/probe/test_instrumented.py

parity: .venv/.oracle ## compare with diffusers and transformers on torch (a large install; Python 3.11 to 3.13)
	$(PY) -m pytest $(TWO) -m parity

# Another browser of the family: make CHROMIUM=/path/to/chrome browser-test
browser-test: .venv/.browser ## open the pages in Chromium and Firefox, offline
	@command -v chromium || command -v google-chrome || test -n "$$CHROMIUM" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	@command -v firefox-esr || command -v firefox || test -n "$$FIREFOX" || apt-get install -y -qq --no-install-recommends firefox-esr || echo "no Firefox: its tests are skipped"
	$(PY) -m pytest -m browser tests/browser

ray-test: .venv/.ray ## sweep on a cluster of Ray while nodes, workers and the driver are killed
	$(PY) -m pytest -m ray tests/experiments/test_sweep_ray.py

lint: .venv/.test ## check format and style
	$(PY) -m ruff format --check . && $(PY) -m ruff check .

# Another model's: make gallery WEIGHTS=sd-v1-5 OUT=my-gallery BUDGET=30min, which each experiment
# may take; stopped, it goes on with the same line, in the middle of an experiment too.
gallery: .venv/.runtime ## run every experiment on the phantom and write docs/gallery (a quarter of an hour)
	$(PY) -m experiments.gallery $(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(OUT),--out $(OUT)) $(if $(BUDGET),--budget $(BUDGET))

bench: .venv/.oracle .venv/.ray ## measure speed, speed and memory side by side with diffusers and keras-cv (5 GB of disk and memory)
	$(PY) benchmarks/text2image.py
	$(PY) benchmarks/stable_diffusion.py
	$(PY) benchmarks/probes.py
	$(PY) benchmarks/budget.py
	$(PY) benchmarks/sweep.py

phantom: .venv/.train ## train the phantom again, and evaluate it
	$(PY) -m phantom.train.vae
	$(PY) -m phantom.train.words
	$(PY) -m phantom.train.silent train
	$(PY) -m phantom.evaluate

# ---- what the targets stand on

# Both questions are asked before venv runs, which leaves half a .venv behind when it fails.
$(PY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else "Python 3.10 to 3.13 is needed, and $(PYTHON) is %d.%d: choose one with make PYTHON=python3.12" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

# The .pth line puts the repository, four folders up, on the path of .venv: scripts in experiments/
# then find the packages, whether make starts them or you do.
.venv/.runtime: requirements.txt $(PY)
	@echo "installing $< into .venv (the first time this takes a while)"
	@$(PIP) -r $<
	@$(PY) -c 'import sysconfig; open(sysconfig.get_path("purelib") + "/diffusion-xray.pth", "w").write("../../../..\n")'
	@touch $@

.venv/.openvino: requirements-openvino.txt .venv/.runtime
	@echo "installing $< into .venv"
	@$(PIP) -r $<
	@touch $@

.venv/.test: requirements-test.txt requirements-openvino.txt requirements-lab.txt .venv/.runtime
	@echo "installing $< into .venv"
	@$(PIP) -r $<
	@touch $@

.venv/.lab: requirements-lab.txt .venv/.runtime
	@echo "installing $< into .venv"
	@$(PIP) -r $<
	@touch $@

.venv/.browser: requirements-browser.txt .venv/.test
	@echo "installing $< into .venv"
	@$(PIP) -r $<
	@touch $@

.venv/.ray: requirements-ray.txt .venv/.test
	@echo "installing $< into .venv"
	@$(PIP) -r $<
	@touch $@

.venv/.train: requirements-train.txt .venv/.runtime
	@echo "installing $< into .venv"
	@$(PIP) -r $<
	@touch $@

# Two come with --no-deps. clip-anytorch asks for torchvision, which has no CPU build beside torch
# 2.13; only its tokenizer is compared, which needs none (`import clip` fails: load the file
# clip/simple_tokenizer.py by its path). keras-cv asks for tensorflow-datasets and half a gigabyte
# with it, of which Stable Diffusion uses nothing (see tests/keras_cv_models.py).
.venv/.oracle: requirements-oracle.txt .venv/.test
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "parity and bench need Python 3.11 to 3.13, and .venv has 3.10: remove it and choose one with make PYTHON=python3.12")'
	@echo "installing $< into .venv (large: torch)"
	@$(PIP) -r $<
	@$(PIP) --no-deps clip-anytorch==2.6.0 keras-cv==0.9.0
	@touch $@
