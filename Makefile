# The interface of the project. Every target makes .venv when it is missing or when its inputs changed.
PYTHON := python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers
CONFIG :=
CKPT :=
DATA :=
SUITE :=
TASK :=
WORK_DIR :=
OPTIONS :=
FULL :=
TORCH_INDEX :=

# Such a variable is text. It counts where it is given to make, not in the environment, and is read by `value`, for make
# expands what it reads otherwise: also what it exports, in its own way, of variables that it was given.
GIVEN := PYTHON CONFIG CKPT DATA SUITE TASK WORK_DIR OPTIONS FULL TORCH_INDEX
unexport $(GIVEN)
define newline


endef
$(foreach name,$(GIVEN),$(if $(findstring $(newline),$(value $(name))),$(error error: $(name) holds a line break; remove it)))
# $(call text,NAME): ~/ at its beginning is $HOME/, as not every shell replaces it in an argument of make
text = $(subst $(newline),,$(subst $(newline)~/,$(value HOME)/,$(newline)$(value $1)))
# $(call quoted,NAME,DEFAULT): one word for the shell
quoted = '$(subst ','\'',$(or $(call text,$1),$2))'
# $(call option,--FLAG,NAME): nothing without a value
option = $(if $(value $2),$1 $(call quoted,$2))
# $(call list,NAME): the words of a list in which words may be quoted
SPLIT := import os, shlex, sys; words = map(os.path.expanduser, shlex.split(sys.argv[1])); os.write(1, os.fsencode(shlex.join(words)))
list = $(if $(value $1),$(or $(shell $(or $(wildcard $(BIN)/python),$(call quoted,PYTHON)) -c '$(SPLIT)' $(call quoted,$1) 2>/dev/null),$(error error: $1 has a quote that is not closed; close it)))

# refused here, before an environment is built for it
$(if $(value OPTIONS),$(if $(call list,OPTIONS),))
BENCHES := $(filter bench bench-cls bench-seg bench-det,$(MAKECMDGOALS))
$(if $(filter bench,$(BENCHES)),$(if $(value TASK),,$(error error: name a folder of benchmarks/tasks/ with TASK=...)))
$(if $(BENCHES),$(if $(value DATA),$(if $(value CONFIG),,$(error error: DATA goes with CONFIG=configs/TASK/...; the default has its own data))))

.DEFAULT_GOAL := help
.PHONY: help setup constraints check format test test-all gpu-check gpu-evidence demo pretrain bench-speed bench-data bench bench-cls bench-seg bench-det flops tables figures report suite stress matrix docs doctor clean FORCE

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 12

# uv where it is on PATH, else pip
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),uv pip install -q --python $(BIN)/python,$(BIN)/python -m pip install -q --disable-pip-version-check)
# the releases that were tried with the Python of .venv; a Python without such a file takes the ranges of pyproject.toml
PINS := $$($(BIN)/python -c 'import os, sys; f = "constraints/%d.%d.txt" % sys.version_info[:2]; print("-c " + f if os.path.exists(f) else "")')

