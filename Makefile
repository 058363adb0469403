PYTHONS := >=3.11,<3.14
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .tools/bin/uv)
TOX := $(UV) tool run --python '$(PYTHONS)' --with tox-uv tox run
# With the dense CRF of pydensecrf, which has to be compiled.
SUITE := $(if $(shell command -v c++),py-crf,py)
INSTALLED := .venv/.installed
# Runs of another machine are not mixed with those that are committed.
RESULTS := bench
BENCHMARK := .venv/bin/python -m benchmarks
# Of the papers' comparisons, such as `--device cuda`.
OPTIONS :=
# A peer, whose dependencies may conflict with ours.
CONVPAINT := .tools/convpaint/bin/python
# Without these a program finds no display.
HEADLESS := env -u DISPLAY -u WAYLAND_DISPLAY

.PHONY: help demo screenshots test slow crash lint types bench reproduce reproduce-smoke \
  system-libs clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

# Nobody sees the windows of a continuous integration (CI).
demo: system-libs $(INSTALLED) ## install the project into .venv and run its demo
	$(if $(CI),$(HEADLESS)) .venv/bin/sparseseg demo

screenshots: system-libs $(INSTALLED) ## take the README's pictures of the window
	$(HEADLESS) .venv/bin/python tools/screenshots.py

# tox ends with a summary of its own, so that pytest runs last and with tox silent;
# --notest has by then installed everything, with tox free to say what went wrong.
test: system-libs | $(UV) ## check style, manifest and types, then run the tests
	$(TOX) -e lint,types
	$(TOX) -e $(SUITE) --notest
	@$(TOX) -qq -e $(SUITE) --skip-pkg-install

slow: system-libs | $(UV) ## run the tests that take long
	$(TOX) -e slow

crash: system-libs | $(UV) ## kill napari 50 times while somebody paints
	$(TOX) -e slow -- tests/gui/test_crash.py

lint types: | $(UV) ## run this check alone
	$(TOX) -e $@

bench: system-libs $(INSTALLED) $(CONVPAINT) ## run the benchmarks, in five hours
	$(UV) pip install --quiet --python .venv --group test
	$(if $(shell command -v c++),$(UV) pip install --quiet --python .venv --editable '.[gui,crf]')
	$(BENCHMARK).startup --results $(RESULTS)
	$(BENCHMARK).predict --large --results $(RESULTS)
	$(UV) pip install --quiet --python .venv --editable '.[gui,slides,cluster]'
	$(BENCHMARK).files --results $(RESULTS)
	$(BENCHMARK).live --results $(RESULTS)
	$(BENCHMARK).features --results $(RESULTS)
	$(BENCHMARK).networks --results $(RESULTS)
	$(BENCHMARK).learn --set glas --convpaint-python $(CONVPAINT) --results $(RESULTS)
	$(BENCHMARK).learn --set adp --convpaint-python $(CONVPAINT) --results $(RESULTS)
	$(BENCHMARK).boxes --train-steps 200 --networks unet --results $(RESULTS)
	$(BENCHMARK).boxes --train-steps 100 --networks deeplabv3 --rows box acol+crf \
	  --results $(RESULTS)

reproduce: $(INSTALLED) ## make the papers' comparisons again, in hours; writes docs/
	$(UV) pip install --quiet --python .venv --group reproduce
	$(BENCHMARK).reproduce --results $(RESULTS) $(OPTIONS)

reproduce-smoke: $(INSTALLED) ## try the same in minutes; writes bench/smoke/
	$(UV) pip install --quiet --python .venv --group reproduce
	$(BENCHMARK).reproduce --smoke $(OPTIONS)

system-libs: ## install, or name, the system libraries that windows need
	@tools/system_libs.sh

clean: ## remove environments, caches and builds
	rm -rf .venv .tools .tox .mypy_cache .pytest_cache .ruff_cache build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml | $(UV)
	$(UV) venv --allow-existing --python '$(PYTHONS)' .venv
	$(UV) pip install --python .venv --editable '.[gui]'
	@touch $@

$(CONVPAINT): | $(UV)
	$(UV) venv --python '$(PYTHONS)' .tools/convpaint
	$(UV) pip install --python .tools/convpaint napari-convpaint pyqt6

.tools/bin/uv:
	@python3 -c '' 2>/dev/null || { echo "python3 is missing: install Python 3 with" \
	  "its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { echo "the venv module of" \
	  "python3 is missing (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	python3 -m venv .tools
	.tools/bin/python -m pip install --quiet uv
