# Lumi: each stage is one numbered script; this file only sets up and puts them in order.
# A variable that a stage knows becomes its flag: make pretrain-tiny BATCH_SIZE=8 (or export BATCH_SIZE=8).

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

# The settings of each stage, as variables (a test compares them with utils/config).
TRAINING := LEARNING_RATE BATCH_SIZE GRADIENT_ACCUMULATION_STEPS MAX_STEPS MAX_MINUTES LOGGING_STEPS \
  GRADIENT_CHECKPOINTING TENSORBOARD WANDB PREFLIGHT SEED
MODEL    := MODEL_NAME N_LAYER D_MODEL N_HEAD NUM_KEY_VALUE_HEADS D_FF VOCAB_SIZE SEQUENCE_LENGTH \
  DROPOUT ROPE_THETA TIE_EMBEDDINGS ARCHITECTURE
PREPARE  := DATASET_NAME INPUT_PATH INPUT_CONFIG INPUT_SPLIT TEXT_KEY MAX_SAMPLES OUTPUT_DIR \
  TOKENIZER_TYPE TOKENIZER_PATH REUSE_TOKENIZER VOCAB_SIZE SEQUENCE_LENGTH MIN_LENGTH MAX_LENGTH \
  LANGUAGE_DETECTOR LANGUAGE_THRESHOLD FILTER_PROFILE REDACT_PII USE_MINHASH MINHASH_THRESHOLD \
  DEDUP_ENGINE DECONTAMINATE EVAL_DATA_DIR TRAIN_RATIO SHARD_TOKENS TOKEN_COMPRESSION \
  DOWNLOAD_WORKERS NUM_WORKERS GROW KEEP_CACHE EXECUTOR RAY_ADDRESS
PRETRAIN := $(TRAINING) $(MODEL) DATA_DIR DATA_PATH DATA_DIRS DATA_WEIGHTS OUTPUT_DIR \
  RESUME_FROM_CHECKPOINT MAX_LENGTH NUM_TRAIN_EPOCHS INITIALIZATION OPTIMIZER MUON_LEARNING_RATE MUON_MOMENTUM \
  WEIGHT_DECAY MAX_GRAD_NORM SPIKE_THRESHOLD WARMUP_STEPS DECAY_RATIO SAVE_STEPS SAVE_MINUTES \
  SAVE_TOTAL_LIMIT KEEP_EVERY DISK_BUDGET_GB EVAL_STEPS EVAL_TOKENS EARLY_STOPPING_PATIENCE \
  EARLY_STOPPING_MIN_DELTA PLAN COST_PER_HOUR DETERMINISTIC FLASH_ATTN BLOCKED_ATTENTION CHUNKED_HEAD FUSED_OPTIMIZER \
  FAST_MATMUL COMPILE BF16 CPU PACKING DOCUMENT_MASK TOKENS_ON_GPU GLOBAL_BATCH_SIZE REDUCE PARALLEL
ADAPTER  := $(TRAINING) MODEL_PATH DATASET_PATH OUTPUT_DIR NUM_TRAIN_EPOCHS WARMUP_RATIO MAX_LENGTH \
  HELDOUT_PATH DECONTAMINATE EVAL_DATA_DIR R LORA_ALPHA LORA_DROPOUT TARGET_MODULES
SFT      := $(ADAPTER) PROMPT_TEMPLATE LOOP_SHARE
DPO      := $(ADAPTER) BETA SFT_LOSS_WEIGHT
EVALUATE := MODEL_PATH CORPUS_DIR SFT_HELDOUT_PATH DPO_HELDOUT_PATH OUTPUT_DIR RUN_NAME \
  MAX_BOOLQ_SAMPLES MAX_LAMBADA_SAMPLES MAX_WIKITEXT_TOKENS DETAILED_OUTPUT FAST_MODE \
  SKIP_PERPLEXITY CUSTOM_PROMPTS MAX_NEW_TOKENS MAX_MINUTES CPU SEED
SERVE    := MODEL_PATH TEMPLATE SYSTEM_PROMPT TEMPERATURE TOP_P TOP_K MAX_NEW_TOKENS PORT \
  REQUEST_TIMEOUT_S CPU SEED
PREPARE  += $(if $(filter command,$(origin LANGUAGE)),LANGUAGE) # desktops export one of their own
SERVE    += $(if $(filter command,$(origin HOST)),HOST) # some shells export a HOST of their own
LISTS    := DATA_DIRS DATA_WEIGHTS TARGET_MODULES MODEL_CONFIGS