$(STAMP): pyproject.toml $(wildcard constraints/*.txt) $(if $(value TORCH_INDEX),FORCE)
	@$(call quoted,PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 10) else "Python %d.%d is not supported: run make PYTHON=python3.11 (3.10 to 3.14)" % v)'
	@echo "making $(VENV) with $(if $(UV),uv,pip) (downloads torch the first time; a few minutes)"
	@test -x $(BIN)/python || $(if $(UV),uv venv -q --seed --allow-existing --python $(call quoted,PYTHON) $(VENV),$(call quoted,PYTHON) -m venv $(VENV))
	@$(if $(value TORCH_INDEX),$(INSTALL) --force-reinstall --no-deps --index-url $(call quoted,TORCH_INDEX) $(PINS) torch torchvision)
	@$(INSTALL) $(PINS) -e '.[benchmarks,dev]'
	@touch $(STAMP)

setup: $(STAMP)  ## make the environment in .venv; [TORCH_INDEX=URL] takes torch and torchvision from there, CPU wheels say

constraints:  ## pin for each Python what uv resolves, in constraints/; what is pinned stays [OPTIONS=--upgrade]
	@for version in 3.10 3.11 3.12 3.13 3.14; do \
	  uv pip compile -q --no-header --no-annotate --extra benchmarks --extra dev --extra peers --extra cluster --extra onnx --python-version $$version \
	    --python-platform x86_64-unknown-linux-gnu pyproject.toml -o constraints/$$version.txt $(call list,OPTIONS) || exit 1; \
	done

check: $(STAMP)  ## ruff, mypy (strict on mlomae/multilevel), who may import whom, generated tables up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks.analysis.tables --check

format: $(STAMP)  ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# several files of tests at a time, one thread each; a file's tests share fixtures
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(STAMP)  ## the tests (about 10 minutes on two cores)
	$(PYTEST) -m "not slow"

test-all: $(STAMP)  ## the tests, slow ones included
	$(PYTEST)

gpu-check: $(STAMP)  ## the tests that need a CUDA device, and a summary of what they checked [OPTIONS="-k AMT"]
	$(BIN)/python -m tests.gpu_check $(call list,OPTIONS)

# without an environment of its own: a machine with a GPU may have no network
gpu-evidence:  ## tests, speed and CIFAR-10 on a GPU in 8 minutes, as one archive; DATA=cifar10 [PYTHON=...] [OPTIONS="--wheels DIR"]
	$(if $(filter command,$(firstword $(origin PYTHON))),$(call quoted,PYTHON),$(or $(wildcard $(BIN)/python),python3)) \
	  -m benchmarks.suite.gpu_evidence $(call option,--data,DATA) $(call list,OPTIONS)

demo: $(STAMP)  ## MAE and MLO-MAE on embedded data (3 minutes), their transfer to three tasks (10 in all, two cores)
	$(BIN)/mlomae demo

pretrain: $(STAMP)  ## pretrain CONFIG=configs/pretrain/... [DATA=root] [WORK_DIR=...] [OPTIONS="--resume ..."]
	$(BIN)/mlomae pretrain $(call quoted,CONFIG,configs/pretrain/mlomae-pooled_vit-w128-d4_textures.py) \
	  $(call option,--data,DATA) $(call option,--work-dir,WORK_DIR) $(call list,OPTIONS)

# what bench-speed and bench-data compare with; without it (no network, say) the row reads "not installed"
$(PEERS): $(STAMP)
	@$(INSTALL) $(PINS) -e '.[peers]' \
	  && touch $(PEERS) || echo "the extra 'peers' could not be installed: going on without it"

bench-speed: $(PEERS)  ## seconds, memory, GFLOP/s of MAE, one_step, the authors' scheme, others' MAE [OPTIONS="--setting cpu-vit-b"]
	$(BIN)/python -m benchmarks.cost.speed $(call list,OPTIONS)

bench-data: $(PEERS)  ## images per second of loading, beside torchvision's, timm's and lightly's [OPTIONS="--sides 224 --root FOLDER"]
	$(BIN)/python -m benchmarks.cost.loading $(call list,OPTIONS)

bench: $(STAMP)  ## transfer to TASK=classification, ...; CONFIG=configs/TASK/... CKPT=... [DATA=root] [WORK_DIR=...] for one
bench-cls: $(STAMP)  ## make bench TASK=classification
bench-seg: $(STAMP)  ## make bench TASK=segmentation
bench-det: $(STAMP)  ## make bench TASK=detection

TASK_OF_bench-cls := classification
TASK_OF_bench-seg := segmentation
TASK_OF_bench-det := detection
task = $(call quoted,TASK,$(TASK_OF_$@))

# without CONFIG, on the embedded textures, of what pretraining left in work_dirs: k-NN, linear probe and fine-tuning
# (cls), UperNet (seg), Mask R-CNN (det), a linear head on frozen features (TASK=linear_segmentation)
bench bench-cls bench-seg bench-det:
ifdef CONFIG
	$(BIN)/mlomae bench $(task) $(call quoted,CONFIG) $(call option,--weights,CKPT) \
	  $(call option,--data,DATA) $(call option,--work-dir,WORK_DIR) $(call list,OPTIONS)
else
	$(BIN)/mlomae suite run configs/suites/bench.py --tasks $(task) $(call option,--weights,CKPT) \
	  --work-dir $(call quoted,WORK_DIR,work_dirs/$@) $(call list,OPTIONS)
endif

suite: $(STAMP)  ## make what is missing of SUITE=configs/suites/... [DATA="TYPE=root ..."], then the tables
	$(BIN)/mlomae suite run $(call quoted,SUITE,configs/suites/textures.py) \
	  $(if $(value DATA),--data $(call list,DATA)) $(call list,OPTIONS)

flops: $(STAMP)  ## count the operations of the pretrainings in results/runs, into results/flops.json [OPTIONS=--again]
	$(BIN)/python -m benchmarks.cost.flops $(call list,OPTIONS)

tables: $(STAMP)  ## regenerate results/*.csv and *.md from results/runs
	$(BIN)/python -m benchmarks.analysis.tables

figures: $(STAMP)  ## draw results/figures/*.png and *.svg from results/runs and results/masks [OPTIONS="--only NAME"]
	$(BIN)/python -m benchmarks.analysis.figures $(call list,OPTIONS)

report: $(STAMP)  ## write results/report.html, one page: tables, figures that are there, masks, records behind numbers
	$(BIN)/python -m benchmarks.analysis.report $(call list,OPTIONS)

stress: $(STAMP)  ## kills, full disks, flipped bits, pairs of runs, bad input: a sample, about 20 minutes on two cores [FULL=1]
	$(BIN)/python -m tests.stress $(if $(value FULL),--full) $(call list,OPTIONS)

docs: $(STAMP)  ## build the pages of docs/ and results/ as a site in docs/_build
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -q -W -c docs . docs/_build
	@echo "open docs/_build/docs/index.html"

matrix:  ## install, check and test with oldest, pinned, newest packages on each Python, one after the other [OPTIONS=--list]
	@$(or $(wildcard $(BIN)/python),$(call quoted,PYTHON)) -m tests.matrix $(call list,OPTIONS)

doctor: $(STAMP)  ## versions, devices, back-ends, data sets; says what is wrong
	$(BIN)/mlomae doctor

clean:  ## remove caches (keeps .venv, work_dirs, results)
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
