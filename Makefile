# Lumi: each stage is one numbered script; this file only sets up and puts them in order.
# A setting is a flag and, in capitals, a variable: make pretrain-tiny BATCH_SIZE=8 (or export BATCH_SIZE=8).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV   := .venv
STAMP  := $(VENV)/.installed
PY     := $(VENV)/bin/python
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
LAUNCH ?= $(PY)
CONFIRM ?=

# Big temporaries of a training step come from the heap, in huge pages (Linux; ignored elsewhere).
FAST_MALLOC := env GLIBC_TUNABLES=glibc.malloc.hugetlb=1 MALLOC_MMAP_THRESHOLD_=2000000000 \
  MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456

# $(call flags,sft) -> --seed 8 for each setting of sft that a variable holds (utils/config/variables.py);
# $(call option,--seed,SEED) -> the same for a single variable. Values are quoted for the shell.
flags = $(call checked,$(shell command -v $(PY) >/dev/null || exit 0; $(PY) -m utils.config.variables $(1) $(given) || echo :failed:))
checked = $(if $(filter :failed:,$(lastword $(1))),$(error no flags from the variables: the line above says why),$(1))
given = $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)=$(call quoted,$(name))))
option = $(if $($(2)),$(1) $(call quoted,$(2)))
quoted = $(call escaped,$(if $(filter environment,$(origin $(1))),$(value $(1)),$($(1))))
escaped = '$(subst ','\'',$(1))'

##@ Set-up
.PHONY: help install install-ray check-env plan
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	/^[a-z0-9%][a-z0-9% -]*:.*## / {printf "  %-64s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## make .venv from requirements.txt (TORCH_INDEX=URL takes torch from there)

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Lumi needs Python 3.11 or newer: install it, or make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements.txt (once, a few minutes)" >&2
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PY) -m pip install -q --disable-pip-version-check --force-reinstall --index-url $(TORCH_INDEX) $(shell grep '^torch==' requirements.txt))
	$(PY) -m pip install -q --disable-pip-version-check -r requirements.txt
	@echo '$(TORCH_INDEX)' > $@

# An index other than the one torch came from brings the stamp's recipe back.
ifneq ($(TORCH_INDEX),)
ifneq ($(TORCH_INDEX),$(shell cat $(STAMP) 2>/dev/null))
.PHONY: $(STAMP)
endif
endif

install-ray: $(STAMP) ## add Ray, to prepare data on a cluster (make prepare EXECUTOR=ray)
	$(PY) -m pip install -q --disable-pip-version-check -r requirements-ray.txt

check-env: $(STAMP) ## what this machine is and which sizes it can train
	@$(PY) -m utils.planning.check_env

plan: $(STAMP) ## size x tokens x time x memory x disk on this machine
	@$(PY) -m utils.planning.plan $(call flags,plan)

##@ Data
.PHONY: prepare prepare-demo prepare-wt103 prepare-wiki prepare-owt create-sample-datasets
CONFIG ?= $(if $(SRC),,config/datasets/pydocs.json)
RAW = $(call option,--input_path,RAW_DATASET) $(if $(RAW_DATASET),--dataset_name $(call escaped,$(basename $(notdir $(RAW_DATASET)))))
prepare: $(STAMP) ## 01 clean, deduplicate, tokenize: CONFIG=file, SRC=own folder, RAW_DATASET=c4
	$(PY) scripts/01_prepare_data.py $(call option,--config,CONFIG) $(call option,--input_path,SRC) $(RAW) $(call flags,prepare)
prepare-demo: ## WikiText-2 from the hub
prepare-wt103: ## WikiText-103 from the hub
prepare-wiki: ## English Wikipedia from the hub
prepare-owt: ## OpenWebText from the hub
prepare-demo: DATASET_FILE := demo_tiny
prepare-wt103: DATASET_FILE := wikitext103
prepare-wiki: DATASET_FILE := wikipedia_en
prepare-owt: DATASET_FILE := openwebtext
prepare-demo prepare-wt103 prepare-wiki prepare-owt: $(STAMP)
	$(PY) scripts/01_prepare_data.py --config config/datasets/$(DATASET_FILE).json $(RAW) $(call flags,prepare)