# $(call flags,BATCH_SIZE SEED) -> --batch_size '8' for each variable that is set
lower = $(shell printf '%s' '$(1)' | tr A-Z a-z)
quoted = $(if $(filter $(1),$(LISTS)),$($(1)),'$($(1))')
flags = $(foreach name,$(1),$(if $($(name)),--$(call lower,$(name)) $(call quoted,$(name))))

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
	@$(PY) -m utils.planning.plan $(call flags,MODEL_CONFIGS OUTPUT_PATH CPU)

##@ Data
.PHONY: prepare prepare-demo prepare-wt103 prepare-wiki prepare-owt create-sample-datasets
CONFIG ?= $(if $(SRC),,config/datasets/pydocs.json)
RAW = $(if $(RAW_DATASET),--input_path '$(RAW_DATASET)' --dataset_name '$(basename $(notdir $(RAW_DATASET)))')
prepare: $(STAMP) ## 01 clean, deduplicate, tokenize: CONFIG=file, SRC=own folder, RAW_DATASET=c4
	$(PY) scripts/01_prepare_data.py $(if $(CONFIG),--config '$(CONFIG)') $(if $(SRC),--input_path '$(SRC)') $(RAW) $(call flags,$(PREPARE))
prepare-demo: ## WikiText-2 from the hub
prepare-wt103: ## WikiText-103 from the hub
prepare-wiki: ## English Wikipedia from the hub
prepare-owt: ## OpenWebText from the hub
prepare-demo: DATASET_FILE := demo_tiny
prepare-wt103: DATASET_FILE := wikitext103
prepare-wiki: DATASET_FILE := wikipedia_en
prepare-owt: DATASET_FILE := openwebtext
prepare-demo prepare-wt103 prepare-wiki prepare-owt: $(STAMP)
	$(PY) scripts/01_prepare_data.py --config config/datasets/$(DATASET_FILE).json $(RAW) $(call flags,$(PREPARE))

create-sample-datasets: $(STAMP) ## practice sets data/sft_dataset.json and data/dpo_dataset.json
	$(PY) -m utils.data.builtin.practice_sets $(call flags,OUTPUT_DIR NUM_SFT NUM_DPO NUM_HELDOUT SEED)

##@ Training
.PHONY: pretrain-nano pretrain-tiny pretrain-small pretrain-base resume resume-pretrain-tiny resume-pretrain-small resume-pretrain-base sft dpo preflight
pretrain-nano pretrain-tiny pretrain-small pretrain-base: pretrain-%: $(STAMP) ## 02 pre-train a size from scratch
	$(FAST_MALLOC) $(LAUNCH) scripts/02_pretrain.py --config config/$*.json $(call flags,$(PRETRAIN))
resume-pretrain-tiny resume-pretrain-small resume-pretrain-base: resume-pretrain-%: $(STAMP) ## go on from the newest good checkpoint
	$(FAST_MALLOC) $(LAUNCH) scripts/02_pretrain.py --config config/$*.json --resume_from_checkpoint $(or $(OUTPUT_DIR),checkpoints/pretrain)/$(or $(MODEL_NAME),$*) $(call flags,$(filter-out RESUME_FROM_CHECKPOINT,$(PRETRAIN)))
resume: $(STAMP) ## go on with the newest interrupted session or pre-training
	$(PY) -m utils.session.resume $(if $(OUTPUT_DIR),--checkpoints_dir '$(OUTPUT_DIR)')
sft: $(STAMP) ## 03 fine-tune with LoRA (SFT_DATASET=file)
	$(FAST_MALLOC) $(PY) scripts/03_sft.py --config config/sft.json $(if $(SFT_DATASET),--dataset_path '$(SFT_DATASET)') $(call flags,$(SFT))
dpo: $(STAMP) ## 04 align with preference pairs (DPO_DATASET=file)
	$(FAST_MALLOC) $(PY) scripts/04_dpo.py --config config/dpo.json $(if $(DPO_DATASET),--dataset_path '$(DPO_DATASET)') $(call flags,$(DPO))
preflight: $(STAMP) ## prove the training signal in seconds
	$(PY) -m utils.preflight.runner $(call flags,DATA_DIR MODEL_PATH)

##@ Evaluation and serving
.PHONY: evaluate evaluate-quick evaluate-detailed assess-performance validate-architecture serve serve-api
evaluate: EVALUATE_MODE :=
evaluate-quick: EVALUATE_MODE := --fast_mode
evaluate-detailed: EVALUATE_MODE := --detailed_output
evaluate: ## 05 measure a checkpoint (MODEL_PATH=, EVAL_DATA_DIR=folder with local evaluation files)
evaluate-quick: ## 50 samples of each benchmark
evaluate-detailed: ## 200 samples and a record of every item
evaluate evaluate-quick evaluate-detailed: $(STAMP)
	$(PY) scripts/05_evaluate.py --config config/evaluate.json $(EVALUATE_MODE) $(if $(EVAL_DATA_DIR),--data_dir '$(EVAL_DATA_DIR)') $(call flags,$(EVALUATE))
assess-performance: $(STAMP) ## judge the newest result (or RESULTS=file) against published ranges
	$(PY) evaluation/assess_performance.py $(RESULTS)
validate-architecture: $(STAMP) ## parameters, memory and FLOPs of every model config
	$(PY) -m utils.planning.architectures
serve: $(STAMP) ## 06 talk to the model in the terminal
	@$(PY) scripts/06_serve.py --config config/serve.json --mode interactive $(call flags,$(SERVE))
serve-api: $(STAMP) ## 06 HTTP on 127.0.0.1:8000 (PORT=)
	@$(PY) scripts/06_serve.py --config config/serve.json --mode api $(call flags,$(SERVE))

##@ Sessions and pipelines (PRETRAIN_, SFT_, DPO_ in front of a variable reach one stage)
.PHONY: session-quick session-prototype session-experiment session-evaluation session-debug session-architecture session-status session-cleanup pipeline-full test-pipeline
SESSION = $(if $(SESSION_MINUTES),--minutes '$(SESSION_MINUTES)') $(if $(filter-out file undefined default,$(origin CONFIG)),--dataset_config '$(CONFIG)') $(if $(SRC),--source '$(SRC)') $(if $(EVAL_DATA_DIR),--eval_data_dir '$(EVAL_DATA_DIR)') $(if $(SEED),--seed '$(SEED)')
session-quick: ## everything in 30 minutes (SESSION_MINUTES=12 re-sizes the box)
session-prototype: ## everything in 2 hours
session-experiment: ## everything in 4 hours
session-evaluation: ## a thorough evaluation in 1 hour
session-debug: ## what is wrong here, and what to run
session-architecture: ## every model config, measured on this machine, in 30 minutes
session-quick session-prototype session-experiment session-evaluation session-debug session-architecture: session-%: $(STAMP)
	@$(PY) -m utils.session.runner --config sessions/$*.json $(SESSION)
session-status: $(STAMP) ## the sessions so far
	@$(PY) -m utils.session.status
session-cleanup: $(STAMP) ## remove the folders of failed and interrupted sessions (CONFIRM=yes)
	@$(PY) -m utils.session.cleanup $(if $(CONFIRM),--yes)
pipeline-full: $(STAMP) ## all stages at full size, without a box (CONFIG=, SIZE=tiny)
	$(PY) -m utils.session.pipeline $(if $(CONFIG),--dataset_config '$(CONFIG)') $(if $(SRC),--source '$(SRC)') $(if $(SIZE),--size '$(SIZE)') $(if $(EVAL_DATA_DIR),--eval_data_dir '$(EVAL_DATA_DIR)') $(if $(SEED),--seed '$(SEED)')
test-pipeline: $(STAMP) ## all six stages on a few hundred documents, in a scratch folder
	$(PY) -m utils.session.pipeline --test $(if $(SEED),--seed '$(SEED)')

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
	@$(PY) -m utils.training.prove_resume $(call flags,KILLS MINUTES DATA_DIR CPU SEED)
check: $(STAMP) ## lint, format, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright
bench-data: $(STAMP) ## speed, memory and exactness of preparation beside its peers, as JSON
	$(PY) -m tests.benchmarks.data
bench-tokens: $(STAMP) ## speed of reading token shards, packed and not, as JSON
	$(PY) -m tests.benchmarks.tokens
bench-save: $(STAMP) ## how long a save stops training, and how long it takes, as JSON
	$(PY) -m tests.benchmarks.save
bench-train: $(STAMP) ## speed, memory, quality of pre-training beside its peers, as JSON
	$(PY) -m tests.benchmarks.train $(call flags,NANOGPT NANOCHAT MINIMIND DATA_DIR)
bench-gpu: $(STAMP) ## tokens/s and MFU on CUDA beside a plain loop, as JSON
	$(PY) -m tests.benchmarks.train --device cuda $(call flags,NANOGPT NANOCHAT MINIMIND)