create-sample-datasets: $(STAMP) ## practice sets data/sft_dataset.json and data/dpo_dataset.json
	$(PY) -m utils.data.builtin.practice_sets $(call flags,samples)

##@ Training
.PHONY: pretrain-nano pretrain-tiny pretrain-small pretrain-base resume resume-pretrain-tiny resume-pretrain-small resume-pretrain-base sft dpo preflight
pretrain-nano pretrain-tiny pretrain-small pretrain-base: pretrain-%: $(STAMP) ## 02 pre-train a size from scratch
	$(FAST_MALLOC) $(LAUNCH) scripts/02_pretrain.py --config config/$*.json $(call flags,pretrain)
resume-pretrain-tiny resume-pretrain-small resume-pretrain-base: resume-pretrain-%: $(STAMP) ## go on from the newest good checkpoint
	$(FAST_MALLOC) $(LAUNCH) scripts/02_pretrain.py --config config/$*.json $(call flags,pretrain) --resume_from_checkpoint $(call escaped,$(or $(OUTPUT_DIR),checkpoints/pretrain)/$(or $(MODEL_NAME),$*))
resume: $(STAMP) ## go on with the newest interrupted session or pre-training
	$(PY) -m utils.session.resume $(call flags,resume)
sft: $(STAMP) ## 03 fine-tune with LoRA (SFT_DATASET=file)
	$(FAST_MALLOC) $(PY) scripts/03_sft.py --config config/sft.json $(call option,--dataset_path,SFT_DATASET) $(call flags,sft)
dpo: $(STAMP) ## 04 align with preference pairs (DPO_DATASET=file)
	$(FAST_MALLOC) $(PY) scripts/04_dpo.py --config config/dpo.json $(call option,--dataset_path,DPO_DATASET) $(call flags,dpo)
preflight: $(STAMP) ## prove the training signal in seconds
	$(PY) -m utils.preflight.runner $(call flags,preflight)

##@ Evaluation and serving
.PHONY: evaluate evaluate-quick evaluate-detailed assess-performance validate-architecture serve serve-api
evaluate-quick: EVALUATE_MODE := --fast_mode
evaluate-detailed: EVALUATE_MODE := --detailed_output
evaluate: ## 05 measure a checkpoint (MODEL_PATH=, EVAL_DATA_DIR=folder with local evaluation files)
evaluate-quick: ## 50 samples of each benchmark
evaluate-detailed: ## 200 samples and a record of every item
evaluate evaluate-quick evaluate-detailed: $(STAMP)
	$(PY) scripts/05_evaluate.py --config config/evaluate.json $(EVALUATE_MODE) $(call flags,evaluate)
assess-performance: $(STAMP) ## judge the newest result (or RESULTS=file) against published ranges
	$(PY) evaluation/assess_performance.py $(call option,,RESULTS)
validate-architecture: $(STAMP) ## parameters, memory and FLOPs of every model config
	$(PY) -m utils.planning.architectures
serve: $(STAMP) ## 06 talk to the model in the terminal
	@$(PY) scripts/06_serve.py --config config/serve.json --mode interactive $(call flags,serve)
serve-api: $(STAMP) ## 06 HTTP on 127.0.0.1:8000 (PORT=)
	@$(PY) scripts/06_serve.py --config config/serve.json --mode api $(call flags,serve)

##@ Sessions and pipelines (PRETRAIN_, SFT_, DPO_ in front of a variable reach one stage)
.PHONY: session-quick session-prototype session-experiment session-evaluation session-debug session-architecture session-status session-cleanup pipeline-full test-pipeline
session-quick: ## everything in 30 minutes (SESSION_MINUTES=12 re-sizes the time box)
session-prototype: ## everything in 2 hours
session-experiment: ## everything in 4 hours
session-evaluation: ## a thorough evaluation in 1 hour
session-debug: ## what is wrong here, and what to run
session-architecture: ## every model config, measured on this machine, in 30 minutes
session-quick session-prototype session-experiment session-evaluation session-debug session-architecture: session-%: $(STAMP)
	@$(PY) -m utils.session.runner --config sessions/$*.json $(call flags,session)
session-status: $(STAMP) ## the sessions so far
	@$(PY) -m utils.session.status
session-cleanup: $(STAMP) ## remove the folders of failed and interrupted sessions (CONFIRM=yes)
	@$(PY) -m utils.session.cleanup $(if $(CONFIRM),--yes)
pipeline-full: $(STAMP) ## all stages at full size, without a time box (CONFIG=, SIZE=tiny)
	$(PY) -m utils.session.pipeline $(call flags,pipeline)
test-pipeline: $(STAMP) ## all six stages on a few hundred documents, in a scratch folder
	$(PY) -m utils.session.pipeline --test $(call option,--seed,SEED)

##@ Care
.PHONY: backup monitor config-rtx4090 clean clean-data clean-checkpoints
backup: $(STAMP) ## copy configs and final checkpoints into backups/DATE
	$(PY) -m utils.session.backup
monitor: $(STAMP) ## GPU, CPU, memory, disk and the running stage, refreshed
	@$(PY) -m utils.session.monitor
config-rtx4090: $(STAMP) ## write the settings the plan would choose for 24 GB
	$(PY) -m utils.planning.hardware_config
clean: ## remove caches (no data, no checkpoints, no session logs)
	rm -rf .cache .pytest_cache .ruff_cache
	find scripts utils evaluation tests -type d -name __pycache__ -prune -exec rm -rf {} +
clean-data: ## remove prepared data and the built-in corpus (make prepare brings them back)
	rm -rf data/processed data/raw
clean-checkpoints: ## remove all checkpoints (lists them first; CONFIRM=yes removes)
	@du -sh checkpoints
	@if [ "$(CONFIRM)" = yes ]; then find checkpoints -mindepth 1 -maxdepth 1 ! -name .gitkeep -exec rm -rf {} +; \
	else echo "nothing removed: run make clean-checkpoints CONFIRM=yes"; fi

##@ Quality
.PHONY: test test-slow prove-resume check bench-data bench-tokens bench-save bench-train bench-gpu
test: $(STAMP) ## the tests
	$(PY) -m pytest -q
test-slow: $(STAMP) ## the long ones: kills, whole pipeline, compiled training
	$(PY) -m pytest -q -m slow
prove-resume: $(STAMP) ## kill a small run KILLS=20 times, compare hashes, print JSON
	@$(PY) -m utils.training.prove_resume $(call flags,prove-resume)
check: $(STAMP) ## lint, format, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright
PEERS = $(call option,--nanogpt,NANOGPT) $(call option,--nanochat,NANOCHAT) $(call option,--minimind,MINIMIND)
bench-data: $(STAMP) ## speed, memory and exactness of preparation beside its peers, as JSON
	$(PY) -m tests.benchmarks.data
bench-tokens: $(STAMP) ## speed of reading token shards, packed and not, as JSON
	$(PY) -m tests.benchmarks.tokens
bench-save: $(STAMP) ## how long a save stops training, and how long it takes, as JSON
	$(PY) -m tests.benchmarks.save
bench-train: $(STAMP) ## speed, memory, quality of pre-training beside its peers, as JSON
	$(PY) -m tests.benchmarks.train $(PEERS) $(call option,--data_dir,DATA_DIR)
bench-gpu: $(STAMP) ## tokens/s and MFU on CUDA beside a plain loop, as JSON
	$(PY) -m tests.benchmarks.train --device cuda $(PEERS)
